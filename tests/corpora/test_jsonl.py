from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from cmbert_retrieval.corpora.jsonl import JsonlCorpus
from cmbert_retrieval.errors import ConfigError, CorpusError
from cmbert_retrieval.types import Document

SECRET = "Zebedee"


def write(folder: Path, *lines: str | bytes | dict[str, Any], name: str = "a.jsonl") -> Path:
    data = b"\n".join(
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    )
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder / name


def test_a_line_is_a_document(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"_id": "d1", "title": "T", "text": "Some text.", "year": 2020, "tags": ["a", "b"], "none": None},
        "",
        {"id": 7, "text": ["One.", " Two. "], "metadata": {"a": {"b": 1}}, "c": 2},
    )
    assert list(JsonlCorpus(path)) == [
        Document("d1", "Some text.", "T", {"year": 2020, "tags": ["a", "b"]}),
        Document("7", "One. Two.", "", {"c": 2, "a": {"b": 1}}),
    ]


def test_keys_may_be_named(tmp_path: Path) -> None:
    path = write(
        tmp_path, {"pmid": "p", "id": "other", "abstract": "x", "name": "n", "about": {"k": 1}, "z": 1}
    )
    corpus = JsonlCorpus(path, id="pmid", text="abstract", title="name", metadata="about")
    assert list(corpus) == [Document("p", "x", "n", {"k": 1})]


def test_a_list_of_keys_is_the_metadata(tmp_path: Path) -> None:
    path = write(tmp_path, {"id": "1", "text": "x", "a": 1, "b": [2], "c": 3}, {"id": "2", "text": "y"})
    corpus = JsonlCorpus(path, metadata=["a", "b", "d"])
    assert list(corpus) == [Document("1", "x", "", {"a": 1, "b": [2]}), Document("2", "y")]


@pytest.mark.parametrize("options", [{"text": ""}, {"text": 5}, {"id": None}, {"metadata": 5}])
def test_an_option_that_is_no_name_is_an_error(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"option '{next(iter(options))}': got "):
        JsonlCorpus(write(tmp_path), **options)


def test_keys_that_hold_no_plain_values_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(
        tmp_path, *({"id": n, "text": "x", "nested": {"a": 1}, "rows": [{"b": 2}]} for n in range(3))
    )
    assert [document.metadata for document in JsonlCorpus(path)] == [{}, {}, {}]
    assert "key 'nested' holds no plain values; left out of 3 records" in caplog.text
    assert "key 'rows' holds no plain values; left out of 3 records" in caplog.text


