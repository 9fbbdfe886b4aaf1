"""What training texts have in common with what a model is going to be measured on.

Runs of words are compared as some collections are handed on: without function words and numbers, in lower
case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.errors import ConfigError, CorpusError
from cmbert_retrieval.evaluation.datasets import EvaluationSet, named_set
from cmbert_retrieval.finetuning.recipe import OverlapRecipe
from cmbert_retrieval.pretraining.words import lower_words, word_hashes

FEWEST_WORDS = 4
"""Questions with fewer are in many texts by chance."""

_FUNCTION_WORDS = frozenset(
    """
    a about above according across after again against all almost alone along already also although always
    among an and another any anyone anything are aren around as at be became because become becomes been
    before behind being below beside besides between beyond both but by can cannot could couldn despite did
    didn do does doesn doing don done down due during each either else enough even ever every few first for
    from further furthermore get given had hadn has hasn have haven having he hence her here hers herself him
    himself his how however i if in indeed instead into is isn it its itself just last least less like made
    make many may me might mightn more moreover most mostly much must mustn my myself namely need needn
    neither never nevertheless next no nobody none nor not nothing now of off often on once one only onto or
    other others otherwise our ours ourselves out over own per perhaps please quite rather re regarding
    respectively s same second several shall shan she should shouldn since so some somehow someone something
    sometimes still such t than that the their theirs them themselves then there thereby therefore these they
    third this those though three through throughout thus to together too toward towards two under unless
    until up upon us using various very via vs was wasn we well were weren what whatever when where whereas
    whereby wherein whether which while who whoever whole whom whose why will with within without won would
    wouldn yet you your yours yourself yourselves
    """.split()
)
_NUMBER_WORD = "num"
"""What stands for a number in some collections."""

_PARTS = ("all", "judged", "questions")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(slots=True)
class Overlaps:
    """Runs of words of evaluation sets, and what was found of them.

    Attributes:
        words: how many make a run, function words and numbers not counted.
        sets: the sets' names.
        sizes: set -> documents, questions, and questions too short to be looked for.
        found: set -> texts with a run of it.
    """

    words: int
    sets: list[str] = field(default_factory=list)
    sizes: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    found: Counter[str] = field(default_factory=Counter)
    _hashes: dict[int, NDArray[np.uint64]] = field(default_factory=dict)
    _owners: dict[int, NDArray[np.uint8]] = field(default_factory=dict)

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
        hashed = word_hashes(content_words(text))
        for length, known in self._hashes.items():
            runs = _runs(hashed, length)
            if not len(runs):
                continue
            places = np.searchsorted(known, runs).clip(max=len(known) - 1)
            hits = np.flatnonzero(known[places] == runs)
            if len(hits):
                name = self.sets[int(self._owners[length][places[hits[0]]])]
                self.found[name] += 1
                return name
        return None

    def _add(self, given: str, data: Path) -> None:
        name, _, part = given.partition(":")
        if part not in ("", *_PARTS):
            raise ConfigError(f"data.overlap.sets: '{given}': expected {name} or {name}:judged or :questions")
        sets = list(_splits(name, data))
        questions = {text for one in sets for text in one.queries.values()}
        wanted = {document for one in sets for judged in one.qrels.values() for document in judged}
        texts: list[str] = []
        if part != "questions":
            records = (record.document for record in sets[0].corpus.records())
            texts = [
                f"{document.title}\n{document.text}"
                for document in records
                if document is not None and (part != "judged" or document.id in wanted)
            ]
        short = [text for text in questions if len(content_words(text)) < FEWEST_WORDS]
        self.sets.append(given)
        self.sizes[given] = len(texts), len(questions), len(short)
        self._insert(
            self.words, [*texts, *(text for text in questions if len(content_words(text)) >= self.words)]
        )
        for length in range(FEWEST_WORDS, self.words):
            self._insert(length, (text for text in questions if len(content_words(text)) == length))

    def _insert(self, length: int, texts: Iterable[str]) -> None:
        new = [_runs(word_hashes(content_words(text)), length) for text in texts]
        found = np.unique(np.concatenate(new)) if new else np.empty(0, np.uint64)
        if not len(found):
            return
        hashes = np.concatenate([self._hashes.get(length, np.empty(0, np.uint64)), found])
        owners = np.concatenate(
            [
                self._owners.get(length, np.empty(0, np.uint8)),
                np.full(len(found), len(self.sets) - 1, np.uint8),
            ]
        )
        order = np.argsort(hashes, kind="stable")
        self._hashes[length], self._owners[length] = hashes[order], owners[order]

    def rows(self) -> Iterator[tuple[str, int, int, int, int]]:
        """Yield for each set: name, documents, questions, those too short, texts that were found."""
        for name in self.sets:
            yield name, *self.sizes[name], self.found[name]


def content_words(text: str) -> list[str]:
    """Return the words of a text that say something: no function words, nothing with a digit in it."""
    return [
        word
        for word in lower_words(text)
        if word not in _FUNCTION_WORDS and word != _NUMBER_WORD and not any(map(str.isdigit, word))
    ]


def _splits(name: str, data: Path) -> Iterator[EvaluationSet]:
    """Yield the parts of a set that a model is measured or tuned on."""
    yield named_set(name, data, split="test")
    try:
        yield named_set(name, data, split="validation")
    except (ConfigError, CorpusError):
        return  # it has none


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
