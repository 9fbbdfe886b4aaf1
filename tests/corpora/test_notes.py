from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from cmbert_retrieval.corpora.base import Record
from cmbert_retrieval.corpora.notes import NotesCorpus
from cmbert_retrieval.errors import ConfigError, CorpusError, MissingExtraError
from cmbert_retrieval.types import Document, Section

MIMIC_IV = "note_id subject_id hadm_id note_type note_seq charttime storetime text".split()
MIMIC_III = (
    "ROW_ID SUBJECT_ID HADM_ID CHARTDATE CHARTTIME STORETIME CATEGORY DESCRIPTION CGID ISERROR TEXT".split()
)
NOTE = ' \nName:  ___\n\nChief Complaint:\nCough, "barking", for 3 days\n'


def write(
    folder: Path, header: Sequence[str], *rows: Sequence[object], name: str = "a.csv", separator: str = ","
) -> Path:
    written = io.StringIO(newline="")
    csv.writer(written, delimiter=separator).writerows([header, *rows])
    data = written.getvalue().encode()
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder / name


def records_of(corpus: NotesCorpus) -> list[Record]:
    """Return all records, having checked that reading goes on behind every one of them."""
    records = list(corpus.records())
    for index, record in enumerate(records):
        after = json.loads(json.dumps(record.cursor))
        assert list(corpus.records(after)) == records[index + 1 :]
    return records


def documents(records: Iterable[Record]) -> list[Document | None]:
    return [record.document for record in records]


@pytest.mark.parametrize("name", ["discharge.csv.gz", "discharge.csv"])
def test_notes_of_mimic_iv_are_read_as_they_are_shipped(name: str, tmp_path: Path) -> None:
    path = write(
        tmp_path,
        MIMIC_IV,
        ["1-DS-2", 1, 7, "DS", 2, "2150-01-31 00:00:00", "2150-02-01 09:30:00", NOTE],
        ["9-RR-1", 9, "", "RR", 1, "2151-01-31 00:00:00", "", "IMPRESSION: Clear"],
        name=name,
    )
    corpus = NotesCorpus(path)
    start = NOTE.index("Chief")
    assert documents(records_of(corpus)) == [
        Document(
            "1-DS-2",
            NOTE,
            metadata={
                "subject_id": 1,
                "hadm_id": 7,
                "note_type": "DS",
                "note_seq": 2,
                "charttime": "2150-01-31 00:00:00",
                "storetime": "2150-02-01 09:30:00",
            },
            sections=(Section(start, len(NOTE) - 1, ("Chief Complaint",)),),
        ),
        Document(
            "9-RR-1",
            "IMPRESSION: Clear",
            metadata={
                "subject_id": 9,
                "note_type": "RR",
                "note_seq": 1,
                "charttime": "2151-01-31 00:00:00",
            },
            sections=(Section(0, 17, ("IMPRESSION",)),),
        ),
    ]
    assert corpus.columns == {
        "subject_id": "integer",
        "hadm_id": "integer",
        "note_type": "text",
        "charttime": "date",
    }


def test_notes_of_mimic_iii_have_names_in_small_letters_and_tell_which_are_errors(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        MIMIC_III,
        [174, 22532, 167853.0, "2151-08-04", "", "", "Discharge summary", "Report", "", "", "Admitted."],
        [175, 22532, "", "2151-08-04", "", "", "Nursing/other", "Note", 17, 1, "Wrong patient."],
        name="NOTEEVENTS.csv.gz",
    )
    corpus = NotesCorpus(path)
    first, second = corpus.strictly()
    assert (first.id, first.title, first.text) == ("174", "Report", "Admitted.")
    assert first.metadata == {
        "subject_id": 22532,
        "hadm_id": 167853,
        "chartdate": "2151-08-04",
        "category": "Discharge summary",
        "iserror": False,
    }
    assert (second.metadata["iserror"], second.metadata["cgid"]) == (True, 17)
    assert corpus.columns == {
        "subject_id": "integer",
        "hadm_id": "integer",
        "category": "text",
        "chartdate": "date",
        "iserror": "boolean",
    }


