"""Building one segment, shard by shard, so that a killed build goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.corpora.base import Corpus, Cursor, Record
from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.errors import IndexMismatchError
from cmbert_retrieval.indexes import documents as store
from cmbert_retrieval.indexes.columns import encode_all, similar_key
from cmbert_retrieval.indexes.pins import begin_folder, check_pins
from cmbert_retrieval.indexes.report import Report
from cmbert_retrieval.indexes.revisions import is_older, with_known_retraction
from cmbert_retrieval.indexes.shards import Notify, Pending, ShardStore
from cmbert_retrieval.indexes.traces import has_rows
from cmbert_retrieval.storage import discard_tree
from cmbert_retrieval.types import Document

RowTexts = Callable[[Document], Sequence[tuple[int | None, int | None, str | None, str]]]
"""Document -> ``(start, end, entry, title)`` of each of its rows."""


class Base(Protocol):
    """What a build needs to know of the commit that it adds to."""

    def find(self, id: str) -> tuple[bytes, dict[int, bytes]] | None:
        """Return hash and row -> text hash of a live document."""

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return the stored vectors of rows."""

    def get(self, id: str) -> Document | None:
        """Return a live document."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that decides what a build makes.

    Attributes:
        pins: JSON values; a build resumes only where they are the same.
        paths: of the sources among them, for messages: where the same files lie is of no account.
        first_row: the number of its first row.
        columns: declared columns, name -> type.
        shard_rows: rows a shard.
        row_texts: how a document becomes rows.
        expected: the declared columns that are worth a warning when no document has them.
        encoder: None for words only.
        max_tokens: texts of more tokens are counted as truncated; None when rows are cut to fit beforehand.
    """

    pins: dict[str, Any]
    paths: Sequence[str]
    first_row: int
    columns: dict[str, str]
    shard_rows: int
    row_texts: RowTexts
    expected: frozenset[str]
    encoder: Encoder | None
    max_tokens: int | None


