"""From rows to ranked documents: the best row of each, two rankings made one, scores without ties."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

from cmbert_retrieval.fusion import bounded, min_max, reciprocal_rank
from cmbert_retrieval.indexes.reader import IndexReader, Ranked

FUSIONS = ("bounded", "min-max", "rrf")
_ROWS_PER_DOCUMENT = 4
"""Rows to begin with for each document that is wanted: neighbours are often passages of one document."""


class Candidates:
    """The best row of each document that one ranking found.

    Attributes:
        scores: id -> score, best first.
        rows: id -> the row that earned it.
    """

    def __init__(self) -> None:
        self.scores: dict[str, float] = {}
        self.rows: dict[str, int] = {}

    @classmethod
    def of(cls, reader: IndexReader, ranked: Ranked, *, group: bool, enough: int | None = None) -> Candidates:
        """Keep the best row of each document; ``ranked`` comes by score, then row.

        Args:
            reader: the index.
            ranked: scores and rows.
            group: whether rows count for their documents; otherwise each counts for itself, under a name that
                sorts as the row does.
            enough: how many are wanted at least, where so many are there; whatever ties with the last of
                them comes along. None for all.
        """
        candidates = cls()
        scores, rows = ranked[0].tolist(), ranked[1].tolist()
        # Parents are looked up as far as they are needed: that takes longer than all else.
        step = len(rows) if enough is None else enough
        for start in range(0, len(rows), max(1, step)):
            if enough is not None and len(candidates.scores) >= enough:
                last = next(itertools.islice(candidates.scores.values(), enough - 1, None))
                if scores[start] < last:
                    break
            part = rows[start : start + step]
            parents = (
                reader.parents(ranked[1][start : start + step])
                if group
                else {row: f"{row:020d}" for row in part}
            )
            for score, row in zip(scores[start : start + step], part, strict=True):
                id_ = parents[row]
                if id_ not in candidates.scores:
                    candidates.scores[id_] = score
                    candidates.rows[id_] = row
        return candidates

    def take(self, id_: str, other: Candidates) -> None:
        """Add what another ranking has under an id, if it has anything."""
        if id_ in other.scores:
            self.scores[id_] = other.scores[id_]
            self.rows[id_] = other.rows[id_]


def find_candidates(
    reader: IndexReader, search: Callable[[int], Ranked], k: int, *, depth: int, group: bool
) -> Candidates:
    """Return the best of ``depth`` rows or more, until there are ``k`` documents.

    Args:
        reader: the index.
        search: gives at least so many of the best rows, or all that match.
        k: documents that are wanted.
        depth: rows to begin with.
        group: whether rows count for their documents.
    """
    wanted = depth * _ROWS_PER_DOCUMENT if group else depth
    while True:
        ranked = search(wanted)
        candidates = Candidates.of(reader, ranked, group=group, enough=k)
        if len(candidates.scores) >= k or len(ranked[1]) < wanted:
            return candidates
        wanted *= 4


def find_fused(
    reader: IndexReader,
    searches: Mapping[str, Callable[[int], Ranked]],
    k: int,
    *,
    depth: int,
    group: bool,
    fusion: str,
    dense_weight: float,
    best: Mapping[str, float] | None = None,
) -> tuple[dict[str, float], dict[str, Candidates]]:
    """Return at least ``k`` fused scores, best first, where there are so many, and what earned them.

    Fused scores depend on the candidates that are fused, so these must not depend on ``k``: the first ten are
    the same whether ten or a thousand are asked for. The best ``depth`` rows of each ranking are fused. Where
    that gives too few, twice as many are, and what is new stands behind, one point below: each time the same
    steps, and only more of them for a larger ``k``.

    Args:
        reader: the index.
        searches: ``lexical`` and ``dense``; each gives at least so many of the best rows, or all that match.
        k: results that are wanted.
        depth: rows of each ranking to begin with.
        group: whether rows count for their documents.
        fusion: one of ``FUSIONS``.
        dense_weight: the share of ``dense``.
        best: the highest score that each signal can have for this query, where it is known.
    """
    scores: dict[str, float] = {}
    parts = {signal: Candidates() for signal in searches}
    weights = {"lexical": 1 - dense_weight, "dense": dense_weight}
    wanted, step = depth, 0
    while True:
        found: dict[str, Candidates] = {}
        complete: dict[str, bool] = {}
        for signal, search in searches.items():
            ranked = search(wanted)
            found[signal] = Candidates.of(reader, ranked, group=group)
            complete[signal] = len(ranked[1]) < wanted
        # A ranking without weight adds nothing, however deep one goes.
        exhausted = all(complete[signal] or weights[signal] == 0 for signal in searches)
        fused = fuse(found, fusion, dense_weight=dense_weight, best=best, complete=complete["dense"])
        for id_, score in fused.items():
            if id_ not in scores:
                scores[id_] = score - step  # fused scores lie in 0..1
                for signal, candidates in found.items():
                    parts[signal].take(id_, candidates)
        if len(scores) >= k or exhausted:
            return scores, parts
        wanted, step = wanted * 2, step + 1


def best_possible(reader: IndexReader, text: str) -> dict[str, float]:
    """Return the highest score of each signal that anything can have as an answer to a text."""
    best = {"lexical": reader.words.best_score(text)}
    encoder = reader.manifest.encoder
    # Of vectors that are not of length 1, nobody knows how long the longest one is.
    return best | {"dense": 1.0} if encoder is not None and encoder.identity.normalized else best


def fuse(
    parts: Mapping[str, Candidates],
    fusion: str,
    *,
    dense_weight: float,
    best: Mapping[str, float] | None = None,
    complete: bool = False,
) -> dict[str, float]:
    """Return one ranking, best first, then by id.

    Args:
        parts: ``lexical``, ``dense`` or both.
        fusion: one of ``FUSIONS``; a single part keeps its scores.
        dense_weight: the share of ``dense``.
        best: the highest score that each signal can have for this query; that of its first one where it is
            not known.
        complete: whether ``dense`` has all that is there.
    """
    if len(parts) == 1:
        (only,) = parts.values()
        return dict(sorted(only.scores.items(), key=lambda item: (-item[1], item[0])))
    rankings = [parts["lexical"].scores, parts["dense"].scores]
    weights = [1 - dense_weight, dense_weight]
    if fusion == "bounded":
        known = best or {}
        highest = [
            known.get(signal, max(parts[signal].scores.values(), default=0.0))
            for signal in ("lexical", "dense")
        ]
        # Words have nothing at 0. In meaning, the last of many that were found says nothing either; where
        # all are there, none of them says nothing.
        farthest = min([*parts["dense"].scores.values(), highest[1]])
        lowest = [0.0, min(farthest, 0.0) if complete else farthest]
        return bounded(rankings, list(zip(lowest, highest, strict=True)), weights=weights)
    if fusion == "min-max":
        return min_max(rankings, weights=weights)
    return reciprocal_rank(rankings, weights=weights)