def test_mimics_folder_is_read_without_detail_tables_licence_and_checksums_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    detail = ["note_id", "subject_id", "field_name", "field_value", "field_ordinal"]
    for name in ("radiology", "discharge"):
        write(tmp_path, MIMIC_IV, [name, 1, 2, "X", 1, "2150-01-31", "", "x"], name=f"note/{name}.csv.gz")
        write(tmp_path, detail, [name, 1, "author", "___", 1], name=f"note/{name}_detail.csv.gz")
    for name in ("LICENSE.txt", "SHA256SUMS.txt"):  # stand at the top of everything that PhysioNet ships
        (tmp_path / name).write_text("no note")
    records = records_of(NotesCorpus(tmp_path))
    assert [document.id for document in documents(records) if document] == ["discharge", "radiology"]
    assert "4 files are no notes and not read, LICENSE.txt first" in caplog.text


@pytest.mark.parametrize(
    ("header", "id", "title"),
    [
        (["note_id", "note_text", "ward"], "1", ""),
        (["ward", "TEXT", "Id", "Title"], "3", "4"),
        (["text", "note", "row_id", "description"], "3", "4"),
    ],
)
def test_columns_are_guessed_by_the_names_that_notes_have(
    header: list[str], id: str, title: str, tmp_path: Path
) -> None:
    (document,) = NotesCorpus(write(tmp_path, header, ["1", "2", "3", "4"][: len(header)])).strictly()
    assert (document.id, document.title) == (id, title)


def test_columns_may_be_named_and_metadata_chosen(tmp_path: Path) -> None:
    path = write(tmp_path, ["k", "body", "head", "a", "b", "c"], ["1", "T", "H", "x", "", "z"])
    corpus = NotesCorpus(path, id="K", text="body", title="head", metadata=["a", "b"])
    assert list(corpus.strictly()) == [Document("1", "T", "H", {"a": "x"})]
    assert list(NotesCorpus(path, id="k", metadata="c, b").strictly()) == [Document("1", "T", "", {"c": "z"})]
    rest = {"head": "H", "a": "x", "c": "z"}
    assert list(NotesCorpus(path, id="k").strictly()) == [Document("1", "T", "", rest)]


def test_an_index_column_of_pandas_without_a_name_is_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path, ["", "id", "text"], [0, "a", "x"], [1, "b", "y"])
    assert list(NotesCorpus(path).strictly()) == [Document("a", "x"), Document("b", "y")]


WRONG_COLUMNS = {
    "no text": (
        ["id", "remark"],
        {},
        "no column 'text' or 'note_text'; there are: id, remark; name it",
    ),
    "no id": (
        ["number", "text"],
        {},
        "no column 'note_id' or 'row_id'; there are: number, text; name it",
    ),
    "a name mistyped": (["id", "text"], {"text": "tekst"}, "no column 'tekst'; there are: id, text; did you"),
    "metadata mistyped": (
        ["id", "text", "ward"],
        {"metadata": ["wart"]},
        "no column 'wart'; there are: id",
    ),
    "another separator": (["id;text"], {}, "a.csv: one column only; if ';' separates columns: --set"),
    "twice in MIMIC-III": ([*MIMIC_III, "text"], {}, "a.csv: two columns are named 'text'"),
}


@pytest.mark.parametrize("case", WRONG_COLUMNS)
def test_a_column_that_is_not_there_is_an_error_that_names_those_that_are(case: str, tmp_path: Path) -> None:
    header, options, reason = WRONG_COLUMNS[case]
    with pytest.raises(CorpusError) as caught:
        NotesCorpus(write(tmp_path, header, ["Zebedee"] * len(header)), **options)
    assert reason in str(caught.value)
    assert str(caught.value).startswith("a.csv: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"encoding": "klingon"}, "option 'encoding': got 'klingon', expected one such as utf-8"),
        ({"encoding": "hex"}, "option 'encoding': got 'hex'"),
        ({"encoding": 5}, "option 'encoding': got 5"),
        ({"separator": "::"}, "option 'separator': got '::', expected one character, or 'tab'"),
        ({"separator": '"'}, "option 'separator'"),
        ({"text": 5}, "option 'text': got 5, expected the name of a column"),
        ({"metadata": [1]}, r"option 'metadata': got \[1\], expected 'rest' or a list of columns"),
        ({"metadata": {"a": 1}}, "option 'metadata'"),
        ({"sections": "no"}, "option 'sections': got 'no', expected true or false"),
    ],
)
def test_an_option_of_a_wrong_value_is_an_error_that_says_what_is_expected(
    options: dict[str, object], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=reason):
        NotesCorpus(write(tmp_path, ["id", "text"]), **options)  # type: ignore[arg-type]


