"""The FAISS file of a segment: made of its float16 vectors by any factory, and searched."""

from __future__ import annotations

import logging
import os
import re
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.errors import ConfigError, IndexCorruptError
from cmbert_retrieval.indexes.advice import run_verify
from cmbert_retrieval.indexes.effort import candidates_for, is_lossy, search_parameters
from cmbert_retrieval.indexes.shard_files import ShardedVectors
from cmbert_retrieval.indexes.trust import check_faiss_file, check_faiss_index, faiss_flags
from cmbert_retrieval.memory import available_memory
from cmbert_retrieval.storage import atomic_file, parsed
from cmbert_retrieval.threads import sleeping_openmp, thread_budget

logger = logging.getLogger(__name__)

FAISS_FILE = "vectors.faiss"
ROWS_FILE = "rows.npy"
TRAINING_VECTORS_PER_LIST = 64
TRAINING_VECTORS = 65_536  # at least, where there are so many
_FAISS_NOISE = 4e-6  # relative error of an inner product in float32, for some thousand dimensions
_EXACT_BELOW = 4096  # matching rows that a scan of float16 vectors finds faster than FAISS does
_EXACT_SHARE = (
    0.02  # likewise, of all vectors of a segment: behind such a filter FAISS must look nearly everywhere
)


def read_array(path: Path) -> NDArray[Any]:
    """Map an array file into memory.

    Raises:
        IndexCorruptError: it is missing or damaged.
    """
    try:
        return parsed(lambda: np.load(path, mmap_mode="r", allow_pickle=False))
    except FileNotFoundError:
        raise IndexCorruptError(f"{path} is missing; {run_verify(path)}") from None
    except Exception as error:  # a damaged header is Python that may fail in any way
        reason = type(error).__name__
        raise IndexCorruptError(f"{path}: not a readable array ({reason}); {run_verify(path)}") from None


def exact_scores(query: NDArray[np.float32], vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return inner products, rounded from double precision.

    Every path ends here, so that a row has one score whatever found it: FAISS, a filtered scan, one query or
    many.
    """
    wide = vectors.astype(np.float64, copy=False)
    return np.asarray(wide @ query.astype(np.float64), dtype=np.float32)


def _longest(vectors: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.einsum("ij,ij->i", vectors, vectors).max(initial=0.0)))


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
    with sleeping_openmp():
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
        self._lossy = False
        self._threads = 1
        if not self._path.is_file():
            raise IndexCorruptError(f"{self._path} is missing; {run_verify(self._path)}")
        self._dim = dim

    def _open(self) -> Any:
        with self._lock:
            if self._index is None:
                faiss = _faiss()
                check_faiss_file(self._path, self._factory, rows=len(self.vectors), dim=self._dim)
                try:
                    index = faiss.read_index(str(self._path), faiss_flags(self._factory))
                except RuntimeError as error:
                    reason = str(error).splitlines()[0]
                    raise IndexCorruptError(f"{self._path}: {reason}; {run_verify(self._path)}") from None
                if (index.ntotal, index.d) != (len(self.vectors), self._dim):
                    raise IndexCorruptError(
                        f"{self._path}: holds {index.ntotal} vectors of {index.d} dimensions, "
                        f"expected {len(self.vectors)} of {self._dim}; {run_verify(self._path)}"
                    )
                check_faiss_index(index, self._path)
                self._lossy, self._threads = is_lossy(index), thread_budget()
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
        if allowed is not None and total <= max(_EXACT_BELOW, len(self.vectors) * _EXACT_SHARE):
            return self._scan(query, np.flatnonzero(allowed))
        self._open()
        wanted = k + 8
        while True:
            asked = min(candidates_for(wanted, lossy=self._lossy), total)
            positions = self._candidates(query, asked, allowed, wanted)
            if len(positions) < k:  # a graph index loses its way behind a selective filter
                chosen = np.arange(len(self.vectors)) if allowed is None else np.flatnonzero(allowed)
                return self._scan(query, chosen)
            vectors = self._vectors(positions)
            scores = exact_scores(query, vectors)
            ordered = np.sort(scores)[::-1]
            # FAISS adds up in float32: what it puts behind the last candidate may be as good as that.
            beyond = ordered[-1] + _FAISS_NOISE * float(np.linalg.norm(query)) * _longest(vectors)
            if len(positions) >= total or beyond < ordered[k - 1] or len(positions) < asked:
                return scores, positions
            wanted *= 4  # the border lies among equal scores: take them all

    def _candidates(
        self, query: NDArray[np.float32], asked: int, allowed: NDArray[np.bool_] | None, wanted: int
    ) -> NDArray[np.int64]:
        import faiss

        index = self._open()
        faiss.omp_set_num_threads(self._threads)  # OpenMP keeps a number for each thread that calls
        if allowed is None:
            parameters = search_parameters(index, wanted)
        else:
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
            share = float(np.count_nonzero(allowed)) / len(allowed)
            parameters = search_parameters(index, wanted, share=share, selector=selector)
        try:
            _, found = index.search(query[None, :], asked, params=parameters)
        except RuntimeError:
            if allowed is None:
                raise
            return np.empty(0, np.int64)  # a kind that knows no filters: the caller scans instead
        positions = found[0]
        return np.asarray(positions[positions >= 0], dtype=np.int64)

    def _vectors(self, positions: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return ``[positions, dim]``, the stored vectors.

        ``Flat`` holds the same values, in one piece and just looked at: gathering them from the files of the
        shards took ten times as long.
        """
        if self._factory == "Flat":
            return np.asarray(self._open().reconstruct_batch(positions), dtype=np.float64)
        return self.vectors.take(positions).astype(np.float64)

    def _scan(
        self, query: NDArray[np.float32], positions: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        scores = [
            exact_scores(query, self.vectors.take(positions[start : start + 8192]))
            for start in range(0, len(positions), 8192)
        ]
        return np.concatenate(scores), positions
