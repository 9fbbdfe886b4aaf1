"""Building one segment, shard by shard, so that a killed build goes on where it stopped."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.corpora.base import Corpus, Cursor, Record
from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.errors import EncoderError, IndexMismatchError
from cmbert_retrieval.indexes import documents as store
from cmbert_retrieval.indexes.columns import encode_all
from cmbert_retrieval.indexes.report import Report
from cmbert_retrieval.indexes.storage import atomic_file, fsync_folder, remove_tree
from cmbert_retrieval.indexes.vectors import shard_name, write_shard
from cmbert_retrieval.types import Document

PINS = "build.json"

BUILD_TABLES = """
CREATE TABLE dead (row INTEGER PRIMARY KEY);  -- rows, of any segment, that this build replaces
CREATE TABLE kept (row INTEGER PRIMARY KEY, old INTEGER NOT NULL);  -- rows that take the vector of an old row
CREATE TABLE finished (report TEXT NOT NULL);
"""

RowTexts = Callable[[Document], Sequence[tuple[int | None, int | None, str | None, str]]]
"""Document -> ``(start, end, entry, title)`` of each of its rows."""

Notify = Callable[[str, int], None]
"""Called with a phase and how many more are done: ``documents`` and ``read`` (rows) as they are read,
``rows`` as they
are stored and encoded, then ``vectors``, ``words``, ``merge`` and ``commit``."""


class Base(Protocol):
    """What a build needs to know of the commit that it adds to."""

    def find(self, id: str) -> tuple[bytes, dict[int, bytes]] | None:
        """Return hash and row -> text hash of a live document."""

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return the stored vectors of rows."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that decides what a build makes.

    Attributes:
        pins: JSON values; a build resumes only where they are the same.
        first_row: the number of its first row.
        columns: declared columns, name -> type.
        shard_rows: rows a shard.
        row_texts: how a document becomes rows.
        encoder: None for words only.
        max_tokens: texts of more tokens are counted as truncated; None when rows are cut to fit beforehand.
    """

    pins: dict[str, Any]
    first_row: int
    columns: dict[str, str]
    shard_rows: int
    row_texts: RowTexts
    encoder: Encoder | None
    max_tokens: int | None


@dataclass(slots=True)
class _Pending:
    documents: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    numbers: dict[str, list[int]] = field(default_factory=dict)  # id -> its documents among the above
    rows: list[store.Row] = field(default_factory=list)
    values: list[tuple[int, Any, int]] = field(default_factory=list)
    dead: list[int] = field(default_factory=list)
    kept: list[tuple[int, int]] = field(default_factory=list)


