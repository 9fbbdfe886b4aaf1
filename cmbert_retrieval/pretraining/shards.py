"""Token shards: Arrow files of documents as tokens, with a weight a token, mapped into memory.

They are plain Arrow streams with the columns ``id``, ``source``, ``input_ids`` and ``weights``, which
``datasets.Dataset.from_file`` opens as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.errors import CorpusError, MissingExtraError
from cmbert_retrieval.pretraining.weights import CONTINUES
from cmbert_retrieval.storage import atomic_file

if TYPE_CHECKING:
    import pyarrow

_BATCH = 1000


class TokenDocument(NamedTuple):
    """A document as tokens.

    Attributes:
        id: as its source has it.
        source: the number of its source in the mixture.
        input_ids: ``[tokens]``, without special tokens.
        marks: ``[tokens]``, a byte a token, as ``weights.py`` has them.
    """

    id: str
    source: int
    input_ids: NDArray[np.integer]
    marks: NDArray[np.uint8]


def write_shard(path: Path, documents: Iterable[TokenDocument], *, vocabulary: int) -> int:
    """Write a shard; return its documents. The file appears whole, or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    arrow = _arrow()
    narrow = arrow.uint16() if vocabulary <= 1 << 16 else arrow.uint32()
    schema = arrow.schema(
        [
            ("id", arrow.string()),
            ("source", arrow.uint16()),
            ("input_ids", arrow.large_list(narrow)),
            ("marks", arrow.large_list(arrow.uint8())),
        ]
    )
    count = 0
    with atomic_file(path) as file, arrow.ipc.new_stream(file, schema) as stream:
        for batch in _batches(documents):
            columns = [
                arrow.array([document.id for document in batch]),
                arrow.array([document.source for document in batch], arrow.uint16()),
                _lists([document.input_ids for document in batch], narrow),
                _lists([document.marks for document in batch], arrow.uint8()),
            ]
            stream.write_batch(arrow.record_batch(columns, schema=schema))
            count += len(batch)
    return count


def _batches(documents: Iterable[TokenDocument]) -> Iterator[list[TokenDocument]]:
    batch: list[TokenDocument] = []
    for document in documents:
        batch.append(document)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _lists(arrays: Sequence[NDArray[np.integer]], kind: pyarrow.DataType) -> pyarrow.Array:
    arrow = _arrow()
    offsets = np.cumsum([0, *map(len, arrays)], dtype=np.int64)
    values = np.concatenate(arrays).astype(kind.to_pandas_dtype())
    return arrow.LargeListArray.from_arrays(arrow.array(offsets), arrow.array(values))


class TokenShards:
    """The documents of all shards of a folder, by number. Only ten bytes of each are held in memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Map the shards, in this order.

        Raises:
            CorpusError: a file is not such a shard.
        """
        self._tokens: list[tuple[NDArray[np.int64], NDArray[np.integer], NDArray[np.uint8]]] = []
        sources: list[NDArray[np.uint16]] = []
        firsts = [0]
        for path in paths:
            for batch in _record_batches(path):
                ids, marks = batch.column("input_ids"), batch.column("marks")
                self._tokens.append((ids.offsets.to_numpy(), ids.values.to_numpy(), marks.values.to_numpy()))
                sources.append(batch.column("source").to_numpy())
                firsts.append(firsts[-1] + len(batch))
        self._firsts = np.array(firsts)
        lengths = [np.diff(offsets) for offsets, _, _ in self._tokens]
        self.lengths: NDArray[np.int64] = np.concatenate(lengths or [np.zeros(0, dtype=np.int64)])
        """``[documents]``: tokens of each."""
        self.sources: NDArray[np.uint16] = np.concatenate(sources or [np.zeros(0, dtype=np.uint16)])
        """``[documents]``: the number of each one's source in the mixture."""

    def __len__(self) -> int:
        """Return the number of documents."""
        return int(self._firsts[-1])

    def document(self, number: int) -> tuple[NDArray[np.integer], NDArray[np.uint8]]:
        """Return tokens and marks of a document, as views of the file.

        Raises:
            IndexError: there is none with this number.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"document {number} of {len(self)}")
        batch = int(np.searchsorted(self._firsts, number, side="right")) - 1
        offsets, ids, marks = self._tokens[batch]
        start, end = offsets[number - self._firsts[batch] :][:2]
        return ids[start:end], marks[start:end]

    def continues(self, number: int) -> NDArray[np.bool_]:
        """Return which tokens of a document go on with the word or term of the token before."""
        return (self.document(number)[1] & CONTINUES) > 0


def _record_batches(path: Path) -> Iterator[pyarrow.RecordBatch]:
    arrow = _arrow()
    try:
        stream = arrow.ipc.open_stream(arrow.memory_map(str(path)))
        if [field.name for field in stream.schema] != list(TokenDocument._fields):
            raise CorpusError(
                f"{path}: columns {stream.schema.names}; expected {list(TokenDocument._fields)}"
            )
        yield from stream
    except (OSError, arrow.ArrowInvalid) as error:
        reason = str(error).splitlines()[0]
        raise CorpusError(f"{path}: not a token shard ({reason}); prepare the data again") from None


def _arrow() -> pyarrow:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise MissingExtraError.of("preparing text for training", "pyarrow", "pretrain") from None
    return pyarrow
