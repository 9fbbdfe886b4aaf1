"""TREC topics: the queries of its tracks, in the older form of tags and in XML; and SMART's."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from cmbert_retrieval.corpora.encodings import decode, known_encoding
from cmbert_retrieval.corpora.fields import valid_id
from cmbert_retrieval.corpora.files import UnusableError, existing, read_bounded
from cmbert_retrieval.corpora.trec import TrecCorpus
from cmbert_retrieval.corpora.trec_parts import format_of
from cmbert_retrieval.errors import CorpusError, printable
from cmbert_retrieval.types import Query

_LARGEST_BYTES = 2**26
_BEGINNING = 2**12
_TOPIC = re.compile(r"<(top|topic)\b([^<>]*)>", re.IGNORECASE)
_NUMBER = re.compile(r"""\b(?:number|id)\s*=\s*["']([^"'<>]*)["']""", re.IGNORECASE)
_TAG = re.compile(r"<(/?)([A-Za-z][\w-]*)[^<>]*>")
_LABELS = re.compile(r"\s*(?:Number|Topic|Description|Narrative)\s*:", re.IGNORECASE)


def read_topics(
    path: str | Path, *, fields: Sequence[str] = ("title",), encoding: str = "utf-8"
) -> Iterator[Query]:
    """Yield the topics of a TREC file as queries.

    Reads ``<top><num><title><desc><narr>``, whose tags need no ends, and ``<topic number="1">`` with either
    text or elements in it (``summary``, ``description``, ``disease``, ...); also the queries of SMART's
    collections (``.I`` ``.W``), whose texts are asked, whatever ``fields`` says.

    Args:
        path: the file, also gzipped.
        fields: names of the parts that make a query, in this order; a topic without any of them is used as a
            whole when it has no parts at all.
        encoding: of the file.

    Raises:
        CorpusError: the file is absent or has no topics, or a topic has no number or none of the parts; the
            message names file and line, and the parts that are there.
    """
    file = existing(path)
    shown = printable(file.name)
    try:
        source = decode(read_bounded(file, _LARGEST_BYTES), known_encoding(encoding))
    except UnusableError as error:
        raise CorpusError(f"{shown}: {error}") from None
    if format_of(source[:_BEGINNING].encode()) == "smart":
        for document in TrecCorpus(file, encoding=encoding).strictly():
            yield Query(document.id, " ".join((document.text or document.title).split()))
        return
    marks = list(_TOPIC.finditer(source))
    if not marks:
        raise CorpusError(f"{shown}: no topics; expected <top>, <topic number=...>, or .I as SMART has it")
    ends = [*(mark.start() for mark in marks), len(source)][1:]
    line, counted = 1, 0
    for mark, end in zip(marks, ends, strict=True):
        line, counted = line + source.count("\n", counted, mark.start()), mark.start()
        try:
            yield _query(mark, source[mark.end() : end], [field.lower() for field in fields])
        except UnusableError as error:
            raise CorpusError(f"{shown}:{line}: {error}") from None


def _query(mark: re.Match[str], source: str, fields: Sequence[str]) -> Query:
    parts = _parts(source, mark[1].lower())
    whole = parts.pop("", "")
    number = parts.pop("num", "")
    if found := _NUMBER.search(mark[2]):
        number = found[1]
    if not number.strip():
        raise UnusableError("a topic without <num> or number=")
    texts = [parts[field] for field in fields if parts.get(field)]
    if not texts and not parts and whole:
        texts = [whole]
    if not texts:
        there = ", ".join(parts) or "none"
        raise UnusableError(f"a topic without {' or '.join(fields)}; expected some of its parts: {there}")
    return Query(valid_id(number.strip()), " ".join(texts))


def _parts(source: str, around: str) -> dict[str, str]:
    """Return the text behind each tag, by its name; "" is what stands before the first one."""
    pieces: dict[str, list[str]] = {"": []}
    name, place = "", 0
    for tag in _TAG.finditer(source):
        pieces[name].append(source[place : tag.start()])
        place = tag.end()
        if tag[2].lower() == around:
            return _cleaned(pieces)
        if not tag[1]:
            name = tag[2].lower()
            pieces.setdefault(name, [])
    pieces[name].append(source[place:])
    return _cleaned(pieces)


def _cleaned(pieces: dict[str, list[str]]) -> dict[str, str]:
    texts = {name: html.unescape(" ".join(parts)) for name, parts in pieces.items()}
    return {name: " ".join(_LABELS.sub("", text, count=1).split()) for name, text in texts.items()}
