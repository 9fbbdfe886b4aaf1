"""Text shards: the cleaned documents of one source, some 4 MB a file, with what tells duplicates apart.

They are plain Arrow streams. Beside the rows, each holds as JSON where reading goes on behind it and what
was counted while it was read, so that a preparation that was killed goes on from its last shard.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.errors import CorpusError, MissingExtraError
from cmbert_retrieval.storage import atomic_file

if TYPE_CHECKING:
    import pyarrow

SHARD_CHARACTERS = 4_000_000
SHARD_DOCUMENTS = 20_000
DIGEST_BYTES = 16

_STATE = b"cmbert"
_COLUMNS = ("id", "text", "part", "license", "words", "digest", "signature")


class Part(IntEnum):
    """What a row is kept for."""

    TRAIN = 0
    HELD_OUT = 1
    EXCLUDED = 2
    """Its text is not there; what tells its copies apart is."""
    WITHDRAWN = 3
    """No document: its source has taken back those with this id that came before."""


class TextRow(NamedTuple):
    """A document of a text shard.

    Attributes:
        id: as its source has it.
        text: cleaned; "" unless it is for training or held out.
        part: what it is kept for.
        license: as the report names it.
        words: of the text.
        digest: of its normalised text; equal texts have equal ones.
        signature: ``[permutations]``, its MinHash; empty where near-duplicates are not looked for.
    """

    id: str
    text: str
    part: Part
    license: str = ""
    words: int = 0
    digest: bytes = bytes(DIGEST_BYTES)
    signature: NDArray[np.uint32] = np.zeros(0, dtype=np.uint32)


def shard_path(folder: Path, source: int, number: int) -> Path:
    """Return where a shard of a source is kept."""
    return folder / f"{source:03d}-{number:05d}.arrow"


def write_texts(path: Path, rows: Sequence[TextRow], state: Mapping[str, Any], *, permutations: int) -> None:
    """Write a shard. It appears whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    arrow = _arrow()
    schema = arrow.schema(
        [
            ("id", arrow.string()),
            ("text", arrow.large_string()),
            ("part", arrow.uint8()),
            ("license", arrow.string()),
            ("words", arrow.uint32()),
            ("digest", arrow.binary(DIGEST_BYTES)),
            ("signature", arrow.list_(arrow.uint32(), permutations)),
        ],
        metadata={_STATE: json.dumps(dict(state), sort_keys=True).encode()},
    )
    signatures = np.zeros((len(rows), permutations), dtype=np.uint32)
    for number, row in enumerate(rows if permutations else ()):
        if len(row.signature):
            signatures[number] = row.signature
    columns = [
        arrow.array([_storable(row.id) for row in rows], arrow.string()),
        arrow.array([row.text for row in rows], arrow.large_string()),
        arrow.array([int(row.part) for row in rows], arrow.uint8()),
        arrow.array([row.license for row in rows], arrow.string()),
        arrow.array([row.words for row in rows], arrow.uint32()),
        arrow.array([row.digest for row in rows], arrow.binary(DIGEST_BYTES)),
        arrow.FixedSizeListArray.from_arrays(arrow.array(signatures.reshape(-1)), permutations)
        if permutations
        else arrow.array([[]] * len(rows), arrow.list_(arrow.uint32(), 0)),
    ]
    with atomic_file(path) as file, arrow.ipc.new_stream(file, schema) as stream:
        stream.write_batch(arrow.record_batch(columns, schema=schema))


def _storable(id: str) -> str:
    """Return an id as UTF-8 can hold it: names of files that are none may hold halves of surrogate pairs."""
    return id if id.isascii() else id.encode("utf-8", "replace").decode()


class TextShard:
    """A text shard, mapped into memory."""

    def __init__(self, path: Path) -> None:
        """Map a shard.

        Raises:
            CorpusError: the file is not such a shard.
        """
        arrow = _arrow()
        self.path = path
        try:
            stream = arrow.ipc.open_stream(arrow.memory_map(str(path)))
            if tuple(stream.schema.names) != _COLUMNS:
                raise CorpusError(f"{path}: columns {stream.schema.names}; expected {list(_COLUMNS)}")
            self.state: dict[str, Any] = json.loads((stream.schema.metadata or {})[_STATE])
            (self._batch,) = list(stream)
        except (OSError, KeyError, ValueError, arrow.ArrowInvalid) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise CorpusError(f"{path}: not a text shard ({reason}); remove it and prepare again") from None

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._batch.num_rows)

    @property
    def parts(self) -> NDArray[np.uint8]:
        """``[rows]``: what each is kept for, as a ``Part``."""
        return np.asarray(self._batch.column("part").to_numpy())

    @property
    def words(self) -> NDArray[np.uint32]:
        """``[rows]``: words of each."""
        return np.asarray(self._batch.column("words").to_numpy())

    @property
    def digests(self) -> NDArray[np.void]:
        """``[rows]``: 16 bytes each, equal where the normalised texts are equal."""
        buffer = self._batch.column("digest").buffers()[1]
        count = len(self) * DIGEST_BYTES
        return np.frombuffer(buffer or b"", dtype=np.uint8, count=count).view(f"V{DIGEST_BYTES}")

    @property
    def signatures(self) -> NDArray[np.uint32]:
        """``[rows, permutations]``."""
        values = self._batch.column("signature").values
        size = self._batch.schema.field("signature").type.list_size
        return np.asarray(values.to_numpy()).reshape(len(self), size)

    @property
    def licenses(self) -> list[str]:
        """``[rows]``: the licence of each."""
        names: list[str] = self._batch.column("license").to_pylist()
        return names

    def id(self, row: int) -> str:
        """Return the id of a row."""
        return str(self._batch.column("id")[row].as_py())

    def text(self, row: int) -> str:
        """Return the text of a row."""
        return str(self._batch.column("text")[row].as_py())

    def characters(self) -> NDArray[np.int64]:
        """Return ``[rows]``: characters of each text."""
        import pyarrow.compute

        lengths = pyarrow.compute.utf8_length(self._batch.column("text"))
        return np.asarray(lengths.to_numpy()).astype(np.int64)

    def texts(self, rows: NDArray[np.integer]) -> Iterator[str]:
        """Yield the texts of these rows."""
        for row in rows.tolist():
            yield self.text(row)


def _arrow() -> pyarrow:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise MissingExtraError.of("preparing text for training", "pyarrow", "pretrain") from None
    return pyarrow
