"""Rows of Parquet files as JSON-like values, some megabytes at a time. Needs pyarrow."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmbert_retrieval.corpora.fields import json_value
from cmbert_retrieval.corpora.files import UnusableError, open_binary
from cmbert_retrieval.errors import CorpusError, MissingExtraError

if TYPE_CHECKING:
    from pyarrow import RecordBatch
    from pyarrow.parquet import ParquetFile

_BATCH_BYTES = 8 << 20
_BATCH_ROWS = 256  # few: what a file counts as a byte (the same text in every row) may unpack to a megabyte
_BUFFER_BYTES = 1 << 20
_OUT_OF_BOUNDS = "a date or number out of bounds (after the year 9999?)"


@dataclass(frozen=True, slots=True)
class ParquetRow:
    """One row.

    Attributes:
        row_group: number of its row group in the file.
        row: its number in the row group.
        values: column -> value; None when it cannot be used.
        problem: why it cannot be used.
    """

    row_group: int
    row: int
    values: dict[str, Any] | None
    problem: str = ""


def open_parquet(path: Path, name: str) -> ParquetFile:
    """Open a file; only its footer is read.

    Raises:
        MissingExtraError: pyarrow is not installed.
        CorpusError: it cannot be opened, or is no Parquet file.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError.of("reading Parquet files", "pyarrow", "data")
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        open_binary(path).close()  # refuses what is no regular file
        return ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except UnusableError as error:
        raise CorpusError(f"{name}: {error}") from None
    except (ArrowException, OSError, ValueError) as error:
        raise CorpusError(f"{name}: not a Parquet file, or damaged ({_first_line(error)})") from None


def read_parquet(
    path: Path, name: str, columns: Sequence[str], after: tuple[int, int] | None = None
) -> Iterator[ParquetRow]:
    """Yield rows with these columns, behind ``after``: (row group, row) of a row.

    Held are one page a column and ``_BATCH_BYTES`` of rows; row groups before ``after`` are not read.

    Raises:
        MissingExtraError: pyarrow is not installed.
        CorpusError: it cannot be opened, is no Parquet file, or is damaged.
    """
    first, done = after or (0, -1)
    with open_parquet(path, name) as file:
        from pyarrow import ArrowException

        for group in range(first, file.num_row_groups):
            row = -1
            try:
                for batch in _batches(file, group, list(columns)):
                    for problem, values in _values(batch):
                        row += 1
                        if group > first or row > done:
                            yield ParquetRow(group, row, values, problem)
            except (ArrowException, OSError, ValueError) as error:
                raise CorpusError(
                    f"{name}: damaged behind row {row} of row group {group} ({_first_line(error)})"
                ) from None


def _batches(file: ParquetFile, group: int, columns: list[str]) -> Iterator[RecordBatch]:
    rows = _batch_rows(file, group, columns)
    yield from file.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False)


def _batch_rows(file: ParquetFile, group: int, columns: list[str]) -> int:
    """Return how many rows of a row group are read at a time."""
    found = file.metadata.row_group(group)
    if 0 < found.total_byte_size * _BATCH_ROWS <= _BATCH_BYTES * found.num_rows:
        return _BATCH_ROWS
    # Where the metadata of a column are damaged, pyarrow ends the process when they are asked for, and raises
    # an error when the column is read: begin with that.
    next(file.iter_batches(1, row_groups=[group], columns=columns, use_threads=False), None)
    wanted, schema = set(columns), file.schema
    numbers = (n for n in range(found.num_columns) if schema.column(n).path.partition(".")[0] in wanted)
    size = sum(int(found.column(number).total_uncompressed_size) for number in numbers)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * int(found.num_rows) // max(size, 1)))


def _values(batch: RecordBatch) -> Iterator[tuple[str, dict[str, Any] | None]]:
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            is_text = isinstance(error, UnicodeDecodeError)
            yield ("invalid UTF-8" if is_text else _OUT_OF_BOUNDS), None
            return
        for number in range(batch.num_rows):
            yield from _values(batch.slice(number, 1))
        return
    for row in rows:
        try:
            yield "", json_value(row)
        except UnusableError as error:
            yield str(error), None


def _first_line(error: Exception) -> str:
    # Nothing of a file's values is in these messages; some have several lines.
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
