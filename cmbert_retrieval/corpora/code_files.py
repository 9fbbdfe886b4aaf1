"""What the readers of code systems' files have in common: lines, limits, encodings, cursors.

A code system is small (the largest has a few hundred thousand codes), so going on behind a cursor reads the
file again from its beginning: a second or two, and no state to get wrong.
"""

from __future__ import annotations

import itertools
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cmbert_retrieval.corpora.base import Corpus, Cursor, Record, Source
from cmbert_retrieval.corpora.code_documents import CODE_COLUMNS
from cmbert_retrieval.corpora.files import existing, file_source
from cmbert_retrieval.corpora.jsonl import read_lines
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.types import Document

MAX_LINE_BYTES = 2**20
MAX_CODES = 2_000_000
"""Codes of one file above which it is refused: the readers that link codes hold all of their ids."""

_MAX_PROBLEMS = 1_000
_MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()
_MONTH_NAMES = "January February March April May June July August September October November December".split()
_RELEASE = re.compile(
    rf"(?<!\d)(?P<year>20\d\d)(?:[-_ ](?P<month>{'|'.join(_MONTHS)})[A-Z]*(?![A-Z]))?", re.I
)
_SHORT_YEAR = re.compile(r"HCPC(\d\d)_", re.IGNORECASE)  # up to 2017


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a file that is no usable code.

    Attributes:
        where: file and line.
        reason: what was got and expected, without any text of the file.
        id: the code, as far as it is known.
    """

    where: str
    reason: str
    id: str = ""


class CodeFilesCorpus(Corpus):
    """The codes of files as their publisher ships them; each reader says what a file holds."""

    columns: Mapping[str, str] = CODE_COLUMNS
    names = True
    expected: str
    """What the reader reads, for the error of a file that holds something else."""

    def __init__(self, path: str | Path, *, release: str = "") -> None:
        """Find the file; nothing of it is read yet.

        Args:
            path: the file, ``.gz`` or not.
            release: the release as its publisher names it; "" takes it from the file or its name.

        Raises:
            CorpusError: there is no such file.
        """
        self.path = existing(path)
        self._given = str(path)
        self._release = release
        if self.path.is_dir():
            raise CorpusError(f"{self._given}: a folder, expected {self.expected}")
        _check_suffix(self.path)

    def records(self, after: Cursor | None = None) -> Iterator[Record]:
        """Yield one record a code, in the file's order. Going on behind a cursor reads the file again.

        Raises:
            CorpusError: the file cannot be read, or holds something else.
        """
        yield from itertools.islice(self._records(), int(after["position"]) if after else 0, None)

    def sources(self) -> list[Source]:
        """Return the files with their checksums."""
        return [file_source(path, self._given if path == self.path else str(path)) for path in self._paths()]

    @abstractmethod
    def _items(self) -> Iterator[Document | Problem]:
        """Yield what the files hold, in their order."""

    def _paths(self) -> list[Path]:
        return [self.path]

    def _records(self) -> Iterator[Record]:
        position = problems = 0
        for position, item in enumerate(self._items(), start=1):
            if isinstance(item, Document):
                yield Record({"position": position}, item)
                continue
            problems += 1
            yield Record({"position": position}, None, f"{item.where}: {item.reason}", item.id)
            if problems >= _MAX_PROBLEMS and 2 * problems > position:
                raise CorpusError(
                    f"{self.path}: {problems:,} of the first {position:,} records are no codes; "
                    f"expected {self.expected}"
                )
        if position == problems:
            raise CorpusError(f"{self.path}: no code in it; expected {self.expected}")


def text_lines(path: Path, *, max_bytes: int = MAX_LINE_BYTES) -> Iterator[tuple[int, str, str]]:
    """Yield number, text and problem of every line; one of the last two is empty, or both.

    A line is UTF-8 where it is valid UTF-8, else Windows-1252, which is what CMS writes. A wrong guess would
    need a Windows-1252 line that happens to be valid UTF-8, such as one with "Ã©" in it.

    Raises:
        CorpusError: the file cannot be opened, is damaged, or is in UTF-16.
    """
    for number, _, line in read_lines(path, max_bytes=max_bytes):
        if line is None:
            yield number, "", f"a line of more than {max_bytes:,} bytes"
            continue
        if number == 1:
            if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise CorpusError(f"{path}: in UTF-16; expected UTF-8 or Windows-1252: convert it")
            line = line.removeprefix(b"\xef\xbb\xbf")
        text, problem = decoded(line)
        yield number, text.rstrip("\r\n"), problem


def decoded(line: bytes) -> tuple[str, str]:
    """Return a line's text, or "" and why it has none."""
    for encoding in ("utf-8", "cp1252"):
        try:
            return line.decode(encoding), ""
        except UnicodeDecodeError:
            continue
    return "", "neither UTF-8 nor Windows-1252"


def release_in_name(path: Path) -> str:
    """Return the release that a file's name tells: ``2026``, or ``January 2026`` for ``HCPC2026_JAN_...``."""
    if not (found := _RELEASE.search(path.name)):
        short = _SHORT_YEAR.match(path.name)
        return f"20{short[1]}" if short else ""
    month = found["month"]
    return f"{_MONTH_NAMES[_MONTHS.index(month.upper())]} {found['year']}" if month else found["year"]


def first_day(release: str) -> str:
    """Return the first day of a release of ``release_in_name`` as ``2026-01-01``; "" when it tells none."""
    words = release.split()
    if len(words) == 1 and words[0].isdigit():
        return f"{words[0]}-01-01"
    if len(words) == 2 and words[0] in _MONTH_NAMES and words[1].isdigit():
        return f"{words[1]}-{_MONTH_NAMES.index(words[0]) + 1:02d}-01"
    return ""


def _check_suffix(path: Path) -> None:
    name = path.name.lower()
    if name.endswith((".xlsx", ".xls")):
        raise CorpusError(
            f"{path}: an Excel workbook; save it as CSV, or take the text file published beside it"
        )
    if name.endswith(".zip"):
        raise CorpusError(f"{path}: a zip archive; unpack it and give the file in it")
