"""What an addition may not undo."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmbert_retrieval.config import IndexRecipe
from cmbert_retrieval.corpora.memory import MemoryCorpus
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.report import Report
from cmbert_retrieval.indexes.writer import IndexWriter
from cmbert_retrieval.types import Document


def article(text: str, **metadata: object) -> Document:
    return Document(id="PMC1", text=text, title="Sepsis in lambs", metadata=metadata)


def build(folder: Path, *documents: Document) -> None:
    with IndexWriter(folder) as writer:
        writer.build(
            MemoryCorpus(documents), IndexRecipe.for_corpus("memory", overrides=["encoder=none"]), None
        )


def add(folder: Path, document: Document, *, strict: bool = False) -> Report:
    with IndexWriter(folder) as writer:
        return writer.add(MemoryCorpus([document]), None, strict=strict)


def stored(folder: Path) -> Document:
    with IndexReader(folder) as reader:
        document = reader.get("PMC1")
    assert document is not None
    return document


def test_an_earlier_version_does_not_replace_a_later_one(tmp_path: Path) -> None:
    build(tmp_path / "i", article("second", version=2))
    report = add(tmp_path / "i", article("first", version=1))
    assert (report.outdated, report.replaced, report.documents, report.commit) == (1, 0, 0, 1)
    assert stored(tmp_path / "i").text == "second"
    assert add(tmp_path / "i", article("third", version=3)).replaced == 1
    assert stored(tmp_path / "i").text == "third"
    with pytest.raises(CorpusError, match="outdated: PMC1"):
        add(tmp_path / "i", article("first", version=1), strict=True)


def test_the_same_version_and_documents_without_versions_are_replaced(tmp_path: Path) -> None:
    build(tmp_path / "i", article("one", version=2))
    assert add(tmp_path / "i", article("two", version=2)).replaced == 1
    assert add(tmp_path / "i", article("three")).replaced == 1
    assert stored(tmp_path / "i").text == "three"


def test_a_source_that_does_not_know_of_a_retraction_takes_none_back(tmp_path: Path) -> None:
    build(tmp_path / "i", article("text", version=1, is_retracted=True))
    assert add(tmp_path / "i", article("text", version=1, is_retracted=False)).unchanged == 1
    assert add(tmp_path / "i", article("corrected", version=2)).replaced == 1
    assert stored(tmp_path / "i").metadata["is_retracted"] is True


def test_a_retraction_that_becomes_known_is_kept(tmp_path: Path) -> None:
    build(tmp_path / "i", article("text", version=1, is_retracted=False))
    assert add(tmp_path / "i", article("text", version=1, is_retracted=True)).replaced == 1
    assert stored(tmp_path / "i").metadata["is_retracted"] is True


def test_a_copy_without_a_word_of_versions_or_retractions_takes_none_back(tmp_path: Path) -> None:
    build(tmp_path / "i", article("text", is_retracted=True))
    assert add(tmp_path / "i", article("text, corrected")).replaced == 1
    assert stored(tmp_path / "i").metadata == {"is_retracted": True}
