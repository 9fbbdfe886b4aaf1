"""JSON lines: one document a line."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from cmbert_retrieval.corpora.base import Corpus, Cursor, Record, Source
from cmbert_retrieval.corpora.fields import Fields, report_left_out
from cmbert_retrieval.corpora.files import (
    GZIP_ERRORS,
    MAX_BYTES,
    UnusableError,
    existing,
    file_source,
    open_binary,
    too_large,
)
from cmbert_retrieval.errors import CorpusError


class JsonlCorpus(Corpus):
    """A ``.jsonl`` or ``.jsonl.gz`` file, iterable any number of times in constant memory.

    A line is an object with an id, a text (a string, or a list of sentences), perhaps a title, and metadata.
    Lines that cannot be used are records with a problem; white lines are passed over.
    """

    reader = "jsonl"

    def __init__(
        self,
        path: str | Path,
        *,
        id: str = "",
        text: str = "text",
        title: str = "title",
        metadata: str | Sequence[str] = "rest",
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Open a corpus; nothing is read yet.

        Args:
            path: the file.
            id: key of the id; ``""`` takes ``_id`` (as BEIR has it), else ``id``.
            text: key of the text.
            title: key of the title, which may be absent.
            metadata: ``rest`` takes the object under ``metadata``, and every other key that holds a value or
                a list of values; a list takes the values of these keys; any other word is the key of the one
                object to take.
            max_bytes: lines longer than this are a problem.

        Raises:
            CorpusError: there is no such file. ConfigError: an option is no name.
        """
        self.path = existing(path)
        self._given = str(path)
        if self.path.is_dir():
            raise CorpusError(f"{self._given}: a folder, expected a .jsonl or .jsonl.gz file")
        self._fields = Fields(id=id, text=text, title=title, metadata=metadata)
        self._max_bytes = max_bytes

    def records(self, after: Cursor | None = None) -> Iterator[Record]:
        """Yield a line a record, behind ``after``.

        Raises:
            CorpusError: the file cannot be opened, or its gzip data are truncated.
        """
        left_out: Counter[str] = Counter()
        for number, offset, line in read_lines(self.path, max_bytes=self._max_bytes, after=after):
            cursor = {"line": number, "offset": offset}
            values: dict[str, Any] = {}
            try:
                if line is None:
                    raise UnusableError(too_large(self._max_bytes))
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if not line.strip():
                    continue
                values = parse_object(line)
                document = self._fields.document(values, left_out)
            except UnusableError as error:
                problem = f"{self.path.name}:{number}: {error}"
                yield Record(cursor, None, problem, self._fields.known_id(values))
            else:
                yield Record(cursor, document)
        report_left_out(self.path.name, left_out)

    def sources(self) -> list[Source]:
        """Return the file with its checksum."""
        return [file_source(self.path, self._given)]


def read_lines(
    path: Path, *, max_bytes: int, after: Cursor | None = None
) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield line number, offset behind the line (in unpacked bytes) and the line; None when it is too long.

    Raises:
        CorpusError: the file cannot be opened, or its gzip data are truncated or damaged.
    """
    number, offset = (int(after["line"]), int(after["offset"])) if after is not None else (0, 0)
    try:
        with open_binary(path) as stream:
            stream.seek(offset)
            while line := stream.readline(max_bytes + 1):
                number += 1
                offset += len(line)
                if len(line) > max_bytes and not line.endswith(b"\n"):
                    offset += _skip_line(stream)
                    yield number, offset, None
                else:
                    yield number, offset, line
    except UnusableError as error:
        raise CorpusError(f"{path}: {error}") from None
    except GZIP_ERRORS:
        raise CorpusError(
            f"{path.name}: truncated or damaged gzip data after line {number}; fetch the file again"
        ) from None


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number and object of every line that is not white.

    Raises:
        CorpusError: the file cannot be read, or a line is no object; the message names file and line.
    """
    for number, _, line in read_lines(path, max_bytes=MAX_BYTES):
        try:
            if line is None:
                raise UnusableError("the line is too long")
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if line.strip():
                yield number, parse_object(line)
        except UnusableError as error:
            raise CorpusError(f"{path.name}:{number}: {error}") from None


def _skip_line(stream: IO[bytes]) -> int:
    skipped = 0
    while part := stream.readline(2**20):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def parse_object(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line, with text that can be stored as UTF-8 and finite numbers only.

    Raises:
        UnusableError: it is none. The message quotes nothing of the line.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnusableError(f"invalid UTF-8 at byte {error.start + 1} of the line") from None
    try:
        values = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise UnusableError(f"not well-formed JSON (column {error.colno})") from None
    except RecursionError:
        raise UnusableError("JSON nested too deeply") from None
    except ValueError:
        raise UnusableError("a number that is not finite or too long") from None
    if not isinstance(values, dict):
        raise UnusableError(f"a JSON {type(values).__name__}, expected an object")
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(values, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise UnusableError("half of a surrogate pair, which no text may hold") from None
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise UnusableError(f"{name} is not allowed in JSON; expected a finite number or null")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number
