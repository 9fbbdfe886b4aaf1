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
from cmbert_retrieval.finetuning.prepare import TRAIN
from cmbert_retrieval.finetuning.recipe import FinetuneRecipe
from cmbert_retrieval.finetuning.tables import Table

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from cmbert_retrieval.finetuning.measuring import Encode

_AT_ONCE = 1024


def whitening_matrix(
    differences: Iterable[NDArray[np.float32]], *, ridge: float, dim: int
) -> NDArray[np.float32]:
    """Return the symmetric matrix ``[dim, dim]`` that vectors are multiplied by; its largest eigenvalue is 1.

    Args:
        differences: of each source ``[pairs, dim]``, by what the unit vectors of a pair differ.
        ridge: added to the variance in every direction, as a share of its mean.
        dim: of the vectors.

    Raises:
        ConfigError: the texts of all pairs have the same vectors.
    """
    within, sources = np.zeros((dim, dim)), 0
    for rows in differences:
        wide = rows.astype(np.float64)
        within += wide.T @ wide / len(wide)
        sources += 1
    mean = float(np.trace(within)) / dim
    if not mean > 0:
        raise ConfigError("whitening: both texts of every pair have the same vector; expected other pairs")
    variances, directions = np.linalg.eigh(within / mean + ridge * np.eye(dim))
    factors = 1 / np.sqrt(variances)
    matrix: NDArray[np.float32] = ((directions * (factors / factors.max())) @ directions.T).astype(np.float32)
    return matrix


def pair_differences(
    recipe: FinetuneRecipe, data: Path, encode: Encode, notify: Callable[[int], None]
) -> Iterator[NDArray[np.float32]]:
    """Yield ``[pairs, dim]`` for each source of ``whitening``: pairs by chance, by the recipe's seed.

    Raises:
        ConfigError: a source has no pairs.
    """
    how = recipe.whitening
    assert how is not None
    for name in how.sources:
        table = Table(data / TRAIN / f"{name}.arrow")
        if not len(table):
            raise ConfigError(f"whitening.sources names '{name}', which has no pairs; see {data}/report.md")
        number = list(recipe.data.sources).index(name)
        random = np.random.default_rng((recipe.seed, number))
        rows = np.sort(random.permutation(len(table))[: how.pairs]).tolist()
        asked, answered = recipe.prompts_of(name)
        parts = []
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            sides = [
                encode([prompt + text for text in table.take(column, some)], "")
                for column, prompt in (("anchor", asked), ("positive", answered))
            ]
            parts.append(sides[0] - sides[1])
            notify(len(some))
        yield np.concatenate(parts)


def whitened_pairs(recipe: FinetuneRecipe, data: Path) -> int:
    """Return how many pairs the matrix is computed from."""
    how = recipe.whitening
    assert how is not None
    return sum(min(how.pairs, len(Table(data / TRAIN / f"{name}.arrow"))) for name in how.sources)


def add_whitening(model: SentenceTransformer, matrix: NDArray[np.float32]) -> None:
    """Put a matrix ``[dim, dim]`` behind the pooling of a model, before vectors get unit length."""
    import torch
    from sentence_transformers.sentence_transformer.modules import Dense

    dim = len(matrix)
    # Symmetric, so that it does not matter from which side it multiplies.
    weight = torch.from_numpy(matrix)
    dense = Dense(dim, dim, bias=False, activation_function=torch.nn.Identity(), init_weight=weight)
    model.insert(2, dense.to(model.device))
