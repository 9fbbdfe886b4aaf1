"""What training texts have in common with what a model is going to be measured on.

Runs of words are compared as some collections are handed on: without function words and numbers, in lower
case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.evaluation.datasets import EvaluationSet, named_set
from cmbert_retrieval.finetuning.data_recipe import OverlapRecipe
from cmbert_retrieval.finetuning.telegrams import telling_words
from cmbert_retrieval.pretraining.words import word_hashes

FEWEST_WORDS = 4
"""Questions with fewer are in many texts by chance."""

_NUMBER_WORD = "num"
"""What stands for a number in some collections."""

_PARTS = ("all", "judged", "questions")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(slots=True)
class SetSizes:
    """What of an evaluation set is looked for.

    Attributes:
        documents: of it.
        questions: of its test and validation parts.
        short: documents, titles and questions that have too few words to be looked for.
    """

    documents: int = 0
    questions: int = 0
    short: int = 0


@dataclass(slots=True)
class Overlaps:
    """Runs of words of evaluation sets, and what was found of them.

    Attributes:
        words: how many make a run, function words and numbers not counted.
        sets: the sets' names.
        sizes: set -> what of it is looked for.
        found: set -> texts with a run of it.
        copies: set -> documents that are one of its own.
    """

    words: int
    sets: list[str] = field(default_factory=list)
    sizes: dict[str, SetSizes] = field(default_factory=dict)
    found: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    _hashes: dict[int, NDArray[np.uint64]] = field(default_factory=dict)
    _owners: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    _titles: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, recipe: OverlapRecipe) -> Overlaps:
        """Return the runs of the sets that a recipe names.

        Raises:
            ConfigError: a set is not known, or no folder is named that it could be in.
            CorpusError: it is not there.
        """
        made = cls(recipe.words)
        if recipe.sets and not recipe.data:
            raise ConfigError("data.overlap names sets; say where they are: data.overlap.data")
        for name in recipe.sets:
            made._add(name, Path(recipe.data))
        return made

    def of_text(self, text: str) -> str | None:
        """Return the name of a set with which a text has a run of words in common, and count it there."""
        name = next((name for name, _ in self._hits(content_words(text))), None)
        if name is not None:
            self.found[name] += 1
        return name

    def of_document(self, title: str, text: str) -> str | None:
        """Return the name of a set of which this is a document, and count it there.

        It is one when its title is, or when it has twice as many words in a row in common with one as a run
        has: an article may say a sentence of another one, but not two.
        """
        words = content_words(title)
        name = self._titles.get(_whole(words)) if len(words) >= FEWEST_WORDS else None
        if name is None:
            hits = self._hits(content_words(text), least=self.words + 1)
            name = next((name for name, _ in hits), None)
        if name is not None:
            self.copies[name] += 1
        return name

    def _hits(self, words: Sequence[str], least: int = 1) -> Iterator[tuple[str, int]]:
        """Yield a set and the place of a run of it, where ``least`` runs follow each other."""
        hashed = word_hashes(list(words))
        for length, known in self._hashes.items():
            runs = _runs(hashed, length)
            if len(runs) < least or (least > 1 and length != self.words):
                continue
            places = np.searchsorted(known, runs).clip(max=len(known) - 1)
            matched = known[places] == runs
            if least > 1:
                counts = np.convolve(matched, np.ones(least, np.int64), "valid")
                hits = np.flatnonzero(counts == least)
            else:
                hits = np.flatnonzero(matched)
            if len(hits):
                yield self.sets[int(self._owners[length][places[hits[0]]])], int(hits[0])

    def _add(self, given: str, data: Path) -> None:
        name, _, part = given.partition(":")
        if part not in ("", *_PARTS):
            raise ConfigError(f"data.overlap.sets: '{given}': expected {name} or {name}:judged or :questions")
        sets = _splits(name, data)
        sizes = self.sizes[given] = SetSizes()
        self.sets.append(given)
        runs: dict[int, list[NDArray[np.uint64]]] = {}
        wanted = {document for one in sets for judged in one.qrels.values() for document in judged}
        if part != "questions":
            for record in sets[0].corpus.records():
                document = record.document
                if document is None or (part == "judged" and document.id not in wanted):
                    continue
                sizes.documents += 1
                title = content_words(document.title)
                if len(title) >= FEWEST_WORDS:
                    self._titles.setdefault(_whole(title), given)
                self._look_for(document.title, runs, sizes)
                self._look_for(document.text, runs, sizes)
        for text in {text for one in sets for text in one.queries.values()}:
            sizes.questions += 1
            self._look_for(text, runs, sizes)
        for length, found in runs.items():
            self._insert(length, np.unique(np.concatenate(found)))

    def _look_for(self, text: str, runs: dict[int, list[NDArray[np.uint64]]], sizes: SetSizes) -> None:
        """Take the runs of a text; a text with fewer words than a run is one as a whole."""
        words = content_words(text)
        length = min(len(words), self.words)
        if length >= FEWEST_WORDS:
            runs.setdefault(length, []).append(_runs(word_hashes(words), length))
        elif text.strip():
            sizes.short += 1

    def _insert(self, length: int, found: NDArray[np.uint64]) -> None:
        owner = len(self.sets) - 1
        hashes = np.concatenate([self._hashes.get(length, np.empty(0, np.uint64)), found])
        owners = np.concatenate(
            [self._owners.get(length, np.empty(0, np.uint8)), np.full(len(found), owner, np.uint8)]
        )
        order = np.argsort(hashes, kind="stable")
        self._hashes[length], self._owners[length] = hashes[order], owners[order]


def content_words(text: str) -> list[str]:
    """Return the words of a text that say something: no function words, nothing with a digit in it."""
    return [word for word in telling_words(text) if word != _NUMBER_WORD and not any(map(str.isdigit, word))]


def _splits(name: str, data: Path) -> list[EvaluationSet]:
    """Return the parts of a set that a model is measured or tuned on."""
    found = [named_set(name, data, split="test")]
    with suppress(ConfigError):  # not every set has one
        found.append(named_set(name, data, split="validation"))
    return found


def _whole(words: Sequence[str]) -> int:
    return int(_runs(word_hashes(list(words)), len(words))[0])


def _runs(hashed: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """Return a hash for every run of so many words."""
    count = len(hashed) - length + 1
    if count < 1:
        return np.empty(0, np.uint64)
    made = np.zeros(count, np.uint64)
    with np.errstate(over="ignore"):
        for place in range(length):
            made = made * _MULTIPLIER + hashed[place : place + count]
    return made
