"""Two teachers as one: what both say is kept, near to where the first one's vectors are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.finetuning.joined import Joining


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def teachers(texts: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What both know of texts, in six numbers, and one thing each that the other does not know."""
    random = np.random.default_rng(5)
    known, one, other = (
        random.normal(size=(texts, 6)),
        random.normal(size=(texts, 1)),
        random.normal(size=(texts, 1)),
    )
    ways = random.normal(size=(2, 7, 8))
    return unit(np.hstack([known, one]) @ ways[0]), unit(np.hstack([known, other]) @ ways[1])


def test_similarities_are_those_of_both_together() -> None:
    first, second = teachers(500)
    made = Joining.learn(first[:400], second[:400]).of(first, second)
    assert made.shape == first.shape
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    wanted = (first @ first.T + second @ second.T)[400:] / 2
    for_both = np.corrcoef((made @ made.T)[400:].ravel(), wanted.ravel())[0, 1]
    for_one = np.corrcoef((first @ first.T)[400:].ravel(), wanted.ravel())[0, 1]
    assert for_both > 0.99 > for_one + 0.02


def test_a_student_of_the_first_teacher_has_little_to_unlearn() -> None:
    first, second = teachers(500)
    joining = Joining.learn(first, second)
    near = (joining.of(first, second) * first).sum(1).mean()
    turned = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0].astype(np.float32)
    elsewhere = (Joining(joining.matrix @ turned).of(first, second) * first).sum(1).mean()
    assert near > 0.8 > elsewhere + 0.3


def test_texts_that_neither_says_anything_of_are_zeros() -> None:
    first, second = teachers(100)
    nothing = np.zeros((1, 8), np.float32)
    assert not Joining.learn(first, second).of(nothing, nothing).any()
