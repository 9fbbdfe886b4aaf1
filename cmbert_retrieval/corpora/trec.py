"""Collections of TREC (``<DOC><DOCNO>...``) and of SMART (``.I`` ``.W``, as MED and OHSUMED come)."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cmbert_retrieval.corpora.base import Corpus, Cursor, Record, Source
from cmbert_retrieval.corpora.encodings import ANOTHER_ENCODING, check_beginning, known_encoding, open_utf8
from cmbert_retrieval.corpora.fields import valid_id
from cmbert_retrieval.corpora.files import (
    GZIP_ERRORS,
    MAX_BYTES,
    UnusableError,
    existing,
    file_source,
    files_below,
    listing_source,
    too_large,
)
from cmbert_retrieval.corpora.trec_parts import END_OF_SMART, END_OF_TREC, Part, format_of, parts
from cmbert_retrieval.errors import ConfigError, CorpusError, printable
from cmbert_retrieval.types import Document

_BEGINNING_BYTES = 1 << 12
_TEXT_TAGS = ("TEXT", "BODY")
_TITLE_TAGS = ("TITLE", "HEADLINE", "HL", "TTL", "HEAD")
_SKIPPED_TAGS = frozenset("DOCNO DOCID DOCOLDNO DOCHDR SCRIPT STYLE".split())
_INLINE_TAGS = frozenset("A B EM FONT I SMALL SPAN STRONG SUB SUP TT U".split())
_DOC = re.compile(r"<DOC\s*>", re.IGNORECASE)
_DOCNO = re.compile(r"<DOCNO\s*>([^<]*)<", re.IGNORECASE)
_TOKEN = re.compile(r"<!--|<(/?)([A-Za-z][\w.:-]*)[^<>]*>|<[!?][^<>]*>")

_SMART_ID = re.compile(r"\s*\.I[ \t]+([^\n]*)")
_SMART_FIELD = re.compile(r"^\.([A-Z])[ \t]*$", re.MULTILINE)
_SMART_NAMES = {"A": "authors", "B": "source", "S": "source", "M": "mesh", "P": "type", "K": "keywords"}


class TrecCorpus(Corpus):
    """A file or a folder of files in TREC's or SMART's format, each also gzipped; told by how a file begins.

    TREC: ``<DOC>`` with ``<DOCNO>``; the text is what stands in the text tags, or, in a document that has
    none of them, everything but its header and title; tags within are left out and entities resolved.
    SMART: ``.I`` begins a document, ``.W`` its text, ``.T`` its title; other fields become metadata
    (``authors``, ``source``, ``mesh``, ``type``, ``keywords``, else the letter). OHSUMED's documents have the
    id of ``.U``, which its judgements name.

    In a folder every file is read whose name does not begin with a dot.

    Source:
        TREC collections, https://trec.nist.gov/data/docs_eng.html; Hersh et al., "OHSUMED", SIGIR 1994.
    """

    reader = "trec"

    def __init__(
        self,
        path: str | Path,
        *,
        text: Sequence[str] | str = _TEXT_TAGS,
        title: Sequence[str] | str = _TITLE_TAGS,
        encoding: str = "utf-8",
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Open a corpus; nothing is read yet.

        Args:
            path: the file, or a folder whose files are read in the order of their names.
            text: tags of TREC's format that hold text; a list, or names with commas between.
            title: tags that hold a title; the first one in a document counts.
            encoding: of the files. TREC's older ones are latin-1.
            max_bytes: documents longer than this are a problem.

        Raises:
            CorpusError: nothing is there.
            ConfigError: an option has a wrong value.
        """
        self.path = existing(path)
        self._given = str(path)
        self._text, self._title = _tags("text", text), _tags("title", title)
        self._encoding = known_encoding(encoding)
        self._max_bytes = max_bytes
        self._root = self.path if self.path.is_dir() else self.path.parent
        self._names = files_below(self.path) if self.path.is_dir() else [self.path.name]
        if not self._names:
            raise CorpusError(f"{self._given}: no files in this folder")

    def records(self, after: Cursor | None = None) -> Iterator[Record]:
        """Yield a document a record, behind ``after``. A file of neither format is one problem.

        Raises:
            CorpusError: gzip data are truncated, or the one file that there is has neither format.
        """
        first, place = 0, (0, 0)
        if after is not None:
            first, place = int(after["number"]), (int(after["line"]), int(after["offset"]))
        for number in range(first, len(self._names)):
            yield from self._read(number, place)
            place = (0, 0)

    def _read(self, number: int, place: tuple[int, int]) -> Iterator[Record]:
        path, shown = self._root / self._names[number], printable(self._names[number])
        try:
            is_smart = self._is_smart(path)
            with open_utf8(path, self._encoding) as stream:
                for part in parts(stream, END_OF_SMART if is_smart else END_OF_TREC, self._max_bytes, place):
                    cursor = {"file": shown, "number": number, "line": part.next_line, "offset": part.offset}
                    found = {"id": ""}
                    try:
                        source = self._decoded(part)
                        document = _smart(source, found) if is_smart else self._trec(source, part, found)
                    except UnusableError as error:
                        yield Record(cursor, None, f"{shown}:{part.line}: {error}", found["id"])
                    else:
                        if document is not None:
                            yield Record(cursor, document)
        except UnusableError as error:
            if len(self._names) == 1:
                raise CorpusError(f"{shown}: {error}") from None
            cursor = {"file": shown, "number": number + 1, "line": 0, "offset": 0}
            yield Record(cursor, None, f"{shown}: {error}")
        except GZIP_ERRORS:
            raise CorpusError(f"{shown}: truncated or damaged gzip data; fetch the file again") from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise CorpusError(f"{shown}: cannot be read ({reason})") from None

    def _is_smart(self, path: Path) -> bool:
        with open_utf8(path, self._encoding) as stream:
            beginning = stream.read(_BEGINNING_BYTES)
        check_beginning(beginning, self._encoding)
        found = format_of(beginning)
        if not found and beginning.strip():
            raise UnusableError("begins neither with <DOC> (TREC) nor with .I and a number (SMART)")
        return found == "smart"

    def _decoded(self, part: Part) -> str:
        if part.data is None:
            raise UnusableError(too_large(self._max_bytes))
        try:
            text = part.data.decode("utf-8")
        except UnicodeDecodeError:
            raise UnusableError(f"invalid UTF-8; {ANOTHER_ENCODING}") from None
        if "\0" in text:
            raise UnusableError("NUL characters: no text, or in another encoding")
        return text.removeprefix("\ufeff")

    def _trec(self, source: str, part: Part, found: dict[str, str]) -> Document | None:
        """Return the document, or None where there is nothing but tags around the documents."""
        marks = list(_DOC.finditer(source))
        if not marks:
            if part.is_last and not _without_tags(source):
                return None
            raise UnusableError("text outside of <DOC>" if part.is_last else "</DOC> without <DOC>")
        source = source[marks[0].end() :]
        if number := _DOCNO.search(source):
            found["id"] = valid_id(html.unescape(number[1]).strip())
        if len(marks) > 1:
            raise UnusableError(f"{len(marks)} <DOC> and one </DOC>; none of them is read")
        if part.is_last:
            raise UnusableError("no </DOC> up to the end of the file, which was cut off")
        if not number:
            raise UnusableError("no <DOCNO>")
        text, title = self._texts(source)
        return Document(found["id"], text, title)

    def _texts(self, source: str) -> tuple[str, str]:
        """Return text and title."""
        text: list[str] = []
        title: list[str] = []
        rest: list[str] = []
        inside = skipped = ""
        has_text = has_title = in_title = False
        for is_tag, is_end, value in _tokens(source):
            if skipped:
                skipped = "" if is_tag and is_end and value == skipped else skipped
            elif not is_tag:
                (title if in_title else text if inside else rest).append(value)
            elif value in _SKIPPED_TAGS:
                skipped = "" if is_end else value
            elif in_title and is_end and value in self._title:
                in_title = False
            elif value in self._title and not is_end and not has_title:
                has_title = in_title = True
            elif not inside and not is_end and value in self._text:
                inside, has_text = value, True
                text.append("\n\n")
            elif is_end and value == inside:
                inside = ""
            elif value not in _INLINE_TAGS:
                (title if in_title else text if inside else rest).append("\n")
        return _tidy(text if has_text else rest), " ".join(_tidy(title).split())

    def sources(self) -> list[Source]:
        """Return the file with its checksum, or the folder with one over names and sizes."""
        if self.path.is_file():
            return [file_source(self.path, self._given)]
        return [listing_source(self._given, self._root, self._names)]


