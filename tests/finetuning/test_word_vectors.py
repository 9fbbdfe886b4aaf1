"""What words say beside a teacher's vector: rare ones in common bring texts together."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from cmbert_retrieval.errors import ConfigError

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from cmbert_retrieval.finetuning.word_vectors import WordVectors, with_words  # noqa: E402

pytestmark = pytest.mark.slow

EVERYWHERE = " ".join(["the patient had pain in the knee and fever for some days"] * 3)
TEXTS = [f"{EVERYWHERE} with cancer" if number % 10 == 0 else EVERYWHERE for number in range(100)]


@pytest.fixture
def folder(tmp_path: Path, tiny_encoder_path: Path) -> Path:
    """A teacher's table of tokens by chance, with more width than there are texts."""
    shutil.copy(tiny_encoder_path / "tokenizer.json", tmp_path)
    table = torch.randn(8_000, 64, generator=torch.Generator().manual_seed(3))
    save_file({"embeddings.word_embeddings.weight": table}, tmp_path / "model.safetensors")
    return tmp_path


def test_a_rare_word_brings_texts_nearer_than_a_frequent_one(folder: Path) -> None:
    words = WordVectors(folder, TEXTS, max_tokens=64)
    one, rare, frequent = words.of(["cancer of the knee", "cancer days", "knee days"])
    assert one @ rare > one @ frequent + 0.1
    again = words.of(["cancer of the knee"])[0]
    np.testing.assert_allclose(again, one, atol=1e-6)


def test_they_are_of_unit_length_and_nothing_says_nothing(folder: Path) -> None:
    words = WordVectors(folder, TEXTS, max_tokens=64)
    made = words.of(["fever", "", "cancer " * 500])
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), [1, 0, 1], atol=1e-5)
    assert words.dim == made.shape[1] == 64


def test_only_what_the_teacher_reads_counts(folder: Path) -> None:
    words = WordVectors(folder, TEXTS, max_tokens=3)
    short, long = words.of(["fever and pain", "fever and pain cancer cancer"])
    np.testing.assert_allclose(short, long, atol=1e-6)


def test_they_are_added_by_their_weight(folder: Path) -> None:
    words = WordVectors(folder, TEXTS, max_tokens=64).of(["fever", "cancer"])
    taught = np.eye(2, 64, dtype=np.float16)
    np.testing.assert_array_equal(with_words(taught, words, 0.0), taught)
    both = with_words(taught, words, 0.5).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, atol=2e-3)
    assert ((both * words).sum(1) > (taught * words).sum(1)).all()


def test_a_teacher_without_token_embeddings_is_refused(folder: Path) -> None:
    save_file({"layers.0.weight": torch.zeros(2, 2)}, folder / "model.safetensors")
    with pytest.raises(ConfigError, match=r"teacher\.words: .* no token embeddings; leave it out"):
        WordVectors(folder, TEXTS, max_tokens=64)
