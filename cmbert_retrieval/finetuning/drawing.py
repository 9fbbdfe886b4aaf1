"""Which rows of prepared pairs and texts a stage draws: known before anything is asked or trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.finetuning.recipe import FinetuneRecipe

PAIRS_NAME, TEXTS_NAME = "pairs", "texts"
"""What batches of pairs and of texts are called: each has a loss of its own."""


def drawn(
    recipe: FinetuneRecipe, number: int, kind: str, sizes: Sequence[int]
) -> Iterator[tuple[int, list[int]]]:
    """Yield the numbers of sources, and the rows of each that a stage sees; a row may come several times.

    Args:
        recipe: of the run.
        number: of the stage, from 0.
        kind: ``PAIRS_NAME`` or ``TEXTS_NAME``.
        sizes: of the sources, in the recipe's order.

    Raises:
        ConfigError: no source has anything.
    """
    stage, pairs = recipe.stages[number], kind == PAIRS_NAME
    count, rounds = (stage.pairs, 1) if pairs else (stage.texts // stage.text_rounds, stage.text_rounds)
    for source, share in _shares(recipe, number, count, kind, sizes):
        random = np.random.default_rng((recipe.seed, number, int(pairs), source))
        yield source, repeated(sizes[source], share, random) * rounds


def stage_weights(recipe: FinetuneRecipe, number: int, kind: str) -> dict[str, float]:
    """Return how often rows of each source come in a stage, beside their number."""
    stage = recipe.stages[number]
    own = stage.pair_weights if kind == PAIRS_NAME else stage.text_weights
    return {
        name: own.get(name, 0.0) if own else source.weight for name, source in recipe.data.sources.items()
    }


def drawn_texts(recipe: FinetuneRecipe, sizes: Sequence[int]) -> list[NDArray[np.int64]]:
    """Return the rows of every source, in order, that any stage sees as texts.

    Args:
        recipe: of the run.
        sizes: of the sources' texts, in the recipe's order.

    Raises:
        ConfigError: there are no texts at all.
    """
    seen = [np.zeros(size, np.bool_) for size in sizes]
    for number, stage in enumerate(recipe.stages):
        for source, rows in drawn(recipe, number, TEXTS_NAME, sizes) if stage.texts else ():
            seen[source][rows] = True
    return [np.flatnonzero(rows) for rows in seen]


def answered(vectors: NDArray[np.float16], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which rows of a teacher's vectors are there; one that it was not asked for is no number."""
    there: NDArray[np.bool_] = ~np.isnan(vectors[rows, 0])
    return there


def repeated(rows: int, count: int, random: np.random.Generator) -> list[int]:
    """Return so many row numbers: all rows in an order by chance, again and again."""
    rounds = [random.permutation(rows) for _ in range(-(-count // rows))]
    return np.concatenate(rounds)[:count].tolist() if rounds else []


def _shares(
    recipe: FinetuneRecipe, number: int, count: int, kind: str, sizes: Sequence[int]
) -> Iterator[tuple[int, int]]:
    """Yield how many of ``count`` rows each source gives to a stage: by its size and its weight there."""
    given = stage_weights(recipe, number, kind)
    weights = np.array([given[name] for name in recipe.data.sources]) * np.array(sizes)
    if not weights.sum():
        raise ConfigError(f"there are no {kind} prepared; see the report of the data")
    wanted = count * weights / weights.sum()
    shares = np.floor(wanted).astype(int)
    for place in np.argsort(shares - wanted, kind="stable")[: count - shares.sum()]:
        shares[place] += 1
    yield from ((source, int(share)) for source, share in enumerate(shares) if share)
