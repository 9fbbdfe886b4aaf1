"""Parquet files: one document a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from cmbert_retrieval.corpora.base import Corpus, Cursor, Record, Source
from cmbert_retrieval.corpora.fields import Fields, report_left_out
from cmbert_retrieval.corpora.files import (
    MAX_BYTES,
    UnusableError,
    existing,
    file_source,
    files_below,
    too_large,
)
from cmbert_retrieval.corpora.parquet_rows import open_parquet, read_parquet
from cmbert_retrieval.errors import CorpusError, printable


class ParquetCorpus(Corpus):
    """A ``.parquet`` file or a folder of them, read some megabytes at a time. Needs the extra ``data``.

    A row is an id, a text (a string, or a list of sentences), perhaps a title, and metadata, as a line of
    JSON is for ``JsonlCorpus``: dates become ISO 8601, and NaN is a missing value.
    """

    reader = "parquet"

    def __init__(
        self,
        path: str | Path,
        *,
        id: str = "",
        text: str = "text",
        title: str = "title",
        metadata: str | Sequence[str] = "rest",
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Open a corpus; the names of its columns are read.

        Args:
            path: the file, or a folder whose ``.parquet`` files are read in the order of their names.
            id: column of the id; ``""`` takes ``_id``, else ``id``.
            text: column of the text.
            title: column of the title; ``title`` may be absent.
            metadata: ``rest`` takes the struct ``metadata`` and every other column of values or lists of
                values; a list takes these columns; any other word is the one struct to take.
            max_bytes: texts longer than this are a problem.

        Raises:
            CorpusError: there is no such file, it is no Parquet file, or a column is missing.
            MissingExtraError: pyarrow is not installed.
            ConfigError: an option is no name.
        """
        self.path = existing(path)
        self._given = str(path)
        self._fields = Fields(id=id, text=text, title=title, metadata=metadata, noun="column")
        self._max_bytes = max_bytes
        self._root, self._names = self.path.parent, [self.path.name]
        if self.path.is_dir():
            self._root = self.path
            self._names = [name for name in files_below(self.path) if name.lower().endswith(".parquet")]
            if not self._names:
                raise CorpusError(f"{self._given}: no .parquet file in this folder")
        self._rows = sum(self._check(name) for name in self._names)

    def _check(self, name: str) -> int:
        """Return how many rows a file has."""
        with open_parquet(self._root / name, printable(name)) as file:
            self._fields.check(file.schema_arrow.names, printable(name))
            return int(file.metadata.num_rows)

    def records(self, after: Cursor | None = None) -> Iterator[Record]:
        """Yield a row a record, behind ``after``.

        Raises:
            CorpusError: a file cannot be opened or is damaged.
        """
        first, place = 0, None
        if after is not None:
            first, place = int(after["number"]), (int(after["row_group"]), int(after["row"]))
        for number in range(first, len(self._names)):
            yield from self._read(number, place)
            place = None

    def _read(self, number: int, after: tuple[int, int] | None) -> Iterator[Record]:
        name = self._names[number]
        shown, left_out = printable(name), Counter[str]()
        with open_parquet(self._root / name, shown) as file:
            columns = self._fields.wanted(file.schema_arrow.names)
        for row in read_parquet(self._root / name, shown, columns, after):
            cursor = {"file": shown, "number": number, "row_group": row.row_group, "row": row.row}
            try:
                if row.values is None:
                    raise UnusableError(row.problem)
                document = self._fields.document(row.values, left_out)
                if len(document.text) > self._max_bytes:
                    raise UnusableError(too_large(self._max_bytes))
            except UnusableError as error:
                problem = f"{shown}: row {row.row + 1} of row group {row.row_group}: {error}"
                yield Record(cursor, None, problem, self._fields.known_id(row.values or {}))
            else:
                yield Record(cursor, document)
        report_left_out(shown, left_out, "column")

    def sources(self) -> list[Source]:
        """Return the files with their checksums."""
        if self.path.is_file():
            return [file_source(self.path, self._given)]
        return [file_source(self._root / name, f"{self._given}/{printable(name)}") for name in self._names]

    def total(self) -> int:
        """Return the number of rows."""
        return self._rows
