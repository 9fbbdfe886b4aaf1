"""``verify``: every flipped byte, missing file and disagreement between the parts is named."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from samples import SMALL, add, build, delete, documents

from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.errors import CmbertError, IndexCorruptError, IndexMismatchError
from cmbert_retrieval.indexes.lexical import LexicalWriter
from cmbert_retrieval.indexes.manifest import MANIFEST, FileEntry, Manifest, read_manifest, write_manifest
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.shard_files import ShardedVectors, shard_paths, write_shard
from cmbert_retrieval.indexes.vectors import FAISS_FILE, write_faiss
from cmbert_retrieval.indexes.verify import verify
from cmbert_retrieval.retriever import Retriever


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path) -> Path:
    """An index with two segments, several shards, deleted rows and every kind of file."""
    from cmbert_retrieval.encoders import load_encoder

    encoder = load_encoder(tiny_encoder_path)
    folder = tmp_path_factory.mktemp("verify") / "index"
    build(folder, documents(8), encoder, *SMALL)
    add(folder, documents(4, first=20), encoder)
    delete(folder, ["note-2", "note-21"])
    return folder


@pytest.fixture
def index(original: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    shutil.copytree(original, tmp_path / "index")
    return tmp_path / "index"


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def rewrite(folder: Path, manifest: Manifest) -> None:
    """Put a manifest in place with entries that match the files: a damage that no hash can tell."""
    names = {name: FileEntry.of(folder / name) for name in manifest.files}
    manifest = replace(manifest, files=names)
    write_manifest(folder, manifest)
    (folder / "commits" / f"{manifest.commit:05d}").write_bytes(manifest.to_bytes())


def test_a_sound_index_has_no_problems(index: Path, encoder: Encoder) -> None:
    result = verify(index, encoder=encoder)
    assert result.problems == result.leftovers == []
    manifest = read_manifest(index)
    assert (result.commit, result.rows) == (3, manifest.rows)
    assert set(manifest.files) | {MANIFEST, "commits/00003", "write.lock"} == set(files(index))


def test_a_flipped_byte_in_any_file_is_found_and_the_file_named(index: Path) -> None:
    chance = random.Random(3)
    checked = 0
    for name in files(index):
        path = index / name
        data = path.read_bytes()
        if not data:
            assert name == "write.lock"
            continue
        places = {0, len(data) - 1, len(data) // 2, *(chance.randrange(len(data)) for _ in range(3))}
        for place in sorted(places):
            damaged = bytearray(data)
            damaged[place] ^= 1 << chance.randrange(8)
            path.write_bytes(damaged)
            try:
                problems = verify(index).problems
            except CmbertError as error:
                assert name == MANIFEST
                problems = [str(error)]
            assert len(problems) >= 1, (name, place)
            assert name in problems[0], (name, place, problems)
            checked += 1
        path.write_bytes(data)
    assert checked > 100
    assert verify(index).problems == []


def test_a_search_in_a_damaged_index_answers_or_says_what_is_wrong(index: Path, encoder: Encoder) -> None:
    chance = random.Random(5)
    names = [name for name in files(index) if name.startswith(("segments", "deleted", "lexical"))]
    for name in names:
        data = (index / name).read_bytes()
        for _ in range(3):
            damaged = bytearray(data)
            for place in chance.choices(range(len(data)), k=20):
                damaged[place] ^= 0xFF
            (index / name).write_bytes(damaged)
            if name.startswith("lexical"):
                continue  # tantivy trusts its files; their hashes are checked by verify alone
            try:
                with Retriever(IndexReader(index), encoder) as retriever:
                    retriever.search("heart failure", 5)
                    retriever.search("heart failure", 50, filter="year>2000", group=False)
            except CmbertError as error:
                assert "cmbert index verify" in str(error)
        (index / name).write_bytes(data)


@pytest.mark.parametrize("change", ["missing", "longer", "shorter", "empty", "a folder"])
def test_a_file_that_is_not_as_it_was_is_named(index: Path, change: str) -> None:
    for name in read_manifest(index).files:
        path = index / name
        data = path.read_bytes()
        path.unlink()
        match change:
            case "longer":
                path.write_bytes(data + b"\0")
            case "shorter":
                path.write_bytes(data[:-1])
            case "empty":
                path.touch()
            case "a folder":
                path.mkdir()
        (problem,) = verify(index).problems
        assert problem.startswith(f"{name}: ")
        if change == "a folder":
            path.rmdir()
        path.write_bytes(data)


@pytest.mark.parametrize(
    "name",
    ["note.txt", "segments/00000/vectors-00099.npy", "segments/00000/x", "lexical/00003/x",
     "deleted/00009.npy", "segments/00099/documents.sqlite", "commits/00001", "manifest.json.tmp"],
)  # fmt: skip
def test_a_file_that_no_commit_names_is_a_leftover_and_harmless(
    index: Path, encoder: Encoder, name: str
) -> None:
    with Retriever(IndexReader(index), encoder) as retriever:
        expected = [(hit.id, hit.score) for hit in retriever.search("heart failure")]
    (index / name).parent.mkdir(exist_ok=True)
    shutil.copy(index / "segments/00000/vectors-00000.npy", index / name)
    result = verify(index)
    assert (result.problems, result.leftovers) == ([], [name])
    with Retriever(IndexReader(index), encoder) as retriever:
        assert [(hit.id, hit.score) for hit in retriever.search("heart failure")] == expected


def test_a_damaged_manifest_tells_of_its_copy_and_the_copy_repairs_it(index: Path) -> None:
    data = (index / MANIFEST).read_bytes()
    for damaged in (
        b"",
        b"{",
        data[:-200],
        data.replace(b'"rows"', b'"rowz"', 1),
        data.replace(b"20", b"21", 1),
    ):
        (index / MANIFEST).write_bytes(damaged)
        for action in (verify, IndexReader, read_manifest):
            with pytest.raises(IndexCorruptError, match=r"commits/00003: copy it over manifest.json"):
                action(index)  # type: ignore[operator]
    shutil.copy(index / "commits" / "00003", index / MANIFEST)
    assert verify(index).problems == []


def test_a_manifest_from_the_future_says_to_upgrade(index: Path) -> None:
    values = json.loads((index / MANIFEST).read_bytes())
    (index / MANIFEST).write_text(json.dumps({**values, "schema": values["schema"] + 1}))
    with pytest.raises(IndexMismatchError, match="upgrade: pip install -U cmbert-retrieval"):
        IndexReader(index)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "segments/../../outside", "a\\..\\b", ""])
def test_a_manifest_that_names_files_outside_its_folder_is_refused(
    index: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "outside").write_text("mine")
    manifest = read_manifest(index)
    write_manifest(index, replace(manifest, files={**manifest.files, name: FileEntry(4, "0" * 64)}))
    with pytest.raises(IndexCorruptError):
        IndexReader(index)


# --- parts that disagree although every hash is right ---


def test_a_row_that_words_do_not_find_is_a_problem(index: Path) -> None:
    manifest = read_manifest(index)
    shutil.rmtree(index / manifest.lexical)
    writer = LexicalWriter(index / manifest.lexical, manifest.columns, manifest.analyser)
    for row in range(manifest.rows):
        writer.add(row + 1000, "heart", [])
    writer.finish(manifest.rows)
    kept = {name: entry for name, entry in manifest.files.items() if not name.startswith("lexical")}
    fresh = {name: FileEntry(0, "") for name in files(index) if name.startswith("lexical")}
    rewrite(index, replace(manifest, files={**kept, **fresh}))
    (problem,) = verify(index).problems
    assert "can be found by words are not the live rows" in problem


def test_an_id_that_is_alive_twice_is_a_problem(index: Path) -> None:
    with sqlite3.connect(index / "segments/00001/documents.sqlite") as connection:
        connection.execute("UPDATE documents SET id = 'note-1' WHERE id = 'note-20'")
    connection.close()
    rewrite(index, read_manifest(index))
    (problem,) = verify(index).problems
    assert "'note-1' is alive twice" in problem


def test_vectors_that_are_not_finite_are_a_problem(index: Path) -> None:
    path = index / "segments/00000/vectors-00000.npy"
    vectors = np.load(path).astype(np.float32)
    vectors[0, 0] = np.nan
    write_shard(path, vectors)
    rewrite(index, read_manifest(index))
    assert any("not finite" in problem for problem in verify(index).problems)


def test_a_missing_row_is_a_problem(index: Path) -> None:
    with sqlite3.connect(index / "segments/00000/documents.sqlite") as connection:
        connection.execute("DELETE FROM rows WHERE row = 1")
    connection.close()
    rewrite(index, read_manifest(index))
    assert any("documents.sqlite" in problem for problem in verify(index).problems)


def test_a_document_that_is_half_dead_is_a_problem(index: Path) -> None:
    manifest = read_manifest(index)
    with IndexReader(index) as reader:
        segment = reader.segments[0]
        sql = "SELECT document, max(row) FROM rows GROUP BY document HAVING count(*) > 1"
        document, last = next(
            (number, row) for number, row in segment.documents.query(sql) if row not in reader.dead
        )
        dead = np.sort(np.append(reader.dead, last))
    assert manifest.deleted is not None
    np.save(index / manifest.deleted, dead)
    rewrite(index, replace(manifest, dead_rows=len(dead), rows=manifest.rows - 1))
    problems = verify(index).problems
    wanted = f"documents.sqlite: some rows of document {document} are alive and some are deleted"
    assert any(wanted in problem for problem in problems)


def test_a_document_without_its_first_row_is_a_problem(index: Path) -> None:
    with sqlite3.connect(index / "segments/00000/documents.sqlite") as connection:
        (document,) = connection.execute("SELECT document FROM rows WHERE number = 1 LIMIT 1").fetchone()
        connection.execute("DELETE FROM rows WHERE document = ? AND number = 0", (document,))
    connection.close()
    rewrite(index, read_manifest(index))
    wanted = f"documents.sqlite: rows of document {document} are missing"
    assert any(wanted in problem for problem in verify(index).problems)


def test_vectors_of_other_texts_are_found_by_encoding_again(index: Path, encoder: Encoder) -> None:
    folder = index / "segments/00000"
    paths = shard_paths(folder)
    write_shard(paths[0], np.load(paths[0]).astype(np.float32)[::-1])
    write_faiss(folder / FAISS_FILE, ShardedVectors(paths), 32, "Flat")
    rewrite(index, read_manifest(index))
    assert verify(index).problems == []
    assert any("cosine" in problem for problem in verify(index, encoder=encoder).problems)


def test_a_faiss_file_of_other_vectors_is_a_problem(index: Path) -> None:
    first = index / "segments/00000/vectors.faiss"
    data = bytearray(first.read_bytes())
    data[-128:] = bytes(128)  # the last vector
    first.write_bytes(data)
    rewrite(index, read_manifest(index))
    (problem,) = verify(index).problems
    assert problem == "segments/00000/vectors.faiss: holds other vectors than those stored"
