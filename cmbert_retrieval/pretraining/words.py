"""Words as masking sees them: runs of letters and digits, their hashes, what may stand inside of a term."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"[^\W_]+")
_JOINTS = frozenset(" -\u2010\u2011\u2013/'\u2019\n\t\u00a0")
"""What may stand, once, between two words of one term: "non-small cell", "Crohn's disease"."""


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a text.

    Attributes:
        texts: in lower case.
        starts: ``[words]``, first characters.
        ends: ``[words]``, one past the last characters.
        joined: ``[words]``, whether a term may go on from the word before to this one.
    """

    texts: list[str]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    joined: NDArray[np.bool_]


def find_words(text: str) -> Words:
    """Return the words of a text with their places."""
    found = [match.span() for match in _WORD.finditer(text)]
    places = np.array(found, dtype=np.int64).reshape(-1, 2)
    starts, ends = places[:, 0], places[:, 1]
    joined = np.zeros(len(found), dtype=bool)
    for word in np.flatnonzero(starts[1:] == ends[:-1] + 1) + 1:
        joined[word] = text[starts[word] - 1] in _JOINTS
    lowered = text.lower()
    # A few letters change their length in lower case; places are those of the text as it stands.
    source = lowered if len(lowered) == len(text) else text
    return Words([source[start:end].lower() for start, end in found], starts, ends, joined)


def lower_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without their places."""
    return _WORD.findall(text.lower())


@lru_cache(maxsize=1 << 20)
def word_hash(word: str) -> int:
    """Return 64 bits that stand for a word, the same in every process."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def word_hashes(words: list[str]) -> NDArray[np.uint64]:
    """Return ``[words]``: the hash of each."""
    return np.fromiter(map(word_hash, words), dtype=np.uint64, count=len(words))


def singular(word: str) -> str:
    """Return a word without the s of a plural: terms are listed in the singular, and used in both."""
    if len(word) > 3 and word[-1] == "s" and word[-2] not in "sui":
        return word[:-1]
    return word
