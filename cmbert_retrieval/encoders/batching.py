"""Texts of like length together, so that little of a batch is padding, or of equal length."""

from __future__ import annotations

from collections.abc import Sequence

from cmbert_retrieval.errors import ConfigError


def length_sorted_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Return the positions of texts in batches of at most ``batch_tokens`` tokens with their padding.

    The longest come first: if memory does not suffice, that shows at once. A text longer than the budget is a
    batch of its own. Equal lengths keep their order, so that equal input gives equal batches.

    Args:
        lengths: tokens of each text, as the model will see it.
        batch_tokens: limit of (texts in the batch) x (longest of them).

    Raises:
        ConfigError: the budget is not positive.
    """
    if batch_tokens < 1:
        raise ConfigError(f"batch_tokens is {batch_tokens}; expected a positive number")
    batches: list[list[int]] = []
    width = 0
    for position in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not batches or (len(batches[-1]) + 1) * width > batch_tokens:
            batches.append([])
            width = max(1, lengths[position])
        batches[-1].append(position)
    return batches


def equal_length_batches(lengths: Sequence[int], batch_tokens: int, *, texts: int) -> list[list[int]]:
    """Return the positions of texts in batches of one length each, the longest first.

    Args:
        lengths: tokens of each text.
        batch_tokens: limit of a batch's tokens; a text that has more is a batch of its own.
        texts: limit of a batch's texts.
    """
    of_length: dict[int, list[int]] = {}
    for position, length in enumerate(lengths):
        of_length.setdefault(length, []).append(position)
    batches: list[list[int]] = []
    for length in sorted(of_length, reverse=True):
        positions, size = of_length[length], max(1, min(texts, batch_tokens // max(1, length)))
        batches += [positions[start : start + size] for start in range(0, len(positions), size)]
    return batches
