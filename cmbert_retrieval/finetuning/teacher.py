"""What a teacher says of texts: its vectors, kept by model and by the hash of a text."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.errors import EncoderError
from cmbert_retrieval.storage import atomic_file, make_folder, remove_tree

logger = logging.getLogger(__name__)

SHARD = 16_384
"""Texts of a file of vectors."""

_KEY = np.dtype([("high", "<u8"), ("low", "<u8")])


class VectorCache:
    """Vectors of texts, in files that are written once: 16,384 rows of float16 each, and the texts' hashes.

    Safe to be killed at any time: a file counts when its hashes are there, which come last.
    """

    def __init__(self, folder: Path) -> None:
        """Open a cache; a new one is made.

        Raises:
            EncoderError: its files do not fit each other.
        """
        self.folder = folder
        make_folder(folder)
        self._vectors: list[NDArray[np.float16]] = []
        self._starts = [0]
        self._rows: dict[bytes, int] = {}
        for path in sorted(folder.glob("*.keys.npy")):
            self._open(path)

    def __len__(self) -> int:
        """Return how many texts there are."""
        return self._starts[-1]

    def rows(self, texts: Iterable[str]) -> NDArray[np.int64]:
        """Return ``[texts]``: the row of each; -1 for those that are not there."""
        return np.array([self._rows.get(_key(text), -1) for text in texts], dtype=np.int64)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return ``[rows, dim]``: vectors of unit length."""
        files = np.searchsorted(self._starts, rows, side="right") - 1
        vectors = np.empty((len(rows), self._vectors[0].shape[1]), np.float32)
        for file in np.unique(files):
            chosen = files == file
            vectors[chosen] = self._vectors[file][rows[chosen] - self._starts[file]]
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def add(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Keep the vectors of texts that are not there yet."""
        stem = self.folder / f"{len(self._vectors):05d}"
        with atomic_file(stem.with_suffix(".vectors.npy")) as file:
            np.save(file, vectors.astype(np.float16))
        keys = np.frombuffer(b"".join(map(_key, texts)), dtype=_KEY)
        with atomic_file(stem.with_suffix(".keys.npy")) as file:
            np.save(file, keys)
        self._open(stem.with_suffix(".keys.npy"))

    def _open(self, path: Path) -> None:
        keys = np.load(path)
        vectors = np.load(path.with_name(path.name.replace(".keys.", ".vectors.")), mmap_mode="r")
        if len(keys) != len(vectors) or (self._vectors and vectors.shape[1] != self._vectors[0].shape[1]):
            raise EncoderError(
                f"{path}: {len(keys)} texts, but vectors of shape {vectors.shape}; remove {self.folder}"
            )
        for row, key in enumerate(keys, start=len(self)):
            self._rows[key.tobytes()] = row
        self._vectors.append(vectors)
        self._starts.append(self._starts[-1] + len(keys))


def teach(
    texts: Iterable[str], teacher: Encoder, cache: VectorCache, *, notify: Callable[[int], None]
) -> int:
    """Let a teacher encode the texts that the cache does not have; return how many that were.

    Args:
        texts: any number, each as the student is going to read it; they are not held in memory.
        teacher: whose vectors are kept.
        cache: of this teacher.
        notify: told how many more texts are done.
    """
    asked = 0
    for batch in _batches(texts, SHARD):
        new = list(dict.fromkeys(text for text, row in zip(batch, cache.rows(batch), strict=True) if row < 0))
        notify(len(batch) - len(new))
        if new:
            cache.add(new, teacher.encode_document(new, progress=notify))
            asked += len(new)
    return asked


def cache_of(teacher: Encoder, folder: Path) -> VectorCache:
    """Return a teacher's cache below a folder: by its weights, the texts' length, prompt and pooling."""
    identity = teacher.identity
    facts = (identity.weights_sha256, identity.max_tokens, identity.pooling, identity.prompts.get("document"))
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    return VectorCache(folder / f"{identity.name.replace('/', '--')}-{digest}")


def forget(cache: VectorCache) -> None:
    """Remove a cache."""
    remove_tree(cache.folder)


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    stream = iter(texts)
    while batch := list(islice(stream, size)):
        yield batch


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
