"""What people say as clinicians write it: "broken hip" is a "fracture of hip"."""

from __future__ import annotations

import functools
import itertools
import re
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_RENDERINGS = 4
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
# They stand between the words of a phrase in any number, and never tell two phrases apart.
_SKIPPED = frozenset("a an the my his her its our their your".split())


def renderings(phrase: str) -> list[str]:
    """Return what a phrase would be in clinical words, in the order of likelihood; empty where nothing differs.

    The longest phrases of the vocabulary are replaced first, and all that it does not know stays as it is. Each
    place that has two clinical renderings doubles the answers, up to ``MAX_RENDERINGS``.

    Args:
        phrase: what somebody wrote, in any letter case.
    """
    vocabulary, longest = _vocabulary()
    words = _WORD.findall(phrase)
    places = [place for place, word in enumerate(words) if word.casefold() not in _SKIPPED]
    keys = [fold(words[place]) for place in places]
    choices: list[tuple[str, ...]] = []
    position, taken, changed = 0, 0, False
    while position < len(keys):
        for length in range(min(longest, len(keys) - position), 0, -1):
            known = vocabulary.get(tuple(keys[position : position + length]))
            if known is not None:
                break
        else:
            position += 1
            continue
        choices.append((" ".join(words[taken : places[position]]),))
        choices.append(known)
        position += length
        taken = places[position - 1] + 1
        changed = True
    if not changed:
        return []
    choices.append((" ".join(words[taken:]),))
    made = (" ".join(filter(None, parts)) for parts in itertools.product(*choices))
    return list(itertools.islice((text for text in made if text.casefold() != phrase.casefold()), MAX_RENDERINGS))


def fold(word: str) -> str:
    """Return a word as the vocabulary compares it: lower case, without a possessive or plural ending."""
    word = word.casefold().replace("'", "").replace("’", "")
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


@functools.cache
def _vocabulary() -> tuple[Mapping[tuple[str, ...], tuple[str, ...]], int]:
    """Return folded words -> clinical renderings, and the most words that a phrase has."""
    vocabulary: dict[tuple[str, ...], tuple[str, ...]] = {}
    text = files("cmbert_retrieval.codes").joinpath("lay_terms.tsv").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            lay, clinical = line.split("\t")
            key = tuple(fold(word) for word in _WORD.findall(lay) if word.casefold() not in _SKIPPED)
            vocabulary[key] = (*vocabulary.get(key, ()), clinical)
    return MappingProxyType(vocabulary), max(map(len, vocabulary))
