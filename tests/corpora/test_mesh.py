"""MeSH: descriptors and supplementary concepts in XML and ASCII, and files that are none."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from code_systems import MESH, MESH_ASCII, MESH_SUPPLEMENT

from cmbert_retrieval.corpora import xmlstream
from cmbert_retrieval.corpora.mesh import MeshCorpus
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.types import Document


def written(folder: Path, text: str = MESH, name: str = "desc2031.xml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def headings(tmp_path: Path) -> dict[str, Document]:
    return {document.id: document for document in MeshCorpus(written(tmp_path)).strictly()}


def test_a_heading_has_its_terms_by_type_and_is_found_by_all_but_permuted_ones(
    headings: dict[str, Document],
) -> None:
    gnomes = headings["D900001"]
    assert gnomes.title == "Gnomes"
    assert gnomes.entries == ("Gnomes", "Garden Dwarfs", "Fishing Gnomes")
    assert gnomes.metadata["names"] == {
        "preferred": ["Gnomes"],
        "entry": ["Garden Dwarfs"],
        "narrower": ["Fishing Gnomes"],
        "permuted": ["Dwarfs, Garden"],
    }
    assert gnomes.text.splitlines()[:2] == ["Gnomes", "Small figures that stand in GARDENS & ponds."]
    assert gnomes.metadata["release"] == "2031"


def test_the_tree_follows_from_the_tree_numbers(headings: dict[str, Document]) -> None:
    above, below = headings["D900001"], headings["D900002"]
    assert above.metadata["children"] == ["D900002"]
    assert above.metadata["parent"] is None
    assert (below.metadata["parent"], below.metadata["parents"]) == ("D900001", ["D900001"])
    assert below.metadata["tree_numbers"] == ["B01.100.200", "Z01.700"]
    assert (below.metadata["kind"], below.metadata["chapter_title"]) == ("geographical", "Organisms")


def test_supplementary_concepts_are_read_by_the_same_reader(tmp_path: Path) -> None:
    (document,) = MeshCorpus(written(tmp_path, MESH_SUPPLEMENT, "supp2031.xml")).strictly()
    assert (document.id, document.entries) == ("C900001", ("gnomic acid", "gnomate"))
    assert document.metadata["kind"] == "supplementary"
    assert document.metadata["class"] == "chemical"
    assert document.metadata["mapped_to"] == ["D900001"]
    assert "found in ponds" in document.text


def test_the_ascii_file_says_the_same_as_the_xml_but_for_permuted_terms(
    tmp_path: Path, headings: dict[str, Document]
) -> None:
    ascii_ = {d.id: d for d in MeshCorpus(written(tmp_path, MESH_ASCII, "d2031.bin")).strictly()}
    assert list(ascii_) == list(headings)
    for ui, document in ascii_.items():
        assert (document.title, document.text, document.entries) == (
            headings[ui].title,
            headings[ui].text,
            headings[ui].entries,
        )
        names = {kind: terms for kind, terms in headings[ui].metadata["names"].items() if kind != "permuted"}
        assert document.metadata["names"] == names
        for key in ("parents", "children", "tree_numbers", "release", "kind"):
            assert document.metadata[key] == headings[ui].metadata[key]


def test_a_record_without_identifier_or_name_is_a_problem_and_the_others_are_read(tmp_path: Path) -> None:
    for broken in (
        MESH.replace("<DescriptorUI>D900001</DescriptorUI>", ""),
        MESH.replace("D900001", "D9 00001", 1),
        MESH.replace("<DescriptorName><String>Gnomes</String></DescriptorName>", ""),
    ):
        records = list(MeshCorpus(written(tmp_path, broken)).records())
        assert [record.document.id if record.document else "" for record in records] == ["", "D900002"]
        assert re.match(r"desc2031\.xml:4: ", str(records[0].problem))


def test_headings_that_are_above_each_other_make_no_endless_loop(tmp_path: Path) -> None:
    text = (
        MESH.replace("B01.100.200", "B01.100.1.2")
        .replace("<TreeNumber>B01.100<", "<TreeNumber>B01.100.1<")
        .replace("<TreeNumber>Z01.700<", "<TreeNumber>B01.100<")
    )
    headings = {document.id: document for document in MeshCorpus(written(tmp_path, text)).strictly()}
    assert headings["D900001"].metadata["parent"] == "D900002"
    assert headings["D900002"].metadata["parent"] == "D900001"


def test_gzip_reads_like_the_plain_file_and_a_truncated_one_is_an_error(
    tmp_path: Path, headings: dict[str, Document]
) -> None:
    path = tmp_path / "desc2031.xml.gz"
    path.write_bytes(gzip.compress(MESH.encode()))
    assert {document.id: document for document in MeshCorpus(path)} == headings
    path.write_bytes(gzip.compress(MESH.encode())[:-20])
    with pytest.raises(CorpusError, match=r"truncated or damaged gzip data"):
        list(MeshCorpus(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<html><body>no</body></html>", "another root element than expected: <DescriptorRecordSet> or"),
        ("", "not well-formed XML"),
        (MESH[:900], r"desc2031\.xml:\d+: not well-formed XML"),
        (MESH.replace("</TermList>", "</TremList>", 1), r"desc2031\.xml:\d+: not well-formed XML"),
        (
            MESH.replace('nlmdescriptorrecordset_20260101.dtd">', 'x.dtd" [<!ENTITY a "aaaa">]>'),
            "declares entities; refused",
        ),
        ("<DescriptorRecordSet></DescriptorRecordSet>", "no code in it; expected MeSH"),
    ],
)
def test_a_file_that_is_no_mesh_is_an_error_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=message) as caught:
        list(MeshCorpus(written(tmp_path, text)))
    assert "\n" not in str(caught.value)


def test_a_record_without_end_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "desc2031.xml"
    with path.open("w") as file:
        file.write("<DescriptorRecordSet><DescriptorRecord><ConceptList>")
        for _ in range(xmlstream.MAX_RECORD_BYTES // 400):
            file.write("<Concept/>" * 41)
    with pytest.raises(CorpusError, match=r"more than 33,554,432 bytes without the end of a record"):
        list(MeshCorpus(path))


@pytest.mark.slow
def test_the_real_sample_has_the_names_of_another_reading(shared_data: Path) -> None:
    path = shared_data / "jats_medline_samples" / "tipplerow_mesh_desc_sample.xml"
    documents = {document.id: document for document in MeshCorpus(path).strictly()}
    text = path.read_text(encoding="utf-8")
    assert list(documents) == re.findall(r"<DescriptorRecord .*?<DescriptorUI>(.*?)<", text, re.DOTALL)
    numbers = [n for document in documents.values() for n in document.metadata["tree_numbers"]]
    assert numbers == re.findall(r"<TreeNumber>(.*?)<", text)
    assert documents["D000003"].title == "Abattoirs"
    assert "Slaughterhouses" in documents["D000003"].entries
    # Equals the entry terms of the other shared form of MeSH, made from another release.
    assert set(documents["D000002"].metadata["terms"]) >= {"Temephos"}
