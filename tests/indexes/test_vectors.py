"""Vectors of a segment: what FAISS reads, and searches against brute force over the stored vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cmbert_retrieval.errors import ConfigError, IndexCorruptError
from cmbert_retrieval.indexes import vectors as module
from cmbert_retrieval.indexes.shard_files import ShardedVectors, shard_name, write_shard
from cmbert_retrieval.indexes.vectors import (
    FAISS_FILE,
    VectorSearch,
    check_memory,
    factory_bytes,
    write_faiss,
)

# Four bits a code: training 256 centroids costs a minute.
TRAINED = ("IVF8,Flat", "IVF8,PQ8x4", "IVF8,PQ8x4,RFlat", "IVF8,SQ8", "PCA16,IVF8,Flat", "IVF8,RaBitQ")
UNTRAINED = ("HNSW32", "HNSW32,Flat")
LARGE = (
    "SQ8",
    "PQ8x4",
    "RaBitQ",
    "OPQ8,IVF8,PQ8",
    "OPQ8,PQ8x4",
    "PCA16,Flat",
    "PCA16,HNSW32",
)  # trained on 16,384 vectors at least

Stored = Callable[..., tuple[Path, ShardedVectors]]


def random_vectors(rows: int, dim: int = 32, *, seed: int = 0, clusters: int = 0) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((rows, dim))
    if clusters:
        vectors = 0.4 * vectors + generator.standard_normal((clusters, dim))[np.arange(rows) % clusters]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def store(folder: Path, vectors: NDArray[np.float32], shard_rows: int = 2048) -> ShardedVectors:
    paths = []
    for shard, start in enumerate(range(0, len(vectors), shard_rows)):
        paths.append(folder / shard_name(shard))
        write_shard(paths[-1], vectors[start : start + shard_rows])
    return ShardedVectors(paths)


def open_search(
    folder: Path, vectors: ShardedVectors, factory: str, dim: int = 32
) -> tuple[VectorSearch, str]:
    used = write_faiss(folder / FAISS_FILE, vectors, dim, factory)
    return VectorSearch(folder, vectors, dim, used), used


def oracle(query: NDArray[np.float32], stored: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return the score of every stored vector, one at a time and in double precision."""
    exact = [math.fsum((vector.astype(np.float64) * query.astype(np.float64)).tolist()) for vector in stored]
    return np.array(exact, dtype=np.float64).astype(np.float32)


def assert_is_what_brute_force_finds(
    found: tuple[NDArray[np.float32], NDArray[np.int64]],
    scores: NDArray[np.float32],
    k: int,
    allowed: NDArray[np.bool_] | None = None,
) -> None:
    positions = np.arange(len(scores)) if allowed is None else np.flatnonzero(allowed)
    order = positions[np.lexsort((positions, -scores[positions]))]
    got_scores, got = found
    assert len(set(got.tolist())) == len(got)
    assert len(got) >= min(k, len(positions))
    np.testing.assert_allclose(got_scores, scores[got], rtol=0, atol=1e-7)
    got = got[np.lexsort((got, -got_scores))]
    wanted = order[:k]
    border = scores[wanted[-1]] if len(wanted) else 0
    ties = set(order[scores[order] >= border].tolist()) if len(wanted) else set()
    assert got[: len(wanted)].tolist() == wanted.tolist()
    assert ties <= set(got.tolist())


# --- files ---


@pytest.mark.parametrize("rows", [0, 1, 7, 2048, 5000])
def test_a_flat_file_is_what_faiss_writes_byte_for_byte(tmp_path: Path, rows: int) -> None:
    vectors = random_vectors(rows, 20)
    if rows:
        stored = store(tmp_path, vectors, 1000)
    else:
        write_shard(tmp_path / shard_name(0), vectors)
        stored = ShardedVectors([tmp_path / shard_name(0)])
    assert write_faiss(tmp_path / FAISS_FILE, stored, 20, "Flat") == "Flat"
    index = faiss.IndexFlatIP(20)
    index.add(vectors.astype(np.float16).astype(np.float32))
    faiss.write_index(index, str(tmp_path / "theirs"))
    assert (tmp_path / FAISS_FILE).read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.parametrize("damage", ["missing", "empty", "short", "garbage", "other rows", "other dim"])
