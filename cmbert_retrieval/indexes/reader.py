"""A commit of an index, opened for reading. It does not change, whatever a writer does meanwhile."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.errors import CmbertError, IndexCorruptError
from cmbert_retrieval.indexes.advice import run_verify
from cmbert_retrieval.indexes.columns import similar_key
from cmbert_retrieval.indexes.documents import Row
from cmbert_retrieval.indexes.filters import Filter
from cmbert_retrieval.indexes.lexical import LexicalReader
from cmbert_retrieval.indexes.locks import ReadLease
from cmbert_retrieval.indexes.manifest import Manifest
from cmbert_retrieval.indexes.segment import Segment, ascends
from cmbert_retrieval.indexes.vectors import read_array
from cmbert_retrieval.types import Document

Ranked = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Scores and rows, by score, then row."""

_CACHED_MASKS = 8
_COMPARED_VALUES = 10_000


class IndexReader:
    """The last commit of an index at the moment of opening. Safe to use from several threads."""

    def __init__(self, path: str | Path) -> None:
        """Open the index in the folder ``path``.

        Raises:
            IndexCorruptError: there is none, or its files are damaged.
            IndexMismatchError: it was written by a newer version.
        """
        self.path = Path(path).absolute()  # files are opened when they are needed, wherever we are by then
        self._lease = ReadLease(self.path)
        self._closed = False
        self.manifest: Manifest = self._lease.manifest
        dim = self.manifest.encoder.identity.dim if self.manifest.encoder else None
        self.segments: list[Segment] = []
        self._lock = threading.Lock()
        self._words: LexicalReader | None = None
        self._masks: dict[Filter | None, list[NDArray[np.bool_] | None]] = {}
        try:
            self.dead = _read_dead(self.path, self.manifest)
            for entry in self.manifest.segments:
                self.segments.append(Segment(self.path, entry, dim))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> IndexReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the files back. May be called twice; searching afterwards is an error."""
        self._closed = True
        for segment in self.segments:
            segment.close()
        if self._words is not None:
            self._words.close()
            self._words = None
        self._lease.close()

    @property
    def words(self) -> LexicalReader:
        """The tantivy side, opened when it is first needed."""
        self._check_open()
        with self._lock:
            if self._words is None:
                manifest = self.manifest
                folder = self.path / manifest.lexical
                self._words = LexicalReader(folder, manifest.columns, manifest.analyser)
            return self._words

    def _check_open(self) -> None:
        # Without its lease, a writer may remove the commit's files at any moment.
        if self._closed:
            raise CmbertError(f"{self.path}: the index was closed; open it again to search it")
        # Files are opened when they are needed: those of another index must not be taken for ours.
        if not self._lease.in_place():
            raise CmbertError(f"{self.path}: the folder was moved or replaced; open it again to search it")

    # --- search over rows ---

    def search_words(self, text: str, k: int, where: Filter | None = None) -> Ranked:
        """Return the best rows by BM25, at least ``k`` where so many match; ties at the border come along."""
        return self.words.search(text, k, where)

    def search_vectors(self, query: NDArray[np.float32], k: int, where: Filter | None = None) -> Ranked:
        """Return the nearest rows by inner product, at least ``k`` where so many match.

        Args:
            query: ``[dim]``; an empty vector stands for a query without meaning and finds nothing.
            k: how many; ties at the border come along.
            where: only rows whose documents pass.
        """
        self._check_open()
        if not len(query):
            return np.empty(0, np.float32), np.empty(0, np.int64)
        scores, rows = [], []
        for segment, mask in zip(self.segments, self._allowed(where), strict=True):
            if segment.nearest is None:
                continue
            found, positions = segment.nearest.search(query, k, mask)
            scores.append(found)
            rows.append(segment.rows_at(positions))
        if not scores:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        all_scores, all_rows = np.concatenate(scores), np.concatenate(rows)
        if not np.isfinite(all_scores).all():
            raise IndexCorruptError(f"{self.path}: vectors that are not finite; {run_verify(self.path)}")
        order = np.lexsort((all_rows, -all_scores))
        if len(order) > k > 0:
            order = order[all_scores[order] >= all_scores[order[k - 1]]]
        return all_scores[order], all_rows[order]

    def _allowed(self, where: Filter | None) -> list[NDArray[np.bool_] | None]:
        with self._lock:
            masks = self._masks.get(where)
        if masks is None:
            masks = [segment.mask(self.dead, where) for segment in self.segments]
            with self._lock:
                if len(self._masks) >= _CACHED_MASKS:
                    self._masks.pop(next(iter(self._masks)))
                self._masks[where] = masks
        return masks

    # --- rows and documents ---

    def _by_segment(self, rows: NDArray[np.int64]) -> Iterator[tuple[Segment, NDArray[np.bool_]]]:
        for segment in self.segments:
            here = (rows >= segment.entry.first_row) & (rows < segment.entry.end_row)
            if here.any():
                yield segment, here

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return ``[rows, dim]``, the stored vectors of rows."""
        dim = self.manifest.encoder.identity.dim if self.manifest.encoder else 0
        out = np.empty((len(rows), dim), dtype=np.float16)
        for segment, here in self._by_segment(rows):
            if segment.vectors is not None:
                out[here] = segment.vectors.take(segment.positions_of(rows[here]))
        return out

    def parents(self, rows: NDArray[np.int64]) -> dict[int, str]:
        """Return row -> id of its document."""
        parents: dict[int, str] = {}
        for segment, here in self._by_segment(rows):
            found = segment.documents.parents(rows[here].tolist())
            parents.update((row, id_) for row, (_, id_) in found.items())
        if len(parents) < len(rows):
            missing = len(rows) - len(parents)
            raise IndexCorruptError(
                f"{self.path}: {missing} of {len(rows)} rows are in no segment; {run_verify(self.path)}"
            )
        return parents

    def row(self, row: int) -> tuple[Row, Document]:
        """Return a row and its whole document."""
        for segment in self.segments:
            if row in segment:
                return segment.documents.read_with_document(row)
        raise IndexCorruptError(f"{self.path}: row {row} is in no segment; {run_verify(self.path)}")

    def _locate(self, id: str) -> tuple[Segment, int, bytes] | None:
        """Return segment, number and hash of the live document with this id."""
        try:
            id.encode()
        except UnicodeEncodeError:
            return None  # no document has an id that is not valid text
        for segment in reversed(self.segments):
            for number, digest in reversed(segment.documents.find(id)):
                rows = segment.documents.row_hashes(number)
                if rows and not self._is_dead(next(iter(rows))):
                    return segment, number, digest
        return None

    def _is_dead(self, row: int) -> bool:
        place = int(np.searchsorted(self.dead, row))
        return place < len(self.dead) and int(self.dead[place]) == row

    def find(self, id: str) -> tuple[bytes, dict[int, bytes]] | None:
        """Return hash and row -> text hash of the live document with this id."""
        located = self._locate(id)
        if located is None:
            return None
        segment, number, digest = located
        return digest, segment.documents.row_hashes(number)

    def get(self, id: str) -> Document | None:
        """Return the live document with this id, or None."""
        located = self._locate(id)
        return located[0].documents.document(located[1]) if located else None

    def texts(self, rows: NDArray[np.int64]) -> dict[int, str]:
        """Return row -> the text that was indexed for it."""
        texts: dict[int, str] = {}
        for segment, here in self._by_segment(rows):
            wanted = json.dumps(rows[here].tolist())
            found = segment.documents.read_rows("row IN (SELECT value FROM json_each(?))", (wanted,))
            texts.update((row.row, row.text) for row in found)
        return texts

    def matching(self, ids: Iterable[str], where: Filter) -> set[str]:
        """Return those of ``ids`` whose live documents pass a filter."""
        condition, parameters = where.to_sql()
        sql = (
            "SELECT id, (SELECT min(row) FROM rows WHERE rows.document = documents.document) FROM documents "
            f"WHERE id IN (SELECT value FROM json_each(?)) AND {condition}"
        )
        wanted = json.dumps(list(ids))
        return {
            id_
            for segment in self.segments
            for id_, row in segment.documents.query(sql, (wanted, *parameters))
            if row is not None and not self._is_dead(row)
        }

    def live_rows(self, segment: Segment) -> NDArray[np.int64]:
        """Return the row numbers of a segment that are alive."""
        rows = segment.rows()
        return rows[~np.isin(rows, self.dead, assume_unique=True)]

    def documents(self) -> Iterator[Document]:
        """Yield all live documents in the order in which they were added."""
        for segment in self.segments:
            live = set(self.live_document_numbers(segment))
            for number in sorted(live):
                yield segment.documents.document(number)

    def absent_values(self, where: Filter) -> list[tuple[str, str, str]]:
        """Return (column, value, a value that looks like it, or "") for what no document has.

        Only texts that a filter asks for are looked up, as they are stored; deleted documents count, too.
        """
        names, found = list(self.manifest.columns), []
        for column, values in where.asked():
            known: set[str] = set()
            for segment in self.segments:
                sql = "SELECT DISTINCT value FROM attributes WHERE column = ? LIMIT ?"
                known.update(
                    str(each) for (each,) in segment.documents.query(sql, (column, _COMPARED_VALUES))
                )
            if len(known) < _COMPARED_VALUES and known.isdisjoint(values):
                begun = values[0].casefold()
                longer = sorted(
                    (each for each in known if each.casefold().startswith(begun)), key=str.casefold
                )
                found.append((names[column], values[0], similar_key(values[0], known) or (longer or [""])[0]))
        return found

    def licenses(self) -> Counter[str]:
        """Return how many live documents have which ``license`` in their metadata; "" for none."""
        counts: Counter[str] = Counter()
        sql = "SELECT document, json_extract(metadata, '$.license') FROM documents WHERE json_valid(metadata)"
        for segment in self.segments:
            live = set(self.live_document_numbers(segment))
            counts.update(str(name or "") for number, name in segment.documents.query(sql) if number in live)
        return counts

    def live_document_numbers(self, segment: Segment) -> Sequence[int]:
        """Return the numbers of a segment's documents that are alive."""
        start, end = np.searchsorted(self.dead, [segment.entry.first_row, segment.entry.end_row])
        dead = set(self.dead[start:end].tolist())
        firsts = segment.documents.query("SELECT document, min(row) FROM rows GROUP BY document")
        return [number for number, row in firsts if row not in dead]


def _read_dead(root: Path, manifest: Manifest) -> NDArray[np.int64]:
    if manifest.deleted is None:
        return np.empty(0, dtype=np.int64)
    path = root / manifest.deleted
    dead = np.array(read_array(path))
    if (
        dead.dtype != np.int64
        or dead.shape != (manifest.dead_rows,)
        or not ascends(dead, 0, manifest.next_row)
    ):
        raise IndexCorruptError(f"{path}: not the list of {manifest.dead_rows} dead rows; {run_verify(path)}")
    return dead
