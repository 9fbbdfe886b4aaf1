"""Rows of CSV files with named columns, in bounded memory, with the places where reading may go on."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from cmbert_retrieval.corpora.encodings import ANOTHER_ENCODING, check_beginning, open_utf8
from cmbert_retrieval.corpora.fields import LONGEST_NAME, check_unique
from cmbert_retrieval.corpora.files import GZIP_ERRORS, UnusableError, too_large
from cmbert_retrieval.errors import CorpusError

_HEADER_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class CsvFile:
    """A CSV file and how it is written.

    Attributes:
        path: the file; unpacked when its name ends with ``.gz``.
        name: as messages call it.
        separator: what stands between columns.
        encoding: as ``known_encoding`` returns it.
        max_bytes: rows longer than this, in UTF-8, are a problem.
    """

    path: Path
    name: str
    separator: str
    encoding: str
    max_bytes: int


class CsvRow(NamedTuple):
    """One row behind the header.

    Attributes:
        line: the line that it begins in, counted from 1.
        next_line: the number of lines up to its end.
        offset: the byte behind it, in the file's unpacked UTF-8.
        values: its cells, as many as there are columns; None when it cannot be used.
        problem: why it cannot be used.
    """

    line: int
    next_line: int
    offset: int
    values: list[str] | None
    problem: str = ""


def read_header(file: CsvFile) -> list[str]:
    """Return the names of the columns, without white space around them.

    Raises:
        CorpusError: the file cannot be opened, is empty or no CSV, or two columns have the same name.
    """
    source = CsvFile(file.path, file.name, file.separator, file.encoding, _HEADER_BYTES)
    header = next(_rows(source, 0, 0), None)
    if header is None:
        raise CorpusError(f"{file.name}: empty; expected a first row with the names of the columns")
    if header.values is None:
        if header.offset > _HEADER_BYTES:
            raise CorpusError(f"{file.name}: no row with the names of the columns in the first megabyte")
        raise CorpusError(f"{file.name}:{header.line}: {header.problem}")
    names = [name.strip() for name in header.values]
    if not any(names):
        raise CorpusError(f"{file.name}:{header.line}: the first row names no columns")
    # Without names the first row is a record, and what it holds belongs into no message.
    for number, name in enumerate(names, 1):
        if len(name) > LONGEST_NAME or "\n" in name or "\r" in name:
            raise CorpusError(
                f"{file.name}:{header.line}: cell {number} of the first row is no name of a column "
                f"({len(name):,} characters); expected a first row with the names of the columns"
            )
    check_unique(names, f"{file.name}:{header.line}")
    return names


def read_rows(file: CsvFile, columns: int, after: tuple[int, int] | None = None) -> Iterator[CsvRow]:
    """Yield the rows behind the header, or behind ``after``: (``next_line``, ``offset``) of a row.

    Rows that cannot be used come with their problem: another number of cells than ``columns``, wrong quotes,
    invalid UTF-8, NUL characters, too long. Reading goes on where the row's quotes are closed.

    Raises:
        CorpusError: the file cannot be opened, its gzip data are truncated or damaged, or a quote is never
            closed.
    """
    rows = _rows(file, *(after or (0, 0)))
    if after is None:
        next(rows, None)
    for row in rows:
        if row.values is not None and len(row.values) != columns:
            problem = f"{len(row.values)} cells, expected {columns} as in the first row"
            yield CsvRow(row.line, row.next_line, row.offset, None, problem)
        else:
            yield row


def _rows(file: CsvFile, line: int, offset: int) -> Iterator[CsvRow]:
    # The module's own bound is one for the whole process. Ours is kept below, so this one is only raised.
    if csv.field_size_limit() < file.max_bytes:
        csv.field_size_limit(file.max_bytes)
    feed = _Feed(file, line, offset)
    try:
        with open_utf8(file.path, file.encoding) as stream:
            if offset:
                stream.seek(offset)
            while True:
                # After a mistake a new reader: the old one may be in the middle of a row.
                yield from feed.rows(stream)
                if feed.at_end:
                    return
                yield feed.skip_row(stream)
    except UnusableError as error:
        raise CorpusError(f"{file.name}: {error}") from None
    except GZIP_ERRORS:
        raise CorpusError(
            f"{file.name}: truncated or damaged gzip data after line {feed.line}; fetch the file again"
        ) from None
    except OSError as error:
        raise CorpusError(f"{file.name}: cannot be read ({error.strerror or type(error).__name__})") from None


class _Feed:
    """Hands lines to a csv reader and counts what it takes."""

    def __init__(self, file: CsvFile, line: int, offset: int) -> None:
        self._file = file
        self._at = line, offset, 0, b""  # lines, bytes and quotes up to here, and the last line
        self._begun = self._at  # the same where the row began
        self._end = 0  # how many bytes the row may go up to
        self._problem = ""
        self.at_end = False

    @property
    def line(self) -> int:
        """Return how many lines were read."""
        return self._at[0]

    def rows(self, stream: IO[bytes]) -> Iterator[CsvRow]:
        """Yield rows up to the end or to one with a mistake, which is then to be skipped.

        Raises:
            CorpusError: a quote is not closed up to the end of the file.
        """
        reader = csv.reader(self._lines(stream), delimiter=self._file.separator, strict=True)
        while True:
            self._begun = self._at
            self._end = self._at[1] + self._file.max_bytes
            try:
                values = next(reader)
            except StopIteration:
                self.at_end = True
                return
            except csv.Error as error:
                if str(error).startswith("unexpected end"):
                    raise self._not_closed() from None
                self._problem = f"not well-formed CSV ({_reason(error)})"
                return
            except UnicodeDecodeError:
                self._problem = f"invalid UTF-8; {ANOTHER_ENCODING}"
                return
            except UnusableError as error:
                self._problem = str(error)
                return
            if values:  # a row without cells is an empty line
                yield CsvRow(self._begun[0] + 1, self._at[0], self._at[1], values)

    def _lines(self, stream: IO[bytes]) -> Iterator[str]:
        # Every line of a corpus passes here: hence local names, and one attribute for all that is counted.
        readline = stream.readline
        line, offset, quotes, _ = self._at
        at_beginning = not offset
        while raw := readline(self._end - offset + 1):
            line += raw.endswith(b"\n")
            offset += len(raw)
            quotes += raw.count(b'"')
            self._at = line, offset, quotes, raw
            if offset > self._end:
                raise UnusableError(too_large(self._file.max_bytes))
            if at_beginning:
                check_beginning(raw, self._file.encoding)
                raw, at_beginning = raw.removeprefix(b"\xef\xbb\xbf"), False
            if b"\0" in raw:
                raise UnusableError(f"NUL characters: no text, or in another encoding; {ANOTHER_ENCODING}")
            yield raw.decode()

    def skip_row(self, stream: IO[bytes]) -> CsvRow:
        """Go to the end of the row with a mistake and return it: to the first line end outside of quotes.

        Raises:
            CorpusError: there is none.
        """
        line, offset, quotes, last = self._at
        before = self._begun[2]
        while (quotes - before) % 2 or not last.endswith(b"\n"):
            last = stream.readline(_BLOCK_BYTES)
            if not last:
                break
            line += last.endswith(b"\n")
            offset += len(last)
            quotes += last.count(b'"')
        self._at = line, offset, quotes, last
        if (quotes - before) % 2:
            raise self._not_closed()
        return CsvRow(self._begun[0] + 1, line, offset, None, self._problem)

    def _not_closed(self) -> CorpusError:
        first, lines = self._begun[0] + 1, self._at[0] - self._begun[0]
        return CorpusError(
            f"{self._file.name}:{first}: a quote in this row is not closed up to the end of the file, "
            f"{lines:,} lines on; the file was cut off, or the quote is one too many"
        )


def _reason(error: csv.Error) -> str:
    text = str(error)
    if text.startswith("new-line character"):
        return "a line ends with CR alone; expected LF or CR LF"
    return text
