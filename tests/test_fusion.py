"""Fusion against oracles that are too simple to be wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmbert_retrieval.fusion import bounded, min_max, reciprocal_rank

IDS = st.text("abcdef", min_size=1, max_size=2)
SCORES = st.floats(-1000, 1000) | st.integers(-3, 3).map(float)
RANKINGS = st.lists(st.dictionaries(IDS, SCORES, max_size=12), max_size=4)


@st.composite
def rankings_and_weights(draw: st.DrawFn) -> tuple[list[dict[str, float]], list[float]]:
    rankings = draw(RANKINGS)
    weights = draw(
        st.lists(st.sampled_from([0.0, 0.3, 1.0, 2.5]), min_size=len(rankings), max_size=len(rankings))
    )
    return rankings, weights


def naive_rank(ranking: dict[str, float], key: str) -> int:
    return 1 + sum(
        other > ranking[key] or (other == ranking[key] and name < key) for name, other in ranking.items()
    )


@given(rankings_and_weights(), st.integers(0, 100))
def test_reciprocal_rank_is_the_sum_over_counted_ranks(
    case: tuple[list[dict[str, float]], list[float]], k: int
) -> None:
    rankings, weights = case
    expected: dict[str, float] = {}
    for key in {key for ranking, weight in zip(rankings, weights, strict=True) if weight for key in ranking}:
        expected[key] = sum(
            weight / (k + naive_rank(ranking, key))
            for ranking, weight in zip(rankings, weights, strict=True)
            if key in ranking
        )
    assert reciprocal_rank(rankings, k=k, weights=weights) == pytest.approx(expected)


@given(rankings_and_weights())
def test_min_max_is_the_weighted_sum_of_stretched_scores(
    case: tuple[list[dict[str, float]], list[float]],
) -> None:
    rankings, weights = case
    expected: dict[str, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for key, score in ranking.items():
            low, high = min(ranking.values()), max(ranking.values())
            share = 1.0 if low == high else (score - low) / (high - low)
            if weight:
                expected[key] = expected.get(key, 0.0) + weight * share
    assert min_max(rankings, weights=weights) == pytest.approx(expected)


@given(rankings_and_weights(), st.floats(-60, 60), st.floats(0, 100))
def test_bounded_is_the_weighted_sum_of_shares_of_the_best_that_is_possible(
    case: tuple[list[dict[str, float]], list[float]], low: float, span: float
) -> None:
    rankings, weights = case
    expected: dict[str, float] = {}
    high = low + span
    for ranking, weight in zip(rankings, weights, strict=True):
        for key, score in ranking.items():
            share = float(np.clip((score - low) / (high - low), 0, 1)) if high > low else 1.0
            if weight:
                expected[key] = expected.get(key, 0.0) + weight * share
    fused = bounded(rankings, [(low, high)] * len(rankings), weights=weights)
    assert fused == pytest.approx(expected)
    assert list(fused) == sorted(fused, key=lambda key: (-fused[key], key))


def test_a_ranking_whose_best_is_poor_counts_for_less() -> None:
    words, meaning = {"a": 3.0, "b": 1.0}, {"b": 0.9, "a": 0.5}
    assert next(iter(bounded([words, meaning], [(0.0, 4.0), (0.0, 1.0)]))) == "a"
    assert next(iter(bounded([words, meaning], [(0.0, 40.0), (0.0, 1.0)]))) == "b"
    assert bounded([words, {}], [(0.0, 4.0), (0.0, 0.0)], weights=[0.7, 0.3]) == pytest.approx(
        {"a": 0.7 * 3 / 4, "b": 0.7 / 4}
    )


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ([(0.0, 1.0)], "1 bounds for 2 rankings"),
        ([(0.0, 1.0), (1.0, 0.0)], "the lower one first"),
        ([(0.0, math.inf), (0.0, 1.0)], "two finite numbers"),
    ],
)
def test_bounds_that_do_not_fit_are_errors(bounds: list[tuple[float, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bounded([{"a": 1.0}, {"b": 1.0}], bounds)


@given(RANKINGS, st.randoms(use_true_random=False))
def test_order_is_by_score_then_id_whatever_the_order_of_the_input(rankings, random) -> None:  # type: ignore[no-untyped-def]
    for fuse in (reciprocal_rank, min_max):
        fused = fuse(rankings)
        assert list(fused) == sorted(fused, key=lambda key: (-fused[key], key))
        shuffled = [dict(random.sample(list(ranking.items()), len(ranking))) for ranking in rankings]
        assert list(fuse(shuffled).items()) == list(fused.items())


@given(RANKINGS)
def test_min_max_with_equal_weights_stays_between_0_and_1(rankings: list[dict[str, float]]) -> None:
    assert all(0 <= score <= 1 + 1e-12 for score in min_max(rankings).values())


@given(st.dictionaries(IDS, SCORES, min_size=1), st.floats(0.1, 100), st.integers(-50, 50))
def test_min_max_does_not_see_scale_and_offset(ranking: dict[str, float], scale: float, offset: int) -> None:
    moved = {key: score * scale + offset for key, score in ranking.items()}
    if len(set(moved.values())) == len(set(ranking.values())):
        assert min_max([moved]) == pytest.approx(min_max([ranking]), abs=1e-6)


def test_a_document_missing_from_one_ranking_gets_nothing_from_it() -> None:
    assert min_max([{"a": 9.0, "b": 5.0}, {"b": 0.9, "c": 0.1}]) == {"a": 0.5, "b": 0.5, "c": 0.0}
    assert reciprocal_rank([{"a": 9.0}, {"b": 1.0, "a": 0.5}], k=1) == pytest.approx(
        {"a": 1 / 2 + 1 / 3, "b": 1 / 2}
    )


def test_a_single_result_and_equal_scores_count_as_found_in_full() -> None:
    assert min_max([{"a": -4.0}]) == {"a": 1.0}
    assert min_max([{"b": 2.0, "a": 2.0}]) == {"a": 1.0, "b": 1.0}


def test_negative_scores_keep_their_order() -> None:
    assert min_max([{"a": -3.0, "b": -1.0, "c": -2.0}]) == {"b": 1.0, "c": 0.5, "a": 0.0}


def test_empty_rankings_give_nothing_and_take_nothing() -> None:
    for fuse in (reciprocal_rank, min_max):
        assert fuse([]) == {}
        assert fuse([{}, {}]) == {}
        assert list(fuse([{}, {"a": 1.0, "b": 2.0}])) == ["b", "a"]


def test_a_ranking_of_weight_0_takes_no_part() -> None:
    for fuse in (reciprocal_rank, min_max):
        assert list(fuse([{"a": 1.0}, {"b": 1.0}], weights=[1, 0])) == ["a"]


def test_rows_are_fused_like_ids_and_ties_go_to_the_smaller_row() -> None:
    assert list(reciprocal_rank([{10: 1.0}, {9: 1.0}])) == [9, 10]
    assert list(min_max([{10: 1.0}, {9: 1.0}])) == [9, 10]


def test_scores_near_the_largest_float_do_not_overflow() -> None:
    assert min_max([{"a": 1.7e308, "b": -1.7e308, "c": 0.0}]) == {"a": 1.0, "c": 0.5, "b": 0.0}


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_an_error_naming_the_ranking(score: float) -> None:
    for fuse in (reciprocal_rank, min_max):
        with pytest.raises(ValueError, match=r"ranking 2: the score of 'a'"):
            fuse([{"a": 1.0}, {"a": score}])


def test_weights_that_do_not_fit_are_errors() -> None:
    for fuse in (reciprocal_rank, min_max):
        with pytest.raises(ValueError, match="1 weights for 2 rankings"):
            fuse([{"a": 1.0}, {"b": 1.0}], weights=[1.0])
        with pytest.raises(ValueError, match=r"weight -1\.0"):
            fuse([{"a": 1.0}], weights=[-1.0])
    with pytest.raises(ValueError, match="k is -1"):
        reciprocal_rank([{"a": 1.0}], k=-1)
