"""An index and encoders: the one that made it, others, and one whose vectors cannot be used."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from samples import SMALL, Wrapper, add, build, documents

from cmbert_retrieval.encoders import load_encoder
from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.errors import CmbertError, EncoderError, IndexMismatchError
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.verify import verify
from cmbert_retrieval.retriever import Retriever


@pytest.fixture
def index(tmp_path: Path, encoder: Encoder) -> Path:
    build(tmp_path / "index", documents(4), encoder, *SMALL)
    return tmp_path / "index"


def listing(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".building" not in path.as_posix()
    }


OTHERS: list[tuple[dict[str, Any], str]] = [
    ({"weights_sha256": "0" * 64, "name": "other-encoder"}, "'tiny-encoder'.*not with 'other-encoder'"),
    ({"prompts": {"query": "query: "}}, "prompts"),
    ({"max_tokens": 32}, "max_tokens 64.* 32"),
    ({"pooling": "cls"}, "pooling 'mean'.* 'cls'"),
    ({"normalized": False}, "normalized True.* False"),
    ({"dim": 16}, "dim 32.* 16"),
]


@pytest.mark.parametrize(("changes", "message"), OTHERS, ids=[next(iter(changes)) for changes, _ in OTHERS])
def test_another_encoder_is_refused_at_the_first_dense_query_and_when_adding(
    index: Path, encoder: Encoder, changes: dict[str, Any], message: str
) -> None:
    other = Wrapper(encoder, **changes)
    with Retriever(IndexReader(index), other) as retriever:
        assert retriever.search("heart", mode="lexical")
        for mode in ("dense", "hybrid"):
            with pytest.raises(IndexMismatchError, match=message) as caught:
                retriever.search("heart", mode=mode)
        assert "rebuild it" in str(caught.value)
    before = listing(index)
    with pytest.raises(IndexMismatchError, match=message):
        add(index, documents(2, first=50), other)
    assert listing(index) == before


def test_an_encoder_that_says_it_is_the_same_but_gives_other_vectors_is_refused(
    index: Path, encoder: Encoder
) -> None:
    liar = Wrapper(encoder)
    liar.poison["fever"] = 50.0  # a word of the probes
    with Retriever(IndexReader(index), liar) as retriever, pytest.raises(IndexMismatchError, match="cosine"):
        retriever.search("heart", mode="dense")


def test_the_same_weights_under_another_name_and_revision_are_welcome(index: Path, encoder: Encoder) -> None:
    renamed = Wrapper(encoder, name="someone/copy", revision="abc123")
    with Retriever(IndexReader(index), renamed) as retriever:
        assert retriever.search("heart", mode="dense")
    assert add(index, documents(1, first=50), renamed).documents == 1


def test_opening_with_other_settings_is_refused(index: Path, tiny_encoder_path: Path) -> None:
    other = load_encoder(tiny_encoder_path, max_tokens=16)
    with (
        Retriever(IndexReader(index), other) as retriever,
        pytest.raises(IndexMismatchError, match="max_tokens"),
    ):
        retriever.search("heart")


def test_words_and_vectors_are_not_mixed_up(tmp_path: Path, encoder: Encoder) -> None:
    build(tmp_path / "words", documents(3), None)
    with pytest.raises(IndexMismatchError, match="holds words only; add to it without an encoder"):
        add(tmp_path / "words", documents(1, first=9), encoder)
    with Retriever(IndexReader(tmp_path / "words"), None) as retriever:
        assert retriever.search("heart")  # lexical is this index's own mode
        for mode in ("dense", "hybrid"):
            with pytest.raises(IndexMismatchError, match="holds words only; use mode='lexical'"):
                retriever.search("heart", mode=mode)
    build(tmp_path / "both", documents(3), encoder)
    with pytest.raises(IndexMismatchError, match="was built with 'tiny-encoder'; adding needs that encoder"):
        add(tmp_path / "both", documents(1, first=9), None)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 70_000.0])
def test_vectors_that_cannot_be_searched_are_refused_and_the_index_stays_as_it_was(
    index: Path, encoder: Encoder, value: float
) -> None:
    bad = Wrapper(encoder)
    texts = documents(3, first=50)
    bad.poison[texts[1].title] = value
    before = listing(index)
    with pytest.raises(EncoderError, match=r"NaN or infin|65,504") as caught:
        add(index, texts, bad)
    assert texts[1].title not in str(caught.value)
    assert listing(index) == before
    assert verify(index).problems == []
    # What was begun can be finished once the encoder is well.
    report = add(index, texts, encoder)
    assert report.documents == 3
    assert verify(index, encoder=encoder).problems == []


def test_a_build_with_bad_vectors_makes_no_index(tmp_path: Path, encoder: Encoder) -> None:
    bad = Wrapper(encoder)
    texts = documents(20)
    bad.poison[texts[15].title] = math.nan
    with pytest.raises(EncoderError, match=r"of which \d+ hold NaN"):
        build(tmp_path / "i", texts, bad, *SMALL)
    assert not (tmp_path / "i" / "manifest.json").exists()
    report = build(tmp_path / "i", texts, encoder, *SMALL)
    assert 0 < report.encoded < report.rows  # shards before the bad one were kept
    assert verify(tmp_path / "i", encoder=encoder).problems == []


def test_vectors_of_another_shape_are_refused_with_both_shapes(index: Path, encoder: Encoder) -> None:
    class Narrow(Wrapper):
        def encode_document(self, texts: Any, *, progress: Any = None) -> NDArray[np.float32]:
            vectors = super().encode_document(texts, progress=progress)
            return vectors[:, :16] if any("note" in text for text in texts) else vectors

    texts = documents(1, first=50)
    odd = [type(texts[0])("odd", "A note of its own.")]
    with pytest.raises(IndexMismatchError, match=r"\(1, 16\), expected \(1, 32\)"):
        add(index, odd, Narrow(encoder))


def test_a_query_vector_of_nan_is_an_error(index: Path, encoder: Encoder) -> None:
    bad = Wrapper(encoder)
    bad.poison["zebra"] = math.nan
    with Retriever(IndexReader(index), bad) as retriever:
        assert retriever.search("heart", mode="dense")
        for mode in ("dense", "hybrid"):
            with pytest.raises(CmbertError, match="NaN or infin") as caught:
                retriever.search(["heart", "zebra"], mode=mode)
            assert "zebra" not in str(caught.value)
