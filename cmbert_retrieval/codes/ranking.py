"""Codes ranked for phrases.

Names of codes are short, and a phrase mostly says a whole name in other words. So two names are compared as
wholes: by the angle between their vectors, and by the words that they share against those that only one of
them has. Both lie in 0..1 for every candidate, whichever signal found it, and equal names reach 1 in both:
nothing comes before what was meant literally. BM25 only finds candidates here: it does not see what a name
says beyond the phrase, and stretching it to 0..1 makes the best of bad answers look perfect.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.corpora.code_names import spoken
from cmbert_retrieval.corpora.lay import renderings
from cmbert_retrieval.indexes.queries import as_texts, check_search
from cmbert_retrieval.indexes.ranking import Candidates

if TYPE_CHECKING:
    from cmbert_retrieval.indexes.filters import Filter
    from cmbert_retrieval.retriever import Retriever

# Chosen on development data, see benchmarks/codes.py.
_BEYOND = 0.35
"""How much a word that only the name has counts, against one that only the phrase has."""

_RENDERED = 0.98
"""A phrase in clinical words is a reading of it: literal equality comes before."""

_RESIDUAL = 0.01
"""What a name for the rest ("Other ...") loses, unless the phrase asks for the rest."""

_OPEN_ENDED = 0.01
"""What a code at the end of the tree gains when the phrase says that it leaves something open ("NOS")."""


@dataclass(frozen=True, slots=True)
class RankedCode:
    """A code's best name for a phrase.

    Attributes:
        id: the code.
        row: the row of the name.
        score: 0..1, higher is better.
    """

    id: str
    row: int
    score: float


@dataclass(frozen=True, slots=True)
class _Reading:
    """A phrase in the words of its author, or in clinical words."""

    text: str
    vector: NDArray[np.float32] | None
    factor: float


def rank_phrases(
    retriever: Retriever,
    phrases: Sequence[str],
    k: int,
    *,
    mode: str | None = None,
    where: Filter | None = None,
) -> list[list[RankedCode]]:
    """Return the best ``k`` codes for each phrase, by score, then code.

    Args:
        retriever: an open index of codes.
        phrases: what people wrote.
        k: codes per phrase.
        mode: ``hybrid``, ``dense`` or ``lexical``; None for the index's own.
        where: only codes that pass.

    Raises:
        ConfigError: an unknown mode, ``k`` out of bounds, or a phrase that is no valid text.
        IndexMismatchError: meaning is asked of an index of words only, or the encoder is not the index's.
    """
    settings = retriever.manifest.recipe["search"]
    mode = check_search(retriever.manifest, k, mode)
    phrases = as_texts(phrases)
    weight = {"lexical": 0.0, "dense": 1.0, "hybrid": settings["dense_weight"]}[mode]
    readings = _read(retriever, phrases, encoded=mode != "lexical")
    ranker = _Ranker(retriever, k, mode, where)
    return [ranker.rank(phrase, found, weight) for phrase, found in zip(phrases, readings, strict=True)]


def _read(retriever: Retriever, phrases: Sequence[str], *, encoded: bool) -> list[list[_Reading]]:
    """Return the readings of each phrase, the literal one first; none of a blank one."""
    texts: list[list[str]] = []
    for phrase in phrases:
        # "NOS" and ", unspecified" are not in the names that are indexed.
        literal = spoken(phrase) or phrase.strip()
        texts.append([literal, *renderings(literal)] if literal else [])
    vectors: dict[str, NDArray[np.float32]] = {}
    if encoded and any(texts):
        unique = list(dict.fromkeys(text for forms in texts for text in forms))
        vectors = dict(zip(unique, retriever.encode_queries(unique), strict=True))
    return [
        [_Reading(text, vectors.get(text), _RENDERED if place else 1.0) for place, text in enumerate(forms)]
        for forms in texts
    ]


def shares_words(retriever: Retriever, phrase: str) -> bool:
    """Tell whether any name in the index has a word of a phrase, as it is or put into clinical words."""
    (readings,) = _read(retriever, [phrase], encoded=False)
    return any(len(retriever.reader.search_words(reading.text, 1)[1]) for reading in readings)


class _Ranker:
    def __init__(self, retriever: Retriever, k: int, mode: str, where: Filter | None) -> None:
        self._reader = retriever.reader
        self._retriever = retriever
        self._k = k
        self._depth: int = retriever.manifest.recipe["search"]["depth"]
        self._mode = mode
        self._where = where
        self._rarities: dict[str, float] = {}

    def rank(self, phrase: str, readings: Sequence[_Reading], weight: float) -> list[RankedCode]:
        """Return the best ``k`` codes; the first of them are the same for any larger ``k``.

        So the candidates cannot depend on ``k``: those of ``depth`` rows are ranked, and where they are too
        few, what twice as many rows bring comes behind them.
        """
        best: list[RankedCode] = []
        depth = self._depth
        while True:
            parents, exhausted = self._candidates(readings, depth)
            known = {code.id for code in best}
            fresh = {row: code for row, code in parents.items() if code not in known}
            if fresh:
                codes = self._compared(readings, weight, fresh)
                worst = best[-1].score if best else math.inf
                best += [
                    replace(code, score=min(code.score, worst))
                    for code in self._adjusted(phrase, codes, self._k - len(best))
                ]
            if len(best) >= self._k or exhausted:
                return best
            depth *= 2

    def _compared(
        self, readings: Sequence[_Reading], weight: float, parents: Mapping[int, str]
    ) -> list[RankedCode]:
        """Return the codes of these rows by how much their best name is like the phrase."""
        rows = np.fromiter(parents, dtype=np.int64)
        scores = np.full(len(rows), -np.inf)
        names = (
            [frozenset(self._reader.words.terms(text)) for text in self._texts(rows)] if weight < 1 else []
        )
        vectors = _unit(self._reader.vectors(rows).astype(np.float32)) if weight > 0 else None
        for reading in readings:
            score = np.zeros(len(rows))
            if weight < 1:
                score += (1 - weight) * self._shared_words(reading.text, names)
            if vectors is not None and reading.vector is not None:
                score += weight * np.clip(vectors @ _unit(reading.vector), 0, 1)
            scores = np.maximum(scores, reading.factor * score)
        best: dict[str, RankedCode] = {}
        for place in np.lexsort((rows, -scores)).tolist():
            row = int(rows[place])
            best.setdefault(parents[row], RankedCode(parents[row], row, float(scores[place])))
        return list(best.values())

    def _candidates(self, readings: Sequence[_Reading], depth: int) -> tuple[dict[int, str], bool]:
        """Return row -> code of the best names by words and by meaning, and whether there are no more."""
        rows: dict[int, str] = {}
        exhausted = True
        for reading in readings:
            searches = []
            if self._mode != "dense":
                searches.append(partial(self._reader.search_words, reading.text, where=self._where))
            if reading.vector is not None:
                searches.append(partial(self._reader.search_vectors, reading.vector, where=self._where))
            for search in searches:
                ranked = search(depth)
                exhausted &= len(ranked[1]) < depth
                found = Candidates.of(self._reader, ranked, group=True)
                rows.update((row, code) for code, row in found.rows.items())
        return rows, exhausted

    def _texts(self, rows: NDArray[np.int64]) -> list[str]:
        texts = self._reader.texts(rows)
        return [texts[row] for row in rows.tolist()]

    def _shared_words(self, text: str, names: Sequence[frozenset[str]]) -> NDArray[np.float64]:
        """Return for each name the share of what it has in common with a text, rare words counting more.

        Source:
            Tversky, "Features of similarity", Psychological Review 84 (1977).
        """
        wanted = frozenset(self._reader.words.terms(text))
        whole = self._weight(wanted)
        similarities = np.zeros(len(names))
        for place, name in enumerate(names):
            common = wanted & name
            if common:
                shared = self._weight(common)
                similarities[place] = shared / (whole + _BEYOND * self._weight(name - common))
        return similarities

    def _weight(self, terms: Iterable[str]) -> float:
        total = 0.0
        for term in sorted(terms):  # sums of floats depend on their order, and sets have none
            rarity = self._rarities.get(term)
            if rarity is None:
                rarity = self._rarities[term] = self._reader.words.rarity(term)
            total += rarity
        return total

    def _adjusted(self, phrase: str, codes: Sequence[RankedCode], k: int) -> list[RankedCode]:
        """Return the best ``k`` codes after a look at what kind of code each is."""
        open_ended = bool(spoken(phrase)) and spoken(phrase).casefold() != phrase.strip().casefold()
        rest = "other" in phrase.casefold()
        most = _OPEN_ENDED if open_ended else 0.0
        adjusted: list[RankedCode] = []
        best: list[float] = []  # a heap of the best k scores
        for code in codes:
            if len(best) == k and code.score + most < best[0]:
                break  # neither this one nor any behind it can come so far
            _, document = self._reader.row(code.row)
            score = code.score
            if document.title.startswith("Other") and not rest:
                score -= _RESIDUAL
            if open_ended and document.metadata.get("kind") == "code":
                score += _OPEN_ENDED
            adjusted.append(RankedCode(code.id, code.row, score))
            heapq.heappush(best, score)
            if len(best) > k:
                heapq.heappop(best)
        return sorted(adjusted, key=lambda code: (-code.score, code.id))[:k]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the vectors with unit length; encoders may leave them as they are."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)
