"""What the readers are, and what can be set on each: out of their signatures and docstrings."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

from cmbert_retrieval.corpora import READERS, reader_class

_ARGUMENT = re.compile(r"^(\w+): (.*(?:\n {2,}.*)*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ReaderOption:
    """An option of a reader, as in ``--set source.options.NAME=VALUE``.

    Attributes:
        name: its name.
        default: its value where nothing is set.
        meaning: what it does, as one line.
    """

    name: str
    default: Any
    meaning: str


@dataclass(frozen=True, slots=True)
class ReaderDescription:
    """A reader.

    Attributes:
        name: as in ``--from NAME:PATH``.
        reads: what it reads, as one line.
        path: what PATH may be, as one line.
        options: what can be set.
    """

    name: str
    reads: str
    path: str
    options: tuple[ReaderOption, ...]


def describe_reader(reader: str) -> ReaderDescription:
    """Return what a reader is; no data are looked at.

    Raises:
        ConfigError: it is not known.
    """
    corpus_class = reader_class(reader)
    meanings = _arguments(inspect.getdoc(corpus_class.__init__) or "")
    options = tuple(
        ReaderOption(name, parameter.default, meanings.get(name, ""))
        for name, parameter in inspect.signature(corpus_class).parameters.items()
        if name != "path"
    )
    reads = (inspect.getdoc(corpus_class) or "").partition("\n\n")[0]
    return ReaderDescription(reader, _one_line(reads), meanings.get("path", ""), options)


def describe_readers() -> list[ReaderDescription]:
    """Return what there is, by name."""
    return [describe_reader(reader) for reader in sorted(READERS)]


def _arguments(text: str) -> dict[str, str]:
    """Return name -> meaning of the arguments that a docstring explains."""
    section = re.search(r"^Args:\n((?: {4}.*\n?|\n)+)", text, re.MULTILINE)
    if section is None:
        return {}
    lines = re.sub(r"^ {4}", "", section[1], flags=re.MULTILINE)
    return {name: _one_line(meaning) for name, meaning in _ARGUMENT.findall(lines)}


def _one_line(text: str) -> str:
    return " ".join(text.replace("``", "").split())
