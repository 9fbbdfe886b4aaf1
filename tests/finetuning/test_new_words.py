"""Where new words begin: by what a teacher says of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.finetuning.new_words import rows_of_words

ALPHABET = "abcdefghij"
WORDS = [f"{first}{second}word" for first in ALPHABET for second in ALPHABET]
NEW = ["tumour", "lesion"]


def vectors(texts: Sequence[str], width: int = 12) -> NDArray[np.float32]:
    """Of unit length, by the text alone."""
    made = [np.random.default_rng(list(text.encode())).normal(size=width) for text in texts]
    return np.array([vector / np.linalg.norm(vector) for vector in made], np.float32)


def table(texts: Sequence[str]) -> NDArray[np.float32]:
    """What a model would have that says what the teacher says, turned, stretched and moved."""
    turned = np.random.default_rng(5).normal(size=(12, 8))
    return (vectors(texts) @ turned * 3 + 2).astype(np.float32)


def test_a_new_word_begins_where_the_teacher_says() -> None:
    former = table(WORDS)
    made_of = [[row] for row in range(len(WORDS))] + [[0, 1], [2, 3, 4]]
    rows = rows_of_words(former, [*WORDS, *NEW], made_of, vectors)
    assert np.array_equal(rows[: len(WORDS)], former)
    wanted, pieces = table(NEW), np.stack([former[[0, 1]].mean(axis=0), former[[2, 3, 4]].mean(axis=0)])
    near, far = (np.linalg.norm(found - wanted, axis=1) for found in (rows[len(WORDS) :], pieces))
    assert (near < 0.3 * far).all()


def test_without_a_teacher_it_begins_with_the_mean_of_its_pieces() -> None:
    former = table(WORDS)
    rows = rows_of_words(former, ["tumour", WORDS[7]], [[0, 1], [7]], None)
    assert np.allclose(rows, [(former[0] + former[1]) / 2, former[7]])


def test_a_handful_of_words_tells_nothing() -> None:
    former = table(WORDS)
    rows = rows_of_words(former, ["tumour", WORDS[7]], [[0, 1], [7]], vectors)
    assert np.allclose(rows[0], (former[0] + former[1]) / 2)
