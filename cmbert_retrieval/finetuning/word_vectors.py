"""What the words of a text say by themselves, as a vector beside a teacher's.

A teacher of meaning forgets rare words, which search by words lives on. The sum of a text's token vectors,
each as large as BM25 would have it, keeps them: its inner products are nearly those of the words. The token
vectors are the teacher's own, made as different from each other as they can be, so that a student that begins
with them has little to learn.

Source: that a dense model can learn what search by words finds: Chen et al., "Salient Phrase Aware Dense
Retrieval: Can a Dense Retriever Imitate a Sparse One?", 2021 (from rankings; here from vectors).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.finetuning.teacher import token_embeddings
from cmbert_retrieval.pretraining.tokenizers import in_batches

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SATURATION = 1.2
"""Of BM25: how soon a word that comes again says nothing new."""

_RARITY = 1.2
"""Exponent of the inverse document frequency: rare words count for more than they do in BM25."""

_FEWEST_TOKENS = 16
"""Shorter texts, as names are, do not tell how rare a word is in running text."""

_OFTEN = 20
"""Texts that have a token, so that its vector is among those by which all are made different."""

_BATCH = 4_096


class WordVectors:
    """Makes them."""

    def __init__(
        self,
        folder: Path,
        texts: Iterable[str],
        *,
        max_tokens: int,
        notify: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Count how many texts have each token.

        Args:
            folder: of the teacher's weights and tokenizer.
            texts: read once, not held in memory.
            max_tokens: of a text that count.
            notify: told how many more texts are counted.

        Raises:
            ConfigError: the teacher has no table of token embeddings.
        """
        self._tokenizer, self._most = _tokenizer(folder), max_tokens
        there = token_embeddings(folder)
        if there is None:
            raise ConfigError(f"teacher.words: {folder} has no token embeddings; leave it out")
        table = there.double().numpy()
        counts = np.zeros(len(table))
        number = 0
        for batch in in_batches(texts, _BATCH):
            for ids in self._tokens(batch):
                if len(ids) >= _FEWEST_TOKENS:
                    counts[list(set(ids))] += 1
                    number += 1
            notify(len(batch))
        rarity = np.maximum(np.log((number + 1) / (counts + 0.5)), 0) ** _RARITY
        often = counts >= _OFTEN
        if often.sum() <= table.shape[1]:  # too few texts to tell
            often[:] = True
        self._vectors = (_told_apart(table, often) * rarity[:, None]).astype(np.float32)

    @property
    def dim(self) -> int:
        """How long the vectors are."""
        return int(self._vectors.shape[1])

    def of(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return ``[texts, dim]`` of unit length; zeros where no token says anything."""
        found = np.zeros((len(texts), self._vectors.shape[1]), np.float32)
        for row, ids in enumerate(self._tokens(texts)):
            counts = Counter(ids)
            times = np.fromiter(counts.values(), np.float32, len(counts))
            weights = times * (_SATURATION + 1) / (times + _SATURATION)
            found[row] = weights @ self._vectors[list(counts)]
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
        return found

    def _tokens(self, texts: Sequence[str]) -> Iterator[list[int]]:
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return (one.ids[: self._most] for one in encoded)


def with_words(
    vectors: NDArray[np.float16], words: NDArray[np.float32], weight: float
) -> NDArray[np.float16]:
    """Return ``[texts, dim]`` of unit length: a teacher's vectors and so much of the words'."""
    both = vectors.astype(np.float32) + weight * words
    both /= np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-9)
    return both.astype(np.float16)


def _tokenizer(folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    tokenizer: Tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _told_apart(table: NDArray[np.float64], often: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return rows of unit length: whitened by the tokens that come often, and turned back."""
    centred = table - table[often].mean(axis=0)
    values, directions = np.linalg.eigh(np.cov(centred[often].T))
    known = values > values.max() * 1e-6
    white = (centred @ directions[:, known]) / np.sqrt(values[known]) @ directions[:, known].T
    unit: NDArray[np.float64] = white / np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-12)
    return unit
