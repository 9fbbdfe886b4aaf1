"""HCPCS: the fixed-width file of CMS and its CSV, small ones against what was written into them."""

from __future__ import annotations

import csv
import gzip
import io
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from code_systems import HCPCS, hcpcs_line

from cmbert_retrieval.codes.tree import code_from_document, describe_code
from cmbert_retrieval.corpora.hcpcs import HcpcsCorpus
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.types import Document

NAME = "HCPC2026_JAN_ANWEB.txt"


def written(folder: Path, text: str = HCPCS, name: str = NAME, encoding: str = "cp1252") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


@pytest.fixture
def gnomes(tmp_path: Path) -> dict[str, Document]:
    return {document.id: document for document in HcpcsCorpus(written(tmp_path)).strictly()}


def test_codes_and_modifiers_are_read_with_descriptions_that_go_on(gnomes: dict[str, Document]) -> None:
    assert list(gnomes) == ["G1", "G2", "A0001", "A0002", "A0003"]
    assert gnomes["A0001"].title == "Garden gnome, ceramic, with hat (medium), each"
    assert gnomes["G2"].title.endswith("which leans against the shed")
    assert [gnomes[code].metadata["kind"] for code in ("G2", "A0001")] == ["modifier", "code"]


def test_a_code_is_found_by_its_long_and_its_short_description(gnomes: dict[str, Document]) -> None:
    assert gnomes["A0001"].entries == (
        "Garden gnome, ceramic, with hat (medium), each",
        "Garden gnome, ceramic, with hat, each",
        "Gnome w hat",
    )
    assert gnomes["A0001"].metadata["names"] == {
        "long": ["Garden gnome, ceramic, with hat (medium), each"],
        "short": ["Gnome w hat"],
    }
    assert gnomes["G1"].entries == ("Left boot",)


def test_windows_1252_and_utf_8_read_the_same(tmp_path: Path, gnomes: dict[str, Document]) -> None:
    assert gnomes["A0002"].title == "Café table for gnomes"
    # In UTF-8 the letter takes two bytes, but columns are counted in characters.
    other = {d.id: d for d in HcpcsCorpus(written(tmp_path, encoding="utf-8", name="HCPC2026_JAN_2.txt"))}
    assert other == gnomes


def test_dates_are_read_and_a_code_that_ended_before_the_release_is_not_billable(
    gnomes: dict[str, Document],
) -> None:
    assert gnomes["G1"].metadata["added"] == "2020-01-01"
    assert gnomes["A0001"].metadata["effective"] == "2021-04-01"
    assert gnomes["A0001"].metadata["billable"] is True
    assert gnomes["A0002"].metadata["terminated"] == "2030-12-31"
    assert gnomes["A0002"].metadata["billable"] is True
    assert gnomes["A0003"].metadata["billable"] is False
    assert gnomes["A0003"].metadata["action_code"] == "D"
    assert gnomes["G1"].metadata["billable"] is False, "a modifier alone is no claim"


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("HCPC2026_JAN_ANWEB.txt", "January 2026"),
        ("HCPC2019_CONTR_ANWEB.txt", "2019"),
        ("HCPC17_CONTR_ANWEB.txt", "2017"),
        ("codes.txt", ""),
    ],
)
def test_the_release_stands_in_the_name(name: str, release: str, tmp_path: Path) -> None:
    documents = list(HcpcsCorpus(written(tmp_path, name=name)))
    assert {document.metadata["release"] for document in documents} == {release}
    named = HcpcsCorpus(written(tmp_path, name=name), release="of my own")
    assert next(iter(named)).metadata["release"] == "of my own"


def test_codes_of_others_say_whose_they_are(tmp_path: Path) -> None:
    lines = [hcpcs_line("D0120", "3", "gnome tooth"), hcpcs_line("99213", "3", "gnome visit")]
    documents = list(HcpcsCorpus(written(tmp_path, "\n".join(lines))))
    assert [document.metadata["license"][:3] for document in documents] == ["CDT", "CPT"]


def test_a_csv_of_the_same_columns_reads_like_the_fixed_width_file(
    tmp_path: Path, gnomes: dict[str, Document]
) -> None:
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(
        [
            "HCPC",
            "SEQNUM",
            "RECID",
            "LONG DESCRIPTION",
            "SHORT DESCRIPTION",
            "ADD DT",
            "ACT EFF DT",
            "TERM DT",
            "ACTION CD",
        ]
    )
    for line in HCPCS.split("\r\n")[3:]:
        cells = (0, 5), (5, 10), (10, 11), (11, 91), (91, 119), (268, 276), (276, 284), (284, 292), (292, 293)
        table.writerow([line[a:b].strip() for a, b in cells])
    path = written(tmp_path, out.getvalue(), "HCPC2026_JAN_ANWEB.csv")
    assert {document.id: document for document in HcpcsCorpus(path).strictly()} == gnomes


