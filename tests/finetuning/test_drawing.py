"""Rows that stages draw: known beforehand, so that a teacher is asked about no others."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.finetuning.drawing import TEXTS_NAME, answered, drawn, drawn_texts
from cmbert_retrieval.finetuning.recipe import FinetuneRecipe


def recipe(*stages: dict[str, Any]) -> FinetuneRecipe:
    source = {"reader": "jsonl", "path": "nowhere.jsonl", "texts": True}
    return FinetuneRecipe.model_validate(
        {
            "name": "drawn",
            "data": {"sources": {"many": source, "few": {**source, "weight": 0.5}}},
            "teacher": {},
            "model": {"tokenizer": "teacher"},
            "stages": list(stages),
        }
    )


def test_texts_of_a_stage_are_those_that_a_teacher_is_asked_about() -> None:
    made = recipe({"texts": 30}, {"texts": 20})
    sizes = [100, 40]
    seen: list[set[int]] = [set(), set()]
    for number in range(2):
        for source, rows in drawn(made, number, TEXTS_NAME, sizes):
            seen[source] |= set(rows)
    assert [set(rows.tolist()) for rows in drawn_texts(made, sizes)] == seen
    assert 25 < len(seen[0]) < 50 and 5 < len(seen[1]) < 10


def test_texts_may_be_seen_several_times_instead_of_others() -> None:
    once = recipe({"texts": 30})
    thrice = recipe({"texts": 90, "text_rounds": 3})
    assert [rows.tolist() for rows in drawn_texts(once, [100, 40])] == [
        rows.tolist() for rows in drawn_texts(thrice, [100, 40])
    ]
    for _, rows in drawn(thrice, 0, TEXTS_NAME, [100, 40]):
        assert set(Counter(rows).values()) == {3}


def test_a_stage_has_weights_of_texts_of_its_own() -> None:
    one, two = {"few": 1}, {"many": 1, "few": 2}
    made = recipe({"texts": 30, "text_weights": one}, {"texts": 30, "text_weights": two}, {"texts": 30})
    assert [(source, len(rows)) for source, rows in drawn(made, 0, TEXTS_NAME, [100, 40])] == [(1, 30)]
    assert [len(rows) for _, rows in drawn(made, 1, TEXTS_NAME, [100, 40])] == [17, 13]
    assert [len(rows) for _, rows in drawn(made, 2, TEXTS_NAME, [100, 40])] == [25, 5]


def test_weights_of_an_unknown_source_are_refused() -> None:
    with pytest.raises(ValueError, match="a stage has text_weights of 'some', and no source is called so"):
        recipe({"texts": 30, "text_weights": {"some": 1}})


def test_a_stage_without_any_text_is_an_error() -> None:
    with pytest.raises(ConfigError, match="there are no texts prepared"):
        drawn_texts(recipe({"texts": 30}), [0, 0])


def test_rows_without_a_vector_are_told() -> None:
    vectors = np.full((4, 3), np.nan, np.float16)
    vectors[[1, 3]] = 0.5
    assert answered(vectors, np.array([3, 0, 1])).tolist() == [True, False, True]
