"""The commit protocol: words, deletions and merges first, each durable; the manifest's rename last."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.config import IndexRecipe
from cmbert_retrieval.errors import CmbertError
from cmbert_retrieval.indexes import merge
from cmbert_retrieval.indexes.documents import DATABASE, DocumentStore
from cmbert_retrieval.indexes.lexical import LexicalWriter, begin_lexical
from cmbert_retrieval.indexes.locks import clean, commit_name
from cmbert_retrieval.indexes.manifest import COMMITS, FileEntry, Manifest, SegmentEntry, write_manifest
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.segment import Segment
from cmbert_retrieval.indexes.shards import Notify
from cmbert_retrieval.storage import (
    atomic_file,
    files_below,
    follow_umask,
    fsync_folder,
    fsync_tree,
    remove_tree,
    writing,
)

logger = logging.getLogger(__name__)


class Committer:
    """Turns segments and deletions into the next commit of an index. Its caller holds the write lock."""

    def __init__(self, root: Path, notify: Notify) -> None:
        self._root = root
        self._notify = notify

    def commit(
        self,
        current: Manifest,
        base: IndexReader | None,
        entries: Sequence[SegmentEntry],
        newly_dead: NDArray[np.int64],
        *,
        optimized: bool = False,
    ) -> Manifest:
        """Write words, deletions and, as the last step, the manifest. All earlier files stay as they are.

        Args:
            current: the manifest to go on from, with ``next_row`` and ``sources`` as they shall be.
            base: the commit before, open for reading; None for the first.
            entries: the segments that the commit shall have.
            newly_dead: rows that die with it.
            optimized: ``entries`` hold no dead rows, and the words are written anew instead of continuing
                those of ``base``.
        """
        commit = current.commit + 1
        entries = tuple(entries)
        dead = np.empty(0, np.int64)
        if base is not None and not optimized:
            dead = base.dead
        dead = np.union1d(dead, newly_dead).astype(np.int64)
        fresh = entries if optimized else entries[len(current.segments) :]
        lexical = f"lexical/{commit_name(commit)}"
        live = sum(entry.rows for entry in entries) - _count_within(dead, entries)
        self._write_words(lexical, current, None if optimized else base, fresh, dead, newly_dead, live)
        next_segment = current.next_segment + int(optimized)
        if len(entries) > merge.MAX_SEGMENTS:
            entries, dead = self._merge_newest(current, entries, dead)
            next_segment += 1
        dead = dead[_within(dead, entries)]
        deleted = f"deleted/{commit_name(commit)}.npy" if len(dead) else None
        if deleted:
            (self._root / "deleted").mkdir(exist_ok=True)
            with atomic_file(self._root / deleted) as file:
                np.save(file, dead, allow_pickle=False)
        for folder in ("segments", "lexical", "deleted"):
            if (self._root / folder).is_dir():
                fsync_folder(self._root / folder)
        manifest = replace(
            current,
            commit=commit,
            documents=self._count_documents(entries, dead),
            rows=live,
            next_segment=next_segment,
            segments=entries,
            lexical=lexical,
            deleted=deleted,
            dead_rows=len(dead),
        )
        manifest = replace(manifest, files=self._file_entries(current, manifest)).stamped()
        (self._root / COMMITS).mkdir(exist_ok=True)
        with atomic_file(self._root / COMMITS / commit_name(commit)) as file:
            file.write(manifest.to_bytes())
        fsync_folder(self._root)
        self._notify("commit", 0)
        write_manifest(self._root, manifest)
        if base is not None:
            base.close()
        try:
            self._warn_of_readers(clean(self._root, manifest))
        except (OSError, CmbertError) as error:
            # The commit has happened: an error now would make the caller do it a second time.
            logger.warning(
                "%s: commit %d is done, but old files could not be removed: %s", self._root, commit, error
            )
        return manifest

    def _warn_of_readers(self, commits: Sequence[int]) -> None:
        if commits:
            *others, last = map(str, commits)
            logger.warning(
                "%s: deleted texts stay on disk until the readers of commit%s %s close "
                "and the index is written to again",
                self._root,
                "s" if others else "",
                f"{', '.join(others)} and {last}" if others else last,
            )

    def merge(self, current: Manifest, segments: Sequence[Segment], dead: NDArray[np.int64]) -> SegmentEntry:
        """Write the next segment out of neighbouring ones, without their dead rows."""
        self._notify("merge", 0)
        return merge.merge_segments(
            self._root,
            commit_name(current.next_segment),
            segments,
            dead,
            dim=current.encoder.identity.dim if current.encoder else None,
            factory=IndexRecipe.from_json(current.recipe).vectors.factory,
        )

    def _merge_newest(
        self, current: Manifest, entries: tuple[SegmentEntry, ...], dead: NDArray[np.int64]
    ) -> tuple[tuple[SegmentEntry, ...], NDArray[np.int64]]:
        start = merge.choose([entry.rows for entry in entries])
        dim = current.encoder.identity.dim if current.encoder else None
        segments = [Segment(self._root, entry, dim) for entry in entries[start:]]
        try:
            merged = self.merge(replace(current, segments=entries), segments, dead)
        finally:
            for segment in segments:
                segment.close()
        return (*entries[:start], merged), dead[~_within(dead, (merged,))]

    def _write_words(
        self,
        lexical: str,
        current: Manifest,
        base: IndexReader | None,
        fresh: Sequence[SegmentEntry],
        dead: NDArray[np.int64],
        newly_dead: NDArray[np.int64],
        live: int,
    ) -> None:
        folder = self._root / lexical
        remove_tree(folder)
        with writing(folder):
            self._fill_words(folder, current, base, fresh, dead, newly_dead, live)
            follow_umask(folder)
            fsync_tree(folder)

    def _fill_words(
        self,
        folder: Path,
        current: Manifest,
        base: IndexReader | None,
        fresh: Sequence[SegmentEntry],
        dead: NDArray[np.int64],
        newly_dead: NDArray[np.int64],
        live: int,
    ) -> None:
        begin_lexical(self._root / current.lexical if base is not None else None, folder)
        writer = LexicalWriter(folder, current.columns, current.analyser)
        writer.delete(newly_dead.tolist())
        gone = set(dead.tolist())
        self._notify("words_total", sum(entry.rows for entry in fresh) - _count_within(dead, fresh))
        self._notify("words", 0)
        for entry in fresh:
            store = DocumentStore(self._root / "segments" / entry.name / DATABASE)
            try:
                document, values = -1, []
                for row in store.read_rows():
                    if row.row in gone:
                        continue
                    if row.document != document:
                        document = row.document
                        values = store.query(
                            "SELECT column, value FROM attributes WHERE document = ?", (document,)
                        ).fetchall()
                    writer.add(row.row, row.text, values)
                    self._notify("words", 1)
            finally:
                store.close()
        writer.finish(live)

    def _count_documents(self, entries: Sequence[SegmentEntry], dead: NDArray[np.int64]) -> int:
        total = 0
        for entry in entries:
            gone = dead[_within(dead, (entry,))].tolist()
            total += entry.documents
            if gone:
                store = DocumentStore(self._root / "segments" / entry.name / DATABASE)
                # A document's rows die together, so its first row speaks for all of them.
                sql = "SELECT count(*) FROM rows WHERE number = 0 AND row IN (SELECT value FROM json_each(?))"
                total -= store.query(sql, (str(gone),)).fetchone()[0]
                store.close()
        return total

    def _file_entries(self, current: Manifest, manifest: Manifest) -> dict[str, FileEntry]:
        """Return size and hash of every file of the commit; files of the commit before are not read again."""
        names = [name for entry in manifest.segments for name in self._files(f"segments/{entry.name}")]
        names += self._files(manifest.lexical)
        names += [manifest.deleted] if manifest.deleted else []
        names += [name for name in current.files if name.startswith("encoder/")]
        known = {**current.files, **_same_inode(self._root, current, manifest)}
        return {name: known.get(name) or FileEntry.of(self._root / name) for name in names}

    def _files(self, folder: str) -> list[str]:
        return files_below(self._root, self._root / folder)


def _same_inode(root: Path, current: Manifest, manifest: Manifest) -> dict[str, FileEntry]:
    """Return the entries of the words' files that are hard links to files of the commit before."""
    same: dict[str, FileEntry] = {}
    for name, entry in current.files.items():
        if current.lexical and name.startswith(current.lexical + "/"):
            linked = manifest.lexical + name[len(current.lexical) :]
            if (root / linked).exists() and (root / linked).samefile(root / name):
                same[linked] = entry
    return same


def _within(rows: NDArray[np.int64], entries: Sequence[SegmentEntry]) -> NDArray[np.bool_]:
    mask = np.zeros(len(rows), dtype=np.bool_)
    for entry in entries:
        mask |= (rows >= entry.first_row) & (rows < entry.end_row)
    return mask


def _count_within(rows: NDArray[np.int64], entries: Sequence[SegmentEntry]) -> int:
    return int(np.count_nonzero(_within(rows, entries)))
