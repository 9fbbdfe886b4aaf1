"""One writer, any number of readers: file locks that the kernel drops when a process dies."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Collection
from pathlib import Path
from types import TracebackType

from cmbert_retrieval.errors import IndexCorruptError, IndexLockedError
from cmbert_retrieval.indexes.manifest import COMMITS, MANIFEST, Manifest, manifest_copies, read_manifest
from cmbert_retrieval.storage import fsync_folder, make_folder, remove_tree

logger = logging.getLogger(__name__)

WRITE_LOCK = "write.lock"
_TRIES = 100


def commit_name(commit: int) -> str:
    """Return the name of a commit's files and folders."""
    return f"{commit:05d}"


class WriteLock:
    """The right to write to an index, held from entering to leaving the ``with`` block."""

    def __init__(self, root: Path) -> None:
        self._path = root / WRITE_LOCK
        self._descriptor = -1

    def __enter__(self) -> WriteLock:
        """Take the lock; the folder is made where it is not there.

        Raises:
            IndexLockedError: another process has it.
        """
        for attempt in range(_TRIES):  # a retry means that a build that stored nothing took its lock away
            try:
                make_folder(self._path.parent)
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except (FileNotFoundError, FileExistsError):  # the latter: gone before it was seen to be one
                if attempt == _TRIES - 1:
                    raise
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                break
            if os.fstat(descriptor).st_nlink > 0:
                self._descriptor, self._process = descriptor, os.getpid()
                return self
            os.close(descriptor)
        raise IndexLockedError(
            f"{self._path.parent}: another process is writing to this index; wait for it, then try again"
        )

    @property
    def is_ours(self) -> bool:
        """Whether this process took the lock, and not the one that it was forked from."""
        return self._process == os.getpid()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A forked child shares the lock: its parent gives it back for both, the child for none.
        if self.is_ours:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)


class ReadLease:
    """A commit that stays on disk for as long as the lease is held, whatever a writer does meanwhile."""

    def __init__(self, root: Path) -> None:
        """Take a lease on the last commit.

        Raises:
            IndexCorruptError: there is no index, or its manifest is damaged.
        """
        self._descriptor = -1
        for _ in range(1000):  # a retry means that a writer committed in between; it cannot do that for ever
            self.manifest: Manifest = read_manifest(root)
            path = root / COMMITS / commit_name(self.manifest.commit)
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                if read_manifest(root).commit == self.manifest.commit:
                    raise IndexCorruptError(
                        f"{path} is missing; restore it: copy manifest.json there"
                    ) from None
                continue
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if os.fstat(descriptor).st_nlink > 0:
                self._descriptor, self._path = descriptor, path
                return
            os.close(descriptor)  # the cleaner was faster: this commit is gone
        raise IndexCorruptError(
            f"{root}: no commit stays long enough to be opened; is the clock of commits running wild?"
        )

    def in_place(self) -> bool:
        """Tell whether the commit is where it was opened: its folder may have been moved or replaced."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except OSError:
            return False

    def close(self) -> None:
        """Give the lease back. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def check_manifest_not_lost(root: Path) -> None:
    """Refuse a folder that had commits and has no manifest: cleaning it would remove all that there is.

    A lease file of commit 1 alone may be that of a first build, killed just before its commit.

    Raises:
        IndexCorruptError: which copy of the manifest to restore.
    """
    copies = manifest_copies(root)
    if copies and int(copies[-1].name) > 1:
        raise IndexCorruptError(
            f"{root}: {MANIFEST} is missing, but there are commits; copy {copies[-1]} to {root / MANIFEST}, "
            "or choose another folder"
        )


def clean(root: Path, current: Manifest | None) -> list[int]:
    """Remove what no kept commit names. Only the holder of the write lock may call it.

    A commit is kept when it is the current one or when a reader holds a lease on it.

    Returns:
        the older commits that keep segments which the current one has no more: with them stay the texts that
        were deleted since.
    """
    held = _held_commits(root, current)
    kept = set(current.files) if current else set()
    segments = {name for name in kept if name.startswith("segments/")}
    outdated = [
        manifest.commit
        for manifest in held
        if any(name.startswith("segments/") and name not in segments for name in manifest.files)
    ]
    kept.update(name for manifest in held for name in manifest.files)
    for folder in ("segments", "lexical", "deleted"):
        base = root / folder
        for path in sorted(base.iterdir()) if base.is_dir() else ():
            if path.name.endswith(".building") and folder == "segments":
                continue
            relative = path.relative_to(root).as_posix()
            if path.is_dir():
                if not any(name.startswith(relative + "/") for name in kept):
                    remove_tree(path)
                elif folder == "lexical":
                    _remove_strays(path, relative, kept)
            elif relative not in kept:
                path.unlink()
    return outdated


def _remove_strays(folder: Path, relative: str, kept: Collection[str]) -> None:
    """Remove files that no commit names from a folder that one names.

    tantivy locks from a thread of its own: a writer that was killed may leave such a lock behind.
    """
    for path in folder.iterdir():
        if path.is_file() and f"{relative}/{path.name}" not in kept:
            path.unlink()


def _held_commits(root: Path, current: Manifest | None) -> list[Manifest]:
    """Return the older commits that must stay, after dropping the leases that nobody holds."""
    held: list[Manifest] = []
    commits = root / COMMITS
    for path in sorted(commits.iterdir()) if commits.is_dir() else ():
        if current and path.name == commit_name(current.commit):
            continue
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.append(Manifest.from_bytes(path.read_bytes(), path))
        else:
            # Unlinked while the lock is held: a reader that opened it in this moment sees that it is gone.
            path.unlink()
        finally:
            os.close(descriptor)
    if commits.is_dir():
        fsync_folder(commits)
    return held
