"""Terms: the names of code systems and ontologies, and where they stand in a text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.pretraining.words import Words, find_words, singular, word_hashes

LONGEST = 8
"""Words of the longest term that is looked for."""

_FACTOR = np.uint64(0x9E3779B97F4A7C15)


class Lexicon:
    """A set of terms, kept as 64-bit hashes: half a million of them take 4 MB and are found at once."""

    def __init__(self, hashes: NDArray[np.uint64]) -> None:
        """Take the hashes of terms, in any order."""
        self.hashes = np.unique(hashes)

    @classmethod
    def from_terms(cls, terms: Iterable[str]) -> Lexicon:
        """Return a lexicon of terms as people write them, without those of more than ``LONGEST`` words."""
        found = []
        for term in terms:
            hashes = _folded_hashes(find_words(term))
            if 0 < len(hashes) <= LONGEST:
                found.append(_phrases(hashes, len(hashes))[0])
        return cls(np.array(found, dtype=np.uint64))

    @classmethod
    def load(cls, path: Path) -> Lexicon:
        """Return what ``save`` wrote."""
        return cls(np.load(path))

    def save(self, path: Path) -> None:
        """Write the hashes as a ``.npy`` file."""
        np.save(path, self.hashes)

    def __len__(self) -> int:
        """Return the number of terms; two that differ in case, plural or hyphens are one."""
        return len(self.hashes)

    def __contains__(self, term: str) -> bool:
        """Return whether a text, as a whole, is a term."""
        words = find_words(term)
        return [(0, len(words.texts))] == self.spans(words) and len(words.texts) > 0

    def spans(self, words: Words) -> list[tuple[int, int]]:
        """Return (first word, one past the last) of the terms in a text, the longest first, without overlap.

        Like a reader, it goes from left to right and takes the longest term that begins at a word.
        """
        hashes = _folded_hashes(words)
        longest = np.zeros(len(hashes), dtype=np.int64)
        unbroken = np.ones(len(hashes), dtype=bool)
        for size in range(1, min(LONGEST, len(hashes)) + 1):
            if size > 1:
                unbroken = unbroken[:-1] & words.joined[size - 1 :]
            if not unbroken.any():
                break
            known = unbroken & self._known(_phrases(hashes, size))
            longest[: len(known)][known] = size
        spans: list[tuple[int, int]] = []
        behind = 0
        for start in np.flatnonzero(longest).tolist():
            if start >= behind:
                behind = start + int(longest[start])
                spans.append((start, behind))
        return spans

    def _known(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        if not len(self.hashes):
            return np.zeros(len(hashes), dtype=bool)
        places = np.searchsorted(self.hashes, hashes).clip(max=len(self.hashes) - 1)
        known: NDArray[np.bool_] = self.hashes[places] == hashes
        return known


def _folded_hashes(words: Words) -> NDArray[np.uint64]:
    return word_hashes([singular(word) for word in words.texts])


def _phrases(hashes: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    """Return the hash of each run of ``size`` words."""
    count = len(hashes) - size + 1
    total = np.full(count, size, dtype=np.uint64)
    for place in range(size):
        total = total * _FACTOR + hashes[place : place + count]
    return total
