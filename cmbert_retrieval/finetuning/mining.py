"""Negatives: texts that are near an anchor and do not answer it, found by searching all positives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
        own: of them the positive itself, another right answer, the anchor's text, or from the same document.
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

    def add(self, other: MiningReport) -> None:
        """Add the counts of other pairs."""
        for name in MiningReport.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class _Pool:
    """The positives of all pairs, each once."""

    def __init__(self, pairs: Sequence[MinedPair]) -> None:
        self.texts: list[str] = []
        self.first: list[int] = []  # the pair that has it first
        self.row: list[int] = []  # of each pair's positive
        self.documents: list[set[str]] = []
        self.right: dict[str, set[int]] = defaultdict(set)
        """Folded anchor -> the rows that answer it, and the one that it is itself."""
        known: dict[str, int] = {}
        for place, pair in enumerate(pairs):
            row = known.setdefault(_folded(pair.positive), len(self.texts))
            if row == len(self.texts):
                self.texts.append(pair.positive)
                self.first.append(place)
                self.documents.append(set())
            self.row.append(row)
            self.documents[row].add(pair.document)
            self.right[_folded(pair.anchor)].add(row)
        for anchor, rows in self.right.items():
            if anchor in known:
                rows.add(known[anchor])


def mine(
    pairs: Sequence[MinedPair],
    recipe: NegativesRecipe,
    encoder: Encoder,
    *,
    notify: Callable[[int], None] = lambda count: None,
) -> tuple[NDArray[np.int32], MiningReport]:
    """Return ``[pairs, count]``, the pairs whose positives are negatives of each; -1 where there are fewer.

    All positives are indexed; words and vectors each give their first answers to an anchor, in turns. An
    answer is passed over when it is the anchor's own text, when it is right for this anchor in any pair, when
    it is from the positive's document, or when its cosine to the anchor is more than ``recipe.margin`` times
    that of the positive, as it may be another right answer then.

    Args:
        pairs: of one source, or of several that ask alike; all are held in memory.
        recipe: how many, from where.
        encoder: searches, and decides what is too near.
        notify: told how many more pairs are done.

    Source:
        the margin is that of "positive-aware" mining: Moreira et al., "NV-Retriever", 2024 (TopK-PercPos).
    """
    report = MiningReport(pairs=len(pairs))
    pool = _Pool(pairs)
    found = np.full((len(pairs), recipe.count), -1, np.int32)
    documents = (Document(str(row), text) for row, text in enumerate(pool.texts))
    deep = recipe.top + recipe.skip
    with Retriever.from_documents(documents, encoder=encoder, overrides=["passages=none"]) as retriever:
        vectors = _unit(encoder.encode_document(pool.texts))
        for start in range(0, len(pairs), _BLOCK):
            block = pairs[start : start + _BLOCK]
            asked = _unit(encoder.encode_query([pair.anchor for pair in block]))
            queries = {str(place): pair.anchor for place, pair in enumerate(block)}
            runs = [retriever.run(queries, k=deep, mode=mode) for mode in recipe.modes]
            for place, pair in enumerate(block):
                ranked = [[int(id_) for id_ in run[str(place)]][recipe.skip :] for run in runs]
                limit = np.inf
                if recipe.margin is not None:
                    limit = recipe.margin * float(vectors[pool.row[start + place]] @ asked[place])
                chosen: list[int] = []
                for row in _in_turns(ranked):
                    if len(chosen) == recipe.count:
                        break
                    report.looked_at += 1
                    if row in pool.right[_folded(pair.anchor)] or pair.document in pool.documents[row]:
                        report.own += 1
                    elif float(vectors[row] @ asked[place]) > limit:
                        report.too_near += 1
                    else:
                        chosen.append(pool.first[row])
                found[start + place, : len(chosen)] = chosen
            notify(len(block))
    report.kept = int((found >= 0).sum())
    report.without = int((found[:, 0] < 0).sum())
    return found, report


def _in_turns(ranked: Sequence[Sequence[int]]) -> Iterator[int]:
    """Yield the first of each list, then the second of each, every row once."""
    seen: set[int] = set()
    for rows in zip_longest(*ranked):
        for row in rows:
            if row is not None and row not in seen:
                seen.add(row)
                yield row


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
