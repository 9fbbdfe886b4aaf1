"""Documents in memory: their checksum tells whether a build may go on."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from cmbert_retrieval.corpora.memory import MemoryCorpus
from cmbert_retrieval.types import Document, Section

DOCUMENT = Document(
    "a",
    "Some text.",
    "A title",
    {"year": 2020, "words": {"heart", "lung"}, "seen": datetime.date(2020, 2, 29)},
    (Section(0, 4, ("Methods",), "text"),),
    ("an entry",),
)


def checksum(*documents: Document) -> str:
    (source,) = MemoryCorpus(documents).sources()
    return source.checksum


@pytest.mark.parametrize(
    "change",
    [
        {"id": "b"},
        {"title": "Another title"},
        {"text": "Other text."},
        {"metadata": {**DOCUMENT.metadata, "year": 2021}},
        {"metadata": {**DOCUMENT.metadata, "words": ["heart"]}},
        {"metadata": {**DOCUMENT.metadata, "seen": datetime.date(2020, 3, 1)}},
        {"metadata": {}},
        {"sections": (Section(0, 5, ("Methods",), "text"),)},
        {"sections": (Section(0, 4, ("Results",), "text"),)},
        {"sections": ()},
        {"entries": ("another entry",)},
        {"entries": ()},
    ],
)
def test_the_checksum_changes_with_every_part_of_a_document(change: dict[str, Any]) -> None:
    before = checksum(DOCUMENT)
    assert checksum(replace(DOCUMENT)) == before
    assert checksum(replace(DOCUMENT, **change)) != before


def test_two_documents_have_another_checksum_than_one_of_the_same_words() -> None:
    two = (Document("a", "x", entries=("1",)), Document("b", "y", entries=("2",)))
    one = Document("a", "x", entries=("1", "b", "", "y", "2"))
    assert checksum(*two) != checksum(one)


def test_metadata_that_no_index_can_hold_have_a_checksum_too() -> None:
    circular: dict[str, Any] = {}
    circular["self"] = circular
    nested: dict[str, Any] = {}
    for _ in range(100_000):
        nested = {"x": nested}
    for metadata in (circular, nested, {"x": object()}, {"x": float("nan")}, {"x": {1, "a"}}, {(1, 2): 3}):
        document = Document("a", "text", metadata=metadata)
        assert checksum(document) == checksum(document)


def test_the_checksum_of_a_set_is_the_same_in_every_process() -> None:
    code = (
        "from cmbert_retrieval import Document\n"
        "from cmbert_retrieval.corpora.memory import MemoryCorpus\n"
        "corpus = MemoryCorpus([Document('a', 'text', metadata={'words': set('abcdefghij')})])\n"
        "print(corpus.sources()[0].checksum)"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
