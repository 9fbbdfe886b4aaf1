"""Counts in sentences."""

from __future__ import annotations

from dataclasses import fields

import pytest

from cmbert_retrieval.indexes.report import Report
from cmbert_retrieval.wording import plural


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (2000, "2,000 rows")]
)
def test_one_is_singular_and_all_else_plural(count: int, said: str) -> None:
    assert plural(count, "row") == said


def test_a_plural_that_is_another_word_is_given() -> None:
    assert [plural(count, "query", "queries") for count in (1, 2)] == ["1 query", "2 queries"]


def test_every_line_of_a_report_agrees_with_its_number() -> None:
    troubles = {one.name for one in fields(Report)} - {
        "commit", "documents", "rows", "encoded", "deleted", "examples"
    }  # fmt: skip
    for count, nouns in (
        (1, {"document", "row", "id", "record", "text", "metadata value", "declared column"}),
        (2, {"documents", "rows", "ids", "records", "texts", "metadata values", "declared columns"}),
    ):
        lines = Report(**dict.fromkeys(troubles, count)).lines()
        assert len(lines) == len(troubles)
        for line in lines:
            assert any(line.startswith(f"{count} {noun} ") for noun in nouns), line
            plurals = {"were", "have", "are", "their"} if count == 1 else {"was", "has", "is", "its"}
            before_aside = line.split(" than what is there")[0]
            mine = before_aside.replace("their end is", "their end").replace("its end is", "its end")
            assert not plurals & set(mine.replace(";", "").split()), line
