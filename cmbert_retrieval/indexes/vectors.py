"""Vectors of a segment: float16 shards, which any factory can be built from, and the FAISS file."""

from __future__ import annotations

import logging
import os
import re
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.errors import ConfigError, IndexCorruptError
from cmbert_retrieval.indexes.storage import atomic_file
from cmbert_retrieval.threads import thread_budget

logger = logging.getLogger(__name__)

FAISS_FILE = "vectors.faiss"
ROWS_FILE = "rows.npy"
TRAINING_VECTORS_PER_LIST = 64
TRAINING_VECTORS = 65_536  # at least, where there are so many
_FAISS_NOISE = 4e-6  # relative error of an inner product in float32, for some thousand dimensions
_EXACT_BELOW = 4096  # matching rows that a scan of float16 vectors finds faster than FAISS does


def shard_name(shard: int) -> str:
    """Return the file name of a shard's vectors."""
    return f"vectors-{shard:05d}.npy"


def write_shard(path: Path, vectors: NDArray[np.float32]) -> None:
    """Write a shard of vectors as float16, durably and at once."""
    with atomic_file(path) as file:
        np.save(file, vectors.astype(np.float16), allow_pickle=False)


def read_array(path: Path) -> NDArray[Any]:
    """Map an array file into memory.

    Raises:
        IndexCorruptError: it is missing or damaged.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except FileNotFoundError:
        raise IndexCorruptError(f"{path} is missing; run: cmbert index verify") from None
    except Exception as error:  # a damaged header is Python that may fail in any way
        reason = type(error).__name__
        raise IndexCorruptError(
            f"{path}: not a readable array ({reason}); run: cmbert index verify"
        ) from None


def read_shard(path: Path) -> NDArray[np.float16]:
    """Map a shard's vectors into memory.

    Raises:
        IndexCorruptError: it is missing or not such a file.
    """
    vectors = read_array(path)
    if vectors.dtype != np.float16 or vectors.ndim != 2:
        raise IndexCorruptError(
            f"{path}: expected a float16 matrix, got {vectors.dtype} with shape {vectors.shape}; "
            "run: cmbert index verify"
        )
    return vectors


class ShardedVectors:
    """All float16 vectors of a segment, read where they lie on disk."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._shards = [read_shard(path) for path in paths]
        self._ends = np.cumsum([len(shard) for shard in self._shards], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._shards else 0

    def shards(self) -> Iterator[NDArray[np.float16]]:
        """Yield the shards in order."""
        yield from self._shards

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return ``[positions, dim]``, the vectors at these positions of the segment."""
        if len(self._shards) == 1:
            return np.asarray(self._shards[0][positions])
        which = np.searchsorted(self._ends, positions, side="right")
        out = np.empty((len(positions), self._shards[0].shape[1]), dtype=np.float16)
        for shard in np.unique(which):
            chosen = which == shard
            start = self._ends[shard] - len(self._shards[shard])
            out[chosen] = self._shards[shard][positions[chosen] - start]
        return out


def exact_scores(query: NDArray[np.float32], vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return inner products, rounded from double precision.

    Every path ends here, so that a row has one score whatever found it: FAISS, a filtered scan, one query or
    many.
    """
    return (vectors.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)


def write_faiss(path: Path, vectors: ShardedVectors, dim: int, factory: str) -> str:
    """Write ``vectors.faiss`` for a segment and return the factory that was used.

    ``Flat`` is streamed to the file as FAISS lays it out, in constant memory. Other factories are trained on
    an even sample and filled shard by shard. A segment too small to train its factory is written as ``Flat``,
    which is exact.

    Raises:
        ConfigError: FAISS does not know the factory, or it needs more memory than there is.
    """
    if factory == "Flat":
        _write_flat(path, vectors, dim)
        return factory
    faiss = _faiss()
    unusable = f"FAISS cannot use the factory '{factory}' for vectors of {dim} dimensions; try HNSW32 or Flat"
    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError:
        raise ConfigError(unusable) from None
    if not index.is_trained and len(vectors) < _training_size(index):
        _write_flat(path, vectors, dim)
        return "Flat"
    check_memory(factory, dim, len(vectors))
    try:
        if not index.is_trained:
            sample = min(len(vectors), max(_training_size(index), TRAINING_VECTORS))
            positions = np.linspace(0, len(vectors) - 1, sample).astype(np.int64)
            index.train(vectors.take(np.unique(positions)).astype(np.float32))
        for shard in vectors.shards():
            index.add(shard.astype(np.float32))
    except RuntimeError:
        raise ConfigError(unusable) from None
    temporary = path.with_name(path.name + ".tmp")
    faiss.write_index(index, str(temporary))
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    return factory


def _faiss() -> Any:
    """Return FAISS, kept to our threads: it would take all cores of the machine."""
    import faiss

    faiss.omp_set_num_threads(thread_budget())
    return faiss


def _training_size(index: Any) -> int:
    import faiss

    try:
        inverted = faiss.extract_index_ivf(index)
    except RuntimeError:
        return 256 * TRAINING_VECTORS_PER_LIST
    centroids = inverted.pq.ksub if hasattr(inverted, "pq") else 0
    return max(TRAINING_VECTORS_PER_LIST * int(inverted.nlist), int(centroids))


def _write_flat(path: Path, vectors: ShardedVectors, dim: int) -> None:
    """Write what ``faiss.write_index`` writes for an IndexFlatIP, a shard at a time (tested equal)."""
    rows = len(vectors)
    with atomic_file(path) as file:
        file.write(struct.pack("<4siqqq?iQ", b"IxFI", dim, rows, 1 << 20, 1 << 20, True, 0, rows * dim))
        for shard in vectors.shards():
            file.write(np.ascontiguousarray(shard, dtype="<f4").tobytes())


def factory_bytes(factory: str, dim: int, rows: int) -> int:
    """Return about how many bytes a factory holds in memory while it is built."""
    if factory == "Flat":
        return 0
    reduced = re.search(r"(?:PCA\w*?|OPQ\d+_|RR)(\d+)(?=,)", factory)
    width = min(dim, int(reduced[1])) if reduced else dim
    codes = re.search(r"(?<!O)PQ(\d+)(?:x(\d+))?", factory)
    if codes:
        row_bytes = int(codes[1]) * int(codes[2] or 8) // 8 + 1
    elif "RaBitQ" in factory:
        row_bytes = width // 8 + 9
    elif scalar := re.search(r"SQ(\d+)", factory):
        row_bytes = width * int(scalar[1]) // 8
    else:
        row_bytes = 4 * width
    row_bytes += 8 if "IVF" in factory else 0
    row_bytes += 4 * dim if "RFlat" in factory or "Refine(Flat)" in factory else 0
    graph = re.search(r"(?<!_)HNSW(\d*)", factory)
    row_bytes += 4 * (2 * int(graph[1] or 32) + 8) if graph else 0
    lists = re.search(r"IVF(\d+)", factory)
    training = max(TRAINING_VECTORS, TRAINING_VECTORS_PER_LIST * int(lists[1]) if lists else 0)
    return row_bytes * rows + 4 * dim * min(training, rows)


def check_memory(factory: str, dim: int, rows: int) -> None:
    """Refuse to begin what the memory cannot hold.

    Raises:
        ConfigError: needed and available memory, and what to choose instead.
    """
    needed = factory_bytes(factory, dim, rows)
    available = available_memory()
    logger.info("'%s' over %d vectors needs about %.2f GB of memory", factory, rows, needed / 1e9)
    if available is not None and needed > available:
        raise ConfigError(
            f"'{factory}' over {rows:,} vectors of {dim} dimensions needs about {needed / 1e9:.1f} GB of "
            f"memory, {available / 1e9:.1f} GB are free; choose a smaller one, "
            "for instance vectors.factory=IVF4096,PQ64"
        )


def available_memory() -> int | None:
    """Return the free memory in bytes, or None where the system does not tell."""
    try:
        with Path("/proc/meminfo").open() as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


class VectorSearch:
    """Nearest vectors within one segment."""

    def __init__(self, folder: Path, vectors: ShardedVectors, dim: int, factory: str) -> None:
        """Open ``vectors.faiss`` in ``folder``; a Flat file is mapped, not read.

        Raises:
            IndexCorruptError: the file is missing, damaged, or of other vectors.
        """
        self.vectors = vectors
        self._factory = factory
        self._path = folder / FAISS_FILE
        self._lock = threading.Lock()
        self._index: Any = None
        if not self._path.is_file():
            raise IndexCorruptError(f"{self._path} is missing; run: cmbert index verify")
        self._dim = dim

    def _open(self) -> Any:
        with self._lock:
            if self._index is None:
                faiss = _faiss()
                flags = faiss.IO_FLAG_MMAP_IFC if self._factory == "Flat" else 0
                try:
                    index = faiss.read_index(str(self._path), flags)
                except RuntimeError as error:
                    reason = str(error).splitlines()[0]
                    raise IndexCorruptError(f"{self._path}: {reason}; run: cmbert index verify") from None
                if (index.ntotal, index.d) != (len(self.vectors), self._dim):
                    raise IndexCorruptError(
                        f"{self._path}: holds {index.ntotal} vectors of {index.d} dimensions, "
                        f"expected {len(self.vectors)} of {self._dim}; run: cmbert index verify"
                    )
                self._index = index
            return self._index

    def is_of_its_vectors(self) -> bool:
        """Return whether FAISS holds the stored vectors. Kinds that keep codes are not looked into."""
        index = self._open()
        if self._factory != "Flat":
            return True
        start = 0
        for shard in self.vectors.shards():
            for first in range(0, len(shard), 8192):
                block = np.asarray(shard[first : first + 8192], dtype=np.float32)
                if not np.array_equal(index.reconstruct_n(start, len(block)), block):
                    return False
                start += len(block)
        return True

    def search(
        self, query: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return scores and positions of the nearest vectors, at least ``k`` of them where there are so many.

        Args:
            query: ``[dim]``.
            k: how many; equal scores at the border come along, so more may be returned.
            allowed: ``[vectors]``, which positions count; None for all.
        """
        total = len(self.vectors) if allowed is None else int(np.count_nonzero(allowed))
        k = min(k, total)
        if k == 0:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        if allowed is not None and total <= _EXACT_BELOW:
            return self._scan(query, np.flatnonzero(allowed))
        wanted = k + 8
        while True:
            positions = self._candidates(query, min(wanted, total), allowed)
            if len(positions) < k:  # a graph index loses its way behind a selective filter
                chosen = np.arange(len(self.vectors)) if allowed is None else np.flatnonzero(allowed)
                return self._scan(query, chosen)
            scores = exact_scores(query, self.vectors.take(positions))
            ordered = np.sort(scores)[::-1]
            # FAISS adds up in float32: what it puts behind the last candidate may be as good as that.
            beyond = ordered[-1] + _FAISS_NOISE * float(np.linalg.norm(query)) * self._norm(positions)
            if len(positions) >= total or beyond < ordered[k - 1] or len(positions) < wanted:
                return scores, positions
            wanted *= 4  # the border lies among equal scores: take them all

    def _norm(self, positions: NDArray[np.int64]) -> float:
        vectors = self.vectors.take(positions).astype(np.float32)
        return float(np.sqrt(np.einsum("ij,ij->i", vectors, vectors).max(initial=0.0)))

    def _candidates(
        self, query: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        faiss = _faiss()
        index = self._open()
        parameters = None
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(bits)
            parameters = _parameters(index, selector)
        try:
            _, found = index.search(query[None, :], k, params=parameters)
        except RuntimeError:
            if allowed is None:
                raise
            return np.empty(0, np.int64)  # a kind that knows no filters: the caller scans instead
        positions = found[0]
        return np.asarray(positions[positions >= 0], dtype=np.int64)

    def _scan(
        self, query: NDArray[np.float32], positions: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        scores = [
            exact_scores(query, self.vectors.take(positions[start : start + 8192]))
            for start in range(0, len(positions), 8192)
        ]
        return np.concatenate(scores), positions


def _parameters(index: Any, selector: Any) -> Any:
    """Return search parameters of the index's own kind: FAISS refuses those of another."""
    import faiss

    inner = faiss.downcast_index(index)
    if isinstance(inner, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=_parameters(inner.index, selector))
    if isinstance(inner, faiss.IndexRefine):
        parameters = faiss.IndexRefineSearchParameters()
        parameters.k_factor = inner.k_factor
        # Attached to the Python object, too: FAISS keeps a bare pointer.
        parameters.inner = parameters.base_index_params = _parameters(inner.base_index, selector)
        return parameters
    if isinstance(inner, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=selector, nprobe=inner.nprobe)
    if isinstance(inner, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=selector, efSearch=inner.hnsw.efSearch)
    return faiss.SearchParameters(sel=selector)
