"""Token-aware masking: which tokens are predicted, as a pure function of integers.

Every step is exact on any device: counts and weights are integers, what is divided is divided once, and a
draw is a hash. So a row is masked in the same way on a CPU and a GPU, by any number of processes, and after a
resume.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cmbert_retrieval.pretraining.weights import CONTINUES, LEVEL_MASK, LEVELS, TERM, level_weights

IGNORED = -100
"""The label of a token that is not predicted."""

_RANGE = 1 << 32
_MASKED_SHARE = 8 * _RANGE // 10
_REPLACED_SHARE = 9 * _RANGE // 10


@dataclass(frozen=True, slots=True)
class Masked:
    """Rows with their predicted tokens chosen.

    Attributes:
        input_ids: ``[rows, tokens]``: of what is predicted, 80 % are the mask, 10 % any token, 10 %
            themselves.
        labels: ``[rows, tokens]``: what is to be predicted, ``IGNORED`` elsewhere.
        terms: ``[rows, tokens]``: whether a token is part of a term of the lexicon.
        impossible: rows without any token that may be predicted.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    terms: torch.Tensor
    impossible: int


def mask_rows(
    input_ids: torch.Tensor,
    weights: torch.Tensor,
    rows: torch.Tensor,
    epochs: torch.Tensor,
    *,
    rate: float,
    seed: int,
    mask_id: int,
    vocabulary: int,
) -> Masked:
    """Choose the tokens that are predicted, and hide them.

    A unit (a word, or the words of a term) is drawn as a whole. Its chance is proportional to its weight, up
    to 1, with the factor that makes the expected share of predicted tokens equal to ``rate`` in every row.

    Args:
        input_ids: ``[rows, tokens]``, int64.
        weights: ``[rows, tokens]``, uint8, as ``Weighting`` makes them. Level 0 is never predicted.
        rows: ``[rows]``, int64: the global number of each packed row.
        epochs: ``[rows]``, int64: how often each was seen before.
        rate: expected share of the tokens that may be predicted.
        seed: of the run.
        mask_id: the mask's token.
        vocabulary: random replacements are drawn below this number.

    Raises:
        ValueError: shapes that differ, or a rate outside of 0 to 1.
    """
    if input_ids.shape != weights.shape or not rows.shape == epochs.shape == input_ids.shape[:1]:
        raise ValueError(
            f"tokens {tuple(input_ids.shape)}, weights {tuple(weights.shape)} and rows {tuple(rows.shape)} "
            "do not belong together"
        )
    if not 0 < rate < 1:
        raise ValueError(f"a masking rate lies between 0 and 1; got {rate}")
    levels = (weights & LEVEL_MASK).long()
    open_ = levels > 0
    starts = open_ & ~_continues(weights, open_)
    units = starts.long().cumsum(1)
    thresholds, impossible = _thresholds(levels, rate)
    base = _hash(_hash(_hash(torch.full_like(rows, seed), epochs), rows >> 32), rows)[:, None]
    drawn = _hash(base, units) < thresholds.gather(1, levels)
    predicted = drawn & open_
    places = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
    fate = _hash(base + 1, places)
    replacement = _hash(base + 2, places) % vocabulary
    shown = torch.where(fate < _REPLACED_SHARE, replacement, input_ids)
    shown = torch.where(fate < _MASKED_SHARE, mask_id, shown)
    return Masked(
        input_ids=torch.where(predicted, shown, input_ids),
        labels=torch.where(predicted, input_ids, IGNORED),
        terms=(weights & TERM) > 0,
        impossible=impossible,
    )


def _continues(weights: torch.Tensor, open_: torch.Tensor) -> torch.Tensor:
    """Return where a token belongs to the unit of the token before; nothing goes on behind a closed one."""
    before = torch.zeros_like(open_)
    before[:, 1:] = open_[:, :-1]
    return ((weights & CONTINUES) > 0) & before


def _thresholds(levels: torch.Tensor, rate: float) -> tuple[torch.Tensor, int]:
    """Return [rows, levels]: the bound out of 2**32 below which a draw predicts; and the rows without any.

    Water-filling: the levels whose chance would pass 1 are cut there, and the others make up for it. There
    are few levels, so every number of cut levels is tried, and the first that fits is taken.
    """
    ones = torch.ones_like(levels)
    tokens = torch.zeros(len(levels), LEVELS, dtype=torch.int64, device=levels.device).scatter_add_(
        1, levels, ones
    )
    tokens[:, 0] = 0
    weight = level_weights().to(levels.device)
    wanted = rate * tokens.sum(1, keepdim=True).double()
    # Column c: the levels above c are certain, and c and those below share what is left.
    mass = (tokens * weight).cumsum(1)
    certain = tokens.sum(1, keepdim=True) - tokens.cumsum(1)
    factor = (wanted - certain.double()) / mass.clamp(min=1).double()
    fits = (factor * weight.double() <= 1) & (factor > 0) & (mass > 0)
    # From the top down: the highest level that need not be cut.
    column = (LEVELS - 1) - fits.flip(1).long().argmax(1, keepdim=True)
    chosen = factor.gather(1, column)
    chances = (chosen * weight.double()).clamp(0, 1)
    bounds = (chances * _RANGE).floor().long()
    bounds[:, 0] = 0
    empty = ~fits.any(1)
    bounds[empty] = 0
    return bounds, int(empty.sum())


def _hash(state: torch.Tensor, value: torch.Tensor | int) -> torch.Tensor:
    """Return 32 bits, as int64, that depend on a state and a value: the finaliser of MurmurHash3, twice."""
    mixed = _finalise((state ^ (value * 0x9E3779B1)) & 0xFFFFFFFF)
    return _finalise((mixed + 0x85EBCA77) & 0xFFFFFFFF)


def _finalise(bits: torch.Tensor) -> torch.Tensor:
    bits = ((bits ^ (bits >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    bits = ((bits ^ (bits >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return bits ^ (bits >> 16)
