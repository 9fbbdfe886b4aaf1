"""The records of a PubMed file, cut out of its bytes one after the other: nothing else is ever held.

Each record is then parsed by itself, so that a broken one costs only itself, and reading can go on from any
offset. What stands between records is looked at here: it has to be the frame of a set, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cmbert_retrieval.corpora.files import GZIP_ERRORS, UnusableError, open_binary, too_large
from cmbert_retrieval.errors import CorpusError

RECORDS = ("PubmedArticle", "PubmedBookArticle", "DeleteCitation", "DeleteDocument")
SETS = ("PubmedArticleSet", "PubmedBookArticleSet")
HEAD_BYTES = 2**16
"""Within so many bytes of its beginning a file has to show what it is."""

_BLOCK = 2**18
_HOPELESS = 2**30  # a record of more bytes ends the file: a few packed MB can be GB of one
_WHITE = re.compile(rb"[ \t\r\n]*")
_TAG = re.compile(rb"<(/?)([A-Za-z_][\w.:-]{0,99})(?=[\s/>])")
_RECORD = re.compile(rb"<(?:%s)(?=[\s/>])" % "|".join(RECORDS).encode())
_RECORD_OR_SET = re.compile(
    rb"<(?:/?(?:%s)|%s)(?=[\s/>])" % ("|".join(SETS).encode(), "|".join(RECORDS).encode())
)
_ENCODING = re.compile(rb"<\?xml[^>]{0,200}?\sencoding\s*=\s*[\"']([A-Za-z][A-Za-z0-9._-]{0,40})[\"']")
_PLAIN = ("utf-8", "utf8", "us-ascii", "ascii")
_WIDE = ("utf-16", "utf16", "utf-32", "utf32", "ucs", "iso-10646")
_PROLOG = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:\s|<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^>\[]*(?:\[.*?\]\s*)?>)*", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Place:
    """A place between two records.

    Attributes:
        records: how many came before it.
        offset: in unpacked bytes.
        line: its line number, 1 for the first.
        sets: how many sets are begun and not ended there; 0 between two sets and behind the last one.
    """

    records: int = 0
    offset: int = 0
    line: int = 1
    sets: int = 1


@dataclass(frozen=True, slots=True)
class Piece:
    """One record as it stands in the file.

    Attributes:
        start: the place before it.
        end: the place behind it.
        line: the line of its first tag.
        data: its bytes; b"" where there is a problem.
        problem: why it is not used.
    """

    start: Place
    end: Place
    line: int
    data: bytes
    problem: str = ""


def root_name(head: bytes) -> str:
    """Return the name of the first element in the beginning of an XML file, "" where there is none."""
    prolog = _PROLOG.match(head)
    found = _TAG.match(head, prolog.end() if prolog else 0)
    return found[2].decode() if found and not found[1] else ""


def read_head(path: Path) -> bytes:
    """Return the first unpacked bytes of a file.

    Raises:
        UnusableError: it cannot be read.
    """
    head = b""
    with open_binary(path) as stream:
        try:
            while len(head) < HEAD_BYTES and (part := _read_some(stream, HEAD_BYTES)):
                head += part
        except GZIP_ERRORS:
            if not head:
                raise UnusableError("truncated or damaged gzip data; fetch the file again") from None
        except OSError as error:
            raise UnusableError(f"cannot be read ({error.strerror or type(error).__name__})") from None
    return head


def _read_some(stream: Any, size: int) -> bytes:
    """Hand on what is unpacked so far; a full read would lose all of it where the data end too early."""
    part: bytes = stream.read1(size)
    return part


class PubmedStream:
    """The records of one file, from its beginning or from any place between two of them."""

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        """Look at the beginning of the file.

        Args:
            path: ``.xml`` or ``.xml.gz``.
            max_bytes: larger records are a problem. So much may be held.

        Raises:
            CorpusError: it is no file of PubMed.
        """
        self.path = path
        self._max_bytes = max_bytes
        try:
            head = read_head(path)
        except UnusableError as error:
            raise CorpusError(f"{path.name}: {error}") from None
        found = _ENCODING.search(head)
        encoding = found[1].decode().lower() if found else "utf-8"
        self.declaration = b""
        """What stands in front of each record when it is parsed, in a file that is not in UTF-8."""
        if encoding not in _PLAIN:
            self.declaration = f'<?xml version="1.0" encoding="{encoding}"?>'.encode()
        if b"\0" in head[:4] or encoding.startswith(_WIDE) or head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise CorpusError(f"{path.name}: in UTF-16 or UTF-32; expected UTF-8, as PubMed publishes")
        root = root_name(head)
        if root not in (*RECORDS, *SETS):
            shown = f"<{root}>" if re.fullmatch(r"[\w.-]{1,40}", root) else "no XML element"
            raise CorpusError(f"{path.name}: begins with {shown}, expected <PubmedArticleSet> of PubMed")
        self._is_set = root in SETS

    def pieces(self, after: Place | None = None) -> Iterator[Piece]:
        """Yield the records behind a place.

        Raises:
            CorpusError: the file ends too early or is damaged; all records before that have been yielded.
        """
        try:
            opened = open_binary(self.path)
        except UnusableError as error:
            raise CorpusError(f"{self.path.name}: {error}") from None
        with opened as stream:
            window = _Window(stream, self.path.name, self._max_bytes, after or Place())
            if after is not None and after.offset and self._is_set:
                window.open_sets = after.sets
            start = window.place()
            while True:
                line, problem = window.skip_frame()
                if not problem and window.at_end:
                    break
                data = b""
                if not problem:
                    data, problem = window.take_record()
                window.records += 1
                end = window.place()
                yield Piece(start, end, line, data, problem)
                start = end
        if window.open_sets > 0:
            raise window.failure("ends too early (the closing tag of the set is missing)")


class _Window:
    """A stretch of the file, never much longer than the largest record.

    Attributes:
        records: how many have been passed.
        offset: in unpacked bytes, of what comes next.
        line: the line of what comes next.
        at_end: nothing is left.
        open_sets: sets begun and not ended.
    """

    def __init__(self, stream: IO[bytes], name: str, max_bytes: int, place: Place) -> None:
        self._stream, self._name, self._max_bytes = stream, name, max_bytes
        self.records, self.offset, self.line = place.records, place.offset, place.line
        self.at_end = False
        self.open_sets = 0
        self._data = b""
        self._position = 0
        self._ended = False
        self._broken = ""
        if place.offset:
            try:
                stream.seek(place.offset)
            except (*GZIP_ERRORS, OSError):
                raise self.failure("truncated or damaged data") from None

    def place(self) -> Place:
        """Return where this is."""
        return Place(self.records, self.offset, self.line, self.open_sets)

    def failure(self, reason: str) -> CorpusError:
        """Return the error that ends the reading of this file here."""
        return CorpusError(
            f"{self._name}:{self.line}: {reason}, after {self.records:,} records; fetch the file again"
        )

    def _more(self) -> bool:
        """Read another block behind what is there, which is needed; tell whether there was one."""
        more = self._load()
        if self._broken and not more:
            raise self.failure(self._broken)
        return more

    def _load(self) -> bool:
        """Read another block behind what is there; tell whether there was one."""
        parts: list[bytes] = []
        size = 0
        try:
            while not self._ended and not self._broken and size < _BLOCK:
                part = _read_some(self._stream, _BLOCK)
                parts.append(part)
                size += len(part)
                self._ended = not part
        except GZIP_ERRORS:
            self._broken = "truncated or damaged gzip data"
        except OSError as error:
            self._broken = f"cannot be read ({error.strerror or type(error).__name__})"
        self._data = b"".join((self._data[self._position :], *parts))
        self._position = 0
        return size > 0

    def _take(self, end: int) -> bytes:
        """Return and pass what stands before a position of the data."""
        taken = self._data[self._position : end]
        self.offset += len(taken)
        self.line += taken.count(b"\n")
        self._position = end
        return taken

    # --- between records ---

    def skip_frame(self) -> tuple[int, str]:
        """Pass all that may stand between records, up to the next record or the end.

        Returns:
            the line of what follows, and a problem where something else stood there, which has been passed.
        """
        began = self.offset
        while True:
            self._skip_white(began)
            if self._position == len(self._data):
                self.at_end = True
                return self.line, ""
            while len(self._data) - self._position < HEAD_BYTES and self._load():
                pass
            data, here = self._data, self._position
            if _RECORD.match(data, here):
                return self.line, ""
            if data.startswith(b"<!--", here):
                self._skip_to(b"-->", began)
            elif data.startswith(b"<?", here):
                self._skip_to(b"?>", began)
            elif data.startswith(b"<!DOCTYPE", here):
                self._skip_doctype()
            elif data.startswith(b"\xef\xbb\xbf", here):
                self._take(here + 3)
            elif (tag := _TAG.match(data, here)) and tag[2].decode() in SETS:
                self._skip_to(b">", began)
                self.open_sets += -1 if tag[1] else 1
            else:
                line = self.line
                self._skip_to_record()
                return line, "something that is no record stands between records"

    def _skip_white(self, began: int) -> None:
        while True:
            found = _WHITE.match(self._data, self._position)
            self._take(found.end() if found else self._position)
            if self.offset - began > self._max_bytes:
                raise self.failure(f"no record within {self._max_bytes:,} bytes")
            if self._position < len(self._data) or not self._more():
                return

    def _skip_to(self, closing: bytes, began: int) -> None:
        """Pass everything up to ``closing``, and that."""
        while (end := self._data.find(closing, self._position)) < 0:
            if self.offset - began + len(self._data) - self._position > self._max_bytes:
                raise self.failure(f"no record within {self._max_bytes:,} bytes")
            if not self._more():
                raise self.failure("ends within a comment or a tag")
        self._take(end + len(closing))

    def _skip_doctype(self) -> None:
        found = _PROLOG.match(self._data, self._position, self._position + HEAD_BYTES)
        text = self._take(found.end()) if found else b""
        if b"<!ENTITY" in text:
            raise CorpusError(f"{self._name}:{self.line}: declares entities; refused")
        if not text:
            raise self.failure("a document type that is not finished or very long")

    def _skip_to_record(self) -> None:
        """Pass what is no record, up to the next one or the end of the set."""
        longest = max(map(len, (*RECORDS, *SETS))) + 3
        while not (found := _RECORD_OR_SET.search(self._data, self._position + 1)):
            self._take(max(len(self._data) - longest, self._position))
            if not self._more():
                self._take(len(self._data))
                return
        self._take(found.start())

    # --- records ---

    def take_record(self) -> tuple[bytes, str]:
        """Pass the record that begins here; return its bytes, or what is wrong with it."""
        found = _RECORD.match(self._data, self._position)
        assert found is not None
        closing = b"</" + found[0][1:]
        looked_at = 0
        while True:
            end, looked_at = self._end_of_record(closing, looked_at)
            if (end if end >= 0 else len(self._data)) - self._position > self._max_bytes:
                self._skip_long(end, closing)
                return b"", too_large(self._max_bytes)
            if end >= 0:
                break
            if not self._more():
                raise self.failure("ends within a record")
        # No record holds another one: then it is the end of this one that is damaged.
        nested = _RECORD.search(self._data, self._position + 1, end)
        if nested and b"<!" not in self._data[self._position : nested.start()]:
            self._take(nested.start())
            return b"", "not well-formed XML (the record does not end before the next one begins)"
        return self._take(end), ""

    def _end_of_record(self, closing: bytes, looked_at: int) -> tuple[int, int]:
        """Return the position behind the record or -1, and how much of it need not be looked at again."""
        data, here = self._data, self._position
        if looked_at == 0:
            tag_end = data.find(b">", here)
            if tag_end < 0:
                return -1, 0
            if data[tag_end - 1 : tag_end] == b"/":
                return tag_end + 1, 0
            looked_at = tag_end - here
        position = here + looked_at
        while True:
            found = data.find(closing, position)
            # A closing tag within a comment or CDATA ends nothing.
            special = data.find(b"!", position, found if found >= 0 else len(data))
            if special >= 0:  # rare in a text, and a single character is found at once
                special = data.find(b"<!", position, found if found >= 0 else len(data))
            if special >= 0:
                mark = b"-->" if data.startswith(b"<!--", special) else b"]]>"
                behind = data.find(mark, special)
                if behind < 0:
                    return -1, special - here
                position = behind + len(mark)
                continue
            if found < 0:
                return -1, max(position, len(data) - len(closing)) - here
            tag_end = data.find(b">", found)
            if tag_end < 0:
                return -1, found - here
            if not data[found + len(closing) : tag_end].strip():
                return tag_end + 1, 0
            if data.startswith(b"Set", found + len(closing)):
                return found, 0  # the set ends, the record does not: parsing it will tell
            position = found + 1

    def _skip_long(self, end: int, closing: bytes) -> None:
        """Pass a record that is too long to be held; ``end`` is behind it where that is known."""
        began = self.offset
        while end < 0:
            found = self._data.find(closing, self._position)
            if found >= 0 and (tag_end := self._data.find(b">", found)) >= 0:
                end = tag_end + 1
                break
            self._take(found if found >= 0 else max(len(self._data) - len(closing), self._position))
            if self.offset - began > _HOPELESS:
                raise self.failure(f"a record of more than {_HOPELESS:,} bytes")
            if not self._more():
                raise self.failure("ends within a record")
        self._take(end)
