"""Order files: ICD-10-PCS and ICD-10-CM, small ones against what was written into them."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import pytest
from code_systems import ORDER_CM, ORDER_PCS

from cmbert_retrieval.codes.tree import code_from_document, describe_code
from cmbert_retrieval.corpora.icd10cm import Icd10cmCorpus
from cmbert_retrieval.corpora.order_files import Icd10cmOrderCorpus, Icd10pcsCorpus
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.types import Document


def written(folder: Path, text: str, name: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.fixture
def procedures(tmp_path: Path) -> dict[str, Document]:
    corpus = Icd10pcsCorpus(written(tmp_path, ORDER_PCS, "icd10pcs_order_2031.txt"))
    return {document.id: document for document in corpus.strictly()}


@pytest.fixture
def diseases(tmp_path: Path) -> dict[str, Document]:
    corpus = Icd10cmOrderCorpus(written(tmp_path, ORDER_CM, "icd10cm_order_2031.txt"))
    return {document.id: document for document in corpus.strictly()}


def test_procedures_stand_below_their_tables(procedures: dict[str, Document]) -> None:
    assert list(procedures) == ["0G1", "0G10AZZ", "0G13AZZ", "XG2", "XG20X9Z"]
    table, code = procedures["0G1"], procedures["0G13AZZ"]
    assert (table.metadata["kind"], table.metadata["billable"], table.metadata["parent"]) == (
        "table",
        False,
        None,
    )
    assert table.metadata["children"] == ["0G10AZZ", "0G13AZZ"]
    assert code.title == "Bypass Gnome Hat, Percutaneous Approach"
    expected = {
        "system": "icd10pcs",
        "release": "2031",
        "kind": "code",
        "parent": "0G1",
        "billable": True,
        "chapter": "0",
        "chapter_title": "Medical and Surgical",
        "block": "0G1",
        "block_title": "Gnome, Bypass",
        "names": {"long": [code.title], "short": ["Bypass Gnome Hat, Perc"]},
    }
    assert {key: code.metadata[key] for key in expected} == expected
    assert code.entries == (code.title,)
    assert procedures["XG20X9Z"].metadata["chapter_title"] == "New Technology"


def test_the_tables_in_xml_say_what_an_operation_means(tmp_path: Path) -> None:
    tables = written(
        tmp_path,
        """<ICD10PCS.tabular><version>2031</version><pcsTable>
          <axis pos="1" values="1"><title>Section</title><label code="0">Medical and Surgical</label></axis>
          <axis pos="2" values="1"><title>Body System</title><label code="G">Gnome</label></axis>
          <axis pos="3" values="1"><title>Operation</title><label code="1">Bypass</label>
            <definition>Leading   something round a gnome</definition></axis>
          <pcsRow codes="1"><axis pos="4"><label code="0">Hat</label></axis></pcsRow>
        </pcsTable><pcsTable><axis pos="1"/></pcsTable></ICD10PCS.tabular>""",
        "icd10pcs_tables_2031.xml",
    )
    corpus = Icd10pcsCorpus(written(tmp_path, ORDER_PCS, "order.txt"), tables=str(tables))
    documents = {document.id: document for document in corpus.strictly()}
    assert documents["0G1"].text == "Gnome, Bypass\nLeading something round a gnome"
    assert documents["XG2"].text == "Gnome, Monitoring"
    assert [Path(source.path).name for source in corpus.sources()][:2] == ["order.txt", tables.name]
    with pytest.raises(CorpusError, match=r"another root element than expected: <ICD10PCS.tabular>"):
        list(Icd10pcsCorpus(corpus.path, tables=str(written(tmp_path, "<x/>", "x.xml"))))


def test_codes_get_their_dot_and_seventh_characters_fold_into_the_code_above(
    diseases: dict[str, Document],
) -> None:
    assert list(diseases) == ["G00", "G00.0", "G00.1", "G00.101", "G00.102", "G07", "G09"]
    assert diseases["G00.101"].metadata["seventh"] == {"A": "initial encounter", "S": "sequela"}
    assert diseases["G07"].metadata["seventh"] == {"A": "initial encounter"}
    kinds = {code: document.metadata["kind"] for code, document in diseases.items()}
    assert kinds["G00"] == "category"
    assert kinds["G00.1"] == "subcategory"
    assert kinds["G00.101"] == kinds["G07"] == kinds["G09"] == "code"
    assert diseases["G00"].metadata["children"] == ["G00.0", "G00.1"]
    assert diseases["G00.101"].metadata["parent"] == "G00.1"
    billable = [code for code, document in diseases.items() if document.metadata["billable"]]
    assert billable == ["G00.0", "G00.102", "G09"]
    assert diseases["G00.0"].entries == ("Crack of hat",)


def test_extensions_become_documents_when_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, ORDER_CM, "icd10cm_order_2031.txt")
    documents = {d.id: d for d in Icd10cmOrderCorpus(path, extensions=True)}
    assert len(documents) == len(ORDER_CM.splitlines())
    assert documents["G07.XXXA"].metadata["parent"] == "G07"
    assert documents["G00.101"].metadata["children"] == ["G00.101A", "G00.101S"]


def test_a_file_of_codes_and_titles_is_read_too(tmp_path: Path) -> None:
    path = written(
        tmp_path, "G000    Crack of hat\r\nG00101A Crack of left boot\r\n", "icd10cm_codes_2031.txt"
    )
    documents = list(Icd10cmOrderCorpus(path))
    assert [(d.id, d.title, d.metadata["billable"]) for d in documents] == [
        ("G00.0", "Crack of hat", True),
        ("G00.101A", "Crack of left boot", True),
    ]
    path = written(tmp_path, "0G10AZZ Bypass Gnome Hat\r\n", "icd10pcs_codes_2031.txt")
    assert [(d.id, d.title, d.metadata["parent"]) for d in Icd10pcsCorpus(path)] == [
        ("0G10AZZ", "Bypass Gnome Hat", None)
    ]


def test_unusable_and_repeated_lines_are_problems_with_their_line(tmp_path: Path) -> None:
    lines = ORDER_PCS.split("\r\n")
    text = "\n".join([lines[0], "Smith, John", lines[1], lines[1], "00009 0g1   0 x", lines[2]])
    records = list(Icd10pcsCorpus(written(tmp_path, text, "o.txt")).records())
    problems = sorted(str(record.problem).partition(": ")[0] for record in records if record.problem)
    assert problems == ["o.txt:2", "o.txt:4", "o.txt:5"]
    assert [record.document.id for record in records if record.document] == ["0G1", "0G10AZZ", "0G13AZZ"]
    assert not any("Smith" in str(record.problem) for record in records)


def test_a_file_out_of_order_is_refused_with_its_line(tmp_path: Path) -> None:
    lines = ORDER_PCS.split("\r\n")
    path = written(tmp_path, "\n".join([*lines, lines[1]]), "o.txt")
    with pytest.raises(CorpusError, match=r"o\.txt:6: the codes of 0G1 stand in two places"):
        list(Icd10pcsCorpus(path).records())


def test_a_file_of_the_other_system_is_given_up(tmp_path: Path) -> None:
    rows = [f"G{number:02}{digit}" for number in range(100) for digit in " 0123456789"]
    path = written(tmp_path, "\n".join(f"{code:<8}Crack" for code in sorted(rows)), "icd10cm_codes_2031.txt")
    assert len(list(Icd10cmOrderCorpus(path))) == len(rows)
    with pytest.raises(
        CorpusError, match=r"1,000 of the first 1,000 records are no codes; expected an order"
    ):
        list(Icd10pcsCorpus(path))
    path = written(tmp_path, "\n".join(f"0G1{number:04} Bypass" for number in range(2000)), "pcs.txt")
    assert len(list(Icd10pcsCorpus(path))) == 2000
    with pytest.raises(
        CorpusError, match=r"1,000 of the first 1,000 records are no codes; expected an order"
    ):
        list(Icd10cmOrderCorpus(path))


def test_an_entry_of_the_tree_is_made_of_the_document(procedures: dict[str, Document]) -> None:
    shown = describe_code(
        code_from_document(procedures["0G10AZZ"]),
        lookup=lambda code: code_from_document(procedures[code]) if code in procedures else None,
    )
    assert "Medical and Surgical" in shown
    assert "valid for billing" in shown


@pytest.mark.slow
def test_all_procedures_of_the_shared_list_are_read(shared_data: Path, tmp_path: Path) -> None:
    with gzip.open(shared_data / "icd10pcs" / "icd10pcs_codes.tsv.gz", "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines]
    path = written(tmp_path, "\n".join(f"{code} {title}" for code, title in sorted(rows)), "codes.txt")
    documents = list(Icd10pcsCorpus(path).strictly())
    assert [(d.id, d.title) for d in documents] == [
        (code, " ".join(title.split())) for code, title in sorted(rows)
    ]


@pytest.mark.slow
def test_the_tree_of_the_order_file_of_2025_is_that_of_the_tabular_list_but_for_what_changed(
    shared_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = shared_data / "icd10cm_2026" / "icd10cm_2025_order_codes.tsv.gz"
    with gzip.open(name, "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines][1:]
    text = "\n".join(
        f"{number:05} {code.replace('.', ''):<7} {flag} {short:<60} {long}"
        for number, (code, flag, short, long) in enumerate(rows, start=1)
    )
    with caplog.at_level(logging.WARNING):
        order = {
            d.id: d for d in Icd10cmOrderCorpus(written(tmp_path, text, "icd10cm_order_2025.txt")).strictly()
        }
    tabular = {d.id: d for d in Icd10cmCorpus()}
    common = order.keys() & tabular.keys()
    # Codes that exist only as a place holder ("T36.0X") have no line in an order file.
    assert len(common) > 0.95 * len(order)
    assert sum(order[code].title == tabular[code].title for code in common) > 0.99 * len(common)
    same = sum(order[code].metadata["billable"] == tabular[code].metadata["billable"] for code in common)
    assert same > 0.99 * len(common)
    assert not caplog.records
