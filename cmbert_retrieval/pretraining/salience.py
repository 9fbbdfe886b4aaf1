"""Salience: how much more often a word stands in biomedical text than in English at large."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.errors import MissingExtraError
from cmbert_retrieval.pretraining.words import word_hashes

LIMIT = 4.0
"""Log-odds beyond this, to either side, count as this: sixteen times as often says enough."""

_RAREST = 1e-8
"""Share of a word that English does not have; its list goes down to one word in a hundred million."""

_PRIOR = 10.0


class Salience:
    """Base-2 log-odds of words, clipped at ``LIMIT``. A word that was not counted has none: 0."""

    def __init__(self, hashes: NDArray[np.uint64], log_odds: NDArray[np.floating]) -> None:
        """Take the hash and the log-odds of each word."""
        order = np.argsort(hashes)
        self._hashes, self._log_odds = hashes[order], log_odds[order].astype(np.float32)

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], general: Mapping[str, float]) -> Salience:
        """Compare counts with the shares of words in English at large.

        Ten are added to what was counted and to what was expected: a word that was seen a few times says
        little. Numbers say nothing.

        Args:
            counts: word, in lower case -> how often it stands in the corpus.
            general: word -> its share of English.

        Source:
            Monroe, Colaresi & Quinn, "Fightin' Words", Political Analysis 2008 (informative prior).
        """
        words = [word for word in counts if not word.isdigit()]
        total = max(1, sum(counts.values()))
        here = np.array([counts[word] for word in words], dtype=np.float64)
        there = np.array([max(general.get(word, 0.0), _RAREST) for word in words], dtype=np.float64)
        log_odds = np.log2((here + _PRIOR) / (there * total + _PRIOR))
        return cls(word_hashes(words), np.clip(log_odds, -LIMIT, LIMIT))

    @classmethod
    def load(cls, path: Path) -> Salience:
        """Return what ``save`` wrote."""
        table = np.load(path)
        return cls(table["word"], table["log_odds"])

    def save(self, path: Path) -> None:
        """Write a ``.npy`` file of (word hash, log-odds)."""
        table = np.empty(len(self._hashes), dtype=[("word", "<u8"), ("log_odds", "<f4")])
        table["word"], table["log_odds"] = self._hashes, self._log_odds
        np.save(path, table)

    def log_odds(self, words: list[str]) -> NDArray[np.float32]:
        """Return ``[words]``, between ``-LIMIT`` and ``LIMIT``."""
        hashes = word_hashes(words)
        if not len(self._hashes):
            return np.zeros(len(hashes), dtype=np.float32)
        places = np.searchsorted(self._hashes, hashes).clip(max=len(self._hashes) - 1)
        return np.where(self._hashes[places] == hashes, self._log_odds[places], np.float32(0))


def general_english() -> Mapping[str, float]:
    """Return the share of each word in English at large.

    Raises:
        MissingExtraError: the package ``wordfreq`` is not there.

    Source:
        Speer, "rspeer/wordfreq", v3.1: subtitles, news, books, web and more.
    """
    try:
        import wordfreq
    except ImportError:
        raise MissingExtraError.of(
            "weighing words against English at large", "wordfreq", "pretrain"
        ) from None
    shares: Mapping[str, float] = wordfreq.get_frequency_dict("en", wordlist="large")
    return shares


def count_words(counts: Counter[str], words: list[str], *, limit: int = 2_000_000) -> None:
    """Add words to counts; a table that outgrows ``limit`` loses the words that were seen once."""
    counts.update(words)
    if len(counts) > limit:
        for word in [word for word, count in counts.items() if count == 1]:
            del counts[word]
