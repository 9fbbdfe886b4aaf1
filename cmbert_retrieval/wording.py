"""Counts in sentences for people."""

from __future__ import annotations


def plural(count: int, noun: str, nouns: str = "") -> str:
    """Return ``1 document`` or ``2,000 documents``; ``nouns`` are many where that is not one more letter."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {nouns or noun + 's'}"
