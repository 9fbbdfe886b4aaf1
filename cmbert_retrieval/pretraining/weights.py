"""A byte a token: how salient its word is, which word or term it belongs to, and how likely it is predicted.

Prepared text holds *marks*: level ``32 + 7 * log-odds`` for the levels 1 to 63 (biomedical text against
English at large, base 2), and level 0 for what is never predicted. Two further bits say that the token goes
on with the unit of the token before it (a unit is drawn as a whole), and that it is part of a term of the
lexicon.

What is drawn by are *weights*, made from marks as a recipe's masking says: the same bits, and the level of
the weight ``2 ** ((level - 32) / 4)``.
"""

from __future__ import annotations

from dataclasses import dataclass
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
"""Levels of weights from one to twice that one."""

_SALIENCE_STEPS = 7
"""Levels of marks from odds to twice those odds: all of salience's range, as fine as it fits."""

_SCALE = 1 << 15


@cache
def level_weights() -> torch.Tensor:
    """Return ``[LEVELS]``: the weight of each level, as an integer (the weight 1 is 32,768)."""
    import torch

    exponents = (np.arange(LEVELS) - NEUTRAL) / STEPS
    weights = np.rint(np.exp2(exponents) * _SCALE).astype(np.int64)
    weights[0] = 0
    return torch.from_numpy(weights)


def salience_levels(log_odds: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return the levels of marks next to base-2 log-odds; the outermost ones are cut."""
    return _levels(log_odds * _SALIENCE_STEPS)


def _levels(steps: NDArray[np.floating]) -> NDArray[np.uint8]:
    levels: NDArray[np.uint8] = np.clip(np.rint(steps) + NEUTRAL, 1, LEVELS - 1).astype(np.uint8)
    return levels


@dataclass(frozen=True, slots=True)
class Weighting:
    """How marks become weights.

    Attributes:
        units: words and terms are drawn as a whole; otherwise every token by itself.
        boost: what the weight of a term is multiplied with.
        salience: the power of a word's odds in its weight.
    """

    units: bool = True
    boost: float = 1.0
    salience: float = 0.0

    @classmethod
    def of(cls, method: str, boost: float, salience: float) -> Weighting:
        """Return that of a recipe's masking: ``token-aware``, ``whole-words`` or ``uniform``."""
        return cls(boost=boost, salience=salience) if method == "token-aware" else cls(method != "uniform")

    def weights(self, marks: torch.Tensor) -> torch.Tensor:
        """Return the weight of each token, uint8 as its mark."""
        return _table(self).to(marks.device)[marks.long()]


@cache
def _table(weighting: Weighting) -> torch.Tensor:
    """Return ``[256]``: the weight of each mark."""
    import torch

    marks = np.arange(256)
    odds = ((marks & LEVEL_MASK) - NEUTRAL) / _SALIENCE_STEPS
    boost = np.where(marks & TERM, np.log2(weighting.boost), 0)
    levels = _levels(STEPS * (weighting.salience * odds + boost))
    bits = marks & (TERM | CONTINUES if weighting.units else TERM)
    return torch.from_numpy(np.where(marks & LEVEL_MASK, levels, 0).astype(np.uint8) | bits.astype(np.uint8))


def pack_marks(
    levels: NDArray[np.uint8], units: NDArray[np.integer], terms: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Return the mark of each token.

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
