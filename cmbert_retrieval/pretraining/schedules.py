"""What changes with the step: the learning rate and the share of predicted tokens."""

from __future__ import annotations

import math


def warmup_stable_decay(step: int, steps: int, *, warmup: float, decay: float) -> float:
    """Return the factor of the learning rate at a step: up evenly, level, then down as 1 - sqrt.

    Args:
        step: counted from 0.
        steps: of the phase.
        warmup: share of the steps in which it rises.
        decay: share of the steps, at the end, in which it falls.

    Source:
        Haegele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", 2024.
    """
    rising, falling = round(warmup * steps), round(decay * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    if step >= steps - falling:
        return 1 - math.sqrt((step - (steps - falling)) / falling) if step < steps else 0.0
    return 1.0


def falling_rate(step: int, steps: int, first: float, last: float) -> float:
    """Return the masking rate at a step: from ``first`` evenly to ``last`` at the last step."""
    if steps < 2:
        return first
    return first + (last - first) * min(step, steps - 1) / (steps - 1)


def warmup_linear(step: int, steps: int, *, warmup: float, decay: float) -> float:
    """Return the factor of the learning rate at a step: up evenly to 1, level, then down evenly to 0.

    Args:
        step: counted from 0.
        steps: of the whole stage.
        warmup: share of the steps in which it rises.
        decay: share of the steps, at the end, in which it falls.
    """
    rising, falling = warmup * steps, decay * steps
    if step + 1 < rising:
        return (step + 1) / rising
    return min(1.0, max(0.0, (steps - step) / max(1.0, falling)))