BROKEN_ROWS = {
    "no id": ([" ", "x"], "no id; expected the column 'id'", ""),
    "id with white space": (["a b", "x"], "the id holds white space", ""),
    "too many cells": (["a", "x", "y"], "3 cells, expected 2", ""),
    "NUL": (["a", "x\0y"], "NUL characters", ""),
    "a text above the bound": (["a", "x" * 5000], "larger than 4,000 bytes", ""),
}


@pytest.mark.parametrize("case", BROKEN_ROWS)
def test_a_broken_row_is_a_problem_with_file_and_line_and_the_next_one_is_read(
    case: str, tmp_path: Path
) -> None:
    row, reason, known_id = BROKEN_ROWS[case]
    path = write(tmp_path, ["id", "text"], ["1", "two\nlines"], row, ["2", "x"])
    good, bad, last = records_of(NotesCorpus(path, max_bytes=4000))
    assert good.document is not None
    assert last.document == Document("2", "x")
    assert str(bad.problem).startswith("a.csv:4: ")
    assert reason in str(bad.problem)
    assert bad.id == known_id


def test_an_empty_text_is_a_document_that_is_counted_as_empty_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path, ["id", "text"], ["1", ""], ["2", "  "])
    assert list(NotesCorpus(path).strictly()) == [Document("1", ""), Document("2", "")]


@pytest.mark.parametrize(
    ("name", "separator", "option"),
    [("a.tsv", "\t", ""), ("a.tsv.gz", "\t", ""), ("a.csv", ";", ";"), ("a.csv", "\t", "tab")],
)
def test_columns_may_be_separated_otherwise(name: str, separator: str, option: str, tmp_path: Path) -> None:
    path = write(tmp_path, ["id", "text"], ["1", "a,b;c\td"], name=name, separator=separator)
    assert list(NotesCorpus(path, separator=option).strictly()) == [Document("1", "a,b;c\td")]


def test_text_files_have_ids_of_their_places_and_their_texts_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "ward 3").mkdir()
    (tmp_path / "ward 3" / "note\u00a0one.TXT").write_bytes(b"\xef\xbb\xbfPLAN:\r\n rest ___ \r\n")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress("caf\xe9".encode()))
    (tmp_path / ".hidden.txt").write_text("no")
    corpus = NotesCorpus(tmp_path)
    assert documents(records_of(corpus)) == [
        Document("b", "caf\xe9"),
        Document("ward_3/note_one", "PLAN:\r\n rest ___ \r\n", sections=(Section(0, 16, ("PLAN",)),)),
    ]
    assert corpus.total() == 2


BROKEN_TEXTS = {
    "latin-1": (b"Zebed\xe9e", "not utf-8 at byte 6; name the file's encoding"),
    "UTF-16": ("Zebedee".encode("utf-16"), "UTF-16, not UTF-8: --set source.options.encoding=utf-16"),
    "NUL": (b"Zebe\0dee", "holds NUL characters"),
    "too long": (b"Zebedee" * 1000, "larger than 4,000 bytes"),
    "a spreadsheet": (b"PK\x03\x04", "a zip archive"),
}


@pytest.mark.parametrize("case", BROKEN_TEXTS)
def test_a_text_file_that_cannot_be_read_is_a_problem_and_the_next_one_is_read(
    case: str, tmp_path: Path
) -> None:
    data, reason = BROKEN_TEXTS[case]
    (tmp_path / "a.txt").write_bytes(data)
    (tmp_path / "b.txt").write_text("good")
    bad, good = records_of(NotesCorpus(tmp_path, max_bytes=4000))
    assert str(bad.problem).startswith("a.txt: ")
    assert reason in str(bad.problem)
    assert "Zebedee" not in str(bad.problem)
    assert (bad.id, good.document) == ("a", Document("b", "good"))


def test_text_files_in_a_named_encoding_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("caf\xe9".encode("cp1252"))
    assert next(iter(NotesCorpus(tmp_path, encoding="cp1252").strictly())).text == "caf\xe9"
    (tmp_path / "a.txt").write_bytes("caf\xe9".encode("utf-16"))
    assert next(iter(NotesCorpus(tmp_path, encoding="utf-16").strictly())).text == "caf\xe9"


@pytest.mark.skipif(sys.platform == "darwin", reason="file names are Unicode there")
def test_hostile_file_names_give_ids_and_messages_that_can_be_written(tmp_path: Path) -> None:
    for name in (b"a\nb.txt", b"caf\xe9.txt", b" .txt", b"\x1b[31m.txt"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"\xff")
    records = records_of(NotesCorpus(tmp_path))
    assert sorted(record.id for record in records) == ["_", "_[31m", "a_b", "caf_"]
    for record in records:
        assert str(record.problem).isprintable()
        assert json.dumps(record.cursor, ensure_ascii=False).encode()


