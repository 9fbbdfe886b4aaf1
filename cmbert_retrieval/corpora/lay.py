"""What people say and what clinicians write: a "broken hip" is a "fracture of hip".

The vocabulary works on both sides of a search: a code whose name is a clinical phrase is also found by what
people call it, and a phrase that somebody wrote is also searched in clinical words.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

VOCABULARY = Path(__file__).parent / "lay_terms.tsv"
MAX_RENDERINGS = 4

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
# They may stand anywhere in a phrase, and never tell two phrases apart.
_SKIPPED = frozenset("a an the my his her its our their your".split())

_Words = tuple[str, ...]


def renderings(phrase: str) -> list[str]:
    """Return what a phrase would be in clinical words; empty where the vocabulary knows nothing of it.

    The longest phrases are replaced first, and what the vocabulary does not know stays as it is. Each place
    that has two clinical renderings doubles the answers, up to ``MAX_RENDERINGS``.

    Args:
        phrase: what somebody wrote, in any letter case.
    """
    vocabulary, longest = _clinical()
    words = _WORD.findall(phrase)
    places = [place for place, word in enumerate(words) if word.casefold() not in _SKIPPED]
    folded = [_fold(words[place]) for place in places]
    choices: list[tuple[str, ...]] = []
    position, taken = 0, 0
    while position < len(folded):
        length = min(longest, len(folded) - position)
        while length and tuple(folded[position : position + length]) not in vocabulary:
            length -= 1
        if length:
            choices.append((" ".join(words[taken : places[position]]),))
            choices.append(vocabulary[tuple(folded[position : position + length])])
            taken = places[position + length - 1] + 1
        position += max(length, 1)
    if not choices:
        return []
    choices.append((" ".join(words[taken:]),))
    made = (" ".join(filter(None, parts)) for parts in itertools.product(*choices))
    same = key(phrase)
    return list(itertools.islice((text for text in made if key(text) != same), MAX_RENDERINGS))


def lay_names(name: str) -> list[str]:
    """Return what people call something of this clinical name; empty where nothing is known."""
    return list(_lay().get(key(name), ()))


def key(phrase: str) -> _Words:
    """Return the words by which phrases are compared: folded, without articles and possessives."""
    return tuple(_fold(word) for word in _WORD.findall(phrase) if word.casefold() not in _SKIPPED)


def _fold(word: str) -> str:
    """Return a word in lower case, without a possessive or plural ending."""
    word = word.casefold().replace("'", "").replace("’", "")
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


@functools.cache
def _pairs() -> tuple[tuple[str, str], ...]:
    lines = VOCABULARY.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("\t") for line in lines if line and not line.startswith("#"))
    return tuple((lay, clinical) for lay, _, clinical in pairs)


@functools.cache
def _clinical() -> tuple[Mapping[_Words, tuple[str, ...]], int]:
    """Return lay words -> clinical renderings, and the most words that a lay phrase has."""
    clinical: dict[_Words, tuple[str, ...]] = {}
    for lay, rendering in _pairs():
        words = key(lay)
        clinical[words] = (*clinical.get(words, ()), rendering)
    return MappingProxyType(clinical), max(map(len, clinical))


@functools.cache
def _lay() -> Mapping[_Words, tuple[str, ...]]:
    lay: dict[_Words, tuple[str, ...]] = {}
    for name, clinical in _pairs():
        words = key(clinical)
        if key(name) != words:
            lay[words] = (*lay.get(words, ()), name)
    return MappingProxyType(lay)
