"""An index from elsewhere: what its files may hold before FAISS, SQLite or a search meets them."""

from __future__ import annotations

import json
import shutil
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tantivy
from samples import SMALL, add, build, delete, documents, optimize

from cmbert_retrieval import Retriever
from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.errors import IndexCorruptError
from cmbert_retrieval.indexes.locks import commit_name
from cmbert_retrieval.indexes.manifest import (
    COMMITS,
    FileEntry,
    Manifest,
    _checksum,
    read_manifest,
    write_manifest,
)
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.shard_files import ShardedVectors, shard_paths
from cmbert_retrieval.indexes.vectors import FAISS_FILE, write_faiss
from cmbert_retrieval.indexes.verify import verify

FAISS = "segments/00000/vectors.faiss"
DATABASE = "segments/00000/documents.sqlite"


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Path:
    folder = tmp_path_factory.mktemp("trust") / "index"
    build(folder, documents(9), encoder, *SMALL)
    return folder


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Path:
    folder = tmp_path_factory.mktemp("trust") / "index"
    build(folder, documents(150), encoder, *SMALL, "vectors.factory=IVF2,Flat")
    assert read_manifest(folder).segments[0].factory == "IVF2,Flat"
    return folder


@pytest.fixture
def copy(flat: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(flat, tmp_path / "copy"))


def sign(root: Path, *names: str) -> None:
    """Make the manifest agree with changed files, as whoever changed them would."""
    manifest = read_manifest(root)
    commit(root, replace(manifest, files={**manifest.files, **{n: FileEntry.of(root / n) for n in names}}))


def commit(root: Path, manifest: Manifest) -> None:
    (root / COMMITS / commit_name(read_manifest(root).commit)).write_bytes(manifest.to_bytes())
    write_manifest(root, manifest)


def search(root: Path, mode: str = "dense") -> None:
    with IndexReader(root) as reader:
        if mode == "dense":
            dim = read_manifest(root).encoder.identity.dim  # type: ignore[union-attr]
            reader.search_vectors(np.ones(dim, dtype=np.float32), 3)
        else:
            reader.parents(reader.search_words("heart", 3)[1])


# --- vectors ---


def _value(offset: int, kind: str, value: object) -> Callable[[bytes], bytes]:
    packed = struct.pack("<" + kind, value)
    return lambda data: data[:offset] + packed + data[offset + len(packed) :]


BAD_FLAT: dict[str, Callable[[bytes], bytes]] = {
    "a value is missing": lambda data: data[:-4],
    "a value too many": lambda data: data + bytes(4),
    "only a name": lambda data: data[:4],
    "nothing": lambda data: b"",
    "another kind": lambda data: b"IxMp" + data[4:],
    "more rows than there are": _value(8, "q", 1 << 40),
    "fewer rows than there are": _value(8, "q", 1),
    "negative rows": _value(8, "q", -1),
    "other dimensions": _value(4, "i", 1 << 30),
    "negative dimensions": _value(4, "i", -32),
    "another metric": _value(33, "i", 1),
    "a longer vector": _value(37, "Q", 1 << 60),
}


