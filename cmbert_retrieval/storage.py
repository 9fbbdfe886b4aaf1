"""Files that survive a power cut: write once, fsync, rename; the hashes that prove it; and full disks."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

from cmbert_retrieval.errors import CmbertError, StorageError

Parsed = TypeVar("Parsed")

_TRIES = 4
_SQLITE_WRITES = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
)
_REASONS = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than this process or file system allows (see: ulimit -f)",
}
_FULL = "the disk is full, or a limit on file sizes was reached"


def parsed(parse: Callable[[], Parsed]) -> Parsed:
    """Return what ``parse`` returns, calling it again where Python's own parser stumbles.

    numpy reads the header of an array as Python. CPython 3.11 and 3.12 count the depth of syntax trees for
    all threads together (gh-106905): threads that parse at the same time see a ``SystemError`` now and then.
    """
    for _ in range(_TRIES):
        with suppress(SystemError):
            return parse()
    return parse()


def fsync_file(path: Path) -> None:
    """Flush the file's bytes to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _flush(descriptor)
    finally:
        os.close(descriptor)


def _flush(descriptor: int) -> None:
    # On macOS, fsync leaves the bytes in the disk's own cache; some file systems know no more than that.
    full: int | None = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        with suppress(OSError):
            fcntl.fcntl(descriptor, full)
            return
    os.fsync(descriptor)


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
def writing(path: Path) -> Iterator[None]:
    """Turn what libraries raise when they cannot write ``path``, or a file in it, into one error.

    Raises:
        StorageError: which file, why, and what to do. Other errors pass as they are.
    """
    try:
        yield
    except CmbertError:
        raise
    except (OSError, sqlite3.OperationalError, ValueError, RuntimeError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        room = "make room, then " if reason in (_FULL, *_REASONS.values()) else ""
        raise StorageError(
            f"{path}: cannot be written: {reason}; nothing was committed: {room}run the same command again"
        ) from error


def _reason(error: Exception) -> str | None:
    """Return why a file could not be written, or None when that was not the trouble."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0)
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE):
            return _FULL
        return str(error) if code & 0xFF in _SQLITE_WRITES else None
    if isinstance(error, OSError):
        if error.errno is None:  # NumPy: "96000 requested and 4096 written"
            return _FULL
        return _REASONS.get(error.errno) or os.strerror(error.errno).lower()
    # tantivy raises ValueError and FAISS RuntimeError for everything, with the system's words inside.
    found = re.search(r"os error (\d+)", str(error)) or re.search(r"code: (\d+), kind", str(error))
    if found:
        return _REASONS.get(int(found[1])) or os.strerror(int(found[1])).lower()
    return _FULL if "write error" in str(error) else None


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write; it appears under ``path`` at once, whole and durable, or not at all.

    Raises:
        StorageError: it cannot be written; or it is in place, but its name could not be flushed to the disk.
    """
    temporary = path.with_name(path.name + ".tmp")
    with writing(path):
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                _flush(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    try:
        fsync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"{path}: is in place, but may be lost in a power cut: {_reason(error)}; check the disk"
        ) from error


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
    """Return the files below ``folder``, as sorted POSIX paths relative to ``root``.

    A folder that disappears meanwhile is passed over.
    """
    found = [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]
    return sorted(path.relative_to(root).as_posix() for path in found)


def make_folder(path: Path) -> None:
    """Make a folder and its missing parents, each durable."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        fsync_folder(folder.parent)


def follow_umask(folder: Path) -> None:
    """Give files that a library made for their owner alone the permissions that the user's umask asks for.

    Such a file is written anew: it may be shared with other folders by hard links. Where the umask asks for
    files of their owner alone, nothing is to be done.
    """
    wanted = plain_mode(folder)
    for path in sorted(folder.iterdir()):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077 == 0 and mode != wanted:
            with path.open("rb") as source, atomic_file(path) as file:
                shutil.copyfileobj(source, file, 2**20)


def plain_mode(folder: Path) -> int:
    """Return the permissions that a new file in the folder gets."""
    # Asking for the umask means to set it, for all threads.
    probe = folder / "mode.tmp"
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
        probe.unlink()


def remove_tree(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def discard_tree(path: Path) -> None:
    """Remove a folder that has a meaning by its name: a kill leaves it whole, or under a name without one."""
    doomed = path.with_name(path.name + ".removed")
    remove_tree(doomed)
    path.rename(doomed)
    remove_tree(doomed)
