"""A teacher's vectors: asked once, kept by the hash of a text, whole after a kill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cmbert_retrieval.encoders import load_encoder
from cmbert_retrieval.errors import EncoderError
from cmbert_retrieval.finetuning import teacher as module
from cmbert_retrieval.finetuning.teacher import VectorCache, cache_of, teach

TEXTS = [f"text number {number} of those that are told" for number in range(50)]


def nothing(count: int) -> None:
    pass


def test_texts_are_asked_once_and_come_back_in_any_order(
    tiny_encoder_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARD", 16)
    encoder = load_encoder(tiny_encoder_path)
    cache = cache_of(encoder, tmp_path)
    assert teach([*TEXTS, TEXTS[3]], encoder, cache, notify=nothing) == 50
    assert teach(TEXTS, encoder, cache, notify=nothing) == 0
    again = cache_of(load_encoder(tiny_encoder_path), tmp_path)
    assert len(again) == 50
    chosen = [TEXTS[place] for place in (49, 0, 17, 17)]
    vectors = again.take(again.rows(chosen))
    np.testing.assert_allclose(vectors, encoder.encode_document(chosen), atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert again.rows(["never told"]).tolist() == [-1]


def test_other_lengths_and_models_have_caches_of_their_own(tiny_encoder_path: Path, tmp_path: Path) -> None:
    folders = {
        cache_of(load_encoder(tiny_encoder_path, max_tokens=tokens), tmp_path).folder for tokens in (16, 32)
    }
    assert len(folders) == 2


def test_vectors_without_their_hashes_do_not_count(tiny_encoder_path: Path, tmp_path: Path) -> None:
    encoder = load_encoder(tiny_encoder_path)
    cache = cache_of(encoder, tmp_path)
    teach(TEXTS, encoder, cache, notify=nothing)
    (cache.folder / "00000.keys.npy").unlink()
    assert len(VectorCache(cache.folder)) == 0


def test_files_that_do_not_fit_are_refused(tiny_encoder_path: Path, tmp_path: Path) -> None:
    encoder = load_encoder(tiny_encoder_path)
    cache = cache_of(encoder, tmp_path)
    teach(TEXTS, encoder, cache, notify=nothing)
    np.save(cache.folder / "00000.vectors.npy", np.zeros((3, 32), np.float16))
    with pytest.raises(EncoderError, match=r"50 texts, but vectors of shape \(3, 32\); remove"):
        VectorCache(cache.folder)
