"""Readers: a commit stays as it was for as long as it is open, and reading leaves no trace."""

from __future__ import annotations

import gc
import os
import shutil
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from samples import SMALL, add, build, delete, document, documents, optimize, queries

from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.indexes.filters import parse_filter
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.verify import verify
from cmbert_retrieval.retriever import Retriever

Listing = dict[str, tuple[int, int, int]]


def listing(folder: Path) -> Listing:
    """Return what changes when somebody writes: names, sizes, times of files and folders."""
    return {
        path.relative_to(folder).as_posix(): (found.st_size, found.st_mtime_ns, found.st_ino)
        for path in [folder, *folder.rglob("*")]
        for found in [path.stat()]
    }


def everything(reader: IndexReader, encoder: Encoder) -> list[object]:
    """Return answers of every kind that a reader gives."""
    where = parse_filter("year>=2010", reader.manifest.columns)
    rows = reader.words.rows()
    seen: list[object] = [rows.tolist(), reader.vectors(rows).tolist(), list(reader.documents())]
    for text in queries(3):
        for chosen in (None, where):
            seen.append([part.tolist() for part in reader.search_words(text, 5, chosen)])
            vector = encoder.encode_query([text])[0]
            seen.append([part.tolist() for part in reader.search_vectors(vector, 5, chosen)])
    return seen


CHANGES: dict[str, Callable[[Path, Encoder], object]] = {
    "add": lambda folder, encoder: add(folder, documents(4, first=40), encoder),
    "revise": lambda folder, encoder: add(folder, documents(4, seed=3), encoder),
    "delete": lambda folder, encoder: delete(folder, ["note-1", "note-7"]),
    "optimize": lambda folder, encoder: optimize(folder),
}


@pytest.fixture
def index(tmp_path: Path, encoder: Encoder) -> Path:
    build(tmp_path / "index", documents(10), encoder, *SMALL)
    add(tmp_path / "index", [*documents(3, first=20), document(2, seed=8)], encoder)
    return tmp_path / "index"


@pytest.mark.parametrize("eager", [True, False], ids=["used before", "used after"])
def test_a_reader_keeps_the_commit_that_it_opened(index: Path, encoder: Encoder, eager: bool) -> None:
    with IndexReader(index) as fresh:
        expected = everything(fresh, encoder)
    with IndexReader(index) as reader:
        if eager:
            assert everything(reader, encoder) == expected
        for name, change in CHANGES.items():
            change(index, encoder)
            assert everything(reader, encoder) == expected, name
            with IndexReader(index) as later:
                assert later.manifest.commit > reader.manifest.commit
                assert everything(later, encoder) != expected


def test_files_of_a_commit_go_with_the_first_commit_after_its_last_reader(
    index: Path, encoder: Encoder
) -> None:
    reader, other = IndexReader(index), IndexReader(index)
    mine = set(reader.manifest.files)
    optimize(index)
    assert all((index / name).is_file() for name in mine)
    reader.close()
    delete(index, ["note-3"])
    assert all((index / name).is_file() for name in mine)
    assert everything(other, encoder)
    other.close()
    delete(index, ["note-4"])
    with IndexReader(index) as last:
        gone = mine - set(last.manifest.files)
    assert gone and not any((index / name).exists() for name in gone)
    assert verify(index).leftovers == []
    assert [path.name for path in (index / "commits").iterdir()] == [f"{verify(index).commit:05d}"]


def test_closing_twice_is_fine(index: Path) -> None:
    reader = IndexReader(index)
    assert len(reader.words)
    reader.close()
    reader.close()


