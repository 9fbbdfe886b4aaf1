"""What a teacher says of texts: its vectors, kept by model and by the hash of a text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.errors import EncoderError
from cmbert_retrieval.storage import atomic_file, make_folder

if TYPE_CHECKING:
    import torch

_EMBEDDINGS = ("word_embeddings.weight", "tok_embeddings.weight")

SHARD = 16_384
"""Texts of a file of vectors."""


class VectorCache:
    """Vectors of texts, in files of 16,384 rows that are written once: the hash of a text, and its vector.

    A file is named by its content, so that any number of processes may add to a cache, and be killed, at any
    time. What others add meanwhile is not seen.
    """

    def __init__(self, folder: Path) -> None:
        """Open a cache; a new one is made.

        Raises:
            EncoderError: one of its files is none of ours.
        """
        self.folder = folder
        make_folder(folder)
        self._files: list[NDArray[np.void]] = []
        self._known: NDArray[np.void] = np.empty(0, _known(np.empty(0, np.uint64), 0, 0).dtype)
        for path in sorted(folder.glob("*.npy")):
            self._open(path)

    def __len__(self) -> int:
        """Return how many texts there are."""
        return len(self._known)

    def take(self, texts: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Return ``[texts]``, which of them are there, and ``[those, dim]``, their vectors of unit length."""
        keys = _keys(texts)
        places = np.searchsorted(self._known["key"], keys).clip(max=max(0, len(self) - 1))
        there = self._known["key"][places] == keys if len(self) else np.zeros(len(keys), bool)
        found = self._known[places[there]]
        dim = self._files[0]["vector"].shape[1] if self._files else 0
        vectors = np.empty((len(found), dim), np.float32)
        for file in np.unique(found["file"]):
            chosen = found["file"] == file
            vectors[chosen] = self._files[file]["vector"][found["row"][chosen]]
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return there, vectors

    def add(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Keep the vectors of texts that are not there yet."""
        rows = np.empty(len(texts), [("key", "<u8"), ("vector", "<f2", (vectors.shape[1],))])
        rows["key"], rows["vector"] = _keys(texts), vectors
        path = self.folder / f"{hashlib.sha256(rows['key'].tobytes()).hexdigest()[:24]}.npy"
        with atomic_file(path) as file:
            np.save(file, rows)
        self._open(path)

    def _open(self, path: Path) -> None:
        try:
            rows: NDArray[np.void] = np.load(path, mmap_mode="r", allow_pickle=False)
            keys, dim = np.asarray(rows["key"]), rows["vector"].shape[1]
        except (ValueError, IndexError, OSError):
            raise EncoderError(f"{path}: no file of vectors; remove {self.folder}") from None
        if self._files and dim != self._files[0]["vector"].shape[1]:
            raise EncoderError(
                f"{path}: vectors of {dim} numbers, others have {self._files[0]['vector'].shape[1]}; remove "
                f"{self.folder}"
            )
        joined = np.concatenate([self._known, _known(keys, len(self._files), len(keys))])
        self._known = joined[np.argsort(joined["key"], kind="stable")]
        self._files.append(rows)


def vectors_of(
    texts: Iterator[str], teacher: Encoder, cache: VectorCache, *, notify: Callable[[int], None]
) -> Iterator[NDArray[np.float16]]:
    """Yield ``[some texts, dim]`` in order: what a teacher says, asked about what the cache does not have.

    Args:
        texts: any number; some thousand are held in memory.
        teacher: whose vectors are meant.
        cache: of this teacher.
        notify: told how many more texts are done.
    """
    while batch := [text for _, text in zip(range(SHARD), texts, strict=False)]:
        there, _ = cache.take(batch)
        new = [text for text, known in zip(batch, there.tolist(), strict=True) if not known]
        notify(len(batch) - len(new))
        if new:
            distinct = list(dict.fromkeys(new))
            cache.add(distinct, teacher.encode_document(distinct, progress=notify))
        yield cache.take(batch)[1].astype(np.float16)


def token_embeddings(folder: Path) -> torch.Tensor | None:
    """Return the table ``[entries, dim]`` of a teacher's token embeddings; None where it has none."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="pt") as tensors:
        names = [name for name in tensors.keys() if name.endswith(_EMBEDDINGS)]
        table: torch.Tensor | None = tensors.get_tensor(names[0]) if names else None
    return table


def cache_of(teacher: Encoder, dtype: str, folder: Path) -> VectorCache:
    """Return a teacher's cache below a folder: by its weights, precision, length, prompt and pooling."""
    identity = teacher.identity
    prompt = identity.prompts.get("document", "")
    facts = (identity.weights_sha256, dtype, identity.max_tokens, identity.pooling, prompt, identity.dim)
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    return VectorCache(folder / f"{identity.name.replace('/', '--')}-{digest}")


def _keys(texts: Sequence[str]) -> NDArray[np.uint64]:
    hashes = (
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts
    )
    return np.frombuffer(b"".join(hashes), dtype="<u8")


def _known(keys: NDArray[np.uint64], file: int, count: int) -> NDArray[np.void]:
    rows = np.empty(len(keys), [("key", "<u8"), ("file", "<u4"), ("row", "<u4")])
    rows["key"], rows["file"], rows["row"] = keys, file, np.arange(count)
    return rows