@pytest.mark.parametrize("change", BAD_FLAT.values(), ids=BAD_FLAT.keys())
def test_a_flat_file_of_any_other_shape_never_reaches_faiss(
    copy: Path, change: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    import faiss

    path = copy / FAISS
    path.write_bytes(change(path.read_bytes()))
    sign(copy, FAISS)
    reached: list[Any] = []
    monkeypatch.setattr(faiss, "read_index", lambda *arguments: reached.append(arguments))
    with pytest.raises(IndexCorruptError, match=r"vectors\.faiss.*verify"):
        search(copy)
    assert reached == []


def _lists_elsewhere(root: Path, outside: Path) -> bytes:
    """Return the index's FAISS file with its lists in another file, as FAISS itself writes such a thing."""
    import faiss

    owner = faiss.read_index(str(root / FAISS))  # what it is cast to is a bare pointer
    index = faiss.downcast_index(owner)
    elsewhere = faiss.OnDiskInvertedLists(index.nlist, index.code_size, str(outside))
    for number in range(index.nlist):
        size = index.invlists.list_size(number)
        if size:
            ids, codes = index.invlists.get_ids(number), index.invlists.get_codes(number)
            elsewhere.add_entries(number, size, ids, codes)
    index.replace_invlists(elsewhere, False)
    written = faiss.serialize_index(index)
    return bytes(np.asarray(written, dtype=np.uint8))


@pytest.mark.parametrize("head_bytes", [1 << 20, 64])
def test_inverted_lists_in_another_file_are_refused(
    lists: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head_bytes: int
) -> None:
    # With a head too short to see them, FAISS meets them: then it must look in the index's folder only.
    monkeypatch.setattr("cmbert_retrieval.indexes.trust._HEAD_BYTES", head_bytes)
    root = Path(shutil.copytree(lists, tmp_path / "copy"))
    outside = tmp_path / "outside.ivfdata"
    (root / FAISS).write_bytes(_lists_elsewhere(root, outside))
    sign(root, FAISS)
    with pytest.raises(IndexCorruptError, match=r"vectors\.faiss"):
        search(root)
    shutil.copyfile(outside, root / "segments/00000/outside.ivfdata")
    with pytest.raises(IndexCorruptError, match="inverted lists in another file"):
        search(root)


def test_what_is_no_kind_of_vectors_is_refused(lists: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(lists, tmp_path / "copy"))
    data = (root / FAISS).read_bytes()
    for head in (b"IxMp", b"IBwF", b"ilod", b"\0\0\0\0", b"null"):
        (root / FAISS).write_bytes(head + data[4:])
        sign(root, FAISS)
        with pytest.raises(IndexCorruptError, match="none that is read"):
            search(root)
    (root / FAISS).write_bytes(data[:8] + struct.pack("<q", 3) + data[16:])
    sign(root, FAISS)
    with pytest.raises(IndexCorruptError, match="holds 3 vectors of 32 dimensions, expected"):
        search(root)


# --- documents ---

SLOW = "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n WHERE i < 1e18)"

BAD_SCHEMAS = {
    "a view for a table": f"ALTER TABLE rows RENAME TO r0; CREATE VIEW rows AS SELECT r0.* FROM r0, {SLOW}",
    "a view beside": f"CREATE VIEW more AS SELECT * FROM {SLOW}",
    "a trigger": "CREATE TRIGGER t AFTER DELETE ON rows BEGIN SELECT 1; END",
    "a table beside": "CREATE TABLE more (x)",
    "a column more": "ALTER TABLE documents ADD COLUMN more",
    "a generated column": "DROP TABLE shards; CREATE TABLE shards (shard INTEGER, x AS (abs(shard)))",
    "an index of an expression": "CREATE INDEX more ON rows (abs(row))",
    "a table less": "DROP TABLE attributes",
    "an index less": "DROP INDEX rows_by_document",
}


@pytest.mark.parametrize("statements", BAD_SCHEMAS.values(), ids=BAD_SCHEMAS.keys())
def test_a_database_with_other_tables_than_a_build_makes_is_refused(copy: Path, statements: str) -> None:
    with closing(sqlite3.connect(copy / DATABASE)) as connection:
        connection.executescript(statements)
    sign(copy, DATABASE)
    with pytest.raises(IndexCorruptError, match=r"documents\.sqlite: the \w+ '\w+' is .*verify"):
        search(copy, "lexical")


def test_the_tables_of_builds_and_merges_are_welcome(copy: Path, encoder: Encoder) -> None:
    add(copy, documents(3, first=30), encoder)
    search(copy, "lexical")
    optimize(copy)
    search(copy, "lexical")


def test_sqlite_is_told_to_trust_nothing(copy: Path) -> None:
    with IndexReader(copy) as reader:
        store = reader.segments[0].documents
        for pragma, value in (("trusted_schema", 0), ("cell_size_check", 1), ("query_only", 1)):
            assert store.query(f"PRAGMA {pragma}").fetchone() == (value,)


# --- the manifest ---

BAD_VALUES: list[tuple[str, Any]] = [
    ("commit", "../../x"), ("commit", 0), ("commit", True), ("documents", -1), ("rows", -5), ("rows", 1e3),
    ("rows", 10**6), ("rows", 2**70), ("next_row", None), ("next_segment", []), ("dead_rows", "0"),
    ("recipe", {}), ("recipe", []), ("recipe.name", 3), ("recipe.search", None), ("recipe.search.mode", 1),
    ("recipe.search.depth", 0), ("recipe.search.dense_weight", 2), ("recipe.search.dense_weight", "0.5"),
    ("recipe.search.fusion", ["rrf"]), ("columns", {"a": "zzz"}), ("columns", ["a"]), ("analyser", 1),
    ("lexical", None), ("deleted", 7), ("sources", {}), ("sources", ["a"]), ("sources", [{}]),
    ("files", []), ("files", {"a": 1}), ("files", {"a": {"bytes": -1, "sha256": ""}}),
    ("files", {"a": {"bytes": 1, "sha256": None}}), ("segments", {}), ("segments", [3]),
    ("segments.0.name", 1), ("segments.0.first_row", -1), ("segments.0.rows", 10**6),
    ("segments.0.end_row", 10**6), ("segments.0.factory", None), ("encoder", "x"), ("encoder.source", 1),
    ("encoder.probes", {"query": 3}), ("encoder.identity", None), ("encoder.identity.dim", 0),
    ("encoder.identity.dim", "32"), ("encoder.identity.prompts", {"query": 1}),
    ("encoder.identity.normalized", 1), ("encoder.identity.name", None), ("versions", {"a": 1}),
    ("created", 0),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), BAD_VALUES, ids=[f"{key}={value}" for key, value in BAD_VALUES])
