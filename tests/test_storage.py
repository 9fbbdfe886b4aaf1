"""Files that survive a power cut: shared by hard links, readable as the umask says, and durable."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from samples import add, build, documents

from cmbert_retrieval.errors import StorageError
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.storage import atomic_file, follow_umask, fsync_tree, parsed


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o022, 0o002])
def test_words_are_shared_with_the_commit_before_and_readable_as_the_umask_says(
    tmp_path: Path, mask: int
) -> None:
    root = tmp_path / "index"
    with umask(mask):
        build(root, documents(50), None)
        with IndexReader(root):
            before = {path.name: path.stat().st_ino for path in (root / "lexical" / "00001").iterdir()}
            add(root, documents(1, first=90), None)
            after = {path.name: path.stat().st_ino for path in (root / "lexical" / "00002").iterdir()}
            shared = {name for name in before if after.get(name) == before[name]}
    # All that tantivy does not write anew: its two lists of files and the lock are its own of each commit.
    assert len(shared) >= len(before) - 2 and any(name.endswith(".idx") for name in shared)
    assert modes(root / "lexical") == {0o666 & ~mask}


def test_private_files_get_the_rights_of_plain_ones_and_those_linked_to_them_stay(tmp_path: Path) -> None:
    folder, other = tmp_path / "words", tmp_path / "other"
    folder.mkdir()
    (folder / "private").write_bytes(b"words" * 1_000_000)
    (folder / "private").chmod(0o600)
    (folder / "group").write_bytes(b"words")
    (folder / "group").chmod(0o640)
    other.hardlink_to(folder / "private")
    inode = (folder / "group").stat().st_ino
    with umask(0o022):
        follow_umask(folder)
    assert (folder / "private").read_bytes() == other.read_bytes() == b"words" * 1_000_000
    assert stat.S_IMODE((folder / "private").stat().st_mode) == 0o644
    assert stat.S_IMODE(other.stat().st_mode) == 0o600
    assert (folder / "group").stat().st_ino == inode
    assert sorted(path.name for path in folder.iterdir()) == ["group", "private"]


def test_a_folder_that_cannot_be_flushed_after_the_rename_is_said_to_be_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fail_on_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail_on_folders)
    path = tmp_path / "manifest.json"
    with pytest.raises(StorageError) as caught, atomic_file(path) as file:
        file.write(b"{}")
    assert path.read_bytes() == b"{}"
    assert "nothing was committed" not in str(caught.value)
    assert f"{path}: is in place, but may be lost in a power cut: input/output error" in str(caught.value)


def test_a_file_that_cannot_be_flushed_does_not_appear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match="nothing was committed"), atomic_file(tmp_path / "a") as file:
        file.write(b"{}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("supported", [True, False])
def test_the_disks_own_cache_is_flushed_where_the_system_can_and_the_file_system_lets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    flushed: list[str] = []

    def full(descriptor: int, command: int) -> int:
        assert command == 51
        if not supported:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        flushed.append("disk")
        return 0

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", full)
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append("file"))
    (tmp_path / "a").write_bytes(b"")
    fsync_tree(tmp_path)
    assert flushed == ["disk" if supported else "file"] * 2
    with atomic_file(tmp_path / "b"):
        pass
    assert flushed == ["disk" if supported else "file"] * 4


@pytest.mark.parametrize(("stumbles", "ends_well"), [(0, True), (4, True), (9, False)])
def test_a_stumbling_parser_is_asked_again_but_not_for_ever(stumbles: int, ends_well: bool) -> None:
    calls = []

    def parse() -> int:
        calls.append(len(calls))
        if len(calls) <= stumbles:
            raise SystemError("AST constructor recursion depth mismatch")
        return 7

    if ends_well:
        assert parsed(parse) == 7
    else:
        with pytest.raises(SystemError):
            parsed(parse)
    assert len(calls) == min(stumbles + 1, 5)
