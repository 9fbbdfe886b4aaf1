"""Shards of a segment under construction: their rows in SQLite, then their vectors; each durable at once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.corpora.base import Cursor
from cmbert_retrieval.corpora.fields import LONGEST_NAME
from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.encoders.identity import check_vectors
from cmbert_retrieval.errors import IndexCorruptError
from cmbert_retrieval.indexes import documents as store
from cmbert_retrieval.indexes.report import Report
from cmbert_retrieval.indexes.shard_files import shard_name, write_shard
from cmbert_retrieval.storage import writing

BUILD_TABLES = """
CREATE TABLE dead (row INTEGER PRIMARY KEY);  -- rows, of any segment, that this build replaces or deletes
CREATE TABLE kept (row INTEGER PRIMARY KEY, old INTEGER NOT NULL);  -- rows that take the vector of an old row
CREATE TABLE finished (report TEXT NOT NULL);
"""

_SAMPLED_DOCUMENTS = 1000
_SAMPLED_KEYS = 1000
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

Notify = Callable[[str, int], None]
"""Called with a phase and how many more are done.

Once ``total`` with the documents to come (0: unknown); ``documents`` and ``read`` (rows) as they are read;
``rows`` as they are stored and encoded; ``resumed`` with those that an earlier run did; then ``vectors``,
``words_total`` and ``words`` (rows), ``merge`` and ``commit``."""


class VectorSource(Protocol):
    """The commit before, as far as vectors are taken from it."""

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return the stored vectors of rows."""


