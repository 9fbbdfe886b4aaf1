"""A matrix behind the pooling that makes less of what two texts about the same differ by.

The vectors of a title and of its abstract differ by what they are about, and by much that no search is for:
how long they are, how they are written, what the encoder gets wrong. Directions in which texts of a pair
differ most are made short, those in which they agree stay. Nothing is trained, so nothing is forgotten: a
contrastive loss on the same pairs made search worse where this made it better.

Source: Hatch, Kajarekar and Stolcke, "Within-class covariance normalization for SVM-based speaker
recognition", Interspeech 2006, here with a ridge as in Ledoit and Wolf, "A well-conditioned estimator for
large-dimensional covariance matrices", 2004.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.finetuning.drawing import repeated
from cmbert_retrieval.finetuning.recipe import FinetuneRecipe
from cmbert_retrieval.finetuning.training_recipe import WhiteningRecipe

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from cmbert_retrieval.finetuning.measuring import Encode
    from cmbert_retrieval.finetuning.mixture import PairRows

_AT_ONCE = 1024


def whitening_matrix(differences: Iterable[NDArray[np.float32]], *, ridge: float) -> NDArray[np.float32]:
    """Return the symmetric matrix ``[dim, dim]`` that vectors are multiplied by; its largest eigenvalue is 1.

    Args:
        differences: of each source ``[pairs, dim]``, by what the unit vectors of a pair differ.
        ridge: added to the variance in every direction, as a share of its mean.

    Raises:
        ConfigError: the texts of all pairs have the same vectors.
    """
    wide = (rows.astype(np.float64) for rows in differences)
    within = np.sum([rows.T @ rows / len(rows) for rows in wide], axis=0)
    dim = len(within)
    mean = float(np.trace(within)) / dim
    if not mean > 0:
        raise ConfigError("whitening: both texts of every pair have the same vector; expected other pairs")
    variances, directions = np.linalg.eigh(within / mean + ridge * np.eye(dim))
    factors = 1 / np.sqrt(variances)
    matrix: NDArray[np.float32] = ((directions * (factors / factors.max())) @ directions.T).astype(np.float32)
    return matrix


def drawn_pairs(recipe: FinetuneRecipe, how: WhiteningRecipe, data: Path) -> list[tuple[PairRows, list[int]]]:
    """Return the pairs of each source and the rows that are taken, by the recipe's seed.

    Raises:
        ConfigError: a source has no pairs.
    """
    from cmbert_retrieval.finetuning.mixture import PairRows

    chosen = []
    for name in how.sources:
        pairs = PairRows(data, name, negatives=0, seed=recipe.seed, prompts=recipe.prompts_of(name))
        if not len(pairs):
            raise ConfigError(f"whitening.sources names '{name}', which has no pairs; see {data}/report.md")
        random = np.random.default_rng((recipe.seed, list(recipe.data.sources).index(name)))
        chosen.append((pairs, sorted(repeated(len(pairs), min(how.pairs, len(pairs)), random))))
    return chosen


def pair_differences(
    pairs: Iterable[tuple[PairRows, list[int]]], encode: Encode, notify: Callable[[int], None]
) -> Iterator[NDArray[np.float32]]:
    """Yield ``[pairs, dim]`` for each source: by what the unit vectors of its pairs differ."""
    for table, rows in pairs:
        parts = []
        for start in range(0, len(rows), _AT_ONCE):
            some = table.take(rows[start : start + _AT_ONCE])
            anchors, positives = (
                encode([pair[side] for pair in some], "") for side in ("anchor", "positive")
            )
            parts.append(anchors - positives)
            notify(len(some))
        yield np.concatenate(parts)


def add_whitening(model: SentenceTransformer, matrix: NDArray[np.float32]) -> None:
    """Put a matrix ``[dim, dim]`` behind the pooling of a model, before vectors get unit length."""
    import torch
    from sentence_transformers.sentence_transformer.modules import Dense

    dim = len(matrix)
    # Symmetric, so that it does not matter from which side it multiplies.
    weight = torch.from_numpy(matrix)
    dense = Dense(dim, dim, bias=False, activation_function=torch.nn.Identity(), init_weight=weight)
    model.insert(2, dense.to(model.device))
