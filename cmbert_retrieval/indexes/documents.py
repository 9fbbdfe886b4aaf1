"""Documents, rows and filterable values of one segment, in SQLite."""

from __future__ import annotations

import hashlib
import itertools
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cmbert_retrieval.errors import CmbertError, IndexCorruptError
from cmbert_retrieval.indexes.advice import run_verify
from cmbert_retrieval.indexes.filters import Filter
from cmbert_retrieval.indexes.trust import check_database
from cmbert_retrieval.types import Document, Section

DATABASE = "documents.sqlite"

TABLES = """
CREATE TABLE documents (
    document INTEGER PRIMARY KEY,  -- number within the segment
    id TEXT NOT NULL, title TEXT NOT NULL, text TEXT NOT NULL,
    metadata TEXT NOT NULL, sections TEXT NOT NULL,  -- JSON
    hash BLOB NOT NULL  -- of everything above
);
CREATE INDEX documents_by_id ON documents (id);
CREATE TABLE rows (
    row INTEGER PRIMARY KEY, document INTEGER NOT NULL, number INTEGER NOT NULL,  -- n-th row of its document
    start INTEGER, end INTEGER,  -- characters of documents.text; NULL for an entry text
    entry TEXT, title TEXT NOT NULL,  -- title: what stands in front of the text when it is indexed
    hash BLOB NOT NULL  -- of the whole indexed text
);
CREATE INDEX rows_by_document ON rows (document, number);
CREATE TABLE attributes (column INTEGER, value, document INTEGER, PRIMARY KEY (column, value, document))
WITHOUT ROWID; CREATE INDEX attributes_by_document ON attributes (document);
CREATE TABLE shards (
    shard INTEGER PRIMARY KEY, first_row INTEGER NOT NULL, end_row INTEGER NOT NULL,
    source TEXT NOT NULL, cursor TEXT, -- JSON: behind the last whole document
    partial INTEGER NOT NULL,  -- rows already stored of the document behind the cursor
    counts TEXT NOT NULL  -- JSON: the report up to here
);
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One indexed text.

    Attributes:
        row: its number in the index.
        document: number of its document within the segment.
        number: its place among the rows of the document.
        start: first character in the document's text; None for an entry text.
        end: one past the last character; None for an entry text.
        entry: the entry text, else None.
        title: what is put in front when it is indexed.
        text: what is encoded and indexed.
    """

    row: int
    document: int
    number: int
    start: int | None
    end: int | None
    entry: str | None
    title: str
    text: str

    @property
    def hash(self) -> bytes:
        """SHA-256 of the indexed text: two rows with the same hash share a vector."""
        return hashlib.sha256(self.text.encode()).digest()


def row_text(title: str, passage: str) -> str:
    """Return the text that is encoded and indexed for a passage."""
    return f"{title} {passage}".strip()


def document_json(document: Document) -> tuple[str, str]:
    """Return metadata and sections as JSON. Raises ValueError for what JSON cannot hold."""
    metadata = json.dumps(dict(document.metadata), ensure_ascii=False, allow_nan=False, default=_json_value)
    sections = json.dumps(
        [[s.start, s.end, list(s.path), s.kind] for s in document.sections], ensure_ascii=False
    )
    return metadata, sections


def _json_value(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "item"):  # numpy scalars
        return value.item()
    raise ValueError(f"metadata holds a {type(value).__name__}, which JSON cannot hold")


def document_hash(document: Document, metadata: str, sections: str) -> bytes:
    """Return a hash of all that is stored of a document."""
    parts = [document.id, document.title, document.text, metadata, sections, *document.entries]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).digest()


class _Connection(sqlite3.Connection):
    """A connection that closes when the thread that opened it ends."""

    path: Path

    def __del__(self) -> None:
        with suppress(sqlite3.Error):
            self.close()


class _Cursor(sqlite3.Cursor):
    """A cursor whose errors say what to do, also those that come after the first row."""

    connection: _Connection

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except sqlite3.DatabaseError as error:
            raise _damaged(self.connection.path, error) from None

    def fetchone(self) -> Any:
        return next(self, None)

    def fetchall(self) -> list[Any]:
        try:  # not row by row through __next__, which takes twice as long
            return super().fetchall()
        except sqlite3.DatabaseError as error:
            raise _damaged(self.connection.path, error) from None