def _tags(option: str, names: Sequence[str] | str) -> frozenset[str]:
    listed = names.split(",") if isinstance(names, str) else names
    if not isinstance(listed, list | tuple) or not all(isinstance(name, str) for name in listed):
        raise ConfigError(f"option '{option}': got {names!r}, expected names of tags, such as [TEXT, BODY]")
    return frozenset(name.strip().upper() for name in listed if name.strip())


def _tokens(source: str) -> Iterator[tuple[bool, bool, str]]:
    """Yield (True, whether it ends an element, name) for tags, and (False, False, text) between them.

    Comments are left out. One pass, whatever is left open.
    """
    place, comments_end = 0, True
    while found := _TOKEN.search(source, place):
        if found.start() > place:
            yield False, False, source[place : found.start()]
        place = found.end()
        if found[0] == "<!--":
            end = source.find("-->", place) if comments_end else -1
            comments_end = end >= 0
            place = end + 3 if end >= 0 else place
        elif found[2]:
            yield True, bool(found[1]), found[2].upper()
    if place < len(source):
        yield False, False, source[place:]


def _without_tags(source: str) -> str:
    return "".join(value for is_tag, _, value in _tokens(source) if not is_tag).strip()


def _tidy(pieces: list[str]) -> str:
    """Return text with its entities resolved, without white space around lines, paragraphs kept."""
    text = html.unescape("".join(pieces)).replace("\r\n", "\n").replace("\0", "")
    lines = (line.strip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _smart(source: str, found: dict[str, str]) -> Document | None:
    if not source.strip():
        return None
    source = source.replace("\r\n", "\n")
    head = _SMART_ID.match(source)
    if head is None:
        raise UnusableError("text before the first .I")
    marks = list(_SMART_FIELD.finditer(source, head.end()))
    ends = [*(mark.start() for mark in marks), len(source)][1:]
    fields: dict[str, list[str]] = {}
    for mark, end in zip(marks, ends, strict=True):
        lines = (line.rstrip() for line in source[mark.end() : end].split("\n"))
        fields.setdefault(mark[1], []).append("\n".join(lines).strip("\n"))
    texts = {letter: "\n".join(values) for letter, values in fields.items()}
    found["id"] = head[1].strip()
    found["id"] = valid_id(texts.pop("U", "").strip() or found["id"])
    if not {"W", "T"} & set(texts):
        raise UnusableError("neither a text (.W) nor a title (.T)")
    text, title = texts.pop("W", ""), " ".join(texts.pop("T", "").split())
    metadata: dict[str, Any] = {}
    for letter, value in texts.items():
        if flat := " ".join(value.split()):
            name = _SMART_NAMES.get(letter, letter.lower())
            metadata[name] = _headings(flat) if letter == "M" else flat
    return Document(found["id"], text, title, metadata)


def _headings(listed: str) -> list[str]:
    return [heading for part in listed.rstrip(". ").split(";") if (heading := part.strip())]
