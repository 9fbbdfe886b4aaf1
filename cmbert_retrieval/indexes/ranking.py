"""From rows to ranked documents: the best row of each, two rankings made one, scores without ties."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from cmbert_retrieval.fusion import min_max, reciprocal_rank
from cmbert_retrieval.indexes.reader import IndexReader, Ranked

FUSIONS = ("min-max", "rrf")


class Candidates:
    """The best row of each document that one ranking found.

    Attributes:
        scores: id -> score, best first.
        rows: id -> the row that earned it.
    """

    def __init__(self, ranked: Ranked, parents: Mapping[int, str]) -> None:
        """Keep the best row of each parent; ``ranked`` comes by score, then row."""
        self.scores: dict[str, float] = {}
        self.rows: dict[str, int] = {}
        for score, row in zip(ranked[0].tolist(), ranked[1].tolist(), strict=True):
            id_ = parents[row]
            if id_ not in self.scores:
                self.scores[id_] = score
                self.rows[id_] = row


def find_candidates(
    reader: IndexReader, search: Callable[[int], Ranked], k: int, *, depth: int, group: bool
) -> Candidates:
    """Return the best ``depth`` rows, or more where they belong to fewer than ``k`` documents.

    Args:
        reader: the index.
        search: gives at least so many of the best rows, or all that match.
        k: documents that are wanted.
        depth: rows to begin with.
        group: whether rows count for their documents; otherwise each counts for itself, under a name that
            sorts as the row does.
    """
    wanted = depth
    while True:
        ranked = search(wanted)
        rows = ranked[1].tolist()
        parents = reader.parents(ranked[1]) if group else {row: f"{row:020d}" for row in rows}
        candidates = Candidates(ranked, parents)
        if len(candidates.scores) >= k or len(rows) < wanted:
            return candidates
        wanted *= 2


def fuse(parts: Mapping[str, Candidates], fusion: str, *, dense_weight: float) -> dict[str, float]:
    """Return one ranking, best first, then by id.

    Args:
        parts: ``lexical``, ``dense`` or both.
        fusion: one of ``FUSIONS``; a single part keeps its scores.
        dense_weight: the share of ``dense``.
    """
    if len(parts) == 1:
        (only,) = parts.values()
        return dict(sorted(only.scores.items(), key=lambda item: (-item[1], item[0])))
    rankings = [parts["lexical"].scores, parts["dense"].scores]
    weights = [1 - dense_weight, dense_weight]
    if fusion == "min-max":
        return min_max(rankings, weights=weights)
    return reciprocal_rank(rankings, weights=weights)


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
