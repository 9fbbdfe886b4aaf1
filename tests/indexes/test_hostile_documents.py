"""Documents that cannot be used, or that try to break something: counted, or an error with strict."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from samples import COLUMNS, SMALL, build, document

from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.verify import verify
from cmbert_retrieval.retriever import Retriever
from cmbert_retrieval.types import Document, Section

GOOD = document(1)


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"deeper": value}
    return value


def circular() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


UNUSABLE = {
    "an id with a space": Document("note 7", "private words"),
    "an id with a line break": Document("note-7\n", "private words"),
    "an id with a no-break space": Document("note\u00a07", "private words"),
    "no id": Document("", "private words"),
    "half a surrogate pair in the text": Document("note-7", "private \ud800 words"),
    "half a surrogate pair in the title": Document("note-7", "words", title="private \udfff"),
    "half a surrogate pair in the id": Document("note-\ud800", "private words"),
    "half a surrogate pair in an entry": Document("note-7", "", entries=("private \ud800",)),
    "half a surrogate pair in the metadata": Document("note-7", "words", metadata={"a": "private \ud800"}),
    "half a surrogate pair in a section": Document("note-7", "words", sections=(Section(0, 5, ("\ud800",)),)),
    "NaN in the metadata": Document("note-7", "private words", metadata={"a": math.nan}),
    "infinity deep in the metadata": Document("note-7", "private words", metadata={"a": [{"b": math.inf}]}),
    "a numpy NaN": Document("note-7", "private words", metadata={"a": np.float32("nan")}),
    "bytes in the metadata": Document("note-7", "private words", metadata={"a": b"private"}),
    "an object in the metadata": Document("note-7", "private words", metadata={"a": object()}),
    "a key that is no text": Document("note-7", "private words", metadata={("a", "b"): 1}),  # type: ignore[dict-item]
    "a set that has no order": Document("note-7", "private words", metadata={"a": {1, "b"}}),
    "metadata without an end": Document("note-7", "private words", metadata=circular()),
    "metadata nested too deeply": Document("note-7", "private words", metadata=nested(100_000)),
}

EMPTY = {
    "nothing": Document("note-7", ""),
    "white space": Document("note-7", " \n\t\u2003", title=" "),
    "white entries": Document("note-7", "", entries=("", "  ")),
}


@pytest.mark.parametrize("text", UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_document_is_counted_and_the_others_are_indexed(tmp_path: Path, text: Document) -> None:
    report = build(tmp_path / "i", [GOOD, text, document(2)], None)
    assert (report.documents, report.skipped, report.empty) == (2, 1, 0)
    (example,) = report.examples["skipped"]
    assert "private" not in example and "\n" not in example
    example.encode()
    with pytest.raises(CorpusError, match=r"^skipped: ") as caught:
        build(tmp_path / "j", [GOOD, text, document(2)], None, strict=True)
    assert "private" not in str(caught.value) and "\n" not in str(caught.value)
    str(caught.value).encode()
    assert not (tmp_path / "j" / "manifest.json").exists()


@pytest.mark.parametrize("text", EMPTY.values(), ids=EMPTY)
def test_an_empty_document_is_counted_apart(tmp_path: Path, text: Document) -> None:
    report = build(tmp_path / "i", [GOOD, text], None)
    assert (report.documents, report.skipped, report.empty) == (1, 0, 1)
    assert report.examples["empty"] == ["note-7"]
    with pytest.raises(CorpusError, match=r"^empty: note-7"):
        build(tmp_path / "j", [GOOD, text], None, strict=True)


def test_counts_are_complete_and_examples_are_few(tmp_path: Path) -> None:
    report = build(tmp_path / "i", [GOOD, *(Document(f"bad {number}", "x") for number in range(100))], None)
    assert report.skipped == 100
    assert len(report.examples["skipped"]) == 5
    assert any(line.startswith("100 records were skipped (first: ") for line in report.lines())


@pytest.mark.parametrize(
    "text",
    [
        Document("note-7", "nul \0 inside \0", title="\0", metadata={"a\0b": "c\0d", "journal": "x"}),
        Document("note-7", "\u202eright to left \U0001f600 \ufeff\ufffe", title="é\u0301"),
        Document("note-7", "words", metadata={"a": [1, None, {"b": [True]}], "journal": []}),
        Document("note-7", "'; DROP TABLE rows; --", title="Robert'); --"),
        Document("'--", "words"),
        Document("x" * 5000, "words"),
        Document("note-7", "no letters: ?!?", sections=(Section(0, 2, ("A", "B"), "abstract"),)),
        Document("note-7", "", title="A title alone"),
        Document("note-7", "?", title=""),
        Document("note-7", "ignored", entries=("first", "  ", "second\nline")),
        Document("note-7", "word" * 4000),
        Document("note-7", " leading and trailing \n\n"),
    ],
    ids=range(12),
)
def test_odd_but_usable_documents_come_back_to_the_letter(
    tmp_path: Path, encoder: Encoder, text: Document
) -> None:
    report = build(tmp_path / "i", [GOOD, text], encoder, *SMALL)
    assert (report.documents, report.skipped, report.empty) == (2, 0, 0)
    with Retriever(IndexReader(tmp_path / "i"), encoder) as retriever:
        got = retriever.get(text.id)
        assert got is not None
        entries = tuple(entry for entry in text.entries if entry.strip())
        assert got == Document(text.id, text.text, text.title, text.metadata, text.sections, entries)
        assert {hit.id for hit in retriever.search("words", 5, mode="dense")} == {GOOD.id, text.id}
        for hit in retriever.search("words", 50, mode="dense", group=False):
            assert hit.passage
            if hit.offsets is not None:
                assert hit.document.text[slice(*hit.offsets)] == hit.passage
    assert verify(tmp_path / "i", encoder=encoder).problems == []


@pytest.mark.parametrize("metadata", [MappingProxyType({"year": 2020}), {"year": np.int64(2020)}])
def test_any_mapping_and_numpy_values_are_metadata(tmp_path: Path, metadata: Mapping[str, Any]) -> None:
    report = build(tmp_path / "i", [Document("a", "fever", metadata=metadata)], None)
    assert (report.documents, report.unusable_values) == (1, 0)
    with Retriever(IndexReader(tmp_path / "i"), None) as retriever:
        (hit,) = retriever.search("fever", filter="year=2020")
        assert hit.document.metadata == {"year": 2020}


def test_dates_and_sets_are_kept_as_json_has_them(tmp_path: Path) -> None:
    metadata = {"seen": datetime.date(2020, 2, 29), "tags": {"b", "a"}, "pair": (1, 2)}
    build(
        tmp_path / "i",
        [Document("a", "fever", metadata=metadata)],
        None,
        columns={"seen": "date", "tags": "text"},
    )
    with Retriever(IndexReader(tmp_path / "i"), None) as retriever:
        (hit,) = retriever.search("fever", filter=["seen=2020-02-29", "tags=b"])
        assert hit.document.metadata == {"seen": "2020-02-29", "tags": ["a", "b"], "pair": [1, 2]}


def test_values_that_do_not_fit_their_column_are_counted_without_their_text(tmp_path: Path) -> None:
    texts = [
        Document("a", "fever", metadata={"year": "private", "journal": "BMJ"}),
        Document("b", "fever", metadata={"year": ["private", 2020], "journal": {"private": 1}}),
    ]
    report = build(tmp_path / "i", texts, None, columns=COLUMNS)
    assert (report.documents, report.unusable_values) == (2, 3)
    assert "private" not in " ".join(report.examples["unusable_values"])
    with Retriever(IndexReader(tmp_path / "i"), None) as retriever:
        assert [hit.id for hit in retriever.search("fever", filter="year=2020")] == ["b"]
        assert retriever.search("fever", filter="journal=BMJ")[0].document.metadata["year"] == "private"
    with pytest.raises(CorpusError, match="unusable values: a: column 'year'") as caught:
        build(tmp_path / "j", texts, None, columns=COLUMNS, strict=True)
    assert "private" not in str(caught.value)


def test_a_document_of_ten_megabytes_is_found_at_both_ends(tmp_path: Path) -> None:
    middle = " ".join(f"Sentence {number} says nothing of note." for number in range(280_000))
    long = Document("long", f"Appendicitis began it. {middle} Zoonosis ended it.")
    assert len(long.text) > 10_000_000
    build(tmp_path / "i", [GOOD, long], None)
    with Retriever(IndexReader(tmp_path / "i"), None) as retriever:
        for word in ("appendicitis", "zoonosis"):
            (hit,) = retriever.search(word)
            assert hit.id == "long" and word in hit.passage.lower()
            assert hit.offsets is not None and long.text[slice(*hit.offsets)] == hit.passage
    assert verify(tmp_path / "i").problems == []


@pytest.mark.slow
def test_a_document_of_ten_megabytes_is_encoded_passage_by_passage(tmp_path: Path, encoder: Encoder) -> None:
    long = Document("long", "Sentence after sentence says nothing of note. " * 220_000)
    report = build(tmp_path / "i", [long], encoder)
    assert report.truncated == 0 and report.encoded == report.rows > 10_000