def test_a_damaged_faiss_file_is_an_error_naming_it(tmp_path: Path, damage: str) -> None:
    vectors = random_vectors(100)
    search, _ = open_search(tmp_path, store(tmp_path, vectors), "Flat")
    path = tmp_path / FAISS_FILE
    match damage:
        case "missing":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "short":
            path.write_bytes(path.read_bytes()[:-100])
        case "garbage":
            path.write_bytes(b"garbage" * 100)
        case "other rows" | "other dim":
            index = faiss.IndexFlatIP(32 if damage == "other rows" else 16)
            index.add(random_vectors(99 if damage == "other rows" else 100, index.d))
            faiss.write_index(index, str(path))
    with pytest.raises(IndexCorruptError, match=f"{FAISS_FILE}.*run: cmbert index verify"):
        VectorSearch(tmp_path, search.vectors, 32, "Flat").search(vectors[0], 5, None)


@pytest.mark.parametrize(
    "factory", ["Flta", "", "IVF", "IDMap,Flat", "IDMap2,HNSW32", "PQ7", "IVF8,PQ7", "Flat,Flat", "LSH,LSH"]
)  # fmt: skip
def test_a_factory_that_cannot_be_used_is_an_error_that_names_it(tmp_path: Path, factory: str) -> None:
    stored = store(tmp_path, random_vectors(200))
    with pytest.raises(ConfigError, match=f"'{factory}'") as caught:
        write_faiss(tmp_path / FAISS_FILE, stored, 32, factory)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / FAISS_FILE).exists()


@pytest.mark.parametrize("factory", [*TRAINED, *LARGE, "IVF1,PQ8", "IVF4,PQ8x12"])
def test_too_few_vectors_to_train_are_kept_flat(tmp_path: Path, factory: str) -> None:
    vectors = random_vectors(40)
    search, used = open_search(tmp_path, store(tmp_path, vectors, 16), factory)
    assert used == "Flat"
    scores = oracle(vectors[3], vectors.astype(np.float16))
    assert_is_what_brute_force_finds(search.search(vectors[3], 5, None), scores, 5)


# --- search ---


def masks(rows: int, seed: int) -> dict[str, NDArray[np.bool_] | None]:
    generator = np.random.default_rng(seed)
    one = np.zeros(rows, np.bool_)
    one[rows // 2] = True
    few = np.zeros(rows, np.bool_)
    few[generator.choice(rows, max(2, rows // 1000), replace=False)] = True
    return {
        "no filter": None,
        "nothing": np.zeros(rows, np.bool_),
        "one": one,
        "0.1 %": few,
        "10 %": generator.random(rows) < 0.1,
        "90 %": generator.random(rows) < 0.9,
        "all": np.ones(rows, np.bool_),
    }


@pytest.mark.parametrize("exact_below", [4096, 0])
@pytest.mark.parametrize("k", [1, 10, 100, 5000])
def test_flat_finds_what_brute_force_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, k: int, exact_below: int
) -> None:
    monkeypatch.setattr(module, "_EXACT_BELOW", exact_below)  # both ways, over few vectors
    vectors = random_vectors(3000)
    vectors[100:200] = vectors[50]  # a hundred ties
    search, _ = open_search(tmp_path, store(tmp_path, vectors, 700), "Flat")
    for number in (0, 50, 1234):
        scores = oracle(vectors[number], vectors.astype(np.float16))
        for allowed in masks(3000, number).values():
            found = search.search(vectors[number], k, allowed)
            assert_is_what_brute_force_finds(found, scores, k, allowed)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 60),
    k=st.integers(1, 70),
    kinds=st.integers(1, 5),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    filtered=st.booleans(),
)
def test_ties_come_along_whatever_their_number(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    rows: int,
    k: int,
    kinds: int,
    share: float,
    filtered: bool,
) -> None:
    folder = tmp_path_factory.mktemp("ties")
    generator = np.random.default_rng(seed)
    # The same values in other places give the same score for this query, but not in FAISS's arithmetic.
    pool = random_vectors(kinds, 16, seed=seed)
    vectors = np.stack([generator.permutation(pool[number % kinds]) for number in range(rows)])
    search, _ = open_search(folder, store(folder, vectors, 13), "Flat", 16)
    query = np.full(16, 0.25, np.float32)
    allowed = generator.random(rows) < share if filtered else None
    scores = oracle(query, vectors.astype(np.float16))
    assert_is_what_brute_force_finds(search.search(query, k, allowed), scores, k, allowed)


@pytest.mark.parametrize("factory", [*TRAINED, *UNTRAINED])
def test_every_factory_gives_enough_rows_that_pass_and_their_own_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str
) -> None:
    monkeypatch.setattr(module, "_EXACT_BELOW", 0)  # the factory itself must cope with filters
    vectors = random_vectors(1500, clusters=30)
    search, used = open_search(tmp_path, store(tmp_path, vectors), factory)
    assert used == factory
    for number in (0, 1234):
        scores = oracle(vectors[number], vectors.astype(np.float16))
        for name, allowed in masks(1500, number).items():
            for k in (1, 10, 400, 5000):
                found_scores, found = search.search(vectors[number], k, allowed)
                passing = 1500 if allowed is None else int(allowed.sum())
                assert len(found) >= min(k, passing), (name, k)
                assert len(set(found.tolist())) == len(found)
                assert allowed is None or allowed[found].all()
                np.testing.assert_allclose(found_scores, scores[found], rtol=0, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("factory", LARGE)
def test_factories_that_train_on_many_vectors_search_with_filters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str
) -> None:
    monkeypatch.setattr(module, "_EXACT_BELOW", 0)
    vectors = random_vectors(17_000, clusters=100)
    search, used = open_search(tmp_path, store(tmp_path, vectors), factory)
    assert used == factory
    for allowed in masks(17_000, 5).values():
        scores, found = search.search(vectors[5], 20, allowed)
        passing = 17_000 if allowed is None else int(allowed.sum())
        assert len(found) >= min(20, passing)
        assert allowed is None or allowed[found].all()
        np.testing.assert_allclose(
            scores, oracle(vectors[5], vectors.astype(np.float16)[found]), rtol=0, atol=1e-7
        )


