from __future__ import annotations

import csv
import gzip
import io
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmbert_retrieval.corpora.csv_rows import CsvFile, CsvRow, read_header, read_rows
from cmbert_retrieval.errors import CorpusError


def file_of(
    folder: Path, data: bytes, *, name: str = "a.csv", encoding: str = "utf-8", max_bytes: int = 1 << 20
) -> CsvFile:
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return CsvFile(folder / name, name, ",", encoding, max_bytes)


def rows_of(file: CsvFile) -> list[CsvRow]:
    """Return all rows, having checked that reading goes on behind every one of them."""
    columns = len(read_header(file))
    rows = list(read_rows(file, columns))
    for index, row in enumerate(rows):
        assert list(read_rows(file, columns, (row.next_line, row.offset))) == rows[index + 1 :]
    return rows


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@given(st.lists(st.lists(cells, min_size=2, max_size=2), max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_rows_are_those_that_the_csv_module_wrote(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], line_end: str
) -> None:
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerows([["id", "text"], *rows])
    file = file_of(tmp_path_factory.mktemp("csv"), written.getvalue().encode())
    assert [row.values for row in rows_of(file)] == rows


BROKEN = {
    "too few cells": (b"1\n", "1 cells, expected 2 as in the first row"),
    "too many cells": (b"1,Zebedee,3\n", "3 cells, expected 2 as in the first row"),
    "text behind a quote": (b'1,"Zebedee" fell\n', "not well-formed CSV"),
    "invalid UTF-8": (b"1,Zebed\xe9e\n", "invalid UTF-8; name the file's encoding"),
    "invalid UTF-8 in a quoted text": (b'1,"Zebed\xe9e,\n,\n"\n', "invalid UTF-8"),
    "a NUL character": (b"1,Zebe\0dee\n", "NUL characters"),
    "a carriage return alone": (b"1,Zebedee\r2,x\n", "a line ends with CR alone"),
    "a row above the bound": (b'1,"' + b"Zebedee\n" * 30_000 + b'"\n', "larger than 100,000 bytes"),
    "a line above the bound": (b"1," + b"x" * 200_000 + b"\n", "larger than 100,000 bytes"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_row_is_one_problem_with_its_line_and_the_next_one_is_read(
    case: str, tmp_path: Path
) -> None:
    row, reason = BROKEN[case]
    data = b'id,text\n0,"two\nlines"\n' + row + b"2,b\n"
    good, bad, last = rows_of(file_of(tmp_path, data, max_bytes=100_000))
    assert (good.line, good.values) == (2, ["0", "two\nlines"])
    assert (bad.line, bad.values) == (4, None)
    assert reason in bad.problem
    assert "Zebedee" not in bad.problem
    assert (last.line, last.values) == (4 + row.count(b"\n"), ["2", "b"])


UNREADABLE = {
    "empty": (b"", "a.csv: empty; expected a first row"),
    "white lines": (b"\n\r\n", "a.csv: empty"),
    "no names": (b",,\n1,2,3\n", "a.csv:1: the first row names no columns"),
    "a name twice": (b"id,text,id\n", "a.csv:1: two columns are named 'id'"),
    "no header": (b'1,"Zebedee\nfell"\n', "a.csv:1: cell 2 of the first row is no name of a column (12 char"),
    "UTF-16": ("id,text\n1,a\n".encode("utf-16"), "a.csv:1: UTF-16, not UTF-8: --set source.options.enc"),
    "UTF-16 without a mark": ("id,text\n1,a\n".encode("utf-16-le"), "a.csv:1: NUL characters"),
    "UTF-32": ("id,text\n1,a\n".encode("utf-32"), "a.csv:1: UTF-32, not UTF-8"),
    "latin-1": (b"id,t\xe9xt\n", "a.csv:1: invalid UTF-8; name the file's encoding"),
    "gzip data": (gzip.compress(b"id,text\n"), "a.csv:1: gzip data; let its name end with .gz"),
    "a spreadsheet": (b"PK\x03\x04rest", "a.csv:1: a zip archive"),
    "a Parquet file": (b"PAR1Zebedee", "a.csv:1: a Parquet file"),
    "one endless line": (b"x" * 3_000_000, "a.csv: no row with the names of the columns"),
    "old Macintosh line ends": (b"id,text\r1,a\r", "a.csv:1: not well-formed CSV (a line ends with CR alone"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_without_a_header_that_can_be_read_is_an_error_in_one_line(case: str, tmp_path: Path) -> None:
    data, reason = UNREADABLE[case]
    with pytest.raises(CorpusError) as caught:
        read_header(file_of(tmp_path, data))
    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)
    assert "Zebedee" not in str(caught.value)


def test_a_quote_that_is_never_closed_is_an_error_naming_its_line(tmp_path: Path) -> None:
    file = file_of(tmp_path, b'id,text\n1,a\n2,"b\n3,c\n4,d\n')
    read = []
    with pytest.raises(CorpusError, match=r"a\.csv:3: a quote .* not closed .* 3 lines on"):
        for row in read_rows(file, 2):
            read.append(row.values)
    assert read == [["1", "a"]]
    file = file_of(tmp_path, b'id,text\n5" nail,"b\n3,c\n')  # an even number of quotes
    with pytest.raises(CorpusError, match=r"a\.csv:2: a quote .* not closed"):
        list(read_rows(file, 2))


@pytest.mark.parametrize("line", [b"x\n", b"\n", b"x" * 1000])
def test_a_quote_that_is_never_closed_does_not_fill_the_memory(line: bytes, tmp_path: Path) -> None:
    file = file_of(tmp_path, b'id,text\n1,"' + line * (500_000 // len(line)), max_bytes=100_000)
    tracemalloc.start()
    with pytest.raises(CorpusError, match="not closed"):
        list(read_rows(file, 2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_500_000


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_other_encodings_give_the_same_rows(encoding: str, name: str, tmp_path: Path) -> None:
    data = 'id,text\r\n1,"caf\xe9\nau lait"\r\n2,na\xefve\r\n'.encode(encoding)
    rows = rows_of(file_of(tmp_path, data, name=name, encoding=encoding))
    assert [row.values for row in rows] == [["1", "caf\xe9\nau lait"], ["2", "na\xefve"]]
    assert [row.line for row in rows] == [2, 4]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    assert read_header(file_of(tmp_path, b"\xef\xbb\xbf id ,text\n")) == ["id", "text"]


def test_what_is_not_in_the_named_encoding_is_a_problem_of_its_row(tmp_path: Path) -> None:
    file = file_of(tmp_path, b"id,text\n1,a\x81b\n2,b\n", encoding="cp1252")
    assert [row.values for row in rows_of(file)] == [None, ["2", "b"]]
    file = file_of(tmp_path, "id,text\n1,a\n".encode("utf-16") + b"x", encoding="utf-16")
    assert [row.values for row in rows_of(file)] == [["1", "a"], None]


def test_fields_longer_than_the_csv_module_allows_by_itself_are_read(tmp_path: Path) -> None:
    text = "x" * 500_000
    assert rows_of(file_of(tmp_path, f"id,text\n1,{text}\n".encode()))[0].values == ["1", text]


def test_truncated_gzip_data_are_an_error_that_says_how_far_it_went(tmp_path: Path) -> None:
    data = b"id,text\n" + b"".join(b"%d,%s\n" % (n, os.urandom(500).hex().encode()) for n in range(50))
    file = file_of(tmp_path, data, name="a.csv.gz")
    file.path.write_bytes(file.path.read_bytes()[:12_000])
    read = []
    with pytest.raises(CorpusError, match=r"a\.csv\.gz: truncated or damaged gzip data after line") as caught:
        for row in read_rows(file, 2):
            read.append(row)
    assert read
    assert f"after line {read[-1].line};" in str(caught.value)
    with pytest.raises(CorpusError, match="truncated or damaged"):
        list(read_rows(file, 2, (50, 60_000)))
