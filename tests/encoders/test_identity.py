from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cmbert_retrieval.encoders import Encoder, EncoderIdentity, load_encoder
from cmbert_retrieval.encoders.identity import PROBE_TEXTS, check_same_encoder, check_vectors, probe_vectors
from cmbert_retrieval.errors import EncoderError, IndexMismatchError


@pytest.fixture(scope="module")
def encoder(tiny_encoder_path: Path) -> Encoder:
    return load_encoder(tiny_encoder_path)


class Disturbed:
    """An encoder of the same weights whose document path gives other vectors, as a broken backend would."""

    def __init__(self, encoder: Encoder, noise: float) -> None:
        self._encoder = encoder
        self._noise = noise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_document(self, texts: Sequence[str], *, progress: Any = None) -> NDArray[np.float32]:
        vectors = self._encoder.encode_document(texts)
        noise = np.random.default_rng(0).normal(size=vectors.shape) * self._noise
        return (vectors + noise).astype(np.float32)


def test_probes_run_from_a_word_to_more_than_a_short_model_reads(encoder: Encoder) -> None:
    counts = encoder.count_tokens(PROBE_TEXTS)
    assert len(counts) == 8
    assert min(counts) < 10 and max(counts) > encoder.identity.max_tokens


def test_an_encoder_is_itself(encoder: Encoder) -> None:
    cosines = check_same_encoder(encoder.identity, probe_vectors(encoder), encoder)
    assert min(cosines.values()) == pytest.approx(1, abs=1e-6)


def test_another_name_of_the_same_weights_passes(encoder: Encoder) -> None:
    renamed = replace(encoder.identity, name="somewhere/else", revision="3f2a")
    check_same_encoder(renamed, probe_vectors(encoder), encoder)


def test_other_weights_are_refused_by_both_names(encoder: Encoder) -> None:
    other = replace(encoder.identity, name="cmbert-mini", revision="3f2a" * 10, weights_sha256="0" * 64)
    with pytest.raises(
        IndexMismatchError, match=r"built with 'cmbert-mini' \(rev 3f2a3f2a\), not with 'tiny-encoder'"
    ):
        check_same_encoder(other, probe_vectors(encoder), encoder)


@pytest.mark.parametrize(
    "change",
    [
        {"dim": 33},
        {"pooling": "cls"},
        {"prompts": {"query": "q: "}},
        {"max_tokens": 63},
        {"normalized": False},
    ],
)
def test_another_setting_is_refused_by_its_name(encoder: Encoder, change: dict[str, Any]) -> None:
    expected = replace(encoder.identity, **change)
    with pytest.raises(IndexMismatchError, match=next(iter(change))):
        check_same_encoder(expected, probe_vectors(encoder), encoder)


def test_equal_values_of_prompts_are_equal_whatever_holds_them(encoder: Encoder) -> None:
    read_back = EncoderIdentity.from_json(encoder.identity.to_json())
    check_same_encoder(read_back, probe_vectors(encoder), encoder)


def test_a_little_rounding_passes_and_other_vectors_of_the_same_weights_do_not(encoder: Encoder) -> None:
    probes = probe_vectors(encoder)
    slightly: Any = Disturbed(encoder, 0.02)
    cosines = check_same_encoder(encoder.identity, probes, slightly)
    assert 0.95 <= cosines["document"] < 0.9999
    broken: Any = Disturbed(encoder, 0.2)
    with pytest.raises(IndexMismatchError, match="document vectors are not those of 'tiny-encoder'"):
        check_same_encoder(encoder.identity, probes, broken)


def test_probes_of_another_shape_are_refused_with_both_shapes(encoder: Encoder) -> None:
    probes = {path: vectors[:5] for path, vectors in probe_vectors(encoder).items()}
    with pytest.raises(IndexMismatchError, match=r"\(5, 32\), this encoder's \(8, 32\)"):
        check_same_encoder(encoder.identity, probes, encoder)


@pytest.mark.parametrize("shape", [(3, 5), (4,), (2, 4, 1)])
def test_vectors_of_a_wrong_shape_are_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(IndexMismatchError, match=r"got vectors of shape .* expected \(\d, 4\)"):
        check_vectors(np.zeros(shape), 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_a_vector_that_is_not_finite_is_refused_by_its_row(bad: float) -> None:
    vectors = np.zeros((3, 4))
    vectors[1, 2] = bad
    with pytest.raises(
        EncoderError, match=r"shape \(3, 4\) of which 1 hold NaN or infinity \(first in row 1\)"
    ):
        check_vectors(vectors, 4)


def test_good_vectors_come_back_as_contiguous_float32() -> None:
    checked = check_vectors(np.asfortranarray(np.ones((3, 4))), 4)
    assert checked.dtype == np.float32 and checked.flags.c_contiguous
