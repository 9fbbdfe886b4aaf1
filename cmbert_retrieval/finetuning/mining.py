"""Negatives: texts that are near an anchor and do not answer it, found by searching all positives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.finetuning.recipe import NegativesRecipe
from cmbert_retrieval.retriever import Retriever
from cmbert_retrieval.types import Document

_BLOCK = 2_048
"""Anchors that are searched for at once."""


class MinedPair(NamedTuple):
    """What mining knows of a pair.

    Attributes:
        anchor: what asks.
        positive: what answers.
        document: what the positive is from: its other texts are no negatives.
    """

    anchor: str
    positive: str
    document: str


@dataclass(slots=True)
class MiningReport:
    """What became of the answers that were looked at.

    Attributes:
        pairs: that negatives were looked for.
        looked_at: answers, over all pairs and modes.
        own: of them the positive itself, another right answer, or from the same document.
        too_near: nearer to the anchor than the margin allows.
        kept: taken as negatives.
        without: pairs without any.
    """

    pairs: int = 0
    looked_at: int = 0
    own: int = 0
    too_near: int = 0
    kept: int = 0
    without: int = 0

    def line(self) -> str:
        """Return the counts as a sentence."""
        return (
            f"{self.pairs:,} pairs: of {self.looked_at:,} answers {self.own:,} are right or from the "
            f"same document, {self.too_near:,} too near, {self.kept:,} taken; {self.without:,} pairs have "
            "none"
        )


@dataclass(slots=True)
class _Pool:
    """The positives of all pairs, each once."""

    texts: list[str] = field(default_factory=list)
    documents: list[set[str]] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    right: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    @classmethod
    def of(cls, pairs: Sequence[MinedPair]) -> _Pool:
        pool = cls()
        for pair in pairs:
            row = pool.rows.setdefault(pair.positive, len(pool.texts))
            if row == len(pool.texts):
                pool.texts.append(pair.positive)
                pool.documents.append(set())
            pool.documents[row].add(pair.document)
            pool.right[pair.anchor].add(row)
        return pool


def mine(
    pairs: Sequence[MinedPair],
    recipe: NegativesRecipe,
    encoder: Encoder,
    *,
    notify: Callable[[int], None] = lambda count: None,
) -> tuple[list[list[str]], MiningReport]:
    """Return negatives for every pair, and what became of the answers that were looked at.

    All positives are indexed; words and vectors each give their first answers to an anchor, in turns. An
    answer is passed over when it is right for this anchor in any pair, when it is from the positive's
    document, or when its cosine to the anchor is more than ``recipe.margin`` times that of the positive, as
    it may be another right answer then.

    Args:
        pairs: of one source, or of several that ask alike.
        recipe: how many, from where.
        encoder: searches, and decides what is too near.
        notify: told how many more pairs are done.

    Source:
        the margin is that of "positive-aware" mining: Moreira et al., "NV-Retriever", 2024 (TopK-PercPos).
    """
    report = MiningReport(pairs=len(pairs))
    pool = _Pool.of(pairs)
    documents = (Document(str(row), text) for row, text in enumerate(pool.texts))
    settings = ["passages=none"]
    found: list[list[str]] = []
    with Retriever.from_documents(documents, encoder=encoder, overrides=settings) as retriever:
        vectors = _unit(encoder.encode_document(pool.texts))
        for start in range(0, len(pairs), _BLOCK):
            block = pairs[start : start + _BLOCK]
            asked = _unit(encoder.encode_query([pair.anchor for pair in block]))
            queries = {str(place): pair.anchor for place, pair in enumerate(block)}
            runs = [retriever.run(queries, k=recipe.top + recipe.skip, mode=mode) for mode in recipe.modes]
            for place, pair in enumerate(block):
                ranked = [[int(id_) for id_ in run[str(place)]][recipe.skip :] for run in runs]
                chosen = _chosen(pair, pool, _in_turns(ranked), asked[place], vectors, recipe, report)
                found.append([pool.texts[row] for row in chosen])
            notify(len(block))
    report.kept = sum(map(len, found))
    report.without = sum(not negatives for negatives in found)
    return found, report


def _chosen(
    pair: MinedPair,
    pool: _Pool,
    candidates: Iterator[int],
    asked: NDArray[np.float32],
    vectors: NDArray[np.float32],
    recipe: NegativesRecipe,
    report: MiningReport,
) -> list[int]:
    limit = recipe.margin * float(vectors[pool.rows[pair.positive]] @ asked)
    chosen: list[int] = []
    for row in candidates:
        if len(chosen) == recipe.count:
            break
        report.looked_at += 1
        if row in pool.right[pair.anchor] or pair.document in pool.documents[row]:
            report.own += 1
        elif float(vectors[row] @ asked) > limit:
            report.too_near += 1
        else:
            chosen.append(row)
    return chosen


def _in_turns(ranked: Sequence[Sequence[int]]) -> Iterator[int]:
    """Yield the first of each list, then the second of each, every row once."""
    seen: set[int] = set()
    for rows in zip_longest(*ranked):
        for row in rows:
            if row is not None and row not in seen:
                seen.add(row)
                yield row


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
