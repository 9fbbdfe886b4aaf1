from __future__ import annotations

import datetime
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cmbert_retrieval.corpora import open_corpus
from cmbert_retrieval.corpora.base import Record
from cmbert_retrieval.corpora.jsonl import JsonlCorpus
from cmbert_retrieval.corpora.parquet import ParquetCorpus
from cmbert_retrieval.errors import ConfigError, CorpusError, MissingExtraError
from cmbert_retrieval.types import Document

ROWS = [
    {"_id": f"d{n}", "title": "T" if n % 2 else None, "text": "x" * n, "year": n, "tags": ["a", "b"]}
    for n in range(1, 10)
]


def write(folder: Path, rows: list[dict[str, Any]] | Any, name: str = "a.parquet", **options: Any) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows) if isinstance(rows, list) else rows, folder / name, **options)
    return folder / name


def records_of(corpus: ParquetCorpus) -> list[Record]:
    """Return all records, having checked that reading goes on behind every one of them."""
    records = list(corpus.records())
    for index, record in enumerate(records):
        after = json.loads(json.dumps(record.cursor))
        assert list(corpus.records(after)) == records[index + 1 :]
    return records


def test_without_pyarrow_it_is_an_error_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as where it is not installed
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtraError, match=r"'pyarrow': pip install \"cmbert-retrieval\[data\]\""):
        open_corpus("parquet", tmp_path / "a.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("row_group_size", [1, 4, 100])
def test_rows_are_the_documents_that_the_same_lines_of_json_are(row_group_size: int, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
    corpus = ParquetCorpus(write(tmp_path, ROWS, row_group_size=row_group_size))
    expected = list(JsonlCorpus(tmp_path / "a.jsonl").strictly())
    assert [record.document for record in records_of(corpus)] == expected
    assert corpus.total() == len(ROWS)


@pytest.mark.slow
def test_the_files_of_a_folder_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, rows in (("b.parquet", ROWS[4:6]), ("part/a.parquet", ROWS[6:]), ("a.parquet", ROWS[:4])):
        write(tmp_path, rows, name, row_group_size=2)
    (tmp_path / "_SUCCESS").write_text("")
    corpus = ParquetCorpus(tmp_path)
    found = [record.document.id for record in records_of(corpus) if record.document]
    assert found == [row["_id"] for row in ROWS]
    assert len(corpus.sources()) == 3
    assert corpus.total() == len(ROWS)


@pytest.mark.slow
def test_columns_may_be_named_and_chosen(tmp_path: Path) -> None:
    path = write(tmp_path, [{"k": 7, "body": ["One.", "Two."], "head": "H", "about": {"a": 1}, "z": 2}])
    about = ParquetCorpus(path, id="k", text="body", title="head", metadata="about")
    assert list(about.strictly()) == [Document("7", "One. Two.", "H", {"a": 1})]
    listed = ParquetCorpus(path, id="k", text="body", metadata=["z"])
    assert list(listed.strictly()) == [Document("7", "One. Two.", "", {"z": 2})]


@pytest.mark.slow
def test_values_that_json_has_no_form_for_become_those_that_it_has(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    row = {
        "id": "1",
        "text": "x",
        "day": datetime.date(2026, 1, 31),
        "whole": Decimal("12.00"),
        "part": Decimal("1.50"),
        "missing": float("nan"),
        "bytes": b"x",
        "rows": [{"a": 1}],
    }
    (document,) = ParquetCorpus(write(tmp_path, [row])).strictly()
    assert document.metadata == {"day": "2026-01-31", "whole": 12, "part": 1.5}
    assert "column 'bytes' holds no plain values; left out of 1 records" in caplog.text
    assert "column 'rows' holds no plain values" in caplog.text


def invalid_text() -> Any:
    import pyarrow as pa

    data = pa.py_buffer(b"goodZebed\xe9e")
    offsets = pa.array([0, 4, 11], pa.int32()).buffers()[1]
    text = pa.StringArray.from_buffers(2, offsets, data)
    return pa.table({"id": ["good", "bad"], "text": text})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"id": "a", "text": "x"}, {"id": "b", "text": None}], "column 'text' is absent, expected a string"),
        ([{"id": "a", "text": "x"}, {"id": None, "text": "x"}], "no id; expected the column '_id' or 'id'"),
        ([{"id": "a", "text": "x"}, {"id": "a b", "text": "x"}], "the id holds white space"),
        ([{"id": "a", "text": "x"}, {"id": "b", "text": "x" * 5000}], "larger than 4,000 bytes"),
        (
            [{"id": "a", "text": "x", "n": 1.5}, {"id": "b", "text": "x", "n": 1e999}],
            "a number that is",
        ),
        (None, "invalid UTF-8"),
    ],
)
def test_a_row_that_cannot_be_used_is_a_problem_with_file_and_row(
    rows: list[dict[str, Any]] | None, reason: str, tmp_path: Path
) -> None:
    path = write(tmp_path, rows if rows is not None else invalid_text())
    good, bad = records_of(ParquetCorpus(path, max_bytes=4000))
    assert good.document is not None
    assert str(bad.problem).startswith("a.parquet: row 2 of row group 0: ")
    assert reason in str(bad.problem)
    assert "Zebed" not in str(bad.problem)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"text": "tekst"},
            "a.parquet: no column 'tekst'; there are: _id, title, text, year, tags",
        ),
        ({"id": "pmid"}, "a.parquet: no column 'pmid'"),
        ({"title": "head"}, "a.parquet: no column 'head'"),
        ({"metadata": ["year", "month"]}, "a.parquet: no column 'month'"),
        ({"metadata": "about"}, "a.parquet: no column 'about'"),
    ],
)
def test_a_column_that_is_not_there_is_an_error_that_names_those_that_are(
    options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(CorpusError) as caught:
        ParquetCorpus(write(tmp_path, ROWS), **options)
    assert str(caught.value).startswith(reason)


@pytest.mark.slow
def test_an_option_that_is_no_name_and_a_folder_without_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no \.parquet file in this folder"):
        ParquetCorpus(tmp_path)
    with pytest.raises(ConfigError, match="option 'text': got 5, expected the name of a column"):
        ParquetCorpus(write(tmp_path, ROWS), text=5)  # type: ignore[arg-type]


@pytest.mark.slow
def test_what_is_no_parquet_file_is_an_error_in_one_line(tmp_path: Path) -> None:
    for data in (b"", b"PAR1", b'{"id": "Zebedee"}\n', b"PAR1" + b"\xff" * 100 + b"PAR1"):
        (tmp_path / "a.parquet").write_bytes(data)
        with pytest.raises(CorpusError, match=r"^a\.parquet: not a Parquet file, or damaged") as caught:
            ParquetCorpus(tmp_path / "a.parquet")
        assert "\n" not in str(caught.value)
        assert "Zebedee" not in str(caught.value)


@pytest.mark.slow
def test_damage_anywhere_is_an_error_or_other_values_and_never_a_crash(tmp_path: Path) -> None:
    path = write(tmp_path, ROWS * 50, row_group_size=100)
    whole = path.read_bytes()
    outcomes = set()
    for place in range(4, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            for _ in ParquetCorpus(path).records():
                pass
            outcomes.add("read")
        except CorpusError as error:
            assert "\n" not in str(error)
            outcomes.add("error")
    assert "error" in outcomes


@pytest.mark.slow
def test_a_date_that_python_has_no_value_for_costs_only_its_row(tmp_path: Path) -> None:
    import pyarrow as pa

    days = pa.array([0, 4_000_000, 1], pa.int32()).cast(pa.date32())  # the second is in the year 12921
    path = write(tmp_path, pa.table({"_id": ["1", "2", "3"], "text": ["a", "b", "c"], "day": days}))
    first, second, third = records_of(ParquetCorpus(path))
    assert second.problem == (
        "a.parquet: row 2 of row group 0: a date or number out of bounds (after the year 9999?)"
    )
    assert [record.document.metadata["day"] for record in (first, third) if record.document] == [
        "1970-01-01",
        "1970-01-02",
    ]


READ_ALL = """
import sys
from pathlib import Path
from cmbert_retrieval.corpora.parquet import ParquetCorpus
from cmbert_retrieval.errors import CorpusError

path = Path(sys.argv[1])
whole = path.read_bytes()
footer = int.from_bytes(whole[-8:-4], "little")
for place in range(len(whole) - 8 - footer, len(whole) - 8):
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    try:
        for _ in ParquetCorpus(path).records():
            pass
    except CorpusError:
        print("error")
"""


@pytest.mark.slow
@pytest.mark.parametrize("words", [1, 60_000])
def test_no_damage_of_the_footer_ends_the_process(words: int, tmp_path: Path) -> None:
    path = write(tmp_path, [{"_id": "1", "text": "a " * words, "tags": ["x"]}, {"_id": "2", "tags": []}])
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, "error" in done.stdout) == (0, True), done.stderr[-500:]


@pytest.mark.slow
def test_a_text_that_is_repeated_in_every_row_is_unpacked_a_few_rows_at_a_time(tmp_path: Path) -> None:
    import resource

    rows = [{"id": n, "text": "x" * 100_000} for n in range(2_000)]  # 200 MB, as a file some kilobytes
    path = write(tmp_path, rows)
    assert path.stat().st_size < 1_000_000
    rows.clear()
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    assert sum(1 for _ in ParquetCorpus(path).records()) == 2_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before < 100_000_000
