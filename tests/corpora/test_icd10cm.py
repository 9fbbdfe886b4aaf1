"""ICD-10-CM: the installed release against facts, small files against rules, and broken files."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cmbert_retrieval.corpora import icd10cm
from cmbert_retrieval.corpora.code_names import spoken
from cmbert_retrieval.corpora.icd10cm import Icd10cmCorpus
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.types import Document

SMALL = """<?xml version="1.0" encoding="utf-8"?>
<ICD10CM.tabular>
  <version>2031</version>
  <chapter><name>1</name><desc>Diseases of garden gnomes (G00-G09)</desc>
    <section id="G00-G09"><desc>Cracks and chips (G00-G09)</desc>
      <diag><name>G00</name><desc>Crack of gnome</desc>
        <includes><note>fissure of   gnome</note></includes>
        <notes><note>7th characters D and S do not apply to codes in category G00 with 6th character
          7 - gone, or 8 - given away.</note></notes>
        <sevenChrNote><note>The appropriate 7th character is to be added to each code from category G00</note>
        </sevenChrNote>
        <sevenChrDef><extension char="A">first visit</extension><note>\tvisit NOS</note>
          <extension char="D">later visit</extension><extension char="S">sequela</extension>
          <note>Rift of gnome</note></sevenChrDef>
        <useAdditionalCode><note>code for glue, such as:</note>
          <note>wood glue (G09)</note></useAdditionalCode>
        <useAdditionalCode><note>code for paint</note></useAdditionalCode>
        <diag><name>G00.1</name><desc>Crack of hat</desc>
          <inclusionTerm><note>Crack of cap due to:</note><note>frost</note><note>FROST</note>
            <note>Conditions classifiable to G01.-, G02 and G03</note>
            <note>This code is not for indoor use</note>
          </inclusionTerm>
        </diag>
        <diag><name>G00.2</name><desc>Crack of boot</desc>
          <diag placeholder="true"><name>G00.20X</name><desc>Crack of boot</desc>
            <diag><name>G00.20X7</name><desc>Crack of boot, gone</desc></diag></diag>
          <diag><name>G00.217</name><desc>Crack of left boot, gone</desc></diag>
          <diag><name>G00.218</name><desc>Crack of left boot, given away</desc></diag>
          <diag><name>G00.219</name><desc>Crack of left boot, kept</desc></diag>
        </diag>
      </diag>
      <diag><name>G09</name><desc>Chip of gnome, <i>unspecified</i></desc><!-- a remark -->
        <polish><note>applies to all</note></polish></diag>
    </section>
  </chapter>
