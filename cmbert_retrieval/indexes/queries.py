"""What is asked of an index, checked before anything is searched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from cmbert_retrieval.errors import ConfigError, IndexMismatchError
from cmbert_retrieval.indexes.manifest import Manifest

MODES = ("hybrid", "dense", "lexical")
MAX_K = 10_000


def as_texts(query: str | Sequence[str]) -> list[str]:
    """Return one query, or several, as a list of texts.

    Raises:
        ConfigError: something in it is no text, or cannot be written as UTF-8. It is not quoted.
    """
    single = isinstance(query, str) or not isinstance(query, Iterable)
    texts = [query] if single else list(query)
    for text in texts:
        _check_text(text)
    return texts  # type: ignore[return-value]  # each was looked at


def check_search(manifest: Manifest, k: int, mode: str | None) -> str:
    """Return the mode to search in; None stands for the index's own.

    Raises:
        ConfigError: an unknown mode, or ``k`` out of bounds.
        IndexMismatchError: meaning is asked of an index of words only.
    """
    mode = mode or manifest.recipe["search"]["mode"]
    if mode not in MODES:
        raise ConfigError(f"unknown mode '{mode}'; known: {', '.join(MODES)}")
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise ConfigError(f"k is a {type(k).__name__}; expected a whole number")
    if not 1 <= k <= MAX_K:
        raise ConfigError(f"k is {k}; expected 1 to {MAX_K:,}")
    if manifest.encoder is None and mode != "lexical":
        raise IndexMismatchError(
            f"mode '{mode}' needs vectors, this index holds words only; use mode='lexical'"
        )
    return mode


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise ConfigError(f"a query is a {type(text).__name__}; expected a text, or a list of texts")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"a query holds half of a surrogate pair (character {error.start + 1}); expected valid Unicode"
        ) from None
