"""How close two encoders are on the same texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.encoders.identity import row_cosines
from cmbert_retrieval.errors import ConfigError

MATRIX_TEXTS = 1_000
"""Texts whose similarities are ranked; the matrix grows with their square."""


TOP = 10
MIN_TOP_TEXTS = 100
"""Texts from which on the nearest ten are compared: of fewer, they would be a good part of all."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of two encoders.

    Attributes:
        texts: how many were compared.
        mean_cosine: of the two vectors of a text.
        min_cosine: of the worst text.
        rank_correlation: Spearman's, between the similarities of all pairs of (at most 1,000) texts.
        top10_overlap: share of a text's ten nearest that are the same in both, as the mean of (at most 1,000)
            texts; None for fewer than 100.
    """

    texts: int
    mean_cosine: float
    min_cosine: float
    rank_correlation: float
    top10_overlap: float | None = None


def compare_vectors(reference: NDArray[Any], other: NDArray[Any]) -> Agreement:
    """Return how well ``other`` agrees with ``reference``, row by row.

    Raises:
        ConfigError: other shapes, or fewer than three rows: two texts have one similarity, which has no rank.
    """
    if reference.shape != other.shape or len(reference) < 3:
        raise ConfigError(
            f"got vectors of shapes {reference.shape} and {other.shape}; expected equal ones of 3 rows or "
            "more"
        )
    cosines = row_cosines(reference, other)
    pairs = np.triu_indices(min(len(reference), MATRIX_TEXTS), k=1)
    similarities = [
        vectors[:MATRIX_TEXTS] @ vectors[:MATRIX_TEXTS].T for vectors in (_unit(reference), _unit(other))
    ]
    return Agreement(
        texts=len(reference),
        mean_cosine=float(cosines.mean()),
        min_cosine=float(cosines.min()),
        rank_correlation=_spearman(*(matrix[pairs] for matrix in similarities)),
        top10_overlap=_top_overlap(*similarities) if len(reference) >= MIN_TOP_TEXTS else None,
    )


def worse(first: Agreement, second: Agreement) -> Agreement:
    """Return the worse figure of two comparisons of the same texts, each by itself."""
    overlaps = [each.top10_overlap for each in (first, second) if each.top10_overlap is not None]
    return Agreement(
        texts=first.texts,
        mean_cosine=min(first.mean_cosine, second.mean_cosine),
        min_cosine=min(first.min_cosine, second.min_cosine),
        rank_correlation=min(first.rank_correlation, second.rank_correlation),
        top10_overlap=min(overlaps, default=None),
    )


def _unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12), np.float64)


def _top_overlap(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    nearest = []
    for similarities in (first, second):
        others = similarities.copy()
        np.fill_diagonal(others, -np.inf)  # a text is not its own neighbour
        nearest.append(np.argsort(-others, axis=1, kind="stable")[:, :TOP])
    shared = [len(np.intersect1d(*rows)) for rows in zip(*nearest, strict=True)]
    return float(np.mean(shared)) / TOP


def _spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    ranks = [_ranks(values) for values in (first, second)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    # Equal values share the mean of their ranks: a text that occurs twice makes many of them.
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[inverse], np.float64)
