"""A byte a token: how likely it is to be predicted, which word or term it belongs to, whether it is a term.

The weight of a token is ``2 ** ((level - 32) / 4)`` for the levels 1 to 63; level 0 is never predicted. Two
further bits say that the token goes on with the unit of the token before it (a unit is drawn as a whole), and
that it is part of a term of the lexicon.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

LEVELS = 64
LEVEL_MASK = 0b0011_1111
TERM = 0b0100_0000
CONTINUES = 0b1000_0000

NEUTRAL = 32
"""The level of the weight 1."""
STEPS = 4
"""Levels from one weight to twice that weight."""

_SCALE = 1 << 15


@cache
def level_weights() -> torch.Tensor:
    """Return ``[LEVELS]``: the weight of each level, as an integer (the weight 1 is 32,768)."""
    import torch

    exponents = (np.arange(LEVELS) - NEUTRAL) / STEPS
    weights = np.rint(np.exp2(exponents) * _SCALE).astype(np.int64)
    weights[0] = 0
    return torch.from_numpy(weights)


def to_levels(log2_weights: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return the levels next to weights that are given as base-2 logarithms; the outermost ones are cut."""
    levels: NDArray[np.uint8] = np.clip(np.rint(log2_weights * STEPS) + NEUTRAL, 1, LEVELS - 1).astype(
        np.uint8
    )
    return levels


def pack_weights(
    levels: NDArray[np.uint8], units: NDArray[np.integer], terms: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Return a byte a token.

    Args:
        levels: ``[tokens]``, 0 for a token that is never predicted.
        units: ``[tokens]``, the number of each token's word or term; neighbours with the same number belong
            together.
        terms: ``[tokens]``, whether the token is part of a term.

    Raises:
        ValueError: the three differ in length, or tokens of one unit in level.
    """
    if not len(levels) == len(units) == len(terms):
        raise ValueError(f"{len(levels)} levels, {len(units)} units and {len(terms)} marks of terms")
    goes_on = np.zeros(len(levels), dtype=bool)
    goes_on[1:] = (units[1:] == units[:-1]) & (levels[1:] > 0) & (levels[:-1] > 0)
    if np.any(goes_on[1:] & (levels[1:] != levels[:-1])):
        raise ValueError("the tokens of a unit share one level")
    return (levels | np.where(terms, TERM, 0) | np.where(goes_on, CONTINUES, 0)).astype(np.uint8)
