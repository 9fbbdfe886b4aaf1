"""The names of PubMed's files: ``pubmed26n0001.xml.gz`` is the first of the baseline of 2026."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from cmbert_retrieval.corpora.files import UnusableError
from cmbert_retrieval.errors import CorpusError

_NAME = re.compile(r"pubmed(\d\d)n(\d{4,6})\.xml(?:\.gz)?", re.IGNORECASE)
_SUFFIXES = (".xml", ".xml.gz")
_SHOWN = 3


@dataclass(frozen=True, slots=True, order=True)
class FileNumber:
    """The place of a file among all of PubMed.

    The baseline of a year has the numbers from 1, the daily updates go on behind it; a new year's baseline
    holds everything anew and begins at 1 again.

    Attributes:
        year: the last two digits.
        number: 1 for the first.
    """

    year: int
    number: int

    def __str__(self) -> str:
        return f"pubmed{self.year:02d}n{self.number:04d}"


def file_number(name: str) -> FileNumber | None:
    """Return what a file's name says of its place; None where it says nothing."""
    found = _NAME.fullmatch(re.split(r"[/\\]", name)[-1])
    return FileNumber(int(found[1]), int(found[2])) if found else None


def list_pubmed(path: Path) -> list[str]:
    """Return the names of the files to read at a file or folder, relative to it, in the order of reading.

    Numbered files by their number, wherever they lie below the folder (``baseline/``, ``updatefiles/``);
    behind them all others by name. Links to folders are not followed.

    Raises:
        CorpusError: the folder cannot be listed, a number is there twice, or files of several years are.
    """
    if path.is_file():
        return [path.name]
    names = _names_below(path)
    numbered = sorted((number, name) for name in names if (number := file_number(name)))
    for (number, name), (following, other) in pairwise(numbered):
        if number == following:
            raise CorpusError(f"{path}: {name} and {other} are the same file of PubMed; keep one of them")
        if number.year != following.year:
            raise CorpusError(
                f"{path}: files of the years {number.year:02d} and {following.year:02d} ({name}, {other}); "
                "a new year's baseline replaces all before it: keep one year's files"
            )
    return [name for _, name in numbered] + sorted(name for name in names if file_number(name) is None)


def _names_below(folder: Path) -> list[str]:
    names = []

    def fail(error: OSError) -> None:
        raise CorpusError(
            f"{error.filename or folder}: cannot be listed ({error.strerror or type(error).__name__})"
        ) from None

    for base, _, files in os.walk(folder, onerror=fail):
        below = Path(base).relative_to(folder)
        names += [(below / name).as_posix() for name in files if name.lower().endswith(_SUFFIXES)]
    return names


def missing_numbers(numbers: list[FileNumber]) -> list[FileNumber]:
    """Return the first few numbers that are missing between the first and the last of ascending ones."""
    missing: list[FileNumber] = []
    for before, after in pairwise(numbers):
        for number in range(before.number + 1, after.number):
            missing.append(FileNumber(before.year, number))
            if len(missing) == _SHOWN:
                return missing
    return missing


def looks_like_pubmed(path: Path) -> bool:
    """Tell whether a file is one of PubMed, or a folder holds some, by names and else by the first tag."""
    from cmbert_retrieval.corpora.pubmed_stream import RECORDS, SETS, read_head, root_name

    if path.is_dir():
        names: list[str] = []
        # Not deeper: a folder of PMC may hold millions of others.
        for folder in (path, path / "baseline", path / "updatefiles"):
            for entry in folder.iterdir() if folder.is_dir() else ():
                if file_number(entry.name):
                    return True
                if re.fullmatch(r"PMC\d+\.\d+", entry.name):
                    return False
                names += [entry.name] if folder == path and entry.name.lower().endswith(_SUFFIXES) else []
        if not names:
            return False
        path = path / min(names)
    if file_number(path.name):
        return True
    if not path.name.lower().endswith(_SUFFIXES):
        return False
    try:
        return root_name(read_head(path)) in (*RECORDS, *SETS)
    except UnusableError:
        return False
