"""BEIR folders: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/*.tsv``; each also gzipped."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from cmbert_retrieval.corpora.fields import valid_id
from cmbert_retrieval.corpora.files import MAX_BYTES, UnusableError, existing
from cmbert_retrieval.corpora.jsonl import JsonlCorpus, read_lines, read_objects
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.types import Qrels, Query
from cmbert_retrieval.wording import plural


class BeirCorpus(JsonlCorpus):
    """The documents of a BEIR folder."""

    reader = "beir"

    def __init__(self, path: str | Path, *, max_bytes: int = MAX_BYTES) -> None:
        """Open a corpus; nothing is read yet.

        Args:
            path: the folder.
            max_bytes: lines longer than this are a problem.

        Raises:
            CorpusError: the folder or its ``corpus.jsonl`` is absent.
        """
        super().__init__(_member(path, "corpus.jsonl"), max_bytes=max_bytes)


def read_queries(path: str | Path) -> Iterator[Query]:
    """Yield the queries of a BEIR folder, or of a file in the format of its ``queries.jsonl``.

    Raises:
        CorpusError: the file is absent, or a line is no query; the message names file and line.
    """
    file = _member(path, "queries.jsonl")
    for number, values in read_objects(file):
        try:
            text = values.get("text")
            if not isinstance(text, str):
                raise UnusableError("no key 'text' with a string")
            query = Query(valid_id(values.get("_id", values.get("id"))), text)
        except UnusableError as error:
            raise CorpusError(f"{file.name}:{number}: {error}") from None
        yield query


def read_qrels(path: str | Path) -> Qrels:
    """Return relevance grades: query id -> document id -> grade.

    Reads BEIR's three columns (query, document, grade; separated by tabs or commas; under a header, which may
    name another order, or under none) and TREC's four (query, iteration, document, grade; separated by white
    space).

    Raises:
        CorpusError: a line is neither, a grade is no whole number, or a pair is judged twice and differently.
    """
    file = existing(path)
    if file.is_dir():
        raise CorpusError(f"{path}: a folder, expected a qrels file (.tsv, .csv, .txt; also .gz)")
    qrels: Qrels = {}
    places: tuple[int, int, int] | None = None  # of query, document and grade in a line
    separator: str | None = None
    for number, _, line in read_lines(file, max_bytes=2**20):
        if line is None:
            raise CorpusError(f"{file.name}:{number}: longer than a line of judgements can be")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
        except UnicodeDecodeError:
            raise CorpusError(f"{file.name}:{number}: invalid UTF-8") from None
        if "\r" in text:
            raise CorpusError(f"{file.name}:{number}: lines end with CR alone; expected LF or CR LF")
        if not text.strip():
            continue
        if places is None:
            is_bare = _is_bare(text)
            header = None if is_bare else _header(text)
            places = header or ((0, 1, 2) if is_bare else (0, 2, 3))
            separator = None if places == (0, 2, 3) else "\t" if "\t" in text else ","
            if header:
                continue
        parts = [part.strip() for part in text.split(separator)]
        if len(parts) != (4 if separator is None else 3):
            expected = (
                "TREC's query, iteration, document and grade"
                if separator is None
                else "query, document and grade"
            )
            raise CorpusError(f"{file.name}:{number}: {plural(len(parts), 'column')}, expected {expected}")
        query, document = parts[places[0]], parts[places[1]]
        grade = _grade(parts[places[2]], f"{file.name}:{number}")
        judged = qrels.setdefault(query, {})
        if judged.setdefault(document, grade) != grade:
            raise CorpusError(
                f"{file.name}:{number}: this pair was judged differently before; keep one of the lines"
            )
    return qrels


def _header(line: str) -> tuple[int, int, int] | None:
    """Return where query, document and grade stand by the names in a header; None for a line of judgements.

    A header has three columns and begins with the name of one; a query may have such a name in TREC's four.
    """
    names = [name.strip().lower() for name in line.split("\t" if "\t" in line else ",")]
    if len(names) != 3 or not names[0].startswith(("query", "corpus", "doc", "score")):
        return None
    kinds = {"query": "query", "corpus": "document", "doc": "document", "score": "grade", "rel": "grade"}
    found = {
        kind: place
        for place, name in enumerate(names)
        for start, kind in kinds.items()
        if name.startswith(start)
    }
    return (found["query"], found["document"], found["grade"]) if len(found) == 3 else (0, 1, 2)


def _is_bare(line: str) -> bool:
    """Tell whether a first line is one of BEIR's three columns; not one of TREC's that lost its grade."""
    parts = [part.strip() for part in line.split("\t" if "\t" in line else ",")]
    if len(parts) != 3 or parts[1] in ("0", "Q0"):
        return False
    return re.fullmatch(r"-?\d{1,3}", parts[2]) is not None


def _grade(text: str, place: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value.is_integer():
        raise CorpusError(f"{place}: the grade is no whole number")
    return int(value)


def _member(path: str | Path, name: str) -> Path:
    found = existing(path)
    if found.is_file():
        return found
    for candidate in (found / name, found / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise CorpusError(f"{path}: no {name} or {name}.gz in this folder")
