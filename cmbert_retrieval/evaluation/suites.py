"""Suites: YAML files that say which systems are measured on which sets, and by what."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.evaluation import datasets
from cmbert_retrieval.evaluation.datasets import EvaluationSet
from cmbert_retrieval.evaluation.measures import DEFAULT_MEASURES
from cmbert_retrieval.recipe_files import Section, did_you_mean, overridden, read_yaml, validated


class SetRecipe(Section):
    """A set: a named one by its name alone, a BEIR folder, or files. Paths are relative to the data."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """Fit for a folder."""

    beir: str = ""
    """A BEIR folder; then ``corpus``, ``queries`` and ``qrels`` stay empty."""

    corpus: str = ""
    """``READER:PATH``, or a path whose reader can be told from its name."""

    queries: str = ""
    """JSON lines with ``_id`` (or ``id``) and ``text``, or TREC topics."""

    topics: list[str] = Field(default=["title"], min_length=1)
    """The parts of TREC topics that are asked: ``query`` of TREC-COVID, ``summary``, ``description``, ..."""

    qrels: str = ""
    """TREC's four columns, or BEIR's three."""

    license: str = ""
    """Of documents and judgements."""

    about: str = ""
    """One line: what is looked for in what."""

    @model_validator(mode="after")
    def _one_way(self) -> SetRecipe:
        files = [self.corpus, self.queries, self.qrels]
        if (self.beir and any(files)) or (any(files) and not all(files)):
            raise ValueError(f"set '{self.name}': give beir, or corpus, queries and qrels")
        return self


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


class SystemRecipe(Section):
    """A system that is measured: a way to search an index of ours, or a library that is compared with it."""

    mode: Literal["hybrid", "dense", "lexical"] | None = None
    """How an index of ours is searched."""

    encoder: str | None = None
    """The encoder of the index: a hub id, a bundled name or a folder. null: the default one."""

    max_tokens: int | None = Field(default=None, ge=3)
    """Tokens that the encoder of the index reads of a text. null: as many as it does by itself."""

    index: list[str] = Field(default_factory=list)
    """Recipe settings of its index, ``section.key=value`` each; they come after the set's and the suite's."""

    baseline: Literal["bm25s", "sentence-transformers"] | None = None
    """What is compared, as its users would run it: ``bm25s``, or an encoder in fp32 with exact search."""

    stemmer: str = ""
    """Of bm25s: the language of a Snowball stemmer; "" for none."""

    k1: float = Field(default=1.5, ge=0)
    """Of bm25s; its own default."""

    b: float = Field(default=0.75, ge=0, le=1)
    """Of bm25s; its own default."""

    trained_on: list[str] | None = None
    """Sets (of ours, by name) that the encoder has seen in training. null: its makers do not say."""

    tolerance: float = Field(default=0.005, ge=0)
    """How far a score may lie from the expected one: int8 differs from processor to processor."""

    @model_validator(mode="after")
    def _one_way(self) -> SystemRecipe:
        if (self.mode is None) == (self.baseline is None):
            raise ValueError("a system has either 'mode' (an index of ours) or 'baseline'")
        if self.baseline is not None and (self.index or self.max_tokens is not None):
            raise ValueError("'index' and 'max_tokens' are of an index of ours; a baseline has none")
        return self

    @property
    def learned(self) -> bool:
        """Whether an encoder takes part."""
        return self.mode in ("dense", "hybrid") or self.baseline == "sentence-transformers"

    def trained_on_set(self, name: str) -> str:
        """Return whether the system was trained on a set: ``yes``, ``no`` or ``not stated``."""
        if not self.learned:
            return "no"
        if self.trained_on is None:
            return "not stated"
        return "yes" if name in self.trained_on else "no"


class SuiteRecipe(Section):
    """What is measured."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """The suite's name. Unless given: the file's."""

    about: str = ""
    """One line for people."""

    data: str = ""
    """The folder of evaluation sets, relative to this file; ``--data`` and ``CMBERT_DATA`` come first."""

    sets: list[Annotated[SetRecipe, BeforeValidator(_named)]] = Field(min_length=1)
    """Named sets (a name is enough), and others that are described here."""

    systems: dict[str, SystemRecipe] = Field(min_length=1)
    """Name -> system."""

    split: Literal["test", "validation", "train"] = "test"
    """The part of each set. Anything but ``test`` is for tuning."""

    measures: list[str] = Field(default_factory=lambda: list(DEFAULT_MEASURES), min_length=1)
    """By the names of ir-measures. The first is what is compared with expected scores."""

    k: int = Field(default=100, ge=1)
    """Documents a query that each system returns."""

    index: list[str] = Field(default_factory=list)
    """Recipe settings for all indexes, ``section.key=value`` each."""

    marks: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Set -> system -> the score that it is meant to reach. Shown beside what it does reach."""

    @model_validator(mode="after")
    def _names_fit(self) -> SuiteRecipe:
        for set_name in self.marks:
            if set_name not in self.set_names():
                raise ValueError(f"marks.{set_name}: no such set in this suite")
        return self

    def set_names(self) -> list[str]:
        """Return the names of the sets, in order."""
        return [one.name for one in self.sets]


