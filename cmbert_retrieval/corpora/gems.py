"""General equivalence mappings (GEMs) of CMS: which codes of ICD-10 stand for one of ICD-9-CM, and back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cmbert_retrieval.corpora.code_files import Problem, text_lines
from cmbert_retrieval.corpora.files import existing
from cmbert_retrieval.errors import CorpusError

_LINE = re.compile(
    r"(?P<source>[0-9A-Z]{3,7})\s+(?P<target>[0-9A-Z]{3,7}|No[A-Za-z0-9]*)\s+(?P<flags>[01]{3}\d\d)"
)


@dataclass(frozen=True, slots=True)
class GemRow:
    """One line of a GEM file.

    Attributes:
        source: the code that is looked up, without its dot.
        target: the code that stands for it, without its dot; "" where there is none.
        approximate: the two do not mean quite the same.
        no_map: nothing stands for the source.
        combination: the target stands for the source together with others of the same scenario.
        scenario: number of the variation of a combination, 0 without one.
        choice_list: from which list of the scenario the target is, 0 without one. A combination takes one
            code from every list.
        line: the line's number.
    """

    source: str
    target: str
    approximate: bool
    no_map: bool
    combination: bool
    scenario: int
    choice_list: int
    line: int


def read_gem(path: str | Path) -> Iterator[GemRow]:
    """Yield the rows of a GEM file (``2018_I9gem.txt``, ``gem_i9pcs.txt``, ...) in constant memory.

    Raises:
        CorpusError: the file cannot be read, or a line of it is none of a GEM file.

    Source:
        "Diagnosis Code Set General Equivalence Mappings: Documentation and User's Guide", CMS 2018.
    """
    for row in gem_rows(existing(path)):
        if isinstance(row, Problem):
            raise CorpusError(f"{row.where}: {row.reason}")
        yield row


def gem_rows(path: Path) -> Iterator[GemRow | Problem]:
    """Yield the rows of a GEM file, and its unusable lines as problems."""
    for number, text, problem in text_lines(path):
        if not problem and not text.strip():
            continue
        found = None if problem else _LINE.fullmatch(text.strip())
        if found is None:
            yield Problem(
                f"{path.name}:{number}",
                problem or "no line of a GEM file: expected two codes and five digits of flags",
            )
            continue
        approximate, no_map, combination, scenario, choice = map(int, found["flags"])
        has_target = not (no_map or found["target"].startswith("No"))
        yield GemRow(
            found["source"],
            found["target"] if has_target else "",
            bool(approximate),
            not has_target,
            bool(combination),
            scenario,
            choice,
            number,
        )
