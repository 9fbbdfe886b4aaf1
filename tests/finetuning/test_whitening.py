"""What texts of a pair differ by is made small, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.finetuning.whitening import whitening_matrix


def test_directions_are_shortened_by_how_much_pairs_differ_in_them() -> None:
    differences = np.array([[3.0, 0.0], [0.0, 1.0]], np.float32)  # variances 4.5 and 0.5, with a mean of 2.5
    matrix = whitening_matrix([differences], ridge=0.2)
    np.testing.assert_allclose(matrix, np.diag([np.sqrt(0.4 / 2.0), 1.0]), atol=1e-6)


def test_a_large_ridge_changes_next_to_nothing() -> None:
    differences = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32) * [9, 1, 1, 1]
    matrix = whitening_matrix([differences.astype(np.float32)], ridge=1e6)
    np.testing.assert_allclose(matrix, np.eye(4), atol=1e-5)


def test_pairs_differ_alike_in_all_directions_afterwards() -> None:
    random = np.random.default_rng(1)
    mixed = random.normal(size=(8, 8)).astype(np.float32)
    differences = random.normal(size=(4000, 8)).astype(np.float32) @ mixed
    matrix = whitening_matrix([differences], ridge=1e-6)
    variances = np.linalg.eigvalsh(np.cov((differences @ matrix).T))
    assert variances.max() / variances.min() < 1.1
    assert np.linalg.cond(np.cov(differences.T)) > 10
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)


def test_a_source_counts_as_much_as_any_other_whatever_its_size() -> None:
    random = np.random.default_rng(2)
    one, other = (random.normal(size=(20, 3)).astype(np.float32) * scale for scale in ([2, 1, 1], [1, 1, 3]))
    once = whitening_matrix([one, other], ridge=0.5)
    np.testing.assert_allclose(whitening_matrix([np.tile(one, (7, 1)), other], ridge=0.5), once, atol=1e-6)


def test_pairs_of_equal_texts_are_refused() -> None:
    with pytest.raises(ConfigError, match="both texts of every pair have the same vector"):
        whitening_matrix([np.zeros((5, 2), np.float32)], ridge=0.5)
