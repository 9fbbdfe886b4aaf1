"""The one writer of an index: build, add, delete, optimize. Each ends in a commit or changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from cmbert_retrieval import __version__
from cmbert_retrieval.config import IndexRecipe
from cmbert_retrieval.corpora import READERS
from cmbert_retrieval.corpora.base import Corpus
from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.encoders.identity import check_same_encoder, probe_vectors
from cmbert_retrieval.encoders.names import as_index_reads, for_names
from cmbert_retrieval.errors import CmbertError, ConfigError, CorpusError, IndexMismatchError
from cmbert_retrieval.indexes.build import Plan, SegmentBuild
from cmbert_retrieval.indexes.columns import check_columns
from cmbert_retrieval.indexes.commit import Committer
from cmbert_retrieval.indexes.lexical import build_analyser
from cmbert_retrieval.indexes.locks import WriteLock, check_manifest_not_lost, clean, commit_name
from cmbert_retrieval.indexes.manifest import (
    MANIFEST,
    EncoderEntry,
    Manifest,
    SegmentEntry,
    pack_probes,
    read_manifest,
    source_json,
    unpack_probes,
    with_sources,
)
from cmbert_retrieval.indexes.pins import PINS
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.report import Report
from cmbert_retrieval.indexes.rows import room, row_texts
from cmbert_retrieval.indexes.shard_files import ShardedVectors, shard_paths
from cmbert_retrieval.indexes.shards import Notify
from cmbert_retrieval.indexes.traces import Traces, has_rows, is_foreign
from cmbert_retrieval.indexes.vectors import FAISS_FILE, write_faiss
from cmbert_retrieval.storage import (
    discard_tree,
    fsync_folder,
    fsync_tree,
    remove_tree,
    writing,
)

logger = logging.getLogger(__name__)


def silent(phase: str, count: int) -> None:
    """Take no notice."""


class IndexWriter:
    """Holds the write lock of an index between entering and leaving the ``with`` block."""

    def __init__(self, path: str | Path, *, notify: Notify = silent) -> None:
        """Prepare to write to the folder ``path``; nothing is touched before the ``with`` block.

        Args:
            path: the index's folder; made when it does not exist.
            notify: called with a phase and how many more are done.
        """
        self.root = Path(path).absolute()
        self._notify = notify
        self._lock = WriteLock(self.root)
        self._commits = Committer(self.root, notify)

    def __enter__(self) -> IndexWriter:
        """Take the write lock and clear away what a killed writer left.

        Raises:
            IndexLockedError: another process is writing.
        """
        if self.root.exists() and not self.root.is_dir():
            raise ConfigError(f"{self.root} is a file; an index is a folder")
        foreign = self.root.is_dir() and not (self.root / MANIFEST).exists() and is_foreign(self.root)
        if foreign:
            raise ConfigError(f"{self.root} holds other files and no index; choose an empty or a new folder")
        self._traces = Traces(self.root)
        self._lock.__enter__()
        try:
            self._recover()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # A forked child that comes here must not clear away what its parent is writing.
            if error is not None and self._lock.is_ours:
                # A full disk stays full for as long as what a failed run wrote lies on it.
                with suppress(OSError, CmbertError):
                    self._recover()
                if not (self.root / MANIFEST).exists():
                    with suppress(OSError):
                        self._traces.remove()
        finally:
            self._lock.__exit__(kind, error, trace)

    def _manifest(self) -> Manifest | None:
        return read_manifest(self.root) if (self.root / MANIFEST).exists() else None

    def _recover(self) -> None:
        """Make uncommitted segments resumable again, and remove all else that no commit names."""
        current = self._manifest()
        if current is None:
            check_manifest_not_lost(self.root)
        next_segment = current.next_segment if current else 0
        segments = self.root / "segments"
        for path in sorted(segments.iterdir()) if segments.is_dir() else ():
            uncommitted = path.name.isdigit() and int(path.name) >= next_segment
            building = path.with_name(path.name + ".building")
            if uncommitted and (path / PINS).exists() and not building.exists():
                path.rename(building)
        for pattern in ("*.tmp", "segments/*.building/*.tmp"):
            for leftover in self.root.glob(pattern):
                leftover.unlink()
        clean(self.root, current)

    # --- what users ask for ---

    def build(
        self,
        corpus: Corpus,
        recipe: IndexRecipe,
        encoder: Encoder | None,
        *,
        strict: bool = False,
        restart: bool = False,
    ) -> Report:
        """Build a new index out of a corpus, or finish a build that was killed.

        Raises:
            ConfigError: there is an index already, or the recipe does not fit.
            IndexMismatchError: an unfinished build there was begun with something else.
            CorpusError: nothing in the corpus could be used; with ``strict``, anything could not.
        """
        if self._manifest() is not None:
            raise ConfigError(
                f"{self.root} holds an index already; add to it with 'cmbert index add', "
                "or choose another --out"
            )
        # Those that a recipe declares come beside the reader's; a recipe that says "none" (``{}``) has none.
        own = {} if recipe.columns == {} else dict(corpus.columns)
        columns = check_columns({**own, **(recipe.columns or {})})
        build_analyser(recipe.lexical.analyser)
        entry = None
        if encoder is not None:
            encoder = for_names(encoder) if corpus.names else encoder
            entry = EncoderEntry(encoder.identity, encoder.source, pack_probes(probe_vectors(encoder)))
        empty = Manifest(
            commit=0,
            documents=0,
            rows=0,
            next_row=0,
            next_segment=0,
            recipe=recipe.to_json(),
            columns=columns,
            analyser=recipe.lexical.analyser,
            encoder=entry,
            segments=(),
            lexical="",
            deleted=None,
            dead_rows=0,
            sources=(),
            files={},
        )
        return self._grow(corpus, empty, recipe, encoder, base=None, strict=strict, restart=restart)

    def add(
        self,
        corpus: Corpus,
        encoder: Encoder | None,
        *,
        strict: bool = False,
        restart: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> Report:
        """Add documents; one whose id is there already takes its place, and one that is deleted goes.

        ``options`` are those that ``corpus`` was opened with, where they are not the recipe's: an addition
        that was stopped goes on only with the same.

        Raises:
            IndexCorruptError: there is no index.
            IndexMismatchError: another encoder than the index was built with.
            CorpusError: with ``strict``, a record that cannot be used.
        """
        return self._add(corpus, encoder, options, strict=strict, restart=restart, remember=False)

    def update(
        self, corpus: Corpus, encoder: Encoder | None, *, strict: bool = False, restart: bool = False
    ) -> Report:
        """Add like ``add``, and remember the corpus among the index's sources even if it changes nothing.

        That makes it possible to tell later which updates an index has had.

        Raises:
            IndexCorruptError: there is no index.
            IndexMismatchError: another encoder than the index was built with.
            CorpusError: with ``strict``, a record that cannot be used.
        """
        return self._add(corpus, encoder, None, strict=strict, restart=restart, remember=True)

    def _add(
        self,
        corpus: Corpus,
        encoder: Encoder | None,
        options: Mapping[str, Any] | None,
        *,
        strict: bool,
        restart: bool,
        remember: bool,
    ) -> Report:
        current = read_manifest(self.root)
        source = {**current.recipe["source"], **({} if options is None else {"options": dict(options)})}
        recipe = IndexRecipe.from_json({**current.recipe, "source": source})
        encoder = self._checked(current, encoder)
        with IndexReader(self.root) as base:
            return self._grow(
                corpus, current, recipe, encoder, base=base, strict=strict, restart=restart, remember=remember
            )

    def delete(self, ids: Iterable[str], *, missing_ok: bool = False) -> Report:
        """Remove documents by id.

        Raises:
            CorpusError: an id is not in the index and ``missing_ok`` is not set; then nothing is removed.
        """
        report = Report()
        dead: set[int] = set()
        missing: list[str] = []
        current = read_manifest(self.root)
        with IndexReader(self.root) as base:
            for id_ in dict.fromkeys(ids):
                found = base.find(id_)
                if found is None:
                    missing.append(id_)
                    continue
                dead.update(found[1])
                report.deleted += 1
            if missing and not missing_ok:
                shown = ", ".join(repr(id_[:60]) for id_ in missing[:3])
                raise CorpusError(
                    f"{len(missing)} of {len(missing) + report.deleted} ids are not in the index "
                    f"(first: {shown}); "
                    "nothing was deleted; leave them out or add --missing-ok"
                )
            for id_ in missing:
                report.note("skipped", f"{id_[:60]}: not in the index")
            report.commit = current.commit
            if dead:
                newly_dead = np.array(sorted(dead), np.int64)
                report.commit = self._commits.commit(current, base, current.segments, newly_dead).commit
        return report

    def optimize(self) -> Report:
        """Merge all segments, drop dead rows, and write the words anew, as a fresh build would."""
        current = read_manifest(self.root)
        with IndexReader(self.root) as base:
            segments = current.segments
            if current.rows == 0:
                segments = ()
            elif len(segments) > 1 or len(base.dead):
                segments = (self._commits.merge(current, base.segments, base.dead),)
            report = Report(rows=current.rows, documents=current.documents)
            report.commit = self._commits.commit(
                current, base, segments, np.empty(0, np.int64), optimized=True
            ).commit
        return report

    # --- growing ---

    def _grow(
        self,
        corpus: Corpus,
        current: Manifest,
        recipe: IndexRecipe,
        encoder: Encoder | None,
        *,
        base: IndexReader | None,
        strict: bool,
        restart: bool,
        remember: bool = False,
    ) -> Report:
        sources = [source_json(source) for source in corpus.sources()]
        plan = Plan(
            pins={
                "version": __version__,  # another one may read and cut the same files in another way
                # Not the path: where the same files lie is of no account.
                "recipe": {
                    **recipe.to_json(),
                    "source": {"reader": corpus.reader, "options": recipe.source.options},
                },
                "encoder": current.encoder.identity.to_json() if current.encoder else None,
                "sources": [[source["checksum"], source["bytes"]] for source in sources],
                "commit": current.commit,
            },
            paths=[source["path"] for source in sources],
            first_row=current.next_row,
            columns=dict(current.columns),
            shard_rows=recipe.shard_rows,
            row_texts=row_texts(encoder, recipe.passages),
            # What the reader declares may be rare; what the user declares is expected to be there.
            expected=frozenset(recipe.columns or ()) - set(corpus.columns) if base is None else frozenset(),
            encoder=encoder,
            max_tokens=room(encoder) if encoder else None,
        )
        name = commit_name(current.next_segment)
        building = self.root / "segments" / f"{name}.building"
        for other in sorted(self.root.glob("segments/*.building")):
            if restart or (other != building and not has_rows(other)):
                discard_tree(other)
            elif other != building:
                raise IndexMismatchError(
                    f"{other}: an addition was begun before the last merge and cannot be finished; "
                    "add --restart"
                )
        build = SegmentBuild(building, plan, base, strict=strict, notify=self._notify)
        try:
            self._notify("total", corpus.total() or 0)
            build.run(corpus)
            report = build.report
            dead = build.dead_rows()
            rows, documents = build.size()
        finally:
            build.close()
        if rows == 0:
            discard_tree(building)
            if base is None:
                told = report.lines()
                if told and recipe.source.reader in READERS:
                    told.append(f"what its reader can be told: cmbert corpus readers {recipe.source.reader}")
                raise CorpusError(f"nothing to index in the source: {'; '.join(told) or 'it is empty'}")
            report.commit = current.commit
            if remember or len(dead):
                updated = replace(current, sources=with_sources(current, sources))
                report.commit = self._commits.commit(updated, base, current.segments, dead).commit
            return report
        entry = self._seal(building, name, current, recipe, rows, documents)
        updated = replace(
            current,
            next_row=entry.end_row,
            next_segment=current.next_segment + 1,
            sources=with_sources(current, sources),
        )
        report.commit = self._commits.commit(updated, base, (*current.segments, entry), dead).commit
        return report

    def _seal(
        self, building: Path, name: str, current: Manifest, recipe: IndexRecipe, rows: int, documents: int
    ) -> SegmentEntry:
        """Give a finished segment its FAISS file and its name. Until the commit it can still be resumed."""
        factory = ""
        if current.encoder is not None:
            self._notify("vectors", 0)
            vectors = ShardedVectors(shard_paths(building))
            path, dim = building / FAISS_FILE, current.encoder.identity.dim
            with writing(path):
                factory = write_faiss(path, vectors, dim, recipe.vectors.factory)
            if factory != recipe.vectors.factory:
                logger.warning(
                    "%d vectors are too few to train '%s'; this segment is searched exactly (Flat)",
                    rows,
                    recipe.vectors.factory,
                )
        fsync_tree(building)
        final = building.with_name(name)
        remove_tree(final)
        building.rename(final)
        fsync_folder(final.parent)
        return SegmentEntry(name, current.next_row, current.next_row + rows, rows, documents, factory)

    def _checked(self, current: Manifest, encoder: Encoder | None) -> Encoder | None:
        if current.encoder is None:
            if encoder is not None:
                raise IndexMismatchError("the index holds words only; add to it without an encoder")
            return None
        if encoder is None:
            raise IndexMismatchError(
                f"the index was built with '{current.encoder.identity.name}'; adding needs that encoder"
            )
        probes = unpack_probes(current.encoder.probes, current.encoder.identity.dim)
        encoder = as_index_reads(encoder, current.encoder.identity)
        check_same_encoder(current.encoder.identity, probes, encoder)
        return encoder
