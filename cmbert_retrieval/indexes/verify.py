"""Checking an index: every byte against its hash, and every part against the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.errors import CmbertError
from cmbert_retrieval.indexes import documents as store
from cmbert_retrieval.indexes.card import CARD
from cmbert_retrieval.indexes.locks import ReadLease, commit_name
from cmbert_retrieval.indexes.manifest import COMMITS, MANIFEST, Manifest, read_manifest
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.vectors import FAISS_FILE
from cmbert_retrieval.storage import files_below, sha256_of

DEEP_ROWS = 1000
DEEP_COSINE = 0.95
_STORED_ROW = np.dtype([("row", np.int64), ("document", np.int64), ("number", np.int64)])


@dataclass(slots=True)
class Verification:
    """What ``verify`` found.

    Attributes:
        commit: the commit that was checked.
        files: files whose hash was compared.
        rows: live rows.
        problems: one line each, naming the file or the rows; empty when all is well.
        leftovers: files that no commit names, harmless; the next writer removes them.
    """

    commit: int
    files: int = 0
    rows: int = 0
    problems: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)


def verify(root: str | Path, *, encoder: Encoder | None = None, seed: int = 0) -> Verification:
    """Check the last commit of an index.

    Args:
        root: the index's folder.
        encoder: when given, 1,000 random rows are encoded again and compared with the stored vectors.
        seed: chooses those rows.

    Raises:
        IndexCorruptError: there is no readable manifest. Damage behind the manifest is reported, not raised.
    """
    root = Path(root)
    manifest = read_manifest(root)
    try:
        # Without a lease a writer could remove the very files that are being checked.
        lease = ReadLease(root)
    except CmbertError:
        return _verify(root, manifest, encoder, seed)  # the lease file is missing: that is a problem, too
    try:
        return _verify(root, lease.manifest, encoder, seed)
    finally:
        lease.close()


def _verify(root: Path, manifest: Manifest, encoder: Encoder | None, seed: int) -> Verification:
    result = Verification(manifest.commit, files=len(manifest.files) + 1, rows=manifest.rows)
    result.problems += _file_problems(root, manifest)
    if result.problems:
        return result  # consistency of damaged files says nothing more
    try:
        with IndexReader(root) as reader:
            result.problems += _consistency_problems(reader)
            if encoder is not None and not result.problems:
                result.problems += _deep_problems(reader, encoder, np.random.default_rng(seed))
    except CmbertError as error:
        result.problems.append(str(error).splitlines()[0])
    except Exception as error:
        # Files whose hashes are right, and whose contents nothing foresees: whatever it is, it is a problem.
        result.problems.append(f"its contents cannot be read ({type(error).__name__})")
    result.leftovers = _leftovers(root, manifest)
    return result


def _file_problems(root: Path, manifest: Manifest) -> Iterator[str]:
    for name, entry in manifest.files.items():
        path = root / name
        try:
            size = path.stat().st_size
            if size != entry.bytes:
                yield f"{name}: {size:,} bytes, expected {entry.bytes:,}"
            elif sha256_of(path) != entry.sha256:
                yield f"{name}: its contents changed since it was written (SHA-256 differs)"
        except OSError as error:
            yield f"{name}: {error.strerror or error}"
    lease = f"{COMMITS}/{commit_name(manifest.commit)}"
    try:
        same = (root / lease).read_bytes() == (root / MANIFEST).read_bytes()
        if not same and read_manifest(root).commit == manifest.commit:
            yield f"{lease}: differs from {MANIFEST}, whose checksum is right"
    except OSError as error:
        yield f"{lease}: {error.strerror or error}"


def _consistency_problems(reader: IndexReader) -> Iterator[str]:
    manifest = reader.manifest
    live = []
    ids: set[str] = set()
    documents = 0
    for segment in reader.segments:
        where = f"segments/{segment.entry.name}/{store.DATABASE}"
        (check,) = segment.documents.query("PRAGMA quick_check(1)").fetchone()
        if check != "ok":
            yield f"{where}: {check}"
            continue
        sql = "SELECT row, document, number FROM rows ORDER BY document, number"
        stored = np.fromiter(segment.documents.query(sql), dtype=_STORED_ROW)
        if not np.array_equal(np.sort(stored["row"]), segment.rows()):
            yield f"{where}: its {len(stored)} rows are not the {segment.entry.rows} of the manifest"
        yield from (f"{where}: {problem}" for problem in _broken_documents(reader, stored))
        yield from (f"{where}: {problem}" for problem in _changed_contents(segment.documents))
        live.append(reader.live_rows(segment))
        for number in reader.live_document_numbers(segment):
            (id_,) = segment.documents.query(
                "SELECT id FROM documents WHERE document = ?", (number,)
            ).fetchone()
            documents += 1
            if id_ in ids:
                yield f"{where}: the id '{id_[:60]}' is alive twice"
            ids.add(id_)
        if segment.vectors is not None:
            for shard in segment.vectors.shards():
                if not np.isfinite(shard).all():
                    yield f"segments/{segment.entry.name}: vectors that are not finite"
        if segment.nearest is not None and not segment.nearest.is_of_its_vectors():
            yield f"segments/{segment.entry.name}/{FAISS_FILE}: holds other vectors than those stored"
    rows = np.concatenate(live) if live else np.empty(0, dtype=np.int64)
    if len(rows) != manifest.rows or documents != manifest.documents:
        yield (
            f"{len(rows)} live rows of {documents} documents, "
            f"the manifest says {manifest.rows} of {manifest.documents}"
        )
    if not np.array_equal(reader.words.rows(), np.sort(rows)):
        yield f"{manifest.lexical}: the rows that can be found by words are not the live rows"
    if len(rows) and manifest.encoder is not None:
        query = reader.vectors(rows[:1])[0].astype(np.float32)
        found = reader.search_vectors(query, 1)[1]
        if not len(found):
            yield "a stored vector does not find anything"


def _broken_documents(reader: IndexReader, stored: NDArray[np.void]) -> Iterator[str]:
    """Yield the documents of which some rows are alive and some dead, or one is missing between others."""
    documents, firsts, counts = np.unique(stored["document"], return_index=True, return_counts=True)
    dead = np.add.reduceat(np.isin(stored["row"], reader.dead), firsts, dtype=np.int64) if len(stored) else 0
    for document in documents[(dead > 0) & (dead < counts)].tolist():
        yield f"some rows of document {document} are alive and some are deleted"
    places = np.arange(len(stored)) - np.repeat(firsts, counts)
    for document in np.unique(stored["document"][stored["number"] != places]).tolist():
        yield f"rows of document {document} are missing"


def _changed_contents(documents: store.DocumentStore) -> Iterator[str]:
    """Yield what cannot be read, or gives another text than the one that was indexed."""
    for document in documents.documents():
        _ = document.sections  # reading is the check
    hashes = documents.query("SELECT hash FROM rows ORDER BY row")
    for row, (digest,) in zip(documents.read_rows(), hashes, strict=True):
        if row.hash != digest:
            yield f"row {row.row}: its text is not the one that was indexed"


def _deep_problems(reader: IndexReader, encoder: Encoder, generator: np.random.Generator) -> Iterator[str]:
    rows = np.concatenate([reader.live_rows(segment) for segment in reader.segments])
    chosen = np.sort(generator.choice(rows, size=min(DEEP_ROWS, len(rows)), replace=False))
    wanted = (str(chosen.tolist()),)
    texts = [
        row.text
        for segment in reader.segments
        for row in segment.documents.read_rows("row IN (SELECT value FROM json_each(?))", wanted)
    ]
    fresh = encoder.encode_document(texts)
    stored = reader.vectors(chosen).astype(np.float32)
    norms = np.linalg.norm(fresh, axis=1) * np.linalg.norm(stored, axis=1)
    cosines = (fresh * stored).sum(axis=1) / np.maximum(norms, 1e-9)
    for row, cosine in zip(chosen[cosines < DEEP_COSINE], cosines[cosines < DEEP_COSINE], strict=True):
        yield f"row {row}: its vector has a cosine of {cosine:.3f} with a new one, expected {DEEP_COSINE}"


def _leftovers(root: Path, manifest: Manifest) -> list[str]:
    named = {*manifest.files, MANIFEST, CARD, "write.lock", f"{COMMITS}/{commit_name(manifest.commit)}"}
    return [name for name in files_below(root, root) if name not in named and ".building/" not in name]
