"""Encoders that are called by a name of ours, and are neither a folder of the user's nor on the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cmbert_retrieval.encoders.default import BUNDLED_NAME, bundled_folder
from cmbert_retrieval.encoders.minilm import MINILM_NAME, minilm_folder, packaged_model

_ENCODERS: dict[str, tuple[str, Callable[[], Path]]] = {
    "default": (BUNDLED_NAME, bundled_folder),
    BUNDLED_NAME: (BUNDLED_NAME, bundled_folder),
    "minilm": (MINILM_NAME, minilm_folder),
    MINILM_NAME: (MINILM_NAME, minilm_folder),
}

NAMES = tuple(_ENCODERS)


def full_name(name: str | Path | None) -> str | None:
    """Return what an encoder is called in full, by which an index remembers it; None for no name of ours.

    Args:
        name: as users give it; None is the default one.
    """
    known = _ENCODERS.get("default" if name is None else str(name))
    return None if known is None else known[0]


def folder_of(name: str) -> Path:
    """Return the folder of an encoder by one of ``NAMES``.

    Raises:
        MissingExtraError: what makes it is not installed.
        EncoderError: it is not there, or cannot be made.
    """
    return _ENCODERS[name][1]()


def trained_folder(name: str | Path | None) -> Path | None:
    """Return the folder that sentence-transformers opens, as it came; None for no name of ours.

    Args:
        name: as users give it; None is the default one.

    Raises:
        MissingExtraError, EncoderError: as ``folder_of`` does.
    """
    ours = full_name(name)
    if ours is None:
        return None
    return packaged_model() if ours == MINILM_NAME else folder_of(ours)
