"""Several segments made one, without their dead rows. Vectors are copied, nothing is encoded again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.indexes import documents as store
from cmbert_retrieval.indexes.manifest import SegmentEntry
from cmbert_retrieval.indexes.segment import Segment
from cmbert_retrieval.indexes.shard_files import ShardedVectors, shard_name, write_shard
from cmbert_retrieval.indexes.vectors import FAISS_FILE, ROWS_FILE, write_faiss
from cmbert_retrieval.storage import atomic_file, fsync_tree, remove_tree, writing

MAX_SEGMENTS = 8
_MERGED_SHARD_ROWS = 16_384


def choose(sizes: Sequence[int]) -> int:
    """Return from which segment on to merge, so that at most ``MAX_SEGMENTS`` stay and rows are copied
    seldom.

    Grows a run from the newest segment back for as long as the next one is at most twice the size of the run:
    a row is then copied about log2(rows) times in its life, however many small additions come.
    """
    start = len(sizes) - 1
    total = sizes[start]
    while start > 0 and (sizes[start - 1] <= 2 * total or len(sizes) - start < 2 or start + 1 > MAX_SEGMENTS):
        start -= 1
        total += sizes[start]
    return start


def merge_segments(
    root: Path,
    name: str,
    segments: Sequence[Segment],
    dead: NDArray[np.int64],
    *,
    dim: int | None,
    factory: str,
) -> SegmentEntry:
    """Write ``root/segments/NAME`` with the live rows of neighbouring segments; rows keep their numbers.

    Memory: one shard of vectors, and what the factory needs.
    """
    folder = root / "segments" / name
    remove_tree(folder)
    folder.mkdir(parents=True)
    with writing(folder / store.DATABASE):
        _merge_databases(folder / store.DATABASE, segments, dead)
    kept = [(segment, _live_positions(segment, dead)) for segment in segments]
    rows = np.concatenate([segment.rows_at(positions) for segment, positions in kept])
    first, end = segments[0].entry.first_row, segments[-1].entry.end_row
    if len(rows) != end - first:
        with atomic_file(folder / ROWS_FILE) as file:
            np.save(file, rows, allow_pickle=False)
    used = ""
    if dim is not None:
        shards = []
        for shard, vectors in enumerate(_vectors(kept)):
            shards.append(folder / shard_name(shard))
            write_shard(shards[-1], vectors)
        if not shards:
            shards.append(folder / shard_name(0))
            write_shard(shards[0], np.empty((0, dim), dtype=np.float32))
        with writing(folder / FAISS_FILE):
            used = write_faiss(folder / FAISS_FILE, ShardedVectors(shards), dim, factory)
    fsync_tree(folder)
    with closing(store.connect(folder / store.DATABASE)) as connection:
        (documents,) = connection.execute("SELECT count(*) FROM documents").fetchone()
    return SegmentEntry(name, first, end, len(rows), documents, used)


def _live_positions(segment: Segment, dead: NDArray[np.int64]) -> NDArray[np.int64]:
    mask = segment.mask(dead, None)
    return np.arange(segment.entry.rows, dtype=np.int64) if mask is None else np.flatnonzero(mask)


def _vectors(kept: Sequence[tuple[Segment, NDArray[np.int64]]]) -> Iterator[NDArray[np.float32]]:
    for segment, positions in kept:
        assert segment.vectors is not None
        for start in range(0, len(positions), _MERGED_SHARD_ROWS):
            chunk = segment.vectors.take(positions[start : start + _MERGED_SHARD_ROWS])
            yield chunk.astype(np.float32)


def _merge_databases(path: Path, segments: Sequence[Segment], dead: NDArray[np.int64]) -> None:
    connection = store.connect(path, writable=True)
    with closing(connection):
        connection.executescript(store.TABLES)
        connection.execute("CREATE TEMP TABLE dead (row INTEGER PRIMARY KEY)")
        connection.executemany("INSERT INTO dead VALUES (?)", ((int(row),) for row in dead))
        offset = 0
        for segment in segments:
            # A URI, like the one of the connection: ATTACH takes it only then.
            uri = (segment.folder / store.DATABASE).absolute().as_uri() + "?mode=ro&immutable=1"
            connection.execute("ATTACH DATABASE ? AS source", (uri,))
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "INSERT INTO rows SELECT row, document + ?, number, start, end, entry, title, hash "
                "FROM source.rows WHERE row NOT IN (SELECT row FROM dead) ORDER BY row",
                (offset,),
            )
            live = "IN (SELECT document FROM source.rows WHERE row NOT IN (SELECT row FROM dead))"
            connection.execute(
                "INSERT INTO documents SELECT document + ?, id, title, text, metadata, sections, hash "
                f"FROM source.documents WHERE document {live} ORDER BY document",
                (offset,),
            )
            connection.execute(
                "INSERT INTO attributes SELECT column, value, document + ? "
                f"FROM source.attributes WHERE document {live}",
                (offset,),
            )
            (last,) = connection.execute(
                "SELECT coalesce(max(document), -1) FROM source.documents"
            ).fetchone()
            connection.execute("COMMIT")
            connection.execute("DETACH DATABASE source")
            offset += last + 1
