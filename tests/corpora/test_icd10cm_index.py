"""The alphabetic index: small files against what was written into them, and the real parts of 2026."""

from __future__ import annotations

import csv
import gzip
import logging
from pathlib import Path

import pytest
from code_systems import INDEX, NEOPLASM_TABLE

from cmbert_retrieval.corpora.icd10cm_index import Icd10cmIndexCorpus, index_entries
from cmbert_retrieval.corpora.index_phrases import phrases
from cmbert_retrieval.errors import CorpusError


def written(folder: Path, text: str = INDEX, name: str = "icd10cm_index_2031.xml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_entries_have_their_path_modifiers_codes_and_references(tmp_path: Path) -> None:
    entries = {entry.path: entry for entry in index_entries(written(tmp_path))}
    main = entries["Crack, cracked NEC",]
    assert (main.code, main.modifiers) == ("G00.9", (("acute", "of gnome"),))
    glue = entries["Crack, cracked NEC", "scalp", "with", "glue"]
    assert (glue.code, glue.manifestation, glue.modifiers[-1]) == ("G00.2", "H00.1", ("dry",))
    paint = entries["Crack, cracked NEC", "scalp", "with", "paint"]
    assert (paint.code, paint.incomplete, paint.see_also) == ("G00.3", True, "Paint, of gnome")
    boot = entries["Crack, cracked NEC", "boot"]
    assert (boot.code, boot.see) == ("", "Chip, boot")
    hat = entries["Crack, cracked NEC", "hat"]
    assert (hat.code, hat.incomplete) == ("G07.0", True)
    assert ("Crack, cracked NEC", "pond") not in entries
    assert boot.where == "icd10cm_index_2031.xml:15"


def test_a_table_gives_an_entry_for_every_column_with_a_code(tmp_path: Path) -> None:
    entries = list(index_entries(written(tmp_path, NEOPLASM_TABLE)))
    assert [(entry.path[1:], entry.column, entry.code, entry.incomplete) for entry in entries] == [
        ((), "Malignant Primary", "C80.1", False),
        ((), "Ca in situ", "D09.9", False),
        (("abdomen, abdominal",), "Malignant Primary", "C76.2", False),
        (("abdomen, abdominal", "wall"), "Malignant Primary", "C44.50", True),
        (("abdomen, abdominal", "wall"), "Ca in situ", "D04.5", False),
    ]


def test_documents_are_codes_with_the_phrases_under_which_they_are_filed(tmp_path: Path) -> None:
    documents = {document.id: document for document in Icd10cmIndexCorpus(written(tmp_path)).strictly()}
    assert list(documents) == ["G00.9", "G00.1", "G00.2", "G00.3", "G07.0"]
    scalp = documents["G00.1"]
    assert scalp.entries == ("Crack of scalp", "scalp crack", "Pond fever")
    assert scalp.title == "Pond fever", "the shortest path says most of it"
    printed = "Crack, cracked NEC (acute) (of gnome), scalp"
    assert scalp.metadata["names"]["index"] == [printed, "Pond fever"]
    assert scalp.text == f"Pond fever\nAlso under: {printed}"
    assert documents["G00.2"].entries == ("Crack of scalp with glue", "scalp crack with glue")
    assert documents["G00.2"].metadata["manifestations"] == ["H00.1"]
    assert documents["G00.3"].metadata["incomplete"] is True
    assert (scalp.metadata["system"], scalp.metadata["release"]) == ("icd10cm", "2031")


def test_a_folder_gives_the_codes_of_all_its_parts(tmp_path: Path) -> None:
    written(tmp_path)
    written(tmp_path, NEOPLASM_TABLE, "icd10cm_neoplasm_2031.xml")
    written(tmp_path, "<x/>", "icd10cm_tabular_2031.xml")
    written(tmp_path, "<x/>", "icd10cm_index_addenda_2031.xml")
    corpus = Icd10cmIndexCorpus(tmp_path)
    assert len(list(corpus.strictly())) == 10
    assert [Path(source.path).name for source in corpus.sources()] == [
        "icd10cm_index_2031.xml",
        "icd10cm_neoplasm_2031.xml",
    ]


@pytest.mark.parametrize(
    ("path", "column", "wanted"),
    [
        (["Abscess, abscessed", "scalp"], "", ["Abscess of scalp", "scalp abscess"]),
        (["Fracture", "femur", "neck"], "", ["Fracture of neck of femur", "neck femur fracture"]),
        (["Diabetes", "type 2", "with", "ketoacidosis"], "", ["type 2 diabetes with ketoacidosis"]),
        (["Accident", "caused by, due to", "cold"], "", ["Accident caused by cold"]),
        (["Struck by", "object", "falling"], "", ["Struck by object, falling"]),
        (["Disease, diseased", "Alzheimer's", "early onset"], "", ["early onset Alzheimer's disease"]),
        (
            ["Neoplasm, neoplastic", "abdomen, abdominal", "wall"],
            "Benign",
            ["benign neoplasm of wall of abdomen"],
        ),
        (["Neoplasm, neoplastic", "skin NOS", "lip"], "Ca in situ", ["carcinoma in situ of skin of lip"]),
        (
            ["Neoplasm", "cord", "spermatic"],
            "Malignant Primary",
            ["primary malignant neoplasm of spermatic cord"],
        ),
        (["Neoplasm", "lip", "basal cell carcinoma"], "Malignant Primary", ["basal cell carcinoma of lip"]),
        (
            ["Acetic", "acid"],
            "Adverse effect",
            ["adverse effect of acetic acid", "adverse effect of acid acetic"],
        ),
        (["Zinc NEC"], "Poisoning Assault", ["assault by poisoning with zinc"]),
        (["Zinc"], "A new column", ["A new column: zinc"]),
        (["Zinc"], "A {new} column {", ["A {new} column {: zinc"]),
    ],
)
def test_paths_become_phrases_that_one_would_say(path: list[str], column: str, wanted: list[str]) -> None:
    assert phrases(path, column=column) == wanted


def test_what_is_no_code_and_terms_without_title_are_problems_with_their_line(tmp_path: Path) -> None:
    text = INDEX.replace("<code>G00.9</code>", "<code>Smith, John</code>").replace("<title>boot</title>", "")
    path = written(tmp_path, text)
    records = list(Icd10cmIndexCorpus(path).records())
    problems = [str(record.problem) for record in records if record.problem]
    assert problems == [
        "icd10cm_index_2031.xml:6: no code of ICD-10-CM where one is expected",
        "icd10cm_index_2031.xml:15: a term without a title",
    ]
    with pytest.raises(CorpusError, match=r"icd10cm_index_2031\.xml:6: no code of ICD-10-CM"):
        list(index_entries(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<ICD10CM.tabular/>", "another root element than expected: <ICD10CM.index>"),
        ("<ICD10CM.index/>", "no code in it; expected index files"),
        (INDEX[:-30], "not well-formed XML"),
        (
            INDEX.replace("<ICD10CM.index>", '<!DOCTYPE x [<!ENTITY a "b">]><ICD10CM.index>'),
            "declares entities",
        ),
    ],
)
def test_a_file_that_is_no_index_is_an_error_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=message) as caught:
        list(Icd10cmIndexCorpus(written(tmp_path, text)))
    assert "\n" not in str(caught.value)


