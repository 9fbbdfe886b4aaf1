"""Rows in Arrow streams: written some thousand at a time, read from memory-mapped files."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmbert_retrieval.storage import atomic_file

if TYPE_CHECKING:
    import pyarrow

PAIR_COLUMNS = {"anchor": "string", "positive": "string", "document": "string", "kind": "string",
                "negatives": "list"}  # fmt: skip
"""Column of a file of pairs -> its type. ``negatives`` are those that came with a pair."""

TEXT_COLUMNS = {"text": "string"}

_ROWS = 10_000


class TableWriter:
    """Writes rows; the file appears when it is whole."""

    def __init__(self, path: Path, columns: Mapping[str, str]) -> None:
        """Begin a file with columns of type ``string`` or ``list``, of strings."""
        import pyarrow

        kinds = {"string": pyarrow.string(), "list": pyarrow.list_(pyarrow.string())}
        self._schema: pyarrow.Schema = pyarrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
        self._file = atomic_file(path)
        self._rows: list[Mapping[str, Any]] = []

    def __enter__(self) -> TableWriter:
        import pyarrow

        self._writer = pyarrow.ipc.new_stream(self._file.__enter__(), self._schema)
        return self

    def add(self, row: Mapping[str, Any]) -> None:
        """Take a row."""
        self._rows.append(row)
        if len(self._rows) == _ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        self._writer.write_table(pyarrow.Table.from_pylist(self._rows, self._schema))
        self._rows = []

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self._flush()
        self._writer.close()
        self._file.__exit__(*error)


class Table:
    """A file of rows, memory-mapped: any of them at any time."""

    def __init__(self, path: Path) -> None:
        """Open a file."""
        import pyarrow

        with pyarrow.memory_map(str(path)) as file:
            self._table: pyarrow.Table = pyarrow.ipc.open_stream(file).read_all()
        self._starts = list(accumulate((batch.num_rows for batch in self._table.to_batches()), initial=0))

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._table.num_rows)

    def take(self, column: str, rows: Sequence[int]) -> list[Any]:
        """Return a column of some rows."""
        chunks = self._table.column(column).chunks  # taking from all of them at once would copy the column
        places = [bisect_right(self._starts, row) - 1 for row in rows]
        return [
            chunks[place][row - self._starts[place]].as_py() for place, row in zip(places, rows, strict=True)
        ]

    def values(self, column: str) -> Iterator[Any]:
        """Yield a column, some thousand rows of it in memory at a time."""
        for chunk in self._table.column(column).chunks:
            yield from chunk.to_pylist()


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file, some thousand of them in memory at a time."""
    import pyarrow

    with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as reader:
        for batch in reader:
            yield from batch.to_pylist()