def test_a_tsv_with_other_headings_and_american_dates_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "code\tlong\tTermination Date\nA0001\tGnome\t12/31/2019\n", "a.tsv")
    (document,) = HcpcsCorpus(path)
    assert (document.id, document.title, document.metadata["terminated"]) == ("A0001", "Gnome", "2019-12-31")


def test_unusable_lines_are_problems_with_their_line_and_without_their_text(tmp_path: Path) -> None:
    lines = [
        hcpcs_line("A0001", "3", "Gnome"),
        "Smith, John: no record",
        hcpcs_line("A0009", "4", "goes on with nothing"),
        hcpcs_line("A0010", "3", ""),
        hcpcs_line("A0011", "3", "Hat"),
    ]
    records = list(HcpcsCorpus(written(tmp_path, "\n".join(lines))).records())
    assert [record.document.id for record in records if record.document] == ["A0001", "A0011"]
    problems = [str(record.problem) for record in records if record.problem]
    assert [problem.split(": ")[0] for problem in problems] == [f"{NAME}:2", f"{NAME}:3", f"{NAME}:4"]
    assert "Smith" not in "".join(problems)


def test_a_gzipped_file_reads_the_same(tmp_path: Path, gnomes: dict[str, Document]) -> None:
    path = tmp_path / f"{NAME}.gz"
    path.write_bytes(gzip.compress(HCPCS.encode("cp1252")))
    assert {document.id: document for document in HcpcsCorpus(path)} == gnomes


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "name,price\nx,1\n", r"a\.csv: no columns of codes and descriptions; expected HCPCS"),
        ("a.csv", 'HCPC,LONG DESCRIPTION\nA0001,"' + "x" * 200_000, r"a\.csv:2: not well-formed CSV"),
        ("a.xlsx", "PK", r"an Excel workbook; save it as CSV"),
        ("a.txt", "", r"no code in it; expected HCPCS"),
        ("a.txt", hcpcs_line("A0001", "9", "x"), r"no code in it; expected HCPCS"),
    ],
)
def test_a_file_of_another_kind_is_an_error_in_one_line(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(CorpusError, match=message) as caught:
        list(HcpcsCorpus(written(tmp_path, text, name)))
    assert "\n" not in str(caught.value)


def test_an_entry_of_the_tree_is_made_of_the_document(gnomes: dict[str, Document]) -> None:
    shown = describe_code(code_from_document(gnomes["A0002"]))
    assert shown.startswith("A0002  Café table for gnomes")
    assert "release January 2026: valid for billing" in shown


@pytest.mark.slow
def test_the_codes_of_2019_are_those_of_another_reading_of_the_file(
    shared_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = shared_data / "hcpcs_level2" / "hcpcs_2019.tsv.gz"
    with caplog.at_level(logging.WARNING):
        documents = {document.id: document for document in HcpcsCorpus(path)}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines][1:]
    assert list(documents) == [row[0] for row in rows]
    assert [document.title for document in documents.values()] == [" ".join(row[1].split()) for row in rows]
    assert not caplog.records


def test_a_long_cell_is_judged_by_the_same_bound_in_a_fresh_process_and_behind_other_readers(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, f'HCPC,LONG DESCRIPTION\nA0001,"{"hat " * 30_000}"\nA0002,Hat\n', "codes.csv")
    longer = written(tmp_path, f'HCPC,LONG DESCRIPTION\nA0001,"{"hat " * 40_000}"\n', "longer.csv")
    program = (
        "import csv, sys\n"
        "from cmbert_retrieval.corpora import open_corpus\n"
        "from cmbert_retrieval.errors import CorpusError\n"
        "csv.field_size_limit(int(sys.argv[1]))\n"
        "for path in sys.argv[2:]:\n"
        "    try: print(len(list(open_corpus('hcpcs', path).strictly())))\n"
        "    except CorpusError as error: print(error)\n"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", program, str(limit), str(path), str(longer)],
            capture_output=True, text=True, check=True,
        ).stdout.splitlines()
        for limit in (1_000, csv.field_size_limit(), 2**30)
    ]  # fmt: skip
    assert told == [["2", "longer.csv:2: not well-formed CSV, perhaps a quote without its end"]] * 3