</ICD10CM.tabular>
"""


def small(folder: Path, text: str = SMALL, name: str = "tabular.xml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def release() -> dict[str, Document]:
    """The installed release by code."""
    return {document.id: document for document in Icd10cmCorpus()}


@pytest.fixture
def gnomes(tmp_path: Path) -> dict[str, Document]:
    return {document.id: document for document in Icd10cmCorpus(small(tmp_path))}


def test_a_code_has_its_title_terms_and_place(release: dict[str, Document]) -> None:
    code = release["I21.4"]
    assert code.title == "Non-ST elevation (NSTEMI) myocardial infarction"
    assert code.entries[0] == code.title
    assert "Non-Q wave myocardial infarction NOS" in code.metadata["terms"]
    assert "Non-Q wave myocardial infarction" in code.entries
    assert "Non-ST elevation myocardial infarction" in code.entries
    expected = {
        "system": "icd10cm",
        "kind": "code",
        "parent": "I21",
        "chapter": "9",
        "chapter_title": "Diseases of the circulatory system",
        "block": "I20-I25",
        "block_title": "Ischemic heart diseases",
        "billable": True,
        "seventh": {},
    }
    assert {key: code.metadata[key] for key in expected} == expected
    assert code.metadata["release"].split()[-1].isdigit()


def test_a_category_has_children_other_names_and_notes(release: dict[str, Document]) -> None:
    category = release["E11"]
    assert category.metadata["kind"] == "category"
    assert category.metadata["billable"] is False
    assert {"E11.2", "E11.9"} <= set(category.metadata["children"])
    assert "diabetes NOS" in category.metadata["terms"]
    assert "type 1 diabetes mellitus (E10.-)" in category.metadata["notes"]["excludes1"]
    assert release["E11.2"].metadata["kind"] == "subcategory"
    assert "Type 2 diabetes mellitus with renal tubular degeneration" not in release["E11.22"].entries
    assert release["E11.22"].metadata["notes"]["use_additional"] == [
        "code to identify stage of chronic kidney disease (N18.1-N18.6)"
    ]


def test_seventh_characters_are_offered_on_the_code_that_they_extend(release: dict[str, Document]) -> None:
    for code in ("S72", "S72.0", "S72.001"):
        assert release[code].metadata["seventh"]["A"] == "initial encounter for closed fracture"
        assert "initial encounter for open fracture NOS" in release[code].metadata["seventh"]["B"]
        assert release[code].metadata["billable"] is False
    assert "S72.001A" not in release
    # A definition further down replaces the one from above.
    assert set(release["S72.471"].metadata["seventh"]) == set("ADGKPS")


def test_codes_and_their_extensions_are_exactly_those_of_the_list_in_the_package(
    release: dict[str, Document],
) -> None:
    (path,) = Icd10cmCorpus().path.parent.glob("code-list*.txt")
    lines = path.read_text(encoding="utf-8").split()
    published = {line.replace(".", "") for line in lines if "-" not in line and not line.isdigit()}
    ours = set()
    for document in release.values():
        flat = document.id.replace(".", "")
        ours.add(flat)
        if document.metadata["kind"] == "code":
            ours |= {flat.ljust(6, "X") + character for character in document.metadata["seventh"]}
    assert ours == published


def test_every_parent_is_there_and_names_its_children_in_order(release: dict[str, Document]) -> None:
    children: dict[str | None, list[str]] = {}
    for document in release.values():
        children.setdefault(document.metadata["parent"], []).append(document.id)
    for code, document in release.items():
        assert document.metadata["children"] == children.get(code, [])
    assert all(len(code) == 3 for code in children.pop(None))
    assert children.keys() <= release.keys()


def test_entries_are_unlike_each_other_and_none_is_a_direction_or_a_mere_reference(
    release: dict[str, Document],
) -> None:
    for document in release.values():
        assert document.entries[0] == (spoken(document.title) or document.title)
        assert len({entry.casefold() for entry in document.entries}) == len(document.entries)
        assert all(entry == entry.strip() and not entry.endswith(":") for entry in document.entries)
        assert not any(entry.startswith(("This category", "These codes")) for entry in document.entries)
    assert "Conditions classifiable to" not in " ".join(release["Z80.3"].entries)
    assert release["Z80.3"].metadata["terms"] == ["Conditions classifiable to C50.-"]


def test_a_code_is_also_found_by_what_people_call_it(release: dict[str, Document]) -> None:
    assert "heart attack" in release["I21.9"].entries
    assert "broken hip" in release["S72.00"].entries
    assert "heart attack" not in release["I21.9"].metadata["terms"]
    assert "heart attack" not in release["I25.2"].entries


def test_metadata_is_json_and_declared_columns_have_their_types(release: dict[str, Document]) -> None:
    types = {"text": str, "boolean": bool}
    for document in list(release.values())[::97]:
        assert json.loads(json.dumps(document.metadata)) == document.metadata
        for name, column in Icd10cmCorpus.columns.items():
            assert isinstance(document.metadata[name], types[column])


def test_reading_goes_on_behind_a_cursor(tmp_path: Path) -> None:
    corpus = Icd10cmCorpus(small(tmp_path))
    records = list(corpus.records())
    assert len(records) == 9
    for number, record in enumerate(records, start=1):
        cursor = json.loads(json.dumps(record.cursor))
        assert list(corpus.records(cursor)) == records[number:]


def test_the_small_file_reads_as_written(gnomes: dict[str, Document]) -> None:
    assert list(gnomes) == [
        "G00", "G00.1", "G00.2", "G00.20X", "G00.20X7", "G00.217", "G00.218", "G00.219", "G09",
    ]  # fmt: skip
    assert gnomes["G00"].metadata["chapter_title"] == "Diseases of garden gnomes"
    assert gnomes["G00"].metadata["block_title"] == "Cracks and chips"
    assert gnomes["G00"].metadata["release"] == "2031"
    assert gnomes["G09"].title == "Chip of gnome, unspecified"
    assert gnomes["G09"].metadata["kind"] == "code"
    assert gnomes["G09"].metadata["billable"] is True


def test_a_note_below_a_seventh_character_continues_it_and_below_the_sequela_is_a_term(
    gnomes: dict[str, Document],
) -> None:
    assert gnomes["G00"].metadata["seventh"] == {
        "A": "first visit; visit NOS",
        "D": "later visit",
        "S": "sequela",
    }
    assert gnomes["G00"].metadata["terms"] == ["fissure of gnome", "Rift of gnome"]


def test_a_stated_exception_takes_seventh_characters_away(gnomes: dict[str, Document]) -> None:
    assert set(gnomes["G00.217"].metadata["seventh"]) == {"A"}
    assert set(gnomes["G00.218"].metadata["seventh"]) == {"A"}
    assert set(gnomes["G00.219"].metadata["seventh"]) == {"A", "D", "S"}


def test_a_code_of_seven_characters_takes_no_seventh(gnomes: dict[str, Document]) -> None:
    assert gnomes["G00.20X7"].metadata["seventh"] == {}
    assert gnomes["G00.20X7"].metadata["billable"] is True


def test_terms_that_only_continue_a_heading_are_completed(gnomes: dict[str, Document]) -> None:
    assert gnomes["G00.1"].entries == ("Crack of hat", "Crack of cap due to frost")
    assert len(gnomes["G00.1"].metadata["terms"]) == 5


def test_repeated_and_unknown_notes_are_kept(gnomes: dict[str, Document]) -> None:
    assert gnomes["G00"].metadata["notes"]["use_additional"] == [
        "code for glue, such as:",
        "wood glue (G09)",
        "code for paint",
    ]
    assert gnomes["G09"].metadata["notes"] == {"polish": ["applies to all"]}
    assert "Use additional: code for glue, such as: wood glue (G09); code for paint" in gnomes["G00"].text


def test_a_code_without_title_or_with_white_space_is_reported_and_its_children_are_read(
    tmp_path: Path,
) -> None:
    for broken in (
        SMALL.replace("<desc>Crack of boot</desc>", "<desc> </desc>", 1),
        SMALL.replace("<name>G00.2</name>", "<name>G00 2</name>", 1),
        SMALL.replace("<name>G00.2</name>", "", 1),
    ):
        path = small(tmp_path, broken)
        records = list(Icd10cmCorpus(path).records())
        (problem,) = [record.problem for record in records if record.document is None]
        line = SMALL[: SMALL.index("<name>G00.2<")].count("\n") + 1
        assert problem == f"{path}:{line}: a code without a valid name or without a title"
        children = [r.document for r in records if r.document is not None and r.document.id == "G00.217"]
        assert [child.metadata["parent"] for child in children] == ["G00"]
        with pytest.raises(CorpusError, match="a code without a valid name"):
            list(Icd10cmCorpus(path).strictly())


def test_a_release_is_named_by_the_date_in_the_file_name(tmp_path: Path) -> None:
    path = small(tmp_path, name="icd10cm-tabular-October-1-2030.xml")
    assert next(iter(Icd10cmCorpus(path))).metadata["release"] == "October 1 2030"


def test_gzip_reads_like_the_plain_file(tmp_path: Path) -> None:
    plain = small(tmp_path)
    packed = tmp_path / "tabular.xml.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert list(Icd10cmCorpus(packed)) == list(Icd10cmCorpus(plain))


def test_a_truncated_gz_is_an_error_naming_the_file(tmp_path: Path) -> None:
    packed = tmp_path / "tabular.xml.gz"
    packed.write_bytes(gzip.compress(SMALL.encode())[:-300])
    with pytest.raises(CorpusError, match=r"tabular\.xml\.gz: truncated or damaged gzip data"):
        list(Icd10cmCorpus(packed))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL.replace("</section>", ""), r"tabular\.xml:\d+: not well-formed XML \("),
        (SMALL[:2000], r"tabular\.xml:\d+: not well-formed XML \("),
        ("", r"tabular\.xml:\d+: not well-formed XML \("),
        ("<html><body/></html>", r"the root is <html>; expected <ICD10CM\.tabular>"),
        ("<ICD10CM.tabular/>", "no <section> in it"),
        (
            '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;&b;&b;">]><ICD10CM.tabular>&c;</ICD10CM.tabular>',
            "has a DOCTYPE; expected none",
        ),
        (
            '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><ICD10CM.tabular>&b;</ICD10CM.tabular>',
            "has a DOCTYPE; expected none",
        ),
    ],
)
def test_a_file_that_is_no_tabular_list_is_an_error_in_one_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(CorpusError, match=message) as caught:
        list(Icd10cmCorpus(small(tmp_path, text)))
    assert "\n" not in str(caught.value)


def test_an_absent_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.xml", tmp_path):
        with pytest.raises(CorpusError, match="no such file"):
            Icd10cmCorpus(path)


def test_the_source_has_the_checksum_of_the_file(tmp_path: Path) -> None:
    path = small(tmp_path)
    source, vocabulary = Icd10cmCorpus(path).sources()
    assert Path(vocabulary.path).name == "lay_terms.tsv"
    assert source.path == str(path)
    assert source.bytes == path.stat().st_size
    path.write_text(SMALL.replace("gnome", "dwarf"), encoding="utf-8")
    assert Icd10cmCorpus(path).sources()[0].checksum != source.checksum


def test_reading_does_not_import_the_package_that_ships_the_release() -> None:
    script = (
        "import sys; from cmbert_retrieval.corpora.icd10cm import Icd10cmCorpus; next(iter(Icd10cmCorpus()));"
        "sys.exit('simple_icd_10_cm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.slow
def test_the_release_of_april_2026_equals_an_independent_reading_of_it(shared_data: Path) -> None:
    corpus = Icd10cmCorpus()
    if "April-1-2026" not in corpus.path.name:
        pytest.skip(f"another release is installed: {corpus.path.name}")
    documents = {document.id: document for document in corpus}
    with gzip.open(shared_data / "icd10cm_2026" / "icd10cm.jsonl.gz", "rt", encoding="utf-8") as lines:
        nodes = [json.loads(line) for line in lines]
    assert [node["code"] for node in nodes] == list(documents)
    for node in nodes:
        document = documents[node["code"]]
        metadata, notes = document.metadata, document.metadata["notes"]
        assert document.title == node["title"]
        assert (metadata["chapter"], metadata["block"]) == (node["chapter"], node["section"])
        assert (metadata["parent"] or metadata["block"]) == node["parent"]
        if node["code"] != "W08":  # a term that stands among the seventh characters
            assert metadata["terms"] == node["inclusion_terms"] + node["includes"]
        for name in ("excludes1", "excludes2", "code_first", "use_additional", "code_also", "notes"):
            assert notes.get(name, []) == node[name]
        assert set(metadata["seventh"]) >= set(node["seventh_char"])


@pytest.mark.slow
def test_billable_codes_are_those_of_the_order_file_of_2025_but_for_what_changed_since(
    shared_data: Path,
) -> None:
    ours = {}
    for document in Icd10cmCorpus():
        ours[document.id] = bool(document.metadata["billable"])
        if document.metadata["kind"] == "code":
            flat = document.id.replace(".", "").ljust(6, "X")
            ours.update({f"{flat[:3]}.{flat[3:]}{char}": True for char in document.metadata["seventh"]})
    path = shared_data / "icd10cm_2026" / "icd10cm_2025_order_codes.tsv.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        theirs = {
            code: flag == "1" for code, flag, *_ in (line.split("\t") for line in lines) if code != "code"
        }
    both = theirs.keys() & ours.keys()
    changed = [code for code in both if theirs[code] != ours[code]]
    assert len(both) > 97_500
    # A code that was split further is not billable any more; nothing may have changed the other way.
    assert len(changed) < 30
    assert not any(ours[code] for code in changed)


@pytest.mark.parametrize("block", [1, 2, 5, 6, 7, 64])
def test_codes_are_counted_whatever_the_blocks_that_a_file_is_read_in(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(icd10cm, "_BLOCK_BYTES", block)
    assert (
        icd10cm._count(io.BytesIO(b'<a><diag><name/></diag><diag id="1"/><diagnosis/><diag></diag></a>')) == 3
    )
