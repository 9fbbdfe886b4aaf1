"""Private folders of links: a place to write beside files that may not be written to."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
import weakref
from pathlib import Path

_PREFIX, _LEASE = "cmbert-words-", "lease"


class LinkFolder:
    """A folder for links to the files of another one. It goes when it is closed, forgotten, or at exit.

    tantivy makes a lock file where it opens an index, which fails on read-only media and dirties the others.

    Attributes:
        path: where it is.
    """

    def __init__(self) -> None:
        """Make the folder, and remove those that killed processes left.

        Raises:
            OSError: no folder can be made among the temporary files.
        """
        for old in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            _remove_abandoned(old)
        self.path, lease = _make_folder()
        self._finalizer = weakref.finalize(self, _drop, self.path, lease, os.getpid())

    def link(self, source: Path) -> None:
        """Link to every file in ``source``.

        Raises:
            OSError: ``source`` cannot be listed, or a link cannot be made.
        """
        for file in source.iterdir():
            (self.path / file.name).symlink_to(file.absolute())

    def close(self) -> None:
        """Remove the folder. May be called twice."""
        self._finalizer()


def _make_folder() -> tuple[Path, int]:
    """Make a folder and return it with a descriptor that keeps it locked."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        descriptor = os.open(path / _LEASE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.fstat(descriptor).st_nlink > 0:
            return path, descriptor
        os.close(descriptor)  # another reader took it for abandoned before it was locked


def _remove_abandoned(path: Path) -> None:
    """Remove a folder whose reader was killed: the kernel has dropped its lock."""
    try:
        descriptor = os.open(path / _LEASE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return  # another user's, or being made or removed right now
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)


def _drop(path: Path, lease: int, owner: int) -> None:
    # A forked child has copies of the object and of the descriptor, but the folder is its parent's.
    for _ in range(100 if os.getpid() == owner else 0):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            break
        # tantivy watches its folder from a thread of its own, which now and then puts a lock file there.
        time.sleep(0.01)
    os.close(lease)