def recall(
    search: VectorSearch, queries: NDArray[np.float32], stored: NDArray[np.float16], mask: object
) -> float:
    found = wanted = 0
    for query in queries:
        scores = stored.astype(np.float32) @ query
        if mask is not None:
            scores = np.where(mask, scores, -np.inf)  # type: ignore[call-overload]
        best = {place for place in np.argsort(-scores)[:10].tolist() if scores[place] > -np.inf}
        scores, positions = search.search(query, 10, mask)  # type: ignore[arg-type]
        found += len(best & set(positions[np.argsort(-scores)[:10]].tolist()))
        wanted += len(best)
    return found / wanted


@pytest.mark.parametrize("factory", ["HNSW32", "IVF8,Flat", "IVF8,PQ8x4"])
def test_a_filter_does_not_cost_recall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str) -> None:
    monkeypatch.setattr(module, "_EXACT_BELOW", 100)
    vectors = random_vectors(2000, clusters=20)
    search, used = open_search(tmp_path, store(tmp_path, vectors), factory)
    assert used == factory
    stored = vectors.astype(np.float16)
    chosen = vectors[::150]
    unfiltered = recall(search, chosen, stored, None)
    for share in (0.001, 0.01, 0.1, 0.5, 0.9):
        mask = np.random.default_rng(1).random(2000) < share
        assert recall(search, chosen, stored, mask) >= unfiltered - 0.05, share