class SegmentBuild:
    """A segment under construction in ``segments/N.building``."""

    def __init__(self, folder: Path, plan: Plan, base: Base | None, *, strict: bool, notify: Notify) -> None:
        """Open the folder: begin there, or go on with what an earlier run left.

        Raises:
            IndexMismatchError: it was begun with another recipe, encoder, source or commit; the message names
                which.
        """
        self._folder, self._plan, self._base = folder, plan, base
        self._strict, self._notify = strict, notify
        self._pending = _Pending()
        self.report = Report()
        if folder.exists():
            self._check_pins()
        else:
            # Its name appears with its pins inside: a kill cannot leave a folder that nobody may resume.
            fresh = folder.with_suffix(".new")
            remove_tree(fresh)
            fresh.mkdir(parents=True)
            with atomic_file(fresh / PINS) as file:
                file.write(json.dumps(plan.pins, indent=1, sort_keys=True).encode())
            fresh.rename(folder)
            fsync_folder(folder.parent)
        for leftover in folder.glob("*.tmp"):
            leftover.unlink()
        self._connection = self._open_database()

    def _check_pins(self) -> None:
        path = self._folder / PINS
        try:
            begun = json.loads(path.read_bytes())
        except (OSError, ValueError):
            begun = {}
        different = [key for key in self._plan.pins if begun.get(key) != self._plan.pins[key]]
        if different == ["commit"]:
            raise IndexMismatchError(
                f"{self._folder}: the index has changed since this addition was begun; "
                "add --restart to begin it again"
            )
        if different:
            raise IndexMismatchError(
                f"{self._folder}: this build was begun with another {' and '.join(different)}; "
                "repeat the first "
                "command to finish it, or add --restart to throw away what it did"
            )

    def _open_database(self) -> sqlite3.Connection:
        path = self._folder / store.DATABASE
        connection = store.connect(path, writable=True)
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'finished'").fetchone():
            connection.executescript(f"BEGIN; {store.TABLES} {BUILD_TABLES} COMMIT;")
        return connection

    def dead_rows(self) -> NDArray[np.int64]:
        """Return the rows, of any segment, that this build replaces."""
        return np.array(
            [row for (row,) in self._connection.execute("SELECT row FROM dead ORDER BY row")], np.int64
        )

    def size(self) -> tuple[int, int]:
        """Return how many rows and documents are stored."""
        (rows,) = self._connection.execute("SELECT count(*) FROM rows").fetchone()
        (documents,) = self._connection.execute("SELECT count(*) FROM documents").fetchone()
        return rows, documents

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def run(self, corpus: Corpus) -> None:
        """Read, store and encode what is missing, then mark the segment as finished."""
        finished = self._connection.execute("SELECT report FROM finished").fetchone()
        state = self._connection.execute(
            "SELECT cursor, partial, end_row, counts FROM shards ORDER BY shard DESC LIMIT 1"
        ).fetchone()
        cursor: Cursor | None = None
        partial, next_row = 0, self._plan.first_row
        if state:
            cursor = json.loads(state[0]) if state[0] else None
            partial, next_row = state[1], state[2]
            self.report = Report.from_json(json.loads(finished[0] if finished else state[3]))
            self.report.encoded = 0  # counts this run alone
            self._notify("read", next_row - self._plan.first_row)
            self._notify("rows", next_row - self._plan.first_row)
            self._notify("documents", self.report.documents)
        elif finished:
            self.report = Report.from_json(json.loads(finished[0]))
        self._encode_missing()
        if not finished:
            self._read(corpus, cursor, partial, next_row)
            values = self.report.to_json()
            self._connection.execute("INSERT INTO finished VALUES (?)", (json.dumps(values),))

    # --- reading ---

    def _read(self, corpus: Corpus, cursor: Cursor | None, partial: int, next_row: int) -> None:
        for record in corpus.records(after=cursor):
            document, metadata, sections = self._usable(record)
            if document is not None:
                spans = self._plan.row_texts(document)
                next_row = self._take(
                    record, cursor, document, (metadata, sections), spans, partial, next_row
                )
                partial = 0
            cursor = record.cursor
        self._flush(cursor, 0)

    def _usable(self, record: Record) -> tuple[Document | None, str, str]:
        """Return the document and its JSON texts, or None with the reason counted."""
        document = record.document
        if document is None:
            self.report.note("skipped", str(record.problem), strict=self._strict)
            return None, "", ""
        try:
            metadata, sections = store.document_json(document)
            "\0".join((document.id, document.title, document.text, metadata, *document.entries)).encode()
        except UnicodeEncodeError:
            self.report.note(
                "skipped", f"{_shown(document.id)}: its text is not valid Unicode", strict=self._strict
            )
            return None, "", ""
        except (ValueError, TypeError) as error:
            self.report.note("skipped", f"{_shown(document.id)}: {error}", strict=self._strict)
            return None, "", ""
        if not document.id or len(document.id.split()) != 1 or document.id != document.id.strip():
            problem = "an id with white space" if document.id.strip() else "an empty id"
            self.report.note("skipped", f"{_shown(document.id)}: {problem}", strict=self._strict)
            return None, "", ""
        if not (document.title.strip() or document.text.strip() or any(e.strip() for e in document.entries)):
            self.report.note("empty", document.id, strict=self._strict)
            return None, "", ""
        return document, metadata, sections

    def _take(
        self,
        record: Record,
        before: Cursor | None,
        document: Document,
        stored: tuple[str, str],
        spans: Sequence[tuple[int | None, int | None, str | None, str]],
        partial: int,
        next_row: int,
    ) -> int:
        """Put a document's rows into the shard, writing it whenever it is full; return the next row."""
        digest = store.document_hash(document, *stored)
        old = self._base.find(document.id) if self._base else None
        if old and old[0] == digest and not self._seen(document.id):
            self.report.unchanged += 1
            return next_row
        if partial:
            (number,) = self._connection.execute("SELECT max(document) FROM documents").fetchone()
        else:
            number = self._begin(document, stored, digest, old)
        vectors_by_hash = {digest: row for row, digest in old[1].items()} if old else {}
        for place, (start, end, entry, title) in enumerate(spans):
            if place < partial:
                continue
            passage = document.text[start:end] if entry is None else entry
            text = store.row_text(title, passage)
            row = store.Row(next_row, number, place, start, end, entry, title, text)
            self._pending.rows.append(row)
            if vectors_by_hash and row.hash in vectors_by_hash:
                self._pending.kept.append((next_row, vectors_by_hash[row.hash]))
            next_row += 1
            self.report.rows += 1
            self._notify("read", 1)
            if len(self._pending.rows) == self._plan.shard_rows:
                whole = place == len(spans) - 1
                self._flush(record.cursor if whole else before, 0 if whole else place + 1)
        self._notify("documents", 1)
        return next_row

    def _begin(
        self,
        document: Document,
        stored: tuple[str, str],
        digest: bytes,
        old: tuple[bytes, dict[int, bytes]] | None,
    ) -> int:
        """Put a document without its rows into the shard and retire what it replaces; return its number."""
        pending = self._pending
        if self._seen(document.id):
            self.report.note("duplicates", document.id, strict=self._strict)
            self.report.documents -= 1
            pending.dead += self._rows_of_duplicate(document.id)
        elif old:
            self.report.replaced += 1
            pending.dead += old[1]
        (last,) = self._connection.execute("SELECT coalesce(max(document), -1) FROM documents").fetchone()
        number: int = 1 + max(last, next(reversed(pending.documents), -1))
        pending.documents[number] = (number, document.id, document.title, document.text, *stored, digest)
        pending.numbers.setdefault(document.id, []).append(number)
        for column, value, problem in encode_all(self._plan.columns, document.metadata):
            if problem:
                self.report.note("unusable_values", f"{document.id}: {problem}", strict=self._strict)
            else:
                pending.values.append((column, value, number))
        self.report.documents += 1
        return number

    def _seen(self, id: str) -> bool:
        if id in self._pending.numbers:
            return True
        return bool(self._connection.execute("SELECT 1 FROM documents WHERE id = ?", (id,)).fetchone())

    def _rows_of_duplicate(self, id: str) -> list[int]:
        numbers = self._pending.numbers.get(id, [])
        rows = [row.row for row in self._pending.rows if row.document in numbers]
        found = self._connection.execute(
            "SELECT row FROM rows JOIN documents USING (document) WHERE id = ?", (id,)
        )
        return rows + [row for (row,) in found]

    # --- writing ---

    def _flush(self, cursor: Cursor | None, partial: int) -> None:
        """Commit the pending rows as one shard, then encode it."""
        pending, self._pending = self._pending, _Pending()
        if not pending.rows:
            return
        self._count_truncated(pending.rows)
        connection = self._connection
        (shard,) = connection.execute("SELECT count(*) FROM shards").fetchone()
        first, end = pending.rows[0].row, pending.rows[-1].row + 1
        source = str((cursor or {}).get("file", ""))
        counts = json.dumps(self.report.to_json())
        with closing(connection.cursor()) as transaction:
            transaction.execute("BEGIN IMMEDIATE")
            try:
                store.insert_documents(connection, pending.documents.values())
                store.insert_rows(connection, pending.rows)
                connection.executemany("INSERT OR IGNORE INTO attributes VALUES (?, ?, ?)", pending.values)
                connection.executemany(
                    "INSERT OR IGNORE INTO dead VALUES (?)", ((row,) for row in pending.dead)
                )
                connection.executemany("INSERT INTO kept VALUES (?, ?)", pending.kept)
                transaction.execute(
                    "INSERT INTO shards VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        shard,
                        first,
                        end,
                        source,
                        json.dumps(cursor) if cursor is not None else None,
                        partial,
                        counts,
                    ),
                )
                transaction.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    transaction.execute("ROLLBACK")
                raise
        self._encode(shard, pending.rows, dict(pending.kept))

    def _count_truncated(self, rows: Sequence[store.Row]) -> None:
        limit, encoder = self._plan.max_tokens, self._plan.encoder
        if encoder is None or limit is None:
            return
        for row, tokens in zip(rows, encoder.count_tokens([row.text for row in rows]), strict=True):
            if tokens > limit:
                self.report.note("truncated", f"row {row.row} of {tokens} tokens", strict=self._strict)

    def _encode_missing(self) -> None:
        """Encode the shard that a killed run had stored but not encoded."""
        if self._plan.encoder is None:
            return
        for shard, first, end in self._connection.execute(
            "SELECT shard, first_row, end_row FROM shards"
        ).fetchall():
            if not (self._folder / shard_name(shard)).exists():
                kept = self._connection.execute(
                    "SELECT row, old FROM kept WHERE row >= ? AND row < ?", (first, end)
                )
                self._encode(shard, list(self._stored_rows(first, end)), dict(kept.fetchall()))

    def _stored_rows(self, first: int, end: int) -> Iterator[store.Row]:
        with closing(store.DocumentStore(self._folder / store.DATABASE)) as documents:
            yield from documents.read_rows("row >= ? AND row < ?", (first, end))

    def _encode(self, shard: int, rows: Sequence[store.Row], kept: dict[int, int]) -> None:
        encoder = self._plan.encoder
        if encoder is None:
            self._notify("rows", len(rows))
            return
        vectors = np.empty((len(rows), encoder.identity.dim), dtype=np.float32)
        new = [place for place, row in enumerate(rows) if row.row not in kept]
        if len(new) < len(rows) and self._base is not None:
            old = [place for place, row in enumerate(rows) if row.row in kept]
            wanted = np.array([kept[rows[place].row] for place in old], dtype=np.int64)
            vectors[old] = self._base.vectors(wanted)
            self.report.reused += len(old)
            self._notify("rows", len(old))
        if new:
            texts = [rows[place].text for place in new]
            encoded = encoder.encode_document(texts, progress=lambda count: self._notify("rows", count))
            check_vectors(encoded, len(texts), encoder.identity.dim)
            vectors[new] = encoded
            self.report.encoded += len(new)
        write_shard(self._folder / shard_name(shard), vectors)


def check_vectors(vectors: NDArray[np.float32], texts: int, dim: int) -> None:
    """Refuse vectors that FAISS would take and never find.

    Raises:
        IndexMismatchError: another shape than ``[texts, dim]``.
        EncoderError: a vector is not finite, or too large for float16.
    """
    if vectors.shape != (texts, dim):
        raise IndexMismatchError(
            f"the encoder gave vectors of shape {vectors.shape}, expected ({texts}, {dim})"
        )
    if not np.isfinite(vectors).all():
        bad = int(np.count_nonzero(~np.isfinite(vectors).all(axis=1)))
        raise EncoderError(
            f"{bad} of {texts} vectors of shape {vectors.shape} hold NaN or infinite values; "
            "this shard was not kept: look for overflow (try dtype=float32) or damaged weights"
        )
    if np.abs(vectors).max(initial=0.0) > np.finfo(np.float16).max:
        raise EncoderError(
            "vectors hold values over 65,504, which float16 cannot keep; use a normalised encoder"
        )


def _shown(id: str) -> str:
    return repr(id[:60])
