"""What a writer made in a folder, so that a build that stored nothing leaves it as it found it."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from cmbert_retrieval.indexes import documents as store
from cmbert_retrieval.indexes.locks import WRITE_LOCK
from cmbert_retrieval.indexes.manifest import COMMITS, MANIFEST
from cmbert_retrieval.storage import remove_tree

SEGMENTS = "segments"
_NUMBERED = (SEGMENTS, "lexical", "deleted")
_NUMBER = re.compile(r"\d+(?:\.|$)")


class Traces:
    """Remembers what is in the folder of an index, and takes away what came since."""

    def __init__(self, root: Path) -> None:
        """Look at the folder ``root``, which may not be there yet."""
        self._root = root
        self._new_folders = [folder for folder in (root, *root.parents) if not folder.exists()]
        self._own_lock = not (root / WRITE_LOCK).exists()
        segments = root / SEGMENTS
        self._own_segments = not segments.exists()
        self._before = set(_listed(segments))

    def remove(self) -> None:
        """Take away what a build without a commit made, unless it stored something that it can go on from.

        Only the holder of the write lock may call it, and gives the lock back afterwards.
        """
        segments = self._root / SEGMENTS
        unfinished = sorted(segments.glob("*.building"))
        if any(has_rows(building) for building in unfinished):
            return
        for building in unfinished:
            if building not in self._before:
                remove_tree(building)
        if self._own_segments:
            _remove_empty(segments)
        if self._own_lock:
            (self._root / WRITE_LOCK).unlink(missing_ok=True)
        for folder in self._new_folders:
            _remove_empty(folder)


def is_foreign(root: Path) -> bool:
    """Tell whether a folder without a manifest holds what no writer of ours puts there."""
    # Another process may commit, or take its traces away, while we look.
    ours = {*_NUMBERED, COMMITS, "encoder", WRITE_LOCK, MANIFEST, f"{MANIFEST}.tmp"}
    if any(path.name not in ours for path in _listed(root)):
        return True
    # What is in these is cleared away, so it has to be ours, too.
    return any(not _NUMBER.match(path.name) for name in _NUMBERED for path in _listed(root / name))


def has_rows(building: Path) -> bool:
    """Tell whether a segment under construction holds rows; one that cannot be read may."""
    path = building / store.DATABASE
    if not path.exists():
        return False
    try:
        # Open for writing: a transaction that a kill cut short is rolled back, as a resume would do.
        with closing(store.connect(path, writable=True)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'shards'").fetchone():
                return False
            return connection.execute("SELECT 1 FROM shards").fetchone() is not None
    except sqlite3.Error:
        return True


def _listed(folder: Path) -> list[Path]:
    """Return what is in a folder; nothing where there is none, or none any more."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # something else is in it, or it was never made
        folder.rmdir()
