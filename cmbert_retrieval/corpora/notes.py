"""Clinical notes: tables with named columns, MIMIC's files as PhysioNet ships them, folders of text files."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cmbert_retrieval.corpora.base import Corpus, Cursor, Record, Source
from cmbert_retrieval.corpora.csv_rows import CsvFile, read_header, read_rows
from cmbert_retrieval.corpora.encodings import decode, known_encoding
from cmbert_retrieval.corpora.fields import report_left_out
from cmbert_retrieval.corpora.files import (
    MAX_BYTES,
    UnusableError,
    existing,
    file_source,
    files_below,
    listing_source,
    read_bounded,
    too_large,
)
from cmbert_retrieval.corpora.note_sections import note_sections
from cmbert_retrieval.corpora.note_tables import NoteOptions, NoteTable
from cmbert_retrieval.errors import ConfigError, CorpusError, printable
from cmbert_retrieval.types import Document, Section

logger = logging.getLogger(__name__)

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_NO_NOTES = re.compile(
    r"(?:.*/)?(?:(?:discharge|radiology)_detail\.csv(?:\.gz)?|(?:license|sha256sums|readme)\.txt)",
    re.IGNORECASE,
)
"""Of MIMIC-IV-Note, and what PhysioNet puts beside the data of every set."""


class NotesCorpus(Corpus):
    """Notes out of ``.csv``, ``.tsv`` (both also gzipped) and ``.parquet`` tables, or ``.txt`` files.

    A folder is read in the order of its files' names. MIMIC-IV-Note's ``discharge.csv.gz`` and
    ``radiology.csv.gz`` and MIMIC-III's ``NOTEEVENTS.csv.gz`` are recognised by their columns and declare
    columns to filter on: ``subject_id``, ``hadm_id``, ``note_type`` or ``category``, ``charttime`` or
    ``chartdate``, and ``iserror``. The ``*_detail`` files of MIMIC-IV-Note are left out: they tell name and
    value of single facts, hold no notes, and joining them would take either memory or an order that is not
    promised. So are PhysioNet's ``LICENSE.txt``, ``SHA256SUMS.txt`` and ``README.txt`` in a folder.

    Each note has sections where headings are found (see ``note_sections``). Texts are as read, with their
    white space, line ends and ``___``.

    A CSV file is read on from a byte; where it is gzipped or in another encoding than UTF-8, what lies before
    that is unpacked again, at some hundred megabytes a second.

    Source:
        Johnson et al., "MIMIC-IV-Note: Deidentified free-text clinical notes", PhysioNet 2023.
    """

    reader = "notes"

    def __init__(
        self,
        path: str | Path,
        *,
        id: str = "",
        text: str = "",
        title: str = "",
        metadata: str | Sequence[str] = "rest",
        separator: str = "",
        encoding: str = "utf-8",
        sections: bool = True,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Open a corpus; the names of the columns are read.

        Args:
            path: a table, a text file, or a folder of them at any depth.
            id: column of the id; ``""``: ``note_id``, ``row_id``, ``id`` and the like. The id of a text file
                is its name below the folder, without ending, ``_`` for white space.
            text: column of the text; ``""``: ``text``, ``note_text`` and the like.
            title: column of the title; ``""``: ``title`` or ``description`` where there is one.
            metadata: ``rest`` takes every other column, a list (or names with commas between) these.
            separator: between the columns of CSV files; ``""``: what the file's ending says.
            encoding: of CSV and text files.
            sections: whether headings are looked for. Passages do not cross them, and are more and shorter.
            max_bytes: rows and files longer than this are a problem.

        Raises:
            CorpusError: nothing to read is there, a table is none, or lacks a column (the columns that are
                there are named).
            ConfigError: an option has a wrong value.
            MissingExtraError: there is a Parquet file, and pyarrow is not installed.
        """
        self.path = existing(path)
        self._given = str(path)
        if not isinstance(sections, bool):
            raise ConfigError(f"option 'sections': got {sections!r}, expected true or false")
        self._options = NoteOptions.checked(id, text, title, metadata)
        self._separator = _checked_separator(separator)
        self._encoding = known_encoding(encoding)
        self._max_bytes, self._sections = max_bytes, sections
        self._root = self.path if self.path.is_dir() else self.path.parent
        self._names, self._others = self._list()
        self._tables: dict[str, NoteTable] = {}
        columns: dict[str, str] = {}
        for name in self._names:
            if _kind(name) != ".txt":
                self._tables[name] = table = self._table(name)
                columns |= table.columns
        self.columns = columns

    def _list(self) -> tuple[list[str], list[str]]:
        """Return the names of the files that are read, and of the others."""
        if self.path.is_file():
            if not _kind(self.path.name):
                raise CorpusError(
                    f"{self._given}: expected a .csv, .tsv, .parquet or .txt file (also .csv.gz), or a folder"
                )
            return [self.path.name], []
        names: list[str] = []
        others: list[str] = []
        for name in files_below(self.path):
            (names if _kind(name) and not _NO_NOTES.fullmatch(name) else others).append(name)
        if not names:
            raise CorpusError(f"{self._given}: no .csv, .tsv, .parquet or .txt file in this folder")
        return names, others

    def _table(self, name: str) -> NoteTable:
        shown = printable(name)
        if _kind(name) == ".parquet":
            from cmbert_retrieval.corpora.parquet_rows import open_parquet

            with open_parquet(self._root / name, shown) as file:
                return NoteTable(file.schema_arrow.names, self._options, shown)
        file = self._csv_file(name)
        return NoteTable(read_header(file), self._options, shown, file.separator)

    def _csv_file(self, name: str) -> CsvFile:
        separator = self._separator or _SEPARATORS[_kind(name)]
        return CsvFile(self._root / name, printable(name), separator, self._encoding, self._max_bytes)

    def records(self, after: Cursor | None = None) -> Iterator[Record]:
        """Yield a note a record, behind ``after``.

        Raises:
            CorpusError: a file cannot be read on: damaged gzip or Parquet data, a quote that is never closed.
        """
        if after is None and self._others:
            shown = printable(self._others[0])
            count = len(self._others)
            logger.warning("%s: %d files are no notes and not read, %s first", self.path, count, shown)
        first = 0 if after is None else int(after["number"])
        for number in range(first, len(self._names)):
            name = self._names[number]
            place = after if number == first else None
            here = {"file": printable(name), "number": number}
            if _kind(name) == ".txt":
                if place is None:
                    yield self._read_text(name, here)
            elif _kind(name) == ".parquet":
                yield from self._read_parquet(name, here, place)
            else:
                yield from self._read_csv(name, here, place)

    def _read_text(self, name: str, here: Cursor) -> Record:
        stem = re.sub(r"\.txt(?:\.gz)?$", "", name, flags=re.IGNORECASE)
        document_id = "".join("_" if c.isspace() or not c.isprintable() else c for c in stem)
        try:
            text = decode(read_bounded(self._root / name, self._max_bytes), self._encoding)
        except UnusableError as error:
            return Record(here, None, f"{printable(name)}: {error}", document_id)
        return Record(here, Document(document_id, text, sections=self._find_sections(text)))

    def _read_csv(self, name: str, here: Cursor, after: Cursor | None) -> Iterator[Record]:
        table, file = self._tables[name], self._csv_file(name)
        place = (int(after["line"]), int(after["offset"])) if after is not None else None
        left_out: Counter[str] = Counter()
        for row in read_rows(file, len(table.names), place):
            values = table.of_cells(row.values) if row.values is not None else None
            cursor = {**here, "line": row.next_line, "offset": row.offset}
            yield self._record(cursor, f"{file.name}:{row.line}", table, values, row.problem, left_out)

    def _read_parquet(self, name: str, here: Cursor, after: Cursor | None) -> Iterator[Record]:
        from cmbert_retrieval.corpora.parquet_rows import open_parquet, read_parquet

        table, shown = self._tables[name], printable(name)
        place = (int(after["row_group"]), int(after["row"])) if after is not None else None
        left_out: Counter[str] = Counter()
        with open_parquet(self._root / name, shown) as file:
            columns = file.schema_arrow.names
        for row in read_parquet(self._root / name, shown, columns, place):
            values = table.of_row(row.values) if row.values is not None else None
            cursor = {**here, "row_group": row.row_group, "row": row.row}
            where = f"{shown}: row {row.row + 1} of row group {row.row_group}"
            yield self._record(cursor, where, table, values, row.problem, left_out)
        report_left_out(shown, left_out, "column")

    def _record(
        self,
        cursor: Cursor,
        where: str,
        table: NoteTable,
        values: Mapping[str, Any] | None,
        problem: str,
        left_out: Counter[str],
    ) -> Record:
        try:
            if values is None:
                raise UnusableError(problem)
            document = table.fields.document(values, left_out)
            if len(document.text) > self._max_bytes:
                raise UnusableError(too_large(self._max_bytes))
        except UnusableError as error:
            return Record(cursor, None, f"{where}: {error}", table.fields.known_id(values or {}))
        if sections := self._find_sections(document.text):
            document = replace(document, sections=sections)
        return Record(cursor, document)

    def _find_sections(self, text: str) -> tuple[Section, ...]:
        return note_sections(text) if self._sections else ()

    def sources(self) -> list[Source]:
        """Return the tables with their checksums, and the text files as one listing."""
        if self.path.is_file():
            return [file_source(self.path, self._given)]
        found = [file_source(self._root / name, f"{self._given}/{printable(name)}") for name in self._tables]
        texts = [name for name in self._names if name not in self._tables]
        return [*found, listing_source(self._given, self._root, texts)] if texts else found

    def total(self) -> int | None:
        """Return the number of text files; None where there are tables."""
        return None if self._tables else len(self._names)


def _kind(name: str) -> str:
    """Return the ending that tells how a file is read; "" for none."""
    lower = name.lower()
    unpacked = lower.removesuffix(".gz")
    kinds = [*_SEPARATORS, ".txt"] if unpacked != lower else [*_SEPARATORS, ".txt", ".parquet"]
    return next((kind for kind in kinds if unpacked.endswith(kind)), "")


def _checked_separator(separator: object) -> str:
    if separator == "tab":
        return "\t"
    if not isinstance(separator, str) or len(separator) > 1 or separator in ('"', "\r", "\n", "\0", " "):
        raise ConfigError(f"option 'separator': got {separator!r}, expected one character, or 'tab'")
    return separator