BROKEN: dict[str, tuple[str | bytes, str]] = {
    "broken JSON": (f'{{"id": "{SECRET}", "text": ', "not well-formed JSON (column"),
    "a list": (f'["{SECRET}"]', "a JSON list, expected an object"),
    "no id": (f'{{"text": "{SECRET}"}}', "no id; expected the key '_id' or 'id'"),
    "null id": ('{"id": null, "text": "x"}', "no id"),
    "empty id": ('{"id": "", "text": "x"}', "the id is empty"),
    "id with white space": ('{"id": "a b", "text": "x"}', "white space or control characters"),
    "id with a wide space": ('{"id": "a\u3000b", "text": "x"}', "white space or control characters"),
    "id with a zero byte": ('{"id": "a\\u0000", "text": "x"}', "white space or control characters"),
    "id that is an object": ('{"id": {}, "text": "x"}', "the id is dict, expected a string"),
    "id that is true": ('{"id": true, "text": "x"}', "the id is bool, expected a string"),
    "no text": ('{"id": "a"}', "key 'text' is absent, expected a string"),
    "text a number": ('{"id": "a", "text": 3}', "key 'text' is int, expected a string"),
    "text a list of numbers": ('{"id": "a", "text": [1]}', "key 'text' is list"),
    "title a list": ('{"id": "a", "text": "", "title": []}', "key 'title' is list, expected a string"),
    "NaN": ('{"id": "a", "text": "x", "score": NaN}', "NaN is not allowed in JSON"),
    "infinity": ('{"id": "a", "text": "x", "score": -Infinity}', "Infinity is not allowed in JSON"),
    "overflow": ('{"id": "a", "text": "x", "score": 1e999}', "a number that is not finite"),
    "half a surrogate pair": ('{"id": "a", "text": "x\\ud800"}', "half of a surrogate pair"),
    "invalid UTF-8": (b'{"id": "a", "text": "caf\xe9"}', "invalid UTF-8 at byte 25 of the line"),
    "nested too deeply": ('{"id": ' + "[" * 200_000, "JSON"),
    "a number of 5,000 digits": (f'{{"id": "a", "text": "x", "n": {"9" * 5000}}}', "not finite or too long"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_line_is_one_problem_with_file_and_line_and_the_next_one_is_read(
    case: str, tmp_path: Path
) -> None:
    line, reason = BROKEN[case]
    good = {"id": "good", "text": "x"}
    records = list(JsonlCorpus(write(tmp_path, good, line, good)).records())
    assert [record.document is None for record in records] == [False, True, False]
    assert reason in str(records[1].problem)
    assert str(records[1].problem).startswith("a.jsonl:2: ")
    assert SECRET not in str(records[1].problem)


def test_the_id_of_a_broken_record_is_told_where_it_is_known(tmp_path: Path) -> None:
    records = list(JsonlCorpus(write(tmp_path, {"id": "known", "text": 3})).records())
    assert records[0].id == "known"


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_reading_goes_on_behind_every_record(name: str, tmp_path: Path) -> None:
    lines = [{"id": n, "text": "é" * n} if n % 3 else "broken" for n in range(1, 12)]
    corpus = JsonlCorpus(write(tmp_path, *lines, name=name))
    records = list(corpus.records())
    assert len(records) == 11
    for index, record in enumerate(records):
        assert list(corpus.records(record.cursor)) == records[index + 1 :]


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        b'\xef\xbb\xbf{"id": "a", "text": "x"}\r\n{"id": "b", "text": "y"}\r\n'
    )
    assert [document.id for document in JsonlCorpus(tmp_path / "a.jsonl")] == ["a", "b"]


def test_a_line_above_the_bound_is_a_problem_and_the_next_one_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path, {"id": "a", "text": "x" * 3_000_000}, {"id": "b", "text": "y"}, {"id": "c", "text": "z"}
    )
    corpus = JsonlCorpus(path, max_bytes=1000)
    first, second, third = records = list(corpus.records())
    assert first.problem == (
        "a.jsonl:1: larger than 1,000 bytes when unpacked; raise the option max_bytes to read it"
    )
    assert second.document is not None
    assert third.document is not None
    assert list(corpus.records(first.cursor)) == records[1:]


def test_a_truncated_gz_is_an_error_naming_the_file_and_the_last_line_that_was_read(tmp_path: Path) -> None:
    path = write(tmp_path, *({"id": n, "text": os.urandom(500).hex()} for n in range(50)), name="a.jsonl.gz")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    read = []
    with pytest.raises(CorpusError) as caught:
        for record in JsonlCorpus(path).records():
            read.append(record)
    assert 10 < len(read) < 50
    assert str(caught.value).startswith(f"a.jsonl.gz: truncated or damaged gzip data after line {len(read)}")


def test_plain_text_that_claims_to_be_gz_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(b'{"id": "a"}')
    with pytest.raises(CorpusError, match=r"a\.jsonl\.gz: truncated or damaged"):
        list(JsonlCorpus(tmp_path / "a.jsonl.gz").records())


def test_an_empty_file_has_no_documents_and_a_folder_is_an_error(tmp_path: Path) -> None:
    assert list(JsonlCorpus(write(tmp_path)).records()) == []
    with pytest.raises(CorpusError, match=r"a folder, expected a \.jsonl"):
        JsonlCorpus(tmp_path)


def test_the_checksum_is_that_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, {"id": "a", "text": "x"})
    (before,) = JsonlCorpus(path).sources()
    assert (before.bytes, before.path) == (path.stat().st_size, str(path))
    write(tmp_path, {"id": "a", "text": "y"})
    assert JsonlCorpus(path).sources()[0].checksum != before.checksum