def _damaged(path: Path, error: sqlite3.DatabaseError) -> IndexCorruptError:
    # SQLite quotes text that it cannot decode; nobody else must read it.
    reason = "text that is not UTF-8" if "decode" in str(error) else str(error)
    return IndexCorruptError(f"{path}: {reason}; {run_verify(path)}")


def connect(path: Path, *, writable: bool = False) -> sqlite3.Connection:
    """Open a segment's database: for building, or as the immutable file that it becomes."""
    if not writable:
        return _connect_immutable(path)
    connection = sqlite3.connect(path.absolute().as_uri() + "?mode=rwc", uri=True, isolation_level=None)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _connect_immutable(path: Path) -> _Connection:
    # A URI: read-only media have no room for a journal, and immutable files need no locks.
    uri = path.absolute().as_uri() + "?mode=ro&immutable=1"
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, factory=_Connection
    )
    connection.path = path
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA mmap_size = 1073741824")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


class DocumentStore:
    """The documents and rows of a finished segment. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        """Open the database ``path``.

        Raises:
            IndexCorruptError: it is missing or not such a database.
        """
        self._path = path
        self._local = threading.local()
        self._closed = False
        if not path.is_file():
            raise IndexCorruptError(f"{path} is missing; {run_verify(path)}")
        try:
            with closing(_connect_immutable(path)) as connection:
                check_database(connection, path)
        except sqlite3.DatabaseError as error:
            raise _damaged(path, error) from None

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run a statement on this thread's connection.

        Raises:
            CmbertError: the store was closed.
            IndexCorruptError: SQLite finds the file damaged.
        """
        if self._closed:
            raise CmbertError(f"{self._path.parent}: the index was closed; open it again to search it")
        connection = getattr(self._local, "connection", None)
        try:
            if connection is None:
                connection = self._local.connection = _connect_immutable(self._path)
            return connection.cursor(_Cursor).execute(sql, parameters)
        except sqlite3.DatabaseError as error:
            raise _damaged(self._path, error) from None

    def close(self) -> None:
        """Close the connections of all threads, each as soon as nobody reads from it."""
        # Closing a connection that another thread is reading from would end the process; without a reference
        # each closes with its last cursor.
        self._closed = True
        self._local = threading.local()

    def parents(self, rows: Sequence[int]) -> dict[int, tuple[int, str]]:
        """Return row -> (document number, document id)."""
        wanted = json.dumps(list(rows))
        sql = "SELECT row, document FROM json_each(?) JOIN rows ON row = value"
        numbers = dict(self.query(sql, (wanted,)).fetchall())
        # Apart from that, for several rows are often of one document.
        named = json.dumps(list(set(numbers.values())))
        sql = "SELECT document, documents.id FROM json_each(?) JOIN documents ON document = value"
        ids = dict(self.query(sql, (named,)).fetchall())
        return {row: (number, ids[number]) for row, number in numbers.items() if number in ids}

    def rows_matching(self, where: Filter) -> Iterator[int]:
        """Yield the rows, dead ones included, whose documents pass the filter, in order."""
        condition, parameters = where.to_sql()
        passing = f"SELECT document FROM documents WHERE {condition}"
        sql = f"SELECT row FROM rows WHERE document IN ({passing}) ORDER BY row"
        return (row for (row,) in self.query(sql, parameters))

    def read_row(self, row: int) -> Row:
        """Return one row with its text."""
        found = next(self.read_rows("row = ?", (row,)), None)
        if found is None:
            raise self._missing_row(row)
        return found

    def read_with_document(self, row: int) -> tuple[Row, Document]:
        """Return one row and its whole document, whose text is read once."""
        sql = (
            "SELECT document, number, start, end, entry, rows.title, id, documents.title, text, metadata, "
            "sections FROM rows JOIN documents USING (document) WHERE row = ?"
        )
        found = self.query(sql, (row,)).fetchone()
        if found is None:
            raise self._missing_row(row)
        document = self._document((found[0], *found[6:]), has_entries=found[4] is not None)
        return self._row((row, *found[:6]), document.text), document

    def _missing_row(self, row: int) -> IndexCorruptError:
        return IndexCorruptError(f"{self._path}: row {row} is missing; {run_verify(self._path)}")

    def _row(self, values: tuple[Any, ...], text: str) -> Row:
        """Return a row out of what is stored of it and the text of its document."""
        row, document, number, start, end, entry, title = values
        try:
            passage = text[start:end] if entry is None else entry
            return Row(row, document, number, start, end, entry, title, row_text(title, passage))
        except (TypeError, AttributeError):
            raise IndexCorruptError(
                f"{self._path}: row {row} is not as a build makes it; {run_verify(self._path)}"
            ) from None

    def read_rows(self, condition: str = "1", parameters: Sequence[Any] = ()) -> Iterator[Row]:
        """Yield rows with their texts in row order. Each document's text is read once."""
        sql = (
            f"SELECT row, document, number, start, end, entry, title FROM rows WHERE {condition} ORDER BY row"
        )
        current, text = -1, ""
        for values in self.query(sql, parameters):
            document, entry = values[1], values[5]
            if entry is None and document != current:
                current = document
                text = self._text(document)
            yield self._row(values, text)

    def _text(self, document: int) -> str:
        found = self.query("SELECT text FROM documents WHERE document = ?", (document,)).fetchone()
        if found is None or not isinstance(found[0], str):
            raise IndexCorruptError(f"{self._path}: document {document} is missing; {run_verify(self._path)}")
        return found[0]

    def find(self, id: str) -> list[tuple[int, bytes]]:
        """Return (document number, hash) of every revision with this id, the latest last."""
        return list(self.query("SELECT document, hash FROM documents WHERE id = ? ORDER BY document", (id,)))

    def row_hashes(self, document: int) -> dict[int, bytes]:
        """Return row -> text hash of a document."""
        return dict(self.query("SELECT row, hash FROM rows WHERE document = ? ORDER BY number", (document,)))

    def document(self, number: int) -> Document:
        """Return a whole document by its number."""
        found = next(self.documents("document = ?", (number,)), None)
        if found is None:
            raise IndexCorruptError(f"{self._path}: document {number} is missing; {run_verify(self._path)}")
        return found

    def documents(self, condition: str = "1", parameters: Sequence[Any] = ()) -> Iterator[Document]:
        """Yield whole documents in the order in which they were added."""
        sql = (
            "SELECT document, id, title, text, metadata, sections FROM documents "
            f"WHERE {condition} ORDER BY document"
        )
        for values in self.query(sql, parameters):
            yield self._document(values)

    def _document(self, values: tuple[Any, ...], *, has_entries: bool = True) -> Document:
        """Return a document out of what is stored of it; one without entries saves a look for them."""
        number, id_, title, text, metadata, sections = values
        try:
            parsed = json.loads(metadata)
            if not (isinstance(parsed, dict) and isinstance(title, str) and isinstance(text, str)):
                raise TypeError
            return Document.with_deferred_sections(
                partial(self._sections, number, sections),
                id=id_,
                title=title,
                text=text,
                metadata=parsed,
                entries=self._entries(number) if has_entries else (),
            )
        except (ValueError, TypeError, RecursionError):
            raise self._strange_document(number) from None

    def _entries(self, document: int) -> tuple[str, ...]:
        # A document has entries or passages, never both: the first row tells.
        sql = "SELECT entry FROM rows WHERE document = ? ORDER BY number"
        found = (entry for (entry,) in self.query(sql, (document,)))
        return tuple(itertools.takewhile(lambda entry: entry is not None, found))

    def _sections(self, number: int, stored: str) -> tuple[Section, ...]:
        try:
            return tuple(
                Section(start, end, tuple(path), kind) for start, end, path, kind in json.loads(stored)
            )
        except (ValueError, TypeError, RecursionError):
            raise self._strange_document(number) from None

    def _strange_document(self, number: int) -> IndexCorruptError:
        return IndexCorruptError(
            f"{self._path}: document {number} is not as a build makes it; {run_verify(self._path)}"
        )


def insert_documents(connection: sqlite3.Connection, values: Iterable[tuple[Any, ...]]) -> None:
    """Insert ``(document, id, title, text, metadata, sections, hash)``."""
    connection.executemany("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?)", values)


def insert_rows(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Insert rows; their texts are rebuilt from the document when they are read."""
    connection.executemany(
        "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        ((r.row, r.document, r.number, r.start, r.end, r.entry, r.title, r.hash) for r in rows),
    )
