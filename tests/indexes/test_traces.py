"""A build that stored nothing leaves the folder as it was; one that stored something can be gone on with."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from samples import SMALL, Wrapper, build, documents, recipe

from cmbert_retrieval.corpora.base import Cursor, Record
from cmbert_retrieval.corpora.memory import MemoryCorpus
from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.errors import (
    CmbertError,
    ConfigError,
    CorpusError,
    IndexLockedError,
    IndexMismatchError,
)
from cmbert_retrieval.indexes.locks import WriteLock
from cmbert_retrieval.indexes.pins import PINS
from cmbert_retrieval.indexes.verify import verify
from cmbert_retrieval.indexes.writer import IndexWriter
from cmbert_retrieval.types import Document

EMPTY = [Document("empty", " ")]


class Interrupted(MemoryCorpus):
    """Documents, behind which the user presses Ctrl-C."""

    def records(self, after: Cursor | None = None) -> Iterator[Record]:
        yield from super().records(after)
        raise KeyboardInterrupt


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def interrupted(folder: Path, count: int, *settings: str) -> None:
    with pytest.raises(KeyboardInterrupt), IndexWriter(folder) as writer:
        writer.build(Interrupted(documents(count)), recipe({}, *settings, encoder=False), None)


def test_a_folder_that_was_not_there_is_gone_again_with_its_parents(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="nothing to index"):
        build(tmp_path / "a/b/index", EMPTY, None)
    with pytest.raises(CorpusError, match="empty: empty"):
        build(tmp_path / "a/b/index", EMPTY, None, strict=True)
    interrupted(tmp_path / "a/b/index", 3)
    assert everything(tmp_path) == []


@pytest.mark.parametrize("there", ["", "encoder/", "segments/", "write.lock"])
def test_what_was_there_stays_and_nothing_else(tmp_path: Path, there: str) -> None:
    root = tmp_path / "index"
    root.mkdir()
    if there.endswith("/"):
        (root / there).mkdir()
    elif there:
        (root / there).touch()
    before = everything(tmp_path)
    interrupted(root, 3)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", ["notes.txt", "segments/notes.txt", "lexical/mine", "deleted/x.npy"])
def test_a_folder_of_other_files_is_refused_and_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    before = everything(tmp_path)
    with pytest.raises(ConfigError, match="holds other files and no index"):
        build(tmp_path, documents(3), None)
    assert everything(tmp_path) == before


def test_parents_that_hold_something_by_now_stay(tmp_path: Path) -> None:
    class Neighbour(MemoryCorpus):
        def records(self, after: Cursor | None = None) -> Iterator[Record]:
            (tmp_path / "a/theirs").touch()
            return iter(())

    with pytest.raises(CorpusError), IndexWriter(tmp_path / "a/index") as writer:
        writer.build(Neighbour([]), recipe({}, encoder=False), None)
    assert everything(tmp_path) == ["a", "a/theirs"]


def test_what_was_stored_is_gone_on_with(tmp_path: Path) -> None:
    settings = ("passages=none", "shard_rows=4")
    interrupted(tmp_path / "index", 10, *settings)
    assert (tmp_path / "index/segments/00000.building/build.json").exists()
    with pytest.raises(IndexMismatchError, match="--restart"):
        build(tmp_path / "index", documents(9), None, *settings, columns={})
    with IndexWriter(tmp_path / "index") as writer:
        told: list[tuple[str, int]] = []
        writer._notify = lambda phase, count: told.append((phase, count))
        report = writer.build(MemoryCorpus(documents(10)), recipe({}, *settings, encoder=False), None)
    assert report.documents == 10 and ("resumed", 8) in told


def test_rows_that_wait_for_their_vectors_are_stored(tmp_path: Path, encoder: Encoder) -> None:
    broken = Wrapper(encoder)
    texts = [*documents(3), Document("last", "Zebra stripes.")]
    broken.poison = {"Zebra": float("nan")}
    with pytest.raises(CmbertError):
        build(tmp_path / "index", texts, broken, *SMALL, "shard_rows=2000")
    assert build(tmp_path / "index", texts, encoder, *SMALL, "shard_rows=2000").documents == 4


def test_a_killed_build_that_stored_nothing_is_begun_again_with_any_recipe(tmp_path: Path) -> None:
    root = tmp_path / "index"
    building = root / "segments/00000.building"
    building.mkdir(parents=True)
    (building / PINS).write_text('{"version": "0.0.1"}')
    assert build(root, documents(3), None).documents == 3
    assert verify(root).problems == []


def test_a_damaged_database_may_hold_rows_and_is_not_thrown_away(tmp_path: Path) -> None:
    root = tmp_path / "index"
    building = root / "segments/00000.building"
    building.mkdir(parents=True)
    (building / PINS).write_text('{"version": "0.0.1"}')
    (building / "documents.sqlite").write_bytes(b"SQLite format 3\0" + bytes(4000))
    with pytest.raises(IndexMismatchError, match="--restart"):
        build(root, documents(3), None)
    assert building.exists()


def test_a_failed_addition_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    build(tmp_path / "index", documents(3), None)
    with pytest.raises(CorpusError), IndexWriter(tmp_path / "index") as writer:
        writer.add(MemoryCorpus(EMPTY), None, strict=True)
    assert verify(tmp_path / "index").problems == []


def test_a_lock_whose_file_was_taken_away_is_taken_anew(tmp_path: Path) -> None:
    root = tmp_path / "index"
    with WriteLock(root):
        (root / "write.lock").unlink()
        with WriteLock(root), pytest.raises(IndexLockedError), WriteLock(root):
            pass
        assert (root / "write.lock").exists()


def test_builds_that_leave_nothing_do_not_disturb_one_that_does(tmp_path: Path) -> None:
    root = tmp_path / "a/index"
    stop, problems = threading.Event(), list[Exception]()

    def fail_on_and_on() -> None:
        while not stop.is_set():
            try:
                build(root, EMPTY, None)
            except (CorpusError, IndexLockedError, ConfigError):
                continue  # nothing to index, another's turn, or an index by now
            except Exception as error:
                problems.append(error)

    threads = [threading.Thread(target=fail_on_and_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        until = time.monotonic() + 60
        while not (root / "manifest.json").exists() and time.monotonic() < until:
            with suppress(IndexLockedError):
                build(root, documents(5), None)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert problems == []
    assert verify(root).problems == []
