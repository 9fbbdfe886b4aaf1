"""One finished segment, opened for reading: documents, rows and vectors under one numbering."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.errors import IndexCorruptError
from cmbert_retrieval.indexes.advice import run_verify
from cmbert_retrieval.indexes.documents import DATABASE, DocumentStore
from cmbert_retrieval.indexes.filters import Filter
from cmbert_retrieval.indexes.manifest import SegmentEntry
from cmbert_retrieval.indexes.shard_files import ShardedVectors, shard_paths
from cmbert_retrieval.indexes.vectors import ROWS_FILE, VectorSearch, read_array


def ascends(rows: NDArray[np.int64], first: int, end: int) -> bool:
    """Tell whether row numbers strictly ascend within ``first <= row < end``."""
    return not len(rows) or bool(rows[0] >= first and rows[-1] < end and (rows[1:] > rows[:-1]).all())


class Segment:
    """A run of rows with everything that is stored of them."""

    def __init__(self, root: Path, entry: SegmentEntry, dim: int | None) -> None:
        """Open ``root/segments/NAME``. ``dim`` is None in an index of words only.

        Raises:
            IndexCorruptError: a file is missing or does not fit the manifest.
        """
        self.entry = entry
        self.folder = root / "segments" / entry.name
        self.documents = DocumentStore(self.folder / DATABASE)
        self.vectors = ShardedVectors(shard_paths(self.folder), rows=entry.rows) if dim is not None else None
        if self.vectors is not None and len(self.vectors) != entry.rows:
            raise IndexCorruptError(
                f"{self.folder}: {len(self.vectors)} vectors for {entry.rows} rows; {run_verify(self.folder)}"
            )
        self.nearest = (
            VectorSearch(self.folder, self.vectors, dim, entry.factory)
            if self.vectors is not None and dim is not None
            else None
        )
        # Rows keep their numbers when a merge drops dead ones between them; then a table tells which are
        # left.
        self._rows: NDArray[np.int64] | None = None
        if not entry.dense:
            self._rows = read_array(self.folder / ROWS_FILE)
            fits = self._rows.dtype == np.int64 and self._rows.shape == (entry.rows,)
            if not fits or not ascends(self._rows, entry.first_row, entry.end_row):
                raise IndexCorruptError(
                    f"{self.folder / ROWS_FILE}: not the {entry.rows} rows of the manifest; "
                    f"{run_verify(self.folder)}"
                )

    def __contains__(self, row: int) -> bool:
        return self.entry.first_row <= row < self.entry.end_row

    def rows(self) -> NDArray[np.int64]:
        """Return the numbers of the rows that are stored, in order."""
        if self._rows is not None:
            return np.asarray(self._rows)
        return np.arange(self.entry.first_row, self.entry.end_row, dtype=np.int64)

    def rows_at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row numbers of vectors by their position."""
        return positions + self.entry.first_row if self._rows is None else np.asarray(self._rows[positions])

    def positions_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions of rows that are stored here."""
        return rows - self.entry.first_row if self._rows is None else np.searchsorted(self._rows, rows)

    def mask(self, dead: NDArray[np.int64], where: Filter | None) -> NDArray[np.bool_] | None:
        """Return which positions are alive and pass the filter; None when all are."""
        start, end = np.searchsorted(dead, [self.entry.first_row, self.entry.end_row])
        if where is None and start == end:
            return None
        if where is None:
            allowed = np.ones(self.entry.rows, dtype=np.bool_)
        else:
            allowed = np.zeros(self.entry.rows, dtype=np.bool_)
            matching = np.fromiter(self.documents.rows_matching(where), dtype=np.int64)
            allowed[self.positions_of(matching)] = True
        allowed[self.positions_of(dead[start:end])] = False
        return None if allowed.all() else allowed

    def close(self) -> None:
        """Close the files."""
        self.documents.close()
        if self.vectors is not None:
            self.vectors.close()