@dataclass(slots=True)
class Pending:
    """What has been read and not yet been stored: less than a shard.

    Attributes:
        documents: number -> what SQLite stores of the document.
        numbers: id -> number of its last revision among ``documents``.
        rows: in order.
        values: ``(column, value, document)``.
        dead: rows that these documents replace, or that were deleted between them.
        kept: row -> old row with the same text, whose vector it takes.
    """

    documents: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    rows: list[store.Row] = field(default_factory=list)
    values: list[tuple[int, Any, int]] = field(default_factory=list)
    dead: set[int] = field(default_factory=set)
    kept: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the stored shards reach.

    Attributes:
        cursor: behind the last whole document; None before the first.
        partial: rows already stored of the document behind the cursor.
        next_row: the number of the next row.
        report: the counts up to here.
        finished: whether nothing is left to be read.
    """

    cursor: Cursor | None
    partial: int
    next_row: int
    report: Report
    finished: bool


class ShardStore:
    """Database and vector files of one ``segments/N.building``. A shard is stored, then encoded."""

    def __init__(
        self, folder: Path, encoder: Encoder | None, base: VectorSource | None, notify: Notify
    ) -> None:
        """Open the database in ``folder``, or begin it there.

        Raises:
            IndexCorruptError: what is there is damaged.
            StorageError: it cannot be written.
        """
        self._folder, self._encoder, self._base, self._notify = folder, encoder, base, notify
        with self._guarded():
            # Opening it for writing also rolls back the transaction that a kill cut short.
            self._connection = store.connect(folder / store.DATABASE, writable=True)
            if not self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'finished'").fetchone():
                self._connection.executescript(f"BEGIN; {store.TABLES} {BUILD_TABLES} COMMIT;")

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        path = self._folder / store.DATABASE
        try:
            with writing(path):
                yield
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
                raise
            raise IndexCorruptError(
                f"{path}: {error}; this unfinished build is damaged: add --restart to begin it again"
            ) from None

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    # --- what there is ---

    def progress(self, first_row: int) -> Progress:
        """Return how far an earlier run came; ``first_row`` is where it began."""
        with self._guarded():
            finished = self._connection.execute("SELECT report FROM finished").fetchone()
            last = self._connection.execute(
                "SELECT cursor, partial, end_row, counts FROM shards ORDER BY shard DESC LIMIT 1"
            ).fetchone()
        cursor, partial, next_row, counts = last or (None, 0, first_row, None)
        counts = finished[0] if finished else counts
        report = Report.from_json(json.loads(counts)) if counts else Report()
        report.encoded = 0  # counts the present run alone
        return Progress(
            json.loads(cursor) if cursor else None, partial, next_row, report, finished is not None
        )

    def dead_rows(self) -> NDArray[np.int64]:
        """Return the rows, of any segment, that this build replaces or deletes."""
        found = self._connection.execute("SELECT row FROM dead ORDER BY row")
        return np.array([row for (row,) in found], np.int64)

    def is_dead(self, row: int) -> bool:
        """Tell whether this build has replaced or deleted a row."""
        return bool(self._connection.execute("SELECT 1 FROM dead WHERE row = ?", (row,)).fetchone())

    def size(self) -> tuple[int, int]:
        """Return how many rows and documents are stored."""
        (rows,) = self._connection.execute("SELECT count(*) FROM rows").fetchone()
        (documents,) = self._connection.execute("SELECT count(*) FROM documents").fetchone()
        return rows, documents

    def last_document(self) -> int:
        """Return the highest document number, -1 when there is none."""
        (last,) = self._connection.execute("SELECT coalesce(max(document), -1) FROM documents").fetchone()
        return int(last)

    def number_of(self, id: str) -> int | None:
        """Return the number of the last stored revision of a document; None where there is none."""
        (number,) = self._connection.execute(
            "SELECT max(document) FROM documents WHERE id = ?", (id,)
        ).fetchone()
        return None if number is None else int(number)

    def rows_of(self, number: int) -> list[int]:
        """Return the stored rows of a document by its number."""
        found = self._connection.execute("SELECT row FROM rows WHERE document = ?", (number,))
        return [row for (row,) in found]

    def metadata_of(self, number: int) -> str:
        """Return the metadata of a document by its number, as JSON."""
        found = self._connection.execute("SELECT metadata FROM documents WHERE document = ?", (number,))
        return str(found.fetchone()[0])

    def has_values(self, column: int) -> bool:
        """Tell whether any document has a value in a declared column."""
        found = self._connection.execute("SELECT 1 FROM attributes WHERE column = ? LIMIT 1", (column,))
        return found.fetchone() is not None

    def some_keys(self) -> set[str]:
        """Return metadata keys of documents spread over all that are stored; not of all, and not all."""
        step = self.last_document() // _SAMPLED_DOCUMENTS + 1
        keys: set[str] = set()
        for number in range(0, self.last_document() + 1, step):
            found = json.loads(self.metadata_of(number))
            keys.update(key for key in islice(found, _SAMPLED_KEYS - len(keys)) if len(key) <= LONGEST_NAME)
        return keys

    # --- storing and encoding ---

    def add(self, pending: Pending, cursor: Cursor | None, partial: int, report: Report) -> None:
        """Commit the pending rows as one shard, then encode it.

        Args:
            pending: at least one row.
            cursor: behind the last whole document.
            partial: rows stored of the document behind it.
            report: the counts so far, these rows included; what is encoded is counted in it.
        """
        report.reused += len(pending.kept)
        first, end = pending.rows[0].row, pending.rows[-1].row + 1
        source = str((cursor or {}).get("file", ""))
        place = json.dumps(cursor) if cursor is not None else None
        connection = self._connection
        with self._guarded():
            connection.execute("BEGIN IMMEDIATE")
            try:
                (shard,) = connection.execute("SELECT count(*) FROM shards").fetchone()
                store.insert_documents(connection, pending.documents.values())
                store.insert_rows(connection, pending.rows)
                connection.executemany("INSERT OR IGNORE INTO attributes VALUES (?, ?, ?)", pending.values)
                self._bury(pending.dead)
                connection.executemany("INSERT INTO kept VALUES (?, ?)", pending.kept.items())
                connection.execute(
                    "INSERT INTO shards VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (shard, first, end, source, place, partial, json.dumps(report.to_json())),
                )
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        report.encoded += self._encode(shard, pending.rows, pending.kept)

    def _bury(self, dead: Iterable[int]) -> None:
        self._connection.executemany(
            "INSERT OR IGNORE INTO dead VALUES (?)", ((row,) for row in sorted(dead))
        )

    def missing(self) -> int:
        """Return how many stored rows have no vectors yet."""
        return sum(end - first for _, first, end in self._unencoded())

    def _unencoded(self) -> list[tuple[int, int, int]]:
        """Return number, first row and end of the shards that were stored and not encoded."""
        if self._encoder is None:
            return []
        with self._guarded():
            shards = self._connection.execute("SELECT shard, first_row, end_row FROM shards").fetchall()
        return [shard for shard in shards if not (self._folder / shard_name(shard[0])).exists()]

    def encode_missing(self) -> int:
        """Encode the shard that a killed run had stored but not encoded; return how many rows that took."""
        encoded = 0
        for shard, first, end in self._unencoded():
            kept = self._connection.execute(
                "SELECT row, old FROM kept WHERE row >= ? AND row < ?", (first, end)
            )
            with closing(store.DocumentStore(self._folder / store.DATABASE)) as documents:
                rows = list(documents.read_rows("row >= ? AND row < ?", (first, end)))
            encoded += self._encode(shard, rows, dict(kept.fetchall()))
        return encoded

    def finish(self, report: Report, dead: Iterable[int] = ()) -> None:
        """Note that nothing is left to be read, and what was deleted behind the last row."""
        with self._guarded():
            self._connection.execute("BEGIN IMMEDIATE")
            self._bury(dead)
            self._connection.execute("INSERT INTO finished VALUES (?)", (json.dumps(report.to_json()),))
            self._connection.execute("COMMIT")

    def _encode(self, shard: int, rows: Sequence[store.Row], kept: dict[int, int]) -> int:
        encoder = self._encoder
        if encoder is None:
            self._notify("rows", len(rows))
            return 0
        vectors = np.empty((len(rows), encoder.identity.dim), dtype=np.float32)
        new = [place for place, row in enumerate(rows) if row.row not in kept]
        if len(new) < len(rows) and self._base is not None:
            old = [place for place, row in enumerate(rows) if row.row in kept]
            wanted = np.array([kept[rows[place].row] for place in old], dtype=np.int64)
            vectors[old] = self._base.vectors(wanted)
            self._notify("rows", len(old))
        if new:
            texts = [rows[place].text for place in new]
            encoded = encoder.encode_document(texts, progress=lambda count: self._notify("rows", count))
            vectors[new] = check_vectors(encoded, encoder.identity.dim, rows=len(texts))
        write_shard(self._folder / shard_name(shard), vectors)
        return len(new)