def test_a_manifest_with_a_value_of_another_type_is_refused_by_its_key(
    copy: Path, key: str, value: Any
) -> None:
    values = json.loads(read_manifest(copy).to_bytes())
    del values["checksum"]
    target = values
    *path, last = key.split(".")
    for part in path:
        target = target[int(part) if part.isdigit() else part]
    target[last] = value

    values["checksum"] = _checksum(values)
    (copy / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(IndexCorruptError, match=key.split(".")[0]) as caught:
        IndexReader(copy)
    assert "not a manifest of an index" in str(caught.value) and "\n" not in str(caught.value)


def test_segments_follow_each_other(copy: Path, encoder: Encoder) -> None:
    add(copy, documents(3, first=30), encoder)
    manifest = read_manifest(copy)
    commit(copy, replace(manifest, segments=manifest.segments[::-1]))
    with pytest.raises(IndexCorruptError, match=r"segments\.1 .*do not follow"):
        IndexReader(copy)


def test_probes_that_are_no_vectors_are_an_error_in_one_line(copy: Path, encoder: Encoder) -> None:
    manifest = read_manifest(copy)
    assert manifest.encoder is not None
    for text in ("AAAA", "A", "\u00e9"):
        commit(copy, replace(manifest, encoder=replace(manifest.encoder, probes={"query": text})))
        with (
            Retriever(IndexReader(copy), encoder) as retriever,
            pytest.raises(IndexCorruptError, match="probes in the manifest are no vectors"),
        ):
            retriever.search("heart", mode="dense")


@pytest.mark.parametrize("name", [DATABASE, FAISS, "deleted/00002.npy", "lexical/00002/meta.json"])
def test_a_manifest_that_does_not_name_a_part_of_its_commit_is_refused(copy: Path, name: str) -> None:
    delete(copy, ["note-1"])
    manifest = read_manifest(copy)
    commit(copy, replace(manifest, files={key: e for key, e in manifest.files.items() if key != name}))
    with pytest.raises(IndexCorruptError, match=f"files does not name {name}"):
        IndexReader(copy)
    assert (copy / name).is_file()  # a writer that cleans up must not take it for a leftover


# --- contents that fit their hashes, and nothing that a build makes ---

BAD_CONTENTS = [
    "UPDATE documents SET metadata = '[1, 2]'",
    "UPDATE documents SET metadata = 'null'",
    "UPDATE documents SET metadata = '{'",
    f"UPDATE documents SET metadata = '{'[' * 20_000}'",
    "UPDATE documents SET sections = '5'",
    "UPDATE documents SET sections = '[[1]]'",
    "UPDATE documents SET title = x'ff00'",
    "UPDATE rows SET start = 'x'",
]


@pytest.mark.parametrize("statement", BAD_CONTENTS, ids=[text[:45] for text in BAD_CONTENTS])
def test_documents_and_rows_that_no_build_makes_are_an_error_in_one_line(
    copy: Path, encoder: Encoder, statement: str
) -> None:
    with closing(sqlite3.connect(copy / DATABASE)) as connection:
        connection.execute(statement)
        connection.commit()
    sign(copy, DATABASE)
    with Retriever(IndexReader(copy), encoder) as retriever:
        for mode in ("lexical", "dense", "hybrid"):
            with pytest.raises(IndexCorruptError, match=r"documents\.sqlite: .*run: cmbert index verify"):
                for hit in retriever.search("heart kidney stroke", mode=mode):
                    _ = hit.document.sections  # read when they are asked for
    (problem,) = verify(copy).problems
    assert "is not as a build makes it" in problem


def test_verify_finds_texts_that_are_not_those_that_were_indexed(copy: Path) -> None:
    with closing(sqlite3.connect(copy / DATABASE)) as connection:
        connection.execute("UPDATE documents SET text = upper(text) WHERE id = 'note-3'")
        connection.execute("UPDATE rows SET start = start + 1 WHERE document = 5 AND number = 0")
        connection.commit()
    sign(copy, DATABASE)
    problems = verify(copy).problems
    assert len(problems) >= 2
    assert all("its text is not the one that was indexed" in problem for problem in problems)


@pytest.mark.parametrize("rows", [[3, 1], [1, 1], [-1, 2], [2, 10**6]])
def test_lists_of_rows_that_do_not_ascend_within_the_index_are_refused(
    copy: Path, encoder: Encoder, rows: list[int]
) -> None:
    delete(copy, ["note-1"])
    name = "deleted/00002.npy"
    np.save(copy / name, np.array(rows, np.int64))
    commit(copy, replace(read_manifest(copy), dead_rows=2))
    sign(copy, name)
    with pytest.raises(IndexCorruptError, match="not the list of 2 dead rows"):
        IndexReader(copy)


def test_stored_vectors_that_are_not_finite_are_an_error_in_one_line(copy: Path, encoder: Encoder) -> None:
    folder = copy / "segments" / "00000"
    for path in shard_paths(folder):
        vectors = np.load(path)
        vectors[0, 0] = np.nan
        np.save(path, vectors)
        sign(copy, path.relative_to(copy).as_posix())
    write_faiss(folder / FAISS_FILE, ShardedVectors(shard_paths(folder)), encoder.identity.dim, "Flat")
    sign(copy, (folder / FAISS_FILE).relative_to(copy).as_posix())
    with Retriever(IndexReader(copy), encoder) as retriever:
        for mode in ("dense", "hybrid"):
            with pytest.raises(
                IndexCorruptError, match="vectors that are not finite; run: cmbert index verify"
            ):
                retriever.search("heart", 50, mode=mode)


def test_words_of_another_index_are_an_error_in_one_line(copy: Path, tmp_path: Path) -> None:
    other = tantivy.SchemaBuilder()
    other.add_text_field("other", stored=True)
    shutil.rmtree(copy / "lexical" / "00001")
    (copy / "lexical" / "00001").mkdir()
    index = tantivy.Index(other.build(), path=str(copy / "lexical" / "00001"))
    with index.writer(heap_size=15_000_000, num_threads=1) as writer:
        writer.add_document(tantivy.Document(other="heart"))
    with IndexReader(copy) as reader, pytest.raises(IndexCorruptError, match="run: cmbert index verify"):
        reader.search_words("heart", 3)
