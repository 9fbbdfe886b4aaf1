"""Files that survive a power cut: write once, fsync, rename; and the hashes that prove it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

CHUNK = 1 << 20


def fsync_file(path: Path) -> None:
    """Flush the file's bytes to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(path: Path) -> None:
    """Flush the folder's entries (new names, renames, removals) to the disk."""
    fsync_file(path)


def fsync_tree(path: Path) -> None:
    """Flush every file below ``path`` and every folder, ``path`` included."""
    for folder, _, names in os.walk(path):
        for name in names:
            fsync_file(Path(folder) / name)
        fsync_folder(Path(folder))


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write; it appears under ``path`` at once, whole and durable, or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256 as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_tree(source: Path, target: Path) -> None:
    """Make ``target`` a copy of the folder ``source``, by hard links where the file system has them."""
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        copy = target / path.name
        try:
            copy.hardlink_to(path)
        except OSError:
            shutil.copyfile(path, copy)


def files_below(root: Path, folder: Path) -> list[str]:
    """Return the files below ``folder``, as sorted POSIX paths relative to ``root``."""
    return sorted(path.relative_to(root).as_posix() for path in folder.rglob("*") if path.is_file())


def remove_tree(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
