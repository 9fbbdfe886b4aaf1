"""Documents whose sections are read when they are asked for are as good as any other."""

from __future__ import annotations

import copy
import dataclasses
from multiprocessing import Pipe

import pytest

from cmbert_retrieval.types import Document, Hit, Section

VALUES = {"id": "a", "text": "First. Second.", "title": "Both", "metadata": {"year": 2020}}
SECTIONS = (Section(0, 6, ("Methods",)), Section(7, 14, ("Results", "Main"), "abstract"))
WHOLE = Document(**VALUES, sections=SECTIONS)


@pytest.fixture
def deferred() -> Document:
    return Document.with_deferred_sections(lambda: SECTIONS, **VALUES)


def test_deferred_sections_are_read_once() -> None:
    asked: list[int] = []

    def read() -> tuple[Section, ...]:
        asked.append(1)
        return SECTIONS

    document = Document.with_deferred_sections(read, **VALUES)
    assert document.text == WHOLE.text
    assert asked == []
    assert document.sections == SECTIONS
    assert document.sections == SECTIONS
    assert asked == [1]


def test_a_deferred_document_equals_a_whole_one_both_ways(deferred: Document) -> None:
    assert deferred == WHOLE
    assert WHOLE == Document.with_deferred_sections(lambda: SECTIONS, **VALUES)
    assert deferred != dataclasses.replace(WHOLE, sections=())


def through_a_pipe(document: Document) -> object:
    """Return what another process would get."""
    here, there = Pipe()
    with here, there:
        here.send(document)
        return there.recv()


@pytest.mark.parametrize(
    "through",
    [
        copy.copy,
        copy.deepcopy,
        through_a_pipe,
        lambda document: dataclasses.replace(document, title="Both"),
    ],
    ids=["copy", "deepcopy", "pipe", "replace"],
)
def test_copies_of_a_deferred_document_are_whole(deferred: Document, through: object) -> None:
    assert callable(through)
    assert through(deferred) == WHOLE


def test_a_deferred_document_as_a_dictionary_is_that_of_a_whole_one(deferred: Document) -> None:
    assert dataclasses.asdict(deferred) == dataclasses.asdict(WHOLE)


def test_a_hit_knows_the_headings_above_its_passage() -> None:
    def section_at(offsets: tuple[int, int] | None, document: Document = WHOLE) -> tuple[str, ...]:
        return Hit(1, 1.0, "a", document, "x", offsets, "").section

    assert section_at((0, 6)) == section_at((5, 14)) == ("Methods",)
    assert section_at((7, 14)) == ("Results", "Main")
    assert section_at((6, 7)) == section_at(None) == section_at((0, 6), Document("b", "text")) == ()


def test_other_missing_attributes_are_errors_as_usual(deferred: Document) -> None:
    with pytest.raises(AttributeError, match="'Document' has no attribute 'sektions'"):
        deferred.sektions  # noqa: B018
    assert not hasattr(WHOLE, "_read_sections")


def test_what_goes_wrong_while_reading_meets_whoever_asks() -> None:
    def read() -> tuple[Section, ...]:
        raise ValueError("damaged")

    document = Document.with_deferred_sections(read, **VALUES)
    assert document.title == "Both"
    for _ in range(2):
        with pytest.raises(ValueError, match="damaged"):
            document.sections  # noqa: B018