class SegmentBuild:
    """A segment under construction in ``segments/N.building``."""

    def __init__(self, folder: Path, plan: Plan, base: Base | None, *, strict: bool, notify: Notify) -> None:
        """Open the folder: begin there, or go on with what an earlier run left.

        Raises:
            IndexMismatchError: it was begun with another recipe, encoder, source or commit; the message names
                what differs.
        """
        self._plan, self._base = plan, base
        self._strict, self._notify = strict, notify
        self._pending = Pending()
        self._knows_retractions = False
        self.report = Report()
        try:
            if folder.exists():
                check_pins(folder, plan.pins, plan.paths)
        except IndexMismatchError:
            if has_rows(folder):
                raise
            discard_tree(folder)  # nothing is lost by beginning again
        if not folder.exists():
            begin_folder(folder, plan.pins, plan.paths)
        for leftover in folder.glob("*.tmp"):
            leftover.unlink()
        self._shards = ShardStore(folder, plan.encoder, base, notify)

    def dead_rows(self) -> NDArray[np.int64]:
        """Return the rows, of any segment, that this build replaces or deletes."""
        return self._shards.dead_rows()

    def size(self) -> tuple[int, int]:
        """Return how many rows and documents are stored."""
        return self._shards.size()

    def close(self) -> None:
        """Close the database."""
        self._shards.close()

    def run(self, corpus: Corpus) -> None:
        """Read, store and encode what is missing, then mark the segment as finished."""
        self._knows_retractions = corpus.knows_retractions
        done = self._shards.progress(self._plan.first_row)
        self.report = done.report
        rows = done.next_row - self._plan.first_row
        if rows:
            self._notify("read", rows)
            self._notify("resumed", rows - self._shards.missing())
            self._notify("documents", self.report.documents)
        self.report.encoded += self._shards.encode_missing()
        if not done.finished:
            self._read(corpus, done.cursor, done.partial, done.next_row)

    def _read(self, corpus: Corpus, cursor: Cursor | None, partial: int, next_row: int) -> None:
        for record in corpus.records(after=cursor):
            if record.deleted:
                self._delete(record)
                cursor = record.cursor
                continue
            document, metadata, sections = self._usable(record)
            if document is not None:
                spans = self._plan.row_texts(document)
                next_row = self._take(
                    record, cursor, document, (metadata, sections), spans, partial, next_row
                )
                partial = 0
            cursor = record.cursor
        self._flush(cursor, 0)
        for name in sorted(self._plan.expected):
            self._note_if_empty(name)
        self._shards.finish(self.report, self._pending.dead)

    def _note_if_empty(self, name: str) -> None:
        """Warn of a column in which no document has a value, with the key that may have been meant."""
        number = list(self._plan.columns).index(name)
        if not self.report.documents or self._shards.has_values(number):
            return
        hint = ""
        if similar := similar_key(name, self._shards.some_keys()):
            hint = f" (did you mean '{similar}'? then build anew)"
        self.report.note("empty_columns", f"'{name}'{hint}")

    def _usable(self, record: Record) -> tuple[Document | None, str, str]:
        """Return the document and its JSON texts, or None with the reason counted."""
        document = record.document
        if document is None:
            self._note("skipped", str(record.problem))
            return None, "", ""
        known = self._known_metadata(document.id)
        if is_older(document, known):
            self._note("outdated", document.id)
            return None, "", ""
        if not self._knows_retractions:
            document = with_known_retraction(document, known)
        try:
            metadata, sections = store.document_json(document)
            texts = (document.id, document.title, document.text, metadata, sections, *document.entries)
            "\0".join(texts).encode()
        except UnicodeEncodeError:
            self._note("skipped", f"{_shown(document.id)}: its text is not valid Unicode")
            return None, "", ""
        except (ValueError, TypeError) as error:
            self._note("skipped", f"{_shown(document.id)}: {error}")
            return None, "", ""
        except RecursionError:
            self._note("skipped", f"{_shown(document.id)}: its metadata is nested too deeply")
            return None, "", ""
        if not document.id or len(document.id.split()) != 1 or document.id != document.id.strip():
            problem = "an id with white space" if document.id.strip() else "an empty id"
            self._note("skipped", f"{_shown(document.id)}: {problem}")
            return None, "", ""
        # Whatever passes here gets at least one row: a document of entries is found by nothing else.
        if not any(part.strip() for part in document.entries or (document.title, document.text)):
            self._note("empty", document.id)
            return None, "", ""
        return document, metadata, sections

    def _known_metadata(self, id: str) -> Mapping[str, Any]:
        """Return the metadata of the revision before, which may tell of a version or a retraction."""
        try:
            id.encode()
        except UnicodeEncodeError:
            return {}  # half a surrogate pair cannot even be looked up
        number = self._number_of(id)
        if number is None:
            before = self._base.get(id) if self._base is not None else None
            return before.metadata if before is not None and self._live_rows(id) else {}
        if not self._live_rows(id):
            return {}
        pending = self._pending.documents.get(number)
        known: Mapping[str, Any] = json.loads(pending[4] if pending else self._shards.metadata_of(number))
        return known

    def _note(self, kind: str, example: str) -> None:
        self.report.note(kind, example, strict=self._strict)

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
        if old and old[0] == digest and not self._is_dead(min(old[1])):
            self.report.unchanged += 1
            return next_row
        number = self._shards.last_document() if partial else self._begin(document, stored, digest)
        vectors_by_hash = {digest: row for row, digest in old[1].items()} if old else {}
        for place, (start, end, entry, title) in enumerate(spans):
            if place < partial:
                continue
            passage = document.text[start:end] if entry is None else entry
            text = store.row_text(title, passage)
            row = store.Row(next_row, number, place, start, end, entry, title, text)
            self._pending.rows.append(row)
            if vectors_by_hash and row.hash in vectors_by_hash:
                self._pending.kept[next_row] = vectors_by_hash[row.hash]
            next_row += 1
            self.report.rows += 1
            self._notify("read", 1)
            if len(self._pending.rows) == self._plan.shard_rows:
                whole = place == len(spans) - 1
                self._flush(record.cursor if whole else before, 0 if whole else place + 1)
        self._notify("documents", 1)
        return next_row

    def _begin(self, document: Document, stored: tuple[str, str], digest: bytes) -> int:
        """Put a document without its rows into the shard and retire what it replaces; return its number."""
        pending = self._pending
        live = self._live_rows(document.id)
        if live and self._number_of(document.id) is not None:
            self._note("duplicates", document.id)
            self.report.documents -= 1
        elif live:
            self.report.replaced += 1
        pending.dead.update(live)
        number = 1 + max(self._shards.last_document(), next(reversed(pending.documents), -1))
        pending.documents[number] = (number, document.id, document.title, document.text, *stored, digest)
        pending.numbers[document.id] = number
        for column, value, problem in encode_all(self._plan.columns, document.metadata):
            if problem:
                self._note("unusable_values", f"{document.id}: {problem}")
            else:
                pending.values.append((column, value, number))
        self.report.documents += 1
        return number

    def _number_of(self, id: str) -> int | None:
        """Return the number of the last revision of a document in this build, None where there is none."""
        number = self._pending.numbers.get(id)
        return self._shards.number_of(id) if number is None else number

    def _delete(self, record: Record) -> None:
        """Retire whatever is alive of a document, here and in the index, unless it is of a later version."""
        rows = self._live_rows(record.id)
        known = self._known_metadata(record.id).get("version") if record.version is not None else None
        if rows and not (isinstance(known, int) and record.version is not None and record.version < known):
            self._pending.dead.update(rows)
            self.report.deleted += 1

    def _live_rows(self, id: str) -> list[int]:
        """Return the rows of the document with this id, if it is alive at this point of the build."""
        rows: list[int] = []
        # Only the last revision can be alive: it retired those before it.
        number = self._number_of(id)
        if number is not None:
            # By number, not by what is pending under this id: the first rows of a revision may be stored
            # already, and the document with them, while its others wait for the next shard.
            rows = self._shards.rows_of(number)
            rows += [row.row for row in self._pending.rows if row.document == number]
        elif self._base is not None and (old := self._base.find(id)):
            rows = list(old[1])
        return rows if rows and not self._is_dead(min(rows)) else []  # they die together

    def _is_dead(self, row: int) -> bool:
        return row in self._pending.dead or self._shards.is_dead(row)

    def _flush(self, cursor: Cursor | None, partial: int) -> None:
        """Store and encode the pending rows as one shard."""
        if not self._pending.rows:
            return  # what was deleted since the last row waits for the next one, or for the end
        pending, self._pending = self._pending, Pending()
        self._count_truncated(pending.rows)
        self._shards.add(pending, cursor, partial, self.report)

    def _count_truncated(self, rows: Sequence[store.Row]) -> None:
        limit, encoder = self._plan.max_tokens, self._plan.encoder
        if encoder is None or limit is None:
            return
        for row, tokens in zip(rows, encoder.count_tokens([row.text for row in rows]), strict=True):
            if tokens > limit:
                self._note("truncated", f"row {row.row} of {tokens} tokens")


def _shown(id: str) -> str:
    return repr(id[:60])