def test_a_folder_without_notes_and_a_file_of_another_kind_are_errors(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no \.csv, \.tsv, \.parquet or \.txt file in this folder"):
        NotesCorpus(tmp_path)
    (tmp_path / "a.docx").write_bytes(b"PK")
    with pytest.raises(CorpusError, match=r"a\.docx: expected a \.csv, \.tsv, \.parquet or \.txt file"):
        NotesCorpus(tmp_path / "a.docx")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(CorpusError, match=r"a\.csv: not a regular file"):
        NotesCorpus(tmp_path)


def test_headings_are_not_looked_for_where_that_is_not_wanted(tmp_path: Path) -> None:
    path = write(tmp_path, ["id", "text"], ["1", "PLAN:\nRest"])
    assert next(iter(NotesCorpus(path, sections=False).strictly())).sections == ()


def test_the_checksum_changes_with_any_table_and_with_the_texts_names(tmp_path: Path) -> None:
    write(tmp_path, ["id", "text"], ["1", "x"])
    (tmp_path / "b.txt").write_text("x")
    before = [source.checksum for source in NotesCorpus(tmp_path).sources()]
    write(tmp_path, ["id", "text"], ["1", "y"])
    (tmp_path / "b.txt").rename(tmp_path / "c.txt")
    after = [source.checksum for source in NotesCorpus(tmp_path).sources()]
    assert len(before) == 2
    assert set(before).isdisjoint(after)


def test_a_parquet_file_without_pyarrow_is_an_error_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as where it is not installed
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtraError, match=r"pip install \"cmbert-retrieval\[data\]\""):
        NotesCorpus(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [int, float, str])
def test_notes_out_of_parquet_are_those_out_of_csv(kind: Callable[[int], object], tmp_path: Path) -> None:
    import datetime

    import pyarrow as pa
    import pyarrow.parquet as pq

    day = datetime.datetime(2150, 1, 31)
    rows = [
        ["1-DS-2", kind(1), kind(7), "DS", kind(2), day, day, NOTE],
        ["9-RR-1", kind(9), None, "RR", kind(1), day, None, "IMPRESSION: Clear"],
    ]
    table = pa.Table.from_pylist([dict(zip(MIMIC_IV, row, strict=True)) for row in rows])
    (tmp_path / "parquet").mkdir()
    pq.write_table(table, tmp_path / "parquet" / "notes.parquet", row_group_size=1)
    texts = [["" if cell is None else str(cell).replace(" 00", "T00") for cell in row] for row in rows]
    for row, text in zip(rows, texts, strict=True):
        text[-1] = str(row[-1])
    from_csv = NotesCorpus(write(tmp_path, MIMIC_IV, *texts))
    from_parquet = NotesCorpus(tmp_path / "parquet")
    assert documents(records_of(from_parquet)) == list(from_csv.strictly())
    assert from_parquet.columns == from_csv.columns


@pytest.mark.slow
def test_real_notes_in_mimics_schema_come_out_as_they_went_in(shared_data: Path, tmp_path: Path) -> None:
    with gzip.open(shared_data / "mtsamples" / "mtsamples.jsonl.gz") as stream:
        texts = [json.loads(line)["text"] for line in stream]
    rows = ([f"{n}-DS-1", n, n, "DS", 1, "2150-01-31", "", text] for n, text in enumerate(texts))
    corpus = NotesCorpus(write(tmp_path, MIMIC_IV, *rows, name="discharge.csv.gz"))
    found = list(corpus.strictly())
    assert [document.text for document in found] == texts
    sections = [section for document in found for section in document.sections]
    assert 8 < len(sections) / len(found) < 9
    assert sum(section.path == ("PREOPERATIVE DIAGNOSIS",) for section in sections) > 1000


@pytest.mark.slow
def test_reading_a_large_table_takes_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    import tracemalloc

    def peak(count: int) -> int:
        path = write(tmp_path, MIMIC_IV, *([n, n, n, "DS", 1, "", "", NOTE * 30] for n in range(count)))
        corpus = NotesCorpus(path)
        tracemalloc.start()
        assert sum(1 for _ in corpus.records()) == count
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(2_000) < 1.1 * peak(200) + 100_000
