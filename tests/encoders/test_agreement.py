from __future__ import annotations

import numpy as np
import pytest

from cmbert_retrieval.encoders.agreement import compare_vectors, worse
from cmbert_retrieval.errors import ConfigError


def test_equal_directions_agree_wholly_whatever_their_length() -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 8))
    agreement = compare_vectors(vectors, vectors * 3)
    assert agreement.min_cosine == pytest.approx(1)
    assert agreement.rank_correlation == pytest.approx(1)


def test_one_bad_text_shows_in_the_minimum() -> None:
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    other = vectors.astype(np.float64)
    other[2] = [0, 0.8, 0.6]
    agreement = compare_vectors(vectors, other)
    assert agreement.min_cosine == pytest.approx(0.6)
    assert agreement.mean_cosine == pytest.approx(0.9)


def test_the_rank_correlation_is_that_of_scipy_with_ties() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(1)
    first = generator.normal(size=(30, 4))
    first[10:15] = first[5]
    second = first + generator.normal(size=first.shape) * 0.5

    def similarities(vectors: np.ndarray) -> np.ndarray:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return (unit @ unit.T)[np.triu_indices(30, k=1)]

    expected = stats.spearmanr(similarities(first), similarities(second)).statistic
    assert compare_vectors(first, second).rank_correlation == pytest.approx(expected, abs=1e-9)


def test_vectors_of_other_shapes_cannot_be_compared() -> None:
    with pytest.raises(ConfigError, match="expected equal ones"):
        compare_vectors(np.zeros((4, 3)), np.zeros((4, 2)))


def test_the_overlap_is_that_of_brute_force_and_left_out_for_few_texts() -> None:
    generator = np.random.default_rng(2)
    first = generator.normal(size=(120, 6))
    second = first + generator.normal(size=first.shape) * 0.3

    def nearest(vectors: np.ndarray, row: int) -> set[int]:
        cosines = vectors @ vectors[row] / np.linalg.norm(vectors, axis=1)
        return set(sorted(set(range(120)) - {row}, key=lambda other: -cosines[other])[:10])

    shared = [len(nearest(first, row) & nearest(second, row)) for row in range(120)]
    assert compare_vectors(first, second).top10_overlap == pytest.approx(np.mean(shared) / 10)
    assert compare_vectors(first[:99], second[:99]).top10_overlap is None


def test_the_worse_figure_of_each_kind_is_kept() -> None:
    vectors = np.random.default_rng(3).normal(size=(5, 4))
    other = vectors.copy()
    other[0] *= -1
    good, bad = compare_vectors(vectors, vectors), compare_vectors(vectors, other)
    assert worse(good, bad) == worse(bad, good) == bad
