"""Where the embeddings of words begin that a vocabulary has not had.

The table of a model says of every whole word that it knows what a teacher's vector of that word alone says,
up to a linear map. That map is found by ridge regression, and says where a new word belongs: a new name of a
tumour near those of others, where the mean of its pieces is anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to a teacher's vectors ``[texts, dim]``."""

_RIDGE = 1.0
_SHORTEST = 3
"""Letters of a word whose own vector says something."""


def rows_of_words(
    table: NDArray[np.float32],
    entries: Sequence[str],
    made_of: Sequence[Sequence[int]],
    encode: Encode | None,
) -> NDArray[np.float32]:
    """Return the rows ``[entries, width]`` with which the entries of a new vocabulary begin.

    Args:
        table: ``[former entries, width]``.
        entries: as they are spelt.
        made_of: the former entries that each is made of, as rows of the table: one for what stays.
        encode: of the teacher. None, or too few words to learn from: new words begin with the mean of their
            pieces.
    """
    rows = np.stack([table[list(pieces)].mean(axis=0) for pieces in made_of])
    new = [place for place, pieces in enumerate(made_of) if len(pieces) > 1]
    known = [
        place
        for place, (entry, pieces) in enumerate(zip(entries, made_of, strict=True))
        if len(pieces) == 1 and len(entry) >= _SHORTEST and entry.isalpha()
    ]
    if encode is None or not new or len(known) <= table.shape[1]:
        return rows
    vectors = encode([entries[place] for place in known + new])
    said, asked = np.split(np.column_stack([vectors, np.ones(len(vectors))]), [len(known)])
    mean = rows[known].mean(axis=0)
    away = rows[known] - mean
    found = asked @ np.linalg.solve(said.T @ said + _RIDGE * np.eye(said.shape[1]), said.T @ away)
    # What is told of a word is nearer to the mean than the word is.
    found *= np.linalg.norm(away, axis=1).mean() / np.linalg.norm(found, axis=1).mean()
    rows[new] = mean + found
    return rows
