"""Documents of random tokens."""

from __future__ import annotations

import numpy as np

from cmbert_retrieval.pretraining.rows import SpecialTokens
from cmbert_retrieval.pretraining.shards import TokenDocument

VOCABULARY = 128
SPECIAL = SpecialTokens(cls=1, sep=2, pad=0, mask=3)


def token_documents(lengths: list[int], *, seed: int = 0) -> list[TokenDocument]:
    """Return documents of random tokens, each token a word of its own, a third of them terms."""
    generator = np.random.default_rng(seed)
    return [
        TokenDocument(
            f"d{number}",
            number % 3,
            generator.integers(5, VOCABULARY, length),
            np.where(generator.random(length) < 0.3, 40 | 64, 32).astype(np.uint8),
        )
        for number, length in enumerate(lengths)
    ]