def test_a_folder_without_an_index_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no index of ICD-10-CM in this folder; expected"):
        Icd10cmIndexCorpus(tmp_path)


def rows_of(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.mark.slow
def test_the_real_neoplasm_table_equals_another_reading_of_it(shared_data: Path) -> None:
    folder = shared_data / "icd10cm_2026"

    got = [e for e in index_entries(folder / "icd10cm-neoplasm-April-1-2026.xml.gz") if e.code]
    rows = rows_of(folder / "lookup_neoplasm_table.tsv.gz")
    assert [e.code + "-" * e.incomplete for e in got] == [row["code"].replace(".-", "-") for row in rows]
    # The other reading leaves out what stands behind the brackets of a title ("cartilage (external) NEC").
    names = [f"{e.column} | {', '.join(e.path)}" for e in got]
    same = sum(name == row["query"] for name, row in zip(names, rows, strict=True))
    assert same > 0.97 * len(rows)


@pytest.mark.slow
def test_the_real_index_of_external_causes_has_the_codes_of_another_reading(shared_data: Path) -> None:
    folder = shared_data / "icd10cm_2026"
    entries = index_entries(folder / "icd10cm-eindex-April-1-2026.xml.gz")
    got = [e for e in entries if e.code and not (e.incomplete and e.code in ("T71", "T75.0", "Z77"))]
    rows = rows_of(folder / "lookup_external_cause_index.tsv.gz")
    assert [e.code + "-" * e.incomplete for e in got] == [row["code"] for row in rows]
    # The other reading leaves out what stands behind the brackets of a title.
    same = sum(", ".join(e.path) == row["query"] for e, row in zip(got, rows, strict=True))
    assert same > 0.85 * len(rows)


@pytest.mark.slow
def test_the_real_parts_are_read_together_without_a_problem(
    shared_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        documents = {d.id: d for d in Icd10cmIndexCorpus(shared_data / "icd10cm_2026").strictly()}
    assert not caplog.records
    assert "Accident caused by environmental factor" in documents["X58"].entries
    assert "accidental poisoning by 1-propanol" in documents["T51.3X1"].entries
    assert "secondary malignant neoplasm of lung" in documents["C78.0"].entries
    assert documents["C78.0"].metadata["release"] == "April 1 2026"
