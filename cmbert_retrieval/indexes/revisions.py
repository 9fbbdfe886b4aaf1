"""What a newer copy of a document may not undo: a later version, and a known retraction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cmbert_retrieval.types import Document


def is_older(new: Document, old: Mapping[str, Any]) -> bool:
    """Tell whether ``new`` is of an earlier version than the metadata ``old``, where both say theirs."""
    version, known = new.metadata.get("version"), old.get("version")
    if not isinstance(version, int) or not isinstance(known, int):
        return False
    return version < known


def with_known_retraction(new: Document, old: Mapping[str, Any]) -> Document:
    """Return ``new``, marked as retracted when ``old`` was: a source that does not know takes nothing back.

    Retractions are announced in metadata that does not always come with the article itself.
    """
    if old.get("is_retracted") is True and new.metadata.get("is_retracted") is not True:
        return replace(new, metadata={**new.metadata, "is_retracted": True})
    return new