def test_searching_while_commits_come_gives_whole_answers(index: Path, encoder: Encoder) -> None:
    stop = threading.Event()
    troubles: list[BaseException] = []
    searches = [0] * 4

    def search(number: int) -> None:
        try:
            while not stop.is_set():
                with Retriever(IndexReader(index), encoder) as retriever:
                    for query in queries(4, seed=number):
                        hits = retriever.search(query, 200, mode="hybrid", filter="year>=2000")
                        assert len({hit.id for hit in hits}) == len(hits) == len(retriever)
                        searches[number] += 1
        except BaseException as error:
            troubles.append(error)

    threads = [threading.Thread(target=search, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for step in range(3):
            add(index, documents(2, first=60 + 10 * step), encoder)
            delete(index, [f"note-{60 + 10 * step}"])
            optimize(index)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert troubles == []
    assert min(searches) > 0
    assert verify(index).problems == []


def test_one_reader_serves_many_threads_with_many_filters(index: Path, encoder: Encoder) -> None:
    filters = [parse_filter(f"year>={year}", {"year": "integer"}) for year in range(1995, 2027)]
    vector = encoder.encode_query(["acute kidney injury"])[0]
    with IndexReader(index) as reader:
        expected = [
            (
                reader.search_words("acute kidney", 5, where)[1].tolist(),
                reader.search_vectors(vector, 5, where)[1].tolist(),
            )
            for where in filters
        ]
    troubles: list[object] = []
    with IndexReader(index) as reader:
        barrier = threading.Barrier(8)

        def search(number: int) -> None:
            barrier.wait()
            try:
                for turn in range(64):
                    place = (turn * 7 + number * 5) % len(filters)
                    words = reader.search_words("acute kidney", 5, filters[place])[1].tolist()
                    nearest = reader.search_vectors(vector, 5, filters[place])[1].tolist()
                    if (words, nearest) != expected[place]:
                        troubles.append(place)
            except BaseException as error:
                troubles.append(error)

        threads = [threading.Thread(target=search, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert troubles == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc, which is Linux's")
def test_threads_that_have_ended_hold_no_files(index: Path) -> None:
    def open_databases() -> int:
        found = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]  # noqa: PTH115
        return sum(name.endswith("documents.sqlite") for name in found)

    with IndexReader(index) as reader:
        before = open_databases()
        for _ in range(20):
            thread = threading.Thread(target=lambda: reader.get("note-1"))
            thread.start()
            thread.join()
        gc.collect()
        assert open_databases() <= before + len(reader.segments)
    assert open_databases() == 0


def test_reading_writes_nothing_into_the_folder(index: Path, encoder: Encoder) -> None:
    before = listing(index)
    with Retriever(IndexReader(index), encoder) as retriever:
        during = listing(index)
        for mode in ("lexical", "dense", "hybrid"):
            retriever.search("acute kidney injury", 5, mode=mode, filter="year>2001")
        assert retriever.get("note-1") is not None
    verify(index, encoder=encoder)
    assert listing(index) == during == before


def test_an_index_that_nobody_may_write_to_is_searched(index: Path, encoder: Encoder) -> None:
    places = [index, *index.rglob("*")]
    for path in places:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    try:
        with Retriever(IndexReader(index), encoder) as retriever:
            for mode in ("lexical", "dense", "hybrid"):
                assert retriever.search("acute kidney injury", 5, mode=mode)
        assert verify(index).problems == []
    finally:
        for path in places:
            path.chmod(path.stat().st_mode | stat.S_IWUSR)


def test_a_copy_of_the_folder_is_an_index(index: Path, tmp_path: Path, encoder: Encoder) -> None:
    shutil.copytree(index, tmp_path / "copy with spaces ü")
    with IndexReader(index) as one, IndexReader(tmp_path / "copy with spaces ü") as other:
        assert everything(one, encoder) == everything(other, encoder)


def test_revisions_and_deleted_documents_are_not_to_be_had(index: Path, encoder: Encoder) -> None:
    delete(index, ["note-5"])
    with IndexReader(index) as reader:
        assert reader.get("note-2") == document(2, seed=8)
        assert reader.get("note-5") is None and reader.find("note-5") is None
        assert reader.get("nobody") is None
        ids = [text.id for text in reader.documents()]
        assert sorted(ids) == sorted({f"note-{n}" for n in (*range(10), 20, 21, 22)} - {"note-5"})
        assert set(reader.parents(reader.words.rows()).values()) == set(ids)


def test_vectors_of_rows_come_in_the_order_asked_for(index: Path, encoder: Encoder) -> None:
    with IndexReader(index) as reader:
        rows = reader.words.rows()
        shuffled = np.random.default_rng(0).permutation(rows)
        texts = [reader.row(row)[0].text for row in shuffled.tolist()]
        stored = reader.vectors(shuffled).astype(np.float32)
    np.testing.assert_allclose(stored, encoder.encode_document(texts), atol=2e-3)
