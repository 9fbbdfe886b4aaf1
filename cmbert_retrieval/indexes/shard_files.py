"""Files of float16 vectors, a shard each, read where they lie: few are open, whatever their number."""

from __future__ import annotations

import itertools
import mmap
import os
import re
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cmbert_retrieval.errors import IndexCorruptError
from cmbert_retrieval.indexes.advice import run_verify
from cmbert_retrieval.storage import atomic_file, parsed

_NAME = re.compile(r"vectors-(\d+)\.npy")
_MOST_MAPS = 128


def shard_name(shard: int) -> str:
    """Return the file name of a shard's vectors."""
    return f"vectors-{shard:05d}.npy"


def shard_paths(folder: Path) -> list[Path]:
    """Return the files of the shards in a folder by number: shard 100000 comes behind shard 99999."""
    paths = folder.glob("vectors-*.npy")
    numbered = [(int(match[1]), path) for path in paths if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(numbered)]


def write_shard(path: Path, vectors: NDArray[np.float32]) -> None:
    """Write a shard of vectors as float16, durably and at once."""
    with atomic_file(path) as file:
        np.save(file, np.ascontiguousarray(vectors, dtype=np.float16), allow_pickle=False)


class _Maps:
    """The shards read last, of all segments of all readers of this process, mapped into memory.

    A map of CPython keeps its file open, so there may be only so many. Reading each row with a call of the
    system instead was measured to take about five times as long.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the garbage collector may call `forget` in the middle of `get`
        self._maps: OrderedDict[tuple[int, int], NDArray[np.float16]] = OrderedDict()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()  # another thread of the parent may have held it

    def get(
        self, key: tuple[int, int], path: Path, offset: int, shape: tuple[int, int]
    ) -> NDArray[np.float16]:
        """Return a shard, of the user and of the number in ``key``.

        It stays mapped for as long as somebody holds it, even if it must make room for others here.
        """
        with self._lock:
            shard = self._maps.get(key)
            if shard is not None:
                self._maps.move_to_end(key)
                return shard
            room = min(_MOST_MAPS, _most_open_files() // 4)
            while len(self._maps) > room:
                self._maps.popitem(last=False)
            shard = self._maps[key] = _map(path, offset, shape)
            return shard

    def forget(self, user: int) -> None:
        """Drop what a user read."""
        with self._lock:
            for key in list(self._maps):
                if key[0] == user:
                    self._maps.pop(key, None)


_maps = _Maps()
_users = itertools.count()


def _most_open_files() -> int:
    try:
        import resource
    except ImportError:  # not a POSIX system
        return 4 * _MOST_MAPS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 4 * _MOST_MAPS


def _map(path: Path, offset: int, shape: tuple[int, int]) -> NDArray[np.float16]:
    with _opened(path) as file:
        if os.fstat(file.fileno()).st_size != offset + 2 * shape[0] * shape[1]:
            raise IndexCorruptError(f"{path}: its size has changed; {run_verify(path)}")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, np.float16, shape[0] * shape[1], offset).reshape(shape)


class ShardedVectors:
    """All float16 vectors of a segment, read where they lie on disk. Safe to use from several threads."""

    def __init__(self, paths: Iterable[Path], *, rows: int | None = None) -> None:
        """Read the headers of the files, one after the other.

        Args:
            paths: in order.
            rows: files behind so many rows are left alone: they belong to no commit.

        Raises:
            IndexCorruptError: a file is missing or not such a file, or they do not fit each other.
        """
        self._paths: list[Path] = []
        self._offsets: list[int] = []
        ends = [0]
        self._dim = 0
        for path in paths:
            if rows is not None and self._paths and ends[-1] >= rows:
                break
            offset, count, dim = _read_header(path)
            if self._paths and dim != self._dim:
                raise IndexCorruptError(
                    f"{path}: vectors of {dim} dimensions, expected {self._dim}; {run_verify(path)}"
                )
            self._dim = dim
            self._paths.append(path.absolute())
            self._offsets.append(offset)
            ends.append(ends[-1] + count)
        self._ends = np.array(ends, dtype=np.int64)
        self._user = next(_users)
        weakref.finalize(self, _maps.forget, self._user).atexit = False

    def __len__(self) -> int:
        return int(self._ends[-1])

    def close(self) -> None:
        """Close the files; whoever reads on opens them again."""
        _maps.forget(self._user)

    def shards(self) -> Iterator[NDArray[np.float16]]:
        """Yield the shards in order, each read as it is asked for."""
        for shard, path in enumerate(self._paths):
            rows, dim = shape = self._shape(shard)
            with _opened(path) as file:
                vectors = np.fromfile(file, np.float16, rows * dim, offset=self._offsets[shard])
            if vectors.size != rows * dim:
                raise IndexCorruptError(f"{path}: its size has changed; {run_verify(path)}")
            yield vectors.reshape(shape)

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return ``[positions, dim]``, the vectors at these positions of the segment, in any order."""
        out = np.empty((len(positions), self._dim), dtype=np.float16)
        if not len(positions):
            return out
        if len(self._paths) == 1:
            return np.asarray(self._map(0)[positions])
        # Neighbours in a file are read one after the other.
        order = np.argsort(positions, kind="stable")
        ordered = positions[order]
        shards = np.searchsorted(self._ends, ordered, side="right") - 1
        borders = np.flatnonzero(shards[1:] != shards[:-1]) + 1
        for first, last in itertools.pairwise((0, *borders.tolist(), len(ordered))):
            shard = int(shards[first])
            out[order[first:last]] = self._map(shard)[ordered[first:last] - self._ends[shard]]
        return out

    def _shape(self, shard: int) -> tuple[int, int]:
        return int(self._ends[shard + 1] - self._ends[shard]), self._dim

    def _map(self, shard: int) -> NDArray[np.float16]:
        shape = self._shape(shard)
        return _maps.get((self._user, shard), self._paths[shard], self._offsets[shard], shape)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise IndexCorruptError(f"{path} is missing; {run_verify(path)}") from None
    except OSError as error:
        raise IndexCorruptError(f"{path} cannot be read: {error.strerror}; {run_verify(path)}") from None


def _read_header(path: Path) -> tuple[int, int, int]:
    """Return where the values of a shard begin, how many vectors there are, and of how many dimensions."""
    with _opened(path) as file:
        try:
            version = npy.read_magic(file)
            if version != (1, 0):
                raise ValueError(version)
            begin = file.tell()

            def header() -> Any:
                file.seek(begin)
                return npy.read_array_header_1_0(file)

            shape, by_columns, dtype = parsed(header)
        except Exception as error:  # a damaged header is Python that may fail in any way
            reason = type(error).__name__
            raise IndexCorruptError(f"{path}: not a readable array ({reason}); {run_verify(path)}") from None
        offset, size = file.tell(), os.fstat(file.fileno()).st_size
    if dtype != np.float16 or len(shape) != 2 or by_columns or min(shape) < 0:
        raise IndexCorruptError(
            f"{path}: expected a float16 matrix, got {dtype} with shape {shape}; {run_verify(path)}"
        )
    expected = offset + 2 * shape[0] * shape[1]
    if size != expected:
        raise IndexCorruptError(f"{path}: {size:,} bytes, expected {expected:,}; {run_verify(path)}")
    return offset, shape[0], shape[1]
