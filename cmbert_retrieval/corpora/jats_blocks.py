"""What the text of an article is made of, and the small functions on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lxml import etree

_INVISIBLE = ("\u00ad", "\u200b", "\ufeff", "\u2060")
_STOPS = tuple(".:;!?,")


@dataclass(slots=True)
class Block:
    """One paragraph, caption or table."""

    text: str
    path: tuple[str, ...]
    kind: str


@dataclass(slots=True)
class Blocks:
    """What a walk found, in document order."""

    main: list[Block] = field(default_factory=list)
    captions: list[Block] = field(default_factory=list)
    tables: list[Block] = field(default_factory=list)


def clean(text: str) -> str:
    """Return ``text`` with white space made single and invisible characters (soft hyphens) taken away."""
    # Nearly all texts are clean. No white space but the plain one is printable, and no invisible character.
    if text.isprintable() and "  " not in text:
        return text.strip(" ")
    if not text.isascii():
        for character in _INVISIBLE:  # ten times as fast as str.translate
            if character in text:
                text = text.replace(character, "")
    return " ".join(text.split())


def clean_all(texts: list[str]) -> list[str]:
    """Return each of the texts as ``clean`` does: one look at them together, for they are mostly short."""
    whole = "".join(texts)
    if whole.isprintable() and "  " not in whole:
        return [text.strip(" ") for text in texts]
    return [clean(text) for text in texts]


def join_sentences(parts: list[str]) -> str:
    """Return label, title and paragraphs as sentences of one line."""
    text = ""
    for part in filter(None, parts):
        if text:
            text += " " if text.endswith(_STOPS) else ". "
        text += part
    return text


def table_rows(table: etree._Element) -> Iterator[etree._Element]:
    """Yield the rows of a table, not those of tables in its cells."""
    for child in table:
        if child.tag in ("tr", "row"):
            yield child
        elif child.tag in ("thead", "tbody", "tfoot", "tgroup"):
            yield from table_rows(child)
