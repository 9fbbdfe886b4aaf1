from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmbert_retrieval.encoders.batching import equal_length_batches, length_sorted_batches
from cmbert_retrieval.errors import ConfigError

lengths = st.lists(st.integers(0, 300), max_size=80)


@given(lengths, st.integers(1, 1000))
def test_every_text_is_in_one_batch_and_no_batch_of_several_exceeds_the_budget(
    found: list[int], budget: int
) -> None:
    batches = length_sorted_batches(found, budget)
    assert sorted(position for batch in batches for position in batch) == list(range(len(found)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(found[position] for position in batch) <= budget


@given(lengths)
def test_the_longest_come_first_and_equal_lengths_keep_their_order(found: list[int]) -> None:
    order = [position for batch in length_sorted_batches(found, 256) for position in batch]
    assert order == sorted(range(len(found)), key=lambda position: (-found[position], position))


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_tokens is 0"):
        length_sorted_batches([1], 0)


@given(lengths, st.integers(1, 1000), st.integers(1, 9))
def test_every_text_is_in_one_batch_of_its_length_and_the_longest_come_first(
    found: list[int], budget: int, most: int
) -> None:
    batches = equal_length_batches(found, budget, texts=most)
    assert sorted(position for batch in batches for position in batch) == list(range(len(found)))
    of_batches = [[found[position] for position in batch] for batch in batches]
    assert all(len(set(batch)) == 1 for batch in of_batches)
    assert all(len(batch) == 1 or (sum(batch) <= budget and len(batch) <= most) for batch in of_batches)
    assert [batch[0] for batch in of_batches] == sorted((batch[0] for batch in of_batches), reverse=True)


def test_as_many_texts_share_a_batch_as_the_budget_allows() -> None:
    assert equal_length_batches([3, 5, 3, 3, 3], 9, texts=8) == [[1], [0, 2, 3], [4]]
    assert equal_length_batches([3, 3, 3], 100, texts=2) == [[0, 1], [2]]
