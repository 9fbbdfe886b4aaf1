"""Files of vectors: one matrix whatever their number, few of them open, damage named."""

from __future__ import annotations

import gc
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from samples import add, build, documents, optimize

from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.errors import IndexCorruptError
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.shard_files import ShardedVectors, shard_name, shard_paths, write_shard
from cmbert_retrieval.indexes.verify import verify
from cmbert_retrieval.retriever import Retriever


def random_vectors(rows: int, dim: int = 32) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((rows, dim)).astype(np.float32)


def store(folder: Path, vectors: NDArray[np.float32], shard_rows: int) -> list[Path]:
    for shard, start in enumerate(range(0, len(vectors), shard_rows)):
        write_shard(folder / shard_name(shard), vectors[start : start + shard_rows])
    return shard_paths(folder)


def open_files() -> int:
    return len(os.listdir("/dev/fd"))  # noqa: PTH208


@pytest.fixture
def few_files() -> Iterator[None]:
    """Let this process open 64 more files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 64, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_shards_are_one_matrix(tmp_path: Path) -> None:
    vectors = random_vectors(50, 8)
    stored = ShardedVectors(store(tmp_path, vectors, 7))
    assert len(stored) == 50
    positions = np.array([49, 0, 6, 7, 7, 13, 14, 48], np.int64)
    np.testing.assert_array_equal(stored.take(positions), vectors.astype(np.float16)[positions])
    np.testing.assert_array_equal(np.concatenate(list(stored.shards())), vectors.astype(np.float16))
    assert stored.take(np.empty(0, np.int64)).shape == (0, 8)


@pytest.mark.parametrize(
    "damage", ["missing", "empty", "short", "long", "other type", "other shape", "by columns", "pickle"]
)
def test_a_damaged_shard_is_an_error_naming_the_file(tmp_path: Path, damage: str) -> None:
    path = tmp_path / shard_name(0)
    write_shard(path, random_vectors(10))
    match damage:
        case "missing":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "short":
            path.write_bytes(path.read_bytes()[:-5])
        case "long":
            path.write_bytes(path.read_bytes() + b"\0\0")
        case "by columns":
            np.save(path, np.asfortranarray(np.zeros((10, 32), np.float16)))
        case "other type":
            np.save(path, np.zeros((10, 32), np.float64))
        case "other shape":
            np.save(path, np.zeros(10, np.float16))
        case "pickle":
            data = path.read_bytes()
            path.write_bytes(data.replace(b"'<f2'", b"'|O' "))  # the header of an array of pickled objects
    with pytest.raises(IndexCorruptError, match=shard_name(0)):
        ShardedVectors([path])


def test_a_shard_that_shrinks_after_it_was_opened_is_an_error(tmp_path: Path) -> None:
    path, other = store(tmp_path, random_vectors(20), 10)
    stored = ShardedVectors([path, other])
    os.truncate(path, 200)
    with pytest.raises(IndexCorruptError, match=r"vectors-00000\.npy: its size has changed"):
        stored.take(np.array([3, 12], np.int64))
    with pytest.raises(IndexCorruptError, match=r"vectors-00000\.npy: its size has changed"):
        next(stored.shards())


def test_shards_of_other_dimensions_are_an_error(tmp_path: Path) -> None:
    write_shard(tmp_path / shard_name(0), random_vectors(3, 8))
    write_shard(tmp_path / shard_name(1), random_vectors(3, 9))
    with pytest.raises(IndexCorruptError, match=r"vectors-00001\.npy: vectors of 9 dimensions, expected 8"):
        ShardedVectors(shard_paths(tmp_path))


def test_shards_are_ordered_by_number_and_other_files_left_alone(tmp_path: Path) -> None:
    numbers = [100_000, 99_999, 3, 20, 1_000_000]
    for number in numbers:
        (tmp_path / shard_name(number)).touch()
    for name in ("vectors-3.npy.tmp", "vectors-x.npy", "rows.npy", "vectors.faiss"):
        (tmp_path / name).touch()
    assert shard_paths(tmp_path) == [tmp_path / shard_name(number) for number in sorted(numbers)]


def test_files_behind_the_rows_of_the_commit_are_not_even_opened(tmp_path: Path) -> None:
    paths = store(tmp_path, random_vectors(20), 10)
    (tmp_path / shard_name(2)).write_bytes(b"half written")
    assert len(ShardedVectors(shard_paths(tmp_path), rows=20)) == 20
    assert len(ShardedVectors(paths[:1], rows=0)) == 10  # the first is always there


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=8).filter(any),
    data=st.data(),
)
def test_any_positions_are_taken_in_their_order(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    vectors = random_vectors(sum(sizes), 3)
    for shard, (size, end) in enumerate(zip(sizes, np.cumsum(sizes), strict=True)):
        write_shard(folder / shard_name(shard), vectors[end - size : end])
    stored = ShardedVectors(shard_paths(folder))
    positions = np.array(data.draw(st.lists(st.integers(0, len(vectors) - 1), max_size=30)), np.int64)
    np.testing.assert_array_equal(stored.take(positions), vectors.astype(np.float16)[positions])
    np.testing.assert_array_equal(np.concatenate(list(stored.shards())), vectors.astype(np.float16))


def test_threads_that_read_more_shards_than_stay_open_get_their_rows(tmp_path: Path, few_files: None) -> None:
    vectors = random_vectors(300, 8)
    stored = ShardedVectors(store(tmp_path, vectors, 3))
    wrong: list[int] = []

    def read(seed: int) -> None:
        generator = np.random.default_rng(seed)
        for _ in range(30):
            positions = generator.integers(0, 300, 40)
            if not np.array_equal(stored.take(positions), vectors.astype(np.float16)[positions]):
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("closed", [True, False])
def test_no_file_stays_open_behind_a_reader(tmp_path: Path, closed: bool) -> None:
    paths = store(tmp_path, random_vectors(40), 2)
    gc.collect()
    before = open_files()
    stored = ShardedVectors(paths)
    assert open_files() == before
    stored.take(np.arange(40))
    assert open_files() == before + 20
    if closed:
        stored.close()
    else:
        del stored
    assert open_files() == before


def test_two_hundred_shards_need_no_two_hundred_open_files(
    tmp_path: Path, encoder: Encoder, few_files: None
) -> None:
    build(tmp_path, documents(64), encoder, "shard_rows=1", "passages.max_tokens=512")
    assert len(list(tmp_path.glob("segments/00000/vectors-*.npy"))) >= 200
    with Retriever(IndexReader(tmp_path), encoder) as retriever:
        assert len(retriever.search("heart failure", 64, mode="dense", filter="year>=2000")) == 64
    add(tmp_path, documents(3, first=200), encoder)
    assert verify(tmp_path, encoder=encoder).problems == []
    optimize(tmp_path)
    assert verify(tmp_path).problems == []
