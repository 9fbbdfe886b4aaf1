"""A teacher's vectors: asked once, kept by the hash of a text, whole beside other writers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmbert_retrieval.encoders import Encoder, load_encoder
from cmbert_retrieval.errors import EncoderError
from cmbert_retrieval.finetuning import teacher as module
from cmbert_retrieval.finetuning.teacher import VectorCache, cache_of, vectors_of

TEXTS = [f"text number {number} of those that are told" for number in range(50)]


def asked(texts: Sequence[str], encoder: Encoder, cache: VectorCache) -> Any:
    return np.concatenate(list(vectors_of(iter(texts), encoder, cache, notify=lambda count: None)))


def test_texts_are_asked_once_and_come_back_in_their_order(
    tiny_encoder_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARD", 16)
    encoder = load_encoder(tiny_encoder_path)
    wanted = encoder.encode_document(TEXTS)
    cache = cache_of(encoder, "int8", tmp_path)
    np.testing.assert_allclose(asked([*TEXTS, TEXTS[3]], encoder, cache)[:50], wanted, atol=2e-3)
    again = cache_of(encoder, "int8", tmp_path)
    assert len(again) == 50

    def refuse(*arguments: object, **settings: object) -> None:
        raise AssertionError("asked twice")

    monkeypatch.setattr(type(encoder), "encode_document", refuse)
    np.testing.assert_allclose(asked(TEXTS[::-1], encoder, again), wanted[::-1], atol=2e-3)
    there, vectors = again.take([TEXTS[7], "never told"])
    assert there.tolist() == [True, False]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_an_empty_cache_has_nothing(tmp_path: Path) -> None:
    there, vectors = VectorCache(tmp_path / "new").take(TEXTS)
    assert not there.any() and vectors.shape == (0, 0)


def test_other_lengths_and_precisions_have_caches_of_their_own(
    tiny_encoder_path: Path, tmp_path: Path
) -> None:
    short, long = (load_encoder(tiny_encoder_path, max_tokens=tokens) for tokens in (16, 32))
    made = [cache_of(short, "int8", tmp_path), cache_of(long, "int8", tmp_path)]
    made.append(cache_of(long, "float32", tmp_path))
    assert len({cache.folder for cache in made}) == 3


def test_two_writers_keep_each_others_vectors(tiny_encoder_path: Path, tmp_path: Path) -> None:
    encoder = load_encoder(tiny_encoder_path)
    here, there = VectorCache(tmp_path), VectorCache(tmp_path)
    asked(TEXTS[:30], encoder, here)
    asked(TEXTS[20:], encoder, there)
    found, vectors = VectorCache(tmp_path).take(TEXTS)
    assert found.all()
    np.testing.assert_allclose(vectors, encoder.encode_document(TEXTS), atol=2e-3)


def test_files_that_do_not_fit_are_refused(tiny_encoder_path: Path, tmp_path: Path) -> None:
    asked(TEXTS, load_encoder(tiny_encoder_path), VectorCache(tmp_path))
    other = np.zeros(3, [("key", "<u8"), ("vector", "<f2", (7,))])
    np.save(tmp_path / "zz.npy", other)
    with pytest.raises(EncoderError, match="vectors of 7 numbers, others have 32; remove"):
        VectorCache(tmp_path)
    np.save(tmp_path / "zz.npy", np.zeros((3, 32), np.float16))
    with pytest.raises(EncoderError, match="no file of vectors; remove"):
        VectorCache(tmp_path)