def blurred_clusters(rows: int, queries: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return vectors of clusters that run into each other, and queries close to some of them."""
    generator = np.random.default_rng(0)
    centers = generator.standard_normal((200, 32))
    vectors = centers[generator.integers(200, size=rows)] + 0.7 * generator.standard_normal((rows, 32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    asked = vectors[generator.integers(rows, size=queries)] + 0.2 * generator.standard_normal((queries, 32))
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    return vectors.astype(np.float32), asked.astype(np.float32)


@pytest.mark.parametrize(
    ("factory", "least"),
    [
        ("IVF128,Flat", 0.9),
        ("HNSW32", 0.9),
        ("IVF128,PQ8x4", 0.8),
        pytest.param("IVF128,SQ8", 0.9, marks=pytest.mark.slow),
        pytest.param("IVF128,PQ16x4", 0.9, marks=pytest.mark.slow),
        pytest.param("IVF128,PQ8x4,RFlat", 0.8, marks=pytest.mark.slow),
    ],
)
def test_approximate_factories_find_nearly_all_with_and_without_a_filter(
    tmp_path: Path, factory: str, least: float
) -> None:
    vectors, asked = blurred_clusters(40_000, 30)
    search, used = open_search(tmp_path, store(tmp_path, vectors, 16_384), factory)
    assert used == factory
    stored = vectors.astype(np.float16)
    unfiltered = recall(search, asked, stored, None)
    assert unfiltered >= least
    by_chance = np.random.default_rng(1).random(len(vectors)) < 0.13
    one_side = vectors[:, 0] < np.quantile(vectors[:, 0], 0.13)  # far from most queries
    for mask in (by_chance, one_side):
        assert mask.sum() > module._EXACT_BELOW
        assert recall(search, asked, stored, mask) >= max(least, unfiltered - 0.02)


def test_a_long_list_of_results_is_as_complete_as_a_short_one(tmp_path: Path) -> None:
    vectors, asked = blurred_clusters(20_000, 5)
    search, used = open_search(tmp_path, store(tmp_path, vectors, 16_384), "IVF128,Flat")
    assert used == "IVF128,Flat"
    for query in asked:
        exact = vectors.astype(np.float16).astype(np.float32) @ query
        best = set(np.argsort(-exact)[:1000].tolist())
        scores, positions = search.search(query, 1000, None)
        assert len(best & set(positions[np.argsort(-scores)[:1000]].tolist())) >= 0.9 * 1000


@pytest.mark.parametrize("factory", ["IVF8,PQ8x4fs", "IVF8_HNSW32,Flat", "HNSW32,SQ8", "L2norm,Flat"])
def test_rarer_kinds_are_searched_with_and_without_a_filter(tmp_path: Path, factory: str) -> None:
    vectors = random_vectors(5000, clusters=30)
    search, _ = open_search(tmp_path, store(tmp_path, vectors), factory)
    for allowed in (None, np.arange(5000) >= 100):
        scores, found = search.search(vectors[4000], 10, allowed)
        assert found[np.argmax(scores)] == 4000
        assert len(found) >= 10


def test_a_search_needs_nothing_of_faiss_where_few_rows_pass(tmp_path: Path) -> None:
    vectors = random_vectors(500)
    search, _ = open_search(tmp_path, store(tmp_path, vectors), "Flat")
    (tmp_path / FAISS_FILE).write_bytes(b"")
    allowed = np.zeros(500, np.bool_)
    allowed[[3, 400]] = True
    assert sorted(search.search(vectors[3], 10, allowed)[1].tolist()) == [3, 400]


# --- memory ---


@pytest.mark.parametrize("dim", [32, 384])
@pytest.mark.parametrize(
    "factory",
    ["HNSW32", "IVF8,Flat", "IVF8,PQ8x4", "PQ8x4", "SQ8", "IVF8,SQ8", "RaBitQ", "IVF8,RaBitQ", "PCA16,Flat",
     "PCA16,IVF8,PQ8x4"],
)  # fmt: skip
def test_the_memory_that_is_announced_is_at_least_what_the_finished_index_takes(
    factory: str, dim: int
) -> None:
    """Compared by what a further row adds, because the constant part hides errors of small indexes."""
    rows = 2000
    vectors = random_vectors(rows, dim)
    index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        index.train(vectors[:160])
    index.add(vectors[: rows // 2])
    half = len(faiss.serialize_index(index))
    index.add(vectors[rows // 2 :])
    actual = (len(faiss.serialize_index(index)) - half) / (rows - rows // 2)
    announced = (factory_bytes(factory, dim, 2 * 10**9) - factory_bytes(factory, dim, 10**9)) / 10**9
    assert 0.95 * actual <= announced <= 3 * actual + 100


def test_flat_needs_no_memory_of_its_own() -> None:
    assert factory_bytes("Flat", 768, 10**9) == 0


def test_what_memory_cannot_hold_is_refused_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_memory", lambda: 10**9)
    check_memory("HNSW32", 384, 10**5)
    with pytest.raises(
        ConfigError, match=r"'HNSW32' over 10,000,000 vectors .* 1\d\.\d GB of memory, 1.0 GB are"
    ):
        check_memory("HNSW32", 384, 10**7)
