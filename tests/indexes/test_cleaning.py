"""What stays on disk while older commits are read, and who is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from samples import add, build, delete, documents, optimize

from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.verify import verify
from cmbert_retrieval.indexes.writer import IndexWriter
from cmbert_retrieval.types import Document


def on_disk(root: Path, word: bytes) -> bool:
    return any(word in path.read_bytes() for path in root.rglob("*.sqlite"))


def test_deleted_texts_that_older_readers_keep_on_disk_are_told_until_they_are_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build(tmp_path, [*documents(5), Document("secret", "Zebra stripes.")], None)
    first = IndexReader(tmp_path)
    add(tmp_path, documents(1, first=7), None)
    second, same = IndexReader(tmp_path), IndexReader(tmp_path)
    delete(tmp_path, ["secret"])
    assert caplog.records == []  # the text is in the index's own segment: deleting does not promise more
    optimize(tmp_path)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "deleted texts stay on disk until the readers of commits 1 and 2 close" in record.getMessage()
    assert on_disk(tmp_path, b"Zebra")
    first.close()
    second.close()
    caplog.clear()
    add(tmp_path, documents(1, first=8), None)
    (record,) = caplog.records
    assert "deleted texts stay on disk until the readers of commit 2 close" in record.getMessage()
    same.close()
    caplog.clear()
    with IndexReader(tmp_path):  # of the last commit: that of the next one keeps all its segments
        add(tmp_path, documents(1, first=9), None)
    assert caplog.records == []
    assert not on_disk(tmp_path, b"Zebra")


def test_an_optimized_index_that_nobody_reads_keeps_no_deleted_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build(tmp_path, [*documents(5), Document("secret", "Zebra stripes.")], None)
    delete(tmp_path, ["secret"])
    assert on_disk(tmp_path, b"Zebra")
    optimize(tmp_path)
    assert not on_disk(tmp_path, b"Zebra")
    assert caplog.records == []


def test_what_a_killed_writer_left_beside_the_words_goes_with_the_next_writer(tmp_path: Path) -> None:
    build(tmp_path, documents(5), None)
    (folder,) = (tmp_path / "lexical").iterdir()
    (folder / ".tantivy-meta.lock").touch()
    assert verify(tmp_path).leftovers == [f"lexical/{folder.name}/.tantivy-meta.lock"]
    with IndexWriter(tmp_path):
        pass  # clears away what it finds
    found = verify(tmp_path)
    assert (found.problems, found.leftovers) == ([], [])
