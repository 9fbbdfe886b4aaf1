"""What an unfinished build must have in common with the run that goes on with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from samples import SMALL, Wrapper, add, build, delete, documents

from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.errors import CmbertError, IndexMismatchError
from cmbert_retrieval.indexes.pins import PINS
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.types import Document


def begun(root: Path, encoder: Encoder, step: Callable[..., Any], *settings: str) -> list[Document]:
    """Stop a build or an addition at a late shard, and return its documents."""
    texts = [*documents(11, first=100), Document("last", "Zebra stripes.")]
    broken = Wrapper(encoder)
    broken.poison = {"Zebra": float("nan")}
    with pytest.raises(CmbertError):
        step(root, texts, broken, *settings)
    assert len(list(root.glob("segments/*.building/vectors-*.npy"))) > 1
    return texts


def change_pins(root: Path, **changes: Any) -> None:
    (path,) = root.glob(f"segments/*.building/{PINS}")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_build_goes_on_with_the_same_documents(tmp_path: Path, encoder: Encoder) -> None:
    texts = begun(tmp_path, encoder, build, *SMALL)
    report = build(tmp_path, texts, encoder, *SMALL)
    assert report.documents == 12 and report.encoded < report.rows


def test_documents_whose_metadata_changed_are_not_gone_on_with(tmp_path: Path, encoder: Encoder) -> None:
    texts = begun(tmp_path, encoder, build, *SMALL)
    texts = [replace(text, metadata={**text.metadata, "year": 1999}) for text in texts]
    with pytest.raises(IndexMismatchError, match=r"other sources \(.*has changed since"):
        build(tmp_path, texts, encoder, *SMALL)


def test_a_build_of_another_version_of_the_library_is_refused_by_name(
    tmp_path: Path, encoder: Encoder
) -> None:
    from cmbert_retrieval import __version__

    texts = begun(tmp_path, encoder, build, *SMALL)
    change_pins(tmp_path, version="0.0.1")
    with pytest.raises(IndexMismatchError) as caught:
        build(tmp_path, texts, encoder, *SMALL)
    assert f"was begun with version 0.0.1, now {__version__}; " in str(caught.value)
    with pytest.raises(IndexMismatchError) as caught:
        build(tmp_path, texts, encoder, *SMALL, "shard_rows=5")
    assert (
        f"was begun with version 0.0.1, now {__version__}, and another recipe (shard_rows 7, now 5); "
        "repeat the first command with that version"
    ) in str(caught.value)


def test_an_addition_to_an_index_that_changed_since_says_so_whatever_else_differs(
    tmp_path: Path, encoder: Encoder
) -> None:
    build(tmp_path, documents(5), encoder, *SMALL)
    texts = begun(tmp_path, encoder, add)
    delete(tmp_path, ["note-1"])
    for other in (texts, texts[:-1]):
        with pytest.raises(IndexMismatchError, match="the index has changed since") as caught:
            add(tmp_path, other, encoder)
        assert "repeat" not in str(caught.value) and "add --restart" in str(caught.value)
    with IndexReader(tmp_path) as reader:
        assert reader.manifest.documents == 4
