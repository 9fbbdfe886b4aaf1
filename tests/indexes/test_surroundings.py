"""What happens around an open index: threads that close it, forked children, other folders, moved files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from samples import SMALL, add, build, delete, document, documents

from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.errors import CmbertError
from cmbert_retrieval.indexes.locks import COMMITS
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.verify import verify
from cmbert_retrieval.indexes.writer import IndexWriter
from cmbert_retrieval.retriever import Retriever

CLOSING = """
import sys, threading, time
from cmbert_retrieval import CmbertError, Retriever
retriever = Retriever.from_pretrained(sys.argv[1], encoder=sys.argv[2])
problems, begun = [], threading.Barrier(9)

def search():
    begun.wait()
    while True:
        try:
            retriever.search("heart failure", k=20)
        except CmbertError:
            return
        except Exception as error:
            problems.append(repr(error))
            return

threads = [threading.Thread(target=search) for _ in range(8)]
for thread in threads:
    thread.start()
begun.wait()
time.sleep(0.2)
retriever.close()
for thread in threads:
    thread.join()
sys.exit("; ".join(problems) or None)
"""


def in_child(work: Callable[[], object]) -> int:
    """Run something in a forked child, which ends without ado; return its exit code."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def test_closing_under_searching_threads_ends_in_our_own_error(
    tmp_path: Path, encoder: Encoder, tiny_encoder_path: Path
) -> None:
    build(tmp_path / "index", documents(60), encoder, *SMALL)
    for _ in range(3):
        command = [sys.executable, "-c", CLOSING, str(tmp_path / "index"), str(tiny_encoder_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


def test_a_reader_opened_by_a_relative_path_stays_with_its_index_wherever_the_process_goes(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, first in (("here", 0), ("there", 50)):
        (tmp_path / folder).mkdir()
        build(tmp_path / folder / "index", documents(9, first=first), encoder, *SMALL)
    monkeypatch.chdir(tmp_path / "here")
    with Retriever(IndexReader("index"), encoder) as retriever:
        expected = {mode: retriever.search("heart", 20, mode=mode) for mode in ("lexical", "dense")}
    with Retriever(IndexReader("index"), encoder) as retriever:
        monkeypatch.chdir(tmp_path / "there")
        for mode, hits in expected.items():
            assert retriever.search("heart", 20, mode=mode) == hits


def test_a_reader_does_not_go_on_in_a_folder_that_took_the_place_of_its_own(
    tmp_path: Path, encoder: Encoder
) -> None:
    for name, first in (("index", 0), ("next", 50)):
        build(tmp_path / name, documents(9, first=first), encoder, *SMALL)
    with Retriever(IndexReader(tmp_path / "index"), encoder) as retriever:
        assert retriever.search("heart")
        (tmp_path / "index").rename(tmp_path / "old")
        (tmp_path / "next").rename(tmp_path / "index")
        for mode in ("lexical", "dense"):
            with pytest.raises(CmbertError, match="moved or replaced; open it again"):
                retriever.search("heart", mode=mode)


def test_a_forked_child_that_leaves_the_writers_block_changes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "index"
    build(root, documents(9), None)

    def leave(writer: IndexWriter) -> None:
        error = RuntimeError("the child fails")
        writer.__exit__(RuntimeError, error, None)

    with IndexWriter(root) as writer:
        half = root / "segments" / "00001"
        half.mkdir()
        assert in_child(lambda: leave(writer)) == 0
        assert half.is_dir()  # of the parent's next commit: not the child's to remove
        with pytest.raises(CmbertError, match="another process is writing"):
            IndexWriter(root).__enter__()
        assert writer.delete(["note-1"]).deleted == 1
    assert verify(root).problems == []


def test_a_child_that_lives_on_does_not_keep_the_write_lock(tmp_path: Path) -> None:
    root = tmp_path / "index"
    build(root, documents(3), None)
    reading, writing = os.pipe()
    with IndexWriter(root):
        process = os.fork()
        if process == 0:
            os.close(writing)
            os.read(reading, 1)  # until the parent closes its end
            os._exit(0)
        os.close(reading)
    try:
        assert add(root, [document(7)], None).documents == 1
    finally:
        os.close(writing)
        os.waitpid(process, 0)


def test_threads_of_one_process_cannot_write_at_the_same_time(tmp_path: Path) -> None:
    root = tmp_path / "index"
    build(root, documents(3), None)
    found: list[str] = []

    def write() -> None:
        try:
            delete(root, ["note-1"])
        except CmbertError as error:
            found.append(str(error))

    with IndexWriter(root):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert len(found) == 1 and "another process is writing" in found[0]


def test_a_damaged_manifest_is_restored_from_the_newest_copy_that_can_be_read(tmp_path: Path) -> None:
    root = tmp_path / "index"
    build(root, documents(3), None)
    manifest = root / "manifest.json"
    whole = manifest.read_bytes()
    copies = root / COMMITS
    shutil.copyfile(copies / "00001", copies / "100000")  # more digits, and newer
    (copies / "100001").write_bytes(whole[:50])
    (copies / "100002.tmp").write_bytes(whole)
    manifest.write_bytes(whole[:100])
    with pytest.raises(CmbertError, match=r"newest readable copy is .*/100000: copy it"):
        IndexReader(root)