def bundled_suites() -> list[str]:
    """Return the names of the suites that come with the package."""
    return sorted(path.stem for path in _bundled_folder().glob("*.yaml"))


def find_suite(suite: str | Path) -> Path:
    """Return the file of a suite: a path, or the name of a bundled one.

    Raises:
        ConfigError: there is none.
    """
    path = Path(suite).expanduser()
    if path.suffix not in (".yaml", ".yml") and len(path.parts) == 1:
        path = _bundled_folder() / f"{suite}.yaml"
    if path.is_file():
        return path
    beside = Path("eval", "suites", f"{suite}.yaml")
    if beside.is_file():
        raise ConfigError(f"{suite}: no bundled suite; did you mean {beside}?")
    known = bundled_suites()
    raise ConfigError(
        f"{suite}: no such suite; give a .yaml file, or a bundled one: {', '.join(known)}"
        f"{did_you_mean(str(suite), known)}"
    )


def load_suite(suite: str | Path, *, overrides: Sequence[str] = ()) -> SuiteRecipe:
    """Read a suite.

    Args:
        suite: a YAML file, or the name of a bundled suite (``smoke``).
        overrides: ``section.key=value`` each, as on the command line.

    Raises:
        ConfigError: there is no such suite, or something in it is wrong.
    """
    path = find_suite(suite)
    values = {"name": path.stem, **read_yaml(path)}
    return validated(SuiteRecipe, overridden(values, overrides), str(suite))


def data_folder(suite: str | Path, recipe: SuiteRecipe, given: str | Path | None = None) -> Path | None:
    """Return the folder of evaluation sets: as given, else ``CMBERT_DATA``, else what the suite says.

    Raises:
        ConfigError: a folder that was given does not exist.
    """
    named = given or os.environ.get("CMBERT_DATA")
    if named:
        folder = Path(named).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"{named}: no such folder; expected the folder of evaluation sets")
        return folder
    if not recipe.data:
        return None
    folder = find_suite(suite).resolve().parent / recipe.data
    return folder.resolve() if folder.is_dir() else None


def open_set(one: SetRecipe, data: Path | None, split: str) -> EvaluationSet:
    """Return a set of a suite with its queries and judgements read."""
    if not one.beir and not one.corpus:
        return datasets.named_set(one.name, data, split=split)
    base = data or Path()
    if one.beir:
        return datasets.beir_folder(base / one.beir, name=one.name, split=split)
    reader, colon, path = one.corpus.partition(":")
    corpus = f"{reader}:{base / path}" if colon else str(base / one.corpus)
    return datasets.from_files(
        one.name,
        corpus,
        base / one.queries,
        base / one.qrels,
        topics=one.topics,
        split=split,
        license=one.license,
        about=one.about,
    )


def _bundled_folder() -> Path:
    return Path(__file__).parents[1] / "recipes" / "suites"


def narrowed(suite: SuiteRecipe, only: Sequence[str]) -> SuiteRecipe:
    """Return a suite with only these sets and systems; where none of a kind is named, all of it stay.

    Raises:
        ConfigError: a name is neither a set nor a system of the suite.
    """
    names = suite.set_names()
    for name in only:
        if name not in names and name not in suite.systems:
            known = [*names, *suite.systems]
            raise ConfigError(
                f"'{name}' is no set or system of '{suite.name}'; "
                f"there is {', '.join(known)}{did_you_mean(name, known)}"
            )
    sets = [one for one in suite.sets if one.name in only] or suite.sets
    systems = {name: system for name, system in suite.systems.items() if name in only} or suite.systems
    marks = {name: marks for name, marks in suite.marks.items() if not only or name in only}
    return suite.model_copy(update={"sets": sets, "systems": systems, "marks": marks})
