"""From a text and its tokens to the mark of each token: words, terms and salience put together."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.pretraining.lexicon import Lexicon
from cmbert_retrieval.pretraining.salience import Salience
from cmbert_retrieval.pretraining.weights import pack_marks, salience_levels
from cmbert_retrieval.pretraining.words import find_words

_PLACEHOLDER = re.compile(r"_{2,}")
"""What MIMIC writes where something was taken out: there is nothing to be learnt from guessing it."""


@dataclass(frozen=True, slots=True)
class Marker:
    """Marks the tokens of a text.

    Attributes:
        lexicon: the terms, each drawn as a whole; None for words alone.
        salience: the log-odds of words; None for words that are all alike.
    """

    lexicon: Lexicon | None = None
    salience: Salience | None = None

    def mark(self, text: str, offsets: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Return a byte a token, as ``pack_marks`` packs it.

        Args:
            text: the text as it was tokenised.
            offsets: ``[tokens, 2]``, first character and one past the last of each token; a blank before the
                word may be part of it.
        """
        words = find_words(text)
        count = len(words.texts)
        # The unit of each word is its first word's number: its own, or that of the term that it is part of.
        units, terms = np.arange(count), np.zeros(count, dtype=bool)
        odds: NDArray[np.floating] = np.zeros(count)
        if self.salience is not None:
            odds = self.salience.log_odds(words.texts)
        for start, end in self.lexicon.spans(words) if self.lexicon is not None else ():
            units[start:end], terms[start:end] = start, True
            odds[start:end] = odds[start:end].mean()
        return self._pack(text, offsets, words.starts, words.ends, units, terms, salience_levels(odds))

    def _pack(
        self,
        text: str,
        offsets: NDArray[np.integer],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        units: NDArray[np.int64],
        terms: NDArray[np.bool_],
        levels: NDArray[np.uint8],
    ) -> NDArray[np.uint8]:
        # One more word that stands behind everything, for what comes after the last and before the first.
        units, terms = np.append(units, -1), np.append(terms, False)
        levels = np.append(levels, salience_levels(np.zeros(1)))
        token_ends = offsets[:, 1]
        # A token belongs to the word that its last character stands in.
        word = np.searchsorted(starts, token_ends - 1, side="right") - 1
        within = (word >= 0) & (token_ends <= np.append(ends, 0)[word])
        # A hyphen inside of a term belongs to it; any other sign is a unit of its own.
        joint = (
            ~within & (word >= 0) & terms[word] & (units[word] == units[np.minimum(word + 1, len(starts))])
        )
        alone = ~within & ~joint
        token_units = np.where(alone, len(starts) + np.arange(len(offsets)), units[word])
        token_levels = np.where(alone, levels[-1], levels[word])
        for match in _PLACEHOLDER.finditer(text):
            token_levels[(offsets[:, 0] < match.end()) & (token_ends > match.start())] = 0
        return pack_marks(token_levels, token_units, np.where(alone, False, terms[word]))
