"""Several rankings of the same things made into one, and one ranking made unambiguous.

Pure functions on ``{id: score}``, higher is better.

Shared rules: the answer is ordered by fused score, then by id, so that ties always come out the same.
A ranking of weight 0 takes no part: what only it found is left out. What a ranking did not find gets
nothing from it; the caller fills in scores that it can compute beforehand. Empty rankings are allowed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

Id = TypeVar("Id", str, int)


def reciprocal_rank(
    rankings: Sequence[Mapping[Id, float]], *, k: float = 60, weights: Sequence[float] | None = None
) -> dict[Id, float]:
    """Return the sum of ``weight / (k + rank)`` over the rankings, rank 1 being the best.

    Only the order of each ranking counts, not its scores: robust where scales differ wildly, blind to how far
    ahead the first one is. Equal scores in a ranking are told apart by id, as everywhere.

    Args:
        rankings: ids with their scores, one mapping a ranking; any finite scores.
        k: the larger, the less the first places weigh against the others.
        weights: one a ranking; None weighs each with 1, as published.

    Returns:
        Fused scores, best first.

    Raises:
        ValueError: a score is not finite, ``k`` is negative, or the weights do not fit.

    Source:
        Cormack, Clarke & Buettcher, "Reciprocal rank fusion outperforms Condorcet and individual rank
        learning methods", SIGIR 2009.
    """
    if not 0 <= k < math.inf:
        raise ValueError(f"k is {k}; expected a number of at least 0")
    fused: dict[Id, float] = {}
    for ranking, weight in zip(rankings, _checked(rankings, weights, default=1.0), strict=True):
        if weight == 0:
            continue
        for rank, key in enumerate(_ordered(ranking), start=1):
            fused[key] = fused.get(key, 0.0) + weight / (k + rank)
    return _ordered(fused)


def min_max(
    rankings: Sequence[Mapping[Id, float]], *, weights: Sequence[float] | None = None
) -> dict[Id, float]:
    """Return the weighted sum of scores that were stretched to 0..1 within each ranking.

    The best of a ranking gets 1 and its worst 0, which is also what a ranking gives to those that it did not
    find: the worst one found and the next one, not found, are taken for neighbours. Where all scores are
    equal, and for a single result, all get 1: they were found, and nothing says that they are bad. Scores may
    be negative.

    Args:
        rankings: ids with their scores, one mapping a ranking.
        weights: one a ranking; None shares 1 equally between them. With weights that sum to 1, fused scores
            lie in 0..1.

    Returns:
        Fused scores, best first.

    Raises:
        ValueError: a score is not finite, or the weights do not fit.
    """
    found = [ranking.values() or (0.0,) for ranking in rankings]
    return bounded(rankings, [(min(scores), max(scores)) for scores in found], weights=weights)


def bounded(
    rankings: Sequence[Mapping[Id, float]],
    bounds: Sequence[tuple[float, float]],
    *,
    weights: Sequence[float] | None = None,
) -> dict[Id, float]:
    """Return the weighted sum of scores, each as its share of the way from a bound below to one above.

    ``min_max`` gives 1 to the best of a ranking, however good that is. Here only what nothing can surpass has
    1: a ranking whose best is poor, as words have it for a long question, or meaning for a name that it does
    not know, counts for less of that query.

    Args:
        rankings: ids with their scores, one mapping a ranking.
        bounds: of each ranking: the score of what says nothing, and the best one that is possible for this
            query. Scores outside count as the bound; where both are the same, all get 1.
        weights: one a ranking; None shares 1 equally between them. With weights that sum to 1, fused scores
            lie in 0..1.

    Returns:
        Fused scores, best first.

    Raises:
        ValueError: a score or a bound is not finite, or bounds or weights do not fit.

    Source:
        Bruch, Gai & Ingber, "An analysis of fusion functions for hybrid retrieval", ACM TOIS 2023: there with
        the lowest score that is possible; here also with the highest.
    """
    if len(bounds) != len(rankings):
        raise ValueError(f"{len(bounds)} bounds for {len(rankings)} rankings; expected a pair a ranking")
    fused: dict[Id, float] = {}
    equal_share = 1 / max(1, len(rankings))
    checked = _checked(rankings, weights, default=equal_share)
    for ranking, (low, high), weight in zip(rankings, bounds, checked, strict=True):
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ValueError(f"bounds {low} and {high}; expected two finite numbers, the lower one first")
        if weight == 0:
            continue
        # Scores near the largest float would make their difference infinite; halves cannot.
        scale = 1.0 if math.isfinite(high - low) else 0.5
        span = high * scale - low * scale
        for key, score in ranking.items():
            share = min(max((score * scale - low * scale) / span, 0.0), 1.0) if span > 0 else 1.0
            fused[key] = fused.get(key, 0.0) + weight * share
    return _ordered(fused)


def _ordered(scores: Mapping[Id, float]) -> dict[Id, float]:
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))


def _checked(
    rankings: Sequence[Mapping[Id, float]], weights: Sequence[float] | None, *, default: float
) -> list[float]:
    """Return one weight a ranking, after a look at weights and scores."""
    if weights is None:
        weights = [default] * len(rankings)
    if len(weights) != len(rankings):
        raise ValueError(f"{len(weights)} weights for {len(rankings)} rankings; expected one a ranking")
    for weight in weights:
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight {weight}; expected a finite number of at least 0")
    for number, ranking in enumerate(rankings, start=1):
        for key, score in ranking.items():
            if not math.isfinite(score):
                raise ValueError(
                    f"ranking {number}: the score of {key!r} is {score}; expected a finite number"
                )
    return list(weights)


def strictly_decreasing(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the scores as float32 values that strictly decrease, changed as little as possible."""
    decreasing: dict[str, float] = {}
    last = np.float32(np.inf)
    for id_, score in scores.items():
        value = np.float32(score)
        if value >= last:
            value = np.nextafter(last, np.float32(-np.inf), dtype=np.float32)
        decreasing[id_] = float(value)
        last = value
    return decreasing
