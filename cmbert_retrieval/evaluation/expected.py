"""Expected scores: one YAML file a suite, compared with what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import Field

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.evaluation.harness import Results
from cmbert_retrieval.evaluation.suites import SuiteRecipe, find_suite
from cmbert_retrieval.recipe_files import Section, read_yaml, validated
from cmbert_retrieval.storage import atomic_file

_CLOSE = 3
"""Up to this many tolerances off is ``close``."""


class ExpectedScore(Section):
    """One score."""

    set: str
    system: str
    queries: int = Field(ge=1)
    score: float
    tolerance: float = Field(ge=0)
    trained_on_set: str
    mark: float | None = None
    """What it is meant to reach, where something was promised."""


class Expected(Section):
    """The scores of a suite."""

    suite: str
    about: str = ""
    measure: str
    command: str
    """What measures and compares them."""

    scores: list[ExpectedScore]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of a comparison.

    Attributes:
        word: ``ok``, ``close`` or ``FAIL``.
        set: the set's name.
        system: the system's name.
        got: the measured score; None where it was not measured.
        expected: the expected score; None where none is.
        tolerance: how far they may lie apart.
    """

    word: str
    set: str
    system: str
    got: float | None
    expected: float | None
    tolerance: float

    def line(self, measure: str) -> str:
        """Return the verdict as one line."""
        got = "not measured" if self.got is None else f"{measure} {self.got:.4f}"
        if self.expected is None:
            wanted = "nothing is expected: --accept writes it down"
        else:
            wanted = f"expected {self.expected:.4f} ± {self.tolerance:g}"
        return f"{self.word:<5}  {self.set}  {self.system}  {got}, {wanted}"


def expected_file(suite: str | Path) -> Path:
    """Return where the expected scores of a suite stand: ``expected/`` beside the suite's folder."""
    path = find_suite(suite).resolve()
    return path.parent.parent / "expected" / path.name


def load_expected(path: Path) -> Expected:
    """Read a file of expected scores.

    Raises:
        ConfigError: it is not there, or something in it is wrong.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no expected scores there; --accept writes what was measured")
    return validated(Expected, read_yaml(path), str(path))


def narrowed(expected: Expected, suite: SuiteRecipe) -> Expected:
    """Return what is expected of the sets and systems that are left in a suite."""
    names = suite.set_names()
    scores = [one for one in expected.scores if one.set in names and one.system in suite.systems]
    return expected.model_copy(update={"scores": scores})


def compare(results: Results, expected: Expected) -> list[Verdict]:
    """Return a verdict for each expected score of what was measured, and for each score without one.

    ``ok`` lies within the tolerance, ``close`` within three of them or above, ``FAIL`` is anything else: a
    lower score, or one that was not measured.
    """
    measured = {(score.set, score.system): score.values for score in results.scores}
    verdicts = []
    for wanted in expected.scores:
        values = measured.pop((wanted.set, wanted.system), None)
        got = None if values is None else values.get(expected.measure)
        verdicts.append(
            Verdict(_word(got, wanted), wanted.set, wanted.system, got, wanted.score, wanted.tolerance)
        )
    for (set_name, system), values in measured.items():
        verdicts.append(Verdict("FAIL", set_name, system, values.get(expected.measure), None, 0))
    return verdicts


def _word(got: float | None, wanted: ExpectedScore) -> str:
    if got is None:
        return "FAIL"
    # What is written down has four digits.
    off = round(got, 4) - wanted.score
    if abs(off) <= wanted.tolerance + 1e-9:
        return "ok"
    return "close" if off > -_CLOSE * wanted.tolerance - 1e-9 else "FAIL"


def accept(path: Path, suite: SuiteRecipe, results: Results, *, command: str) -> Expected:
    """Write what was measured down as what is expected, with the suite's tolerances and marks.

    Args:
        path: the file; it is written anew. Scores of it that were not measured this time stay.
        suite: the whole of it.
        results: what was measured.
        command: what measures it again.

    Raises:
        ConfigError: a score was not measured, and the file has none of it.
    """
    measure = suite.measures[0]
    pairs = [(name, system) for name in suite.set_names() for system in suite.systems]
    known: dict[tuple[str, str], tuple[int, float]] = {}
    if path.is_file() and len(results.scores) < len(pairs):
        known = {(one.set, one.system): (one.queries, one.score) for one in load_expected(path).scores}
    for score in results.scores:
        known[score.set, score.system] = score.queries, round(score.values[measure], 4)
    scores = []
    for name, system in pairs:
        if (name, system) not in known:
            raise ConfigError(
                f"{path}: has no score of '{system}' on '{name}', which was not measured; leave --only out"
            )
        queries, value = known[name, system]
        scores.append(
            ExpectedScore(
                set=name,
                system=system,
                queries=queries,
                score=value,
                tolerance=suite.systems[system].tolerance,
                trained_on_set=suite.systems[system].trained_on_set(name),
                mark=suite.marks.get(name, {}).get(system),
            )
        )
    expected = Expected(suite=suite.name, about=suite.about, measure=measure, command=command, scores=scores)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"# What {command} has to come to. Written by the same command with --accept.\n"
    with atomic_file(path) as file:
        file.write((head + _as_yaml(expected)).encode())
    return expected


def _as_yaml(expected: Expected) -> str:
    values = expected.model_dump(exclude_none=True)
    rows: Sequence[dict[str, object]] = values.pop("scores")
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100) + "scores:\n"
    for row in rows:  # a line each: they are read, and compared in version control
        flow = yaml.safe_dump(row, default_flow_style=True, sort_keys=False, width=1000).strip()
        text += f"- {flow}\n"
    return text
