"""The document of a code: the same metadata whatever code system it comes from, and a text for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from cmbert_retrieval.types import Document

CODE_COLUMNS: Mapping[str, str] = {
    "chapter": "text",
    "block": "text",
    "kind": "text",
    "billable": "boolean",
    "system": "text",
}
"""Filter columns of an index of codes."""

_LABELS = {
    "excludes1": "Excludes1",
    "excludes2": "Excludes2",
    "code_first": "Code first",
    "use_additional": "Use additional",
    "code_also": "Code also",
    "notes": "Note",
    "seventh_character": "Seventh character",
    "visual_impairment": "Visual impairment",
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# Windows-1252 that was read as Latin-1 is found in many files: "bird fancier\x92s lung".
MISREAD = {
    code: bytes([code]).decode("cp1252")
    for code in range(0x80, 0xA0)
    if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def code_document(
    code: str,
    title: str,
    place: Mapping[str, Any],
    *,
    kind: str,
    entries: Iterable[str],
    parent: str | None = None,
    children: Iterable[str] = (),
    billable: bool | None = None,
    terms: Iterable[str] = (),
    terms_label: str = "Includes",
    definition: str = "",
    notes: Mapping[str, list[str]] | None = None,
    seventh: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Document:
    """Return the document of a code, with the metadata that ``codes.tree`` reads.

    Args:
        code: as published, with its dot.
        title: the official title.
        place: what codes near it share: ``system``, ``license``, ``release``, and perhaps ``chapter``,
            ``chapter_title``, ``block`` and ``block_title``.
        kind: ``category``, ``code``, ``descriptor`` and the like.
        entries: the texts by which it is found.
        parent: the code above, None at the top.
        children: the codes right below.
        billable: whether it may stand on a claim; None where the source does not say.
        terms: other names of the same thing.
        terms_label: what stands before the terms in the text.
        definition: what it means, in sentences.
        notes: type of note -> lines, in the publisher's words.
        seventh: seventh character -> meaning.
        facts: further metadata, of this code system only.
    """
    terms, notes, seventh = list(terms), dict(notes or {}), dict(seventh or {})
    metadata = {
        **place,
        "kind": kind,
        "parent": parent,
        "children": list(children),
        **({} if billable is None else {"billable": billable}),
        "terms": terms,
        "notes": notes,
        "seventh": seventh,
        **(facts or {}),
    }
    lines = [title]
    if definition:
        lines.append(definition)
    if terms:
        lines.append(f"{terms_label}: {_joined(terms)}")
    lines += [f"{_LABELS.get(name, name)}: {_joined(note)}" for name, note in notes.items()]
    if seventh and "seventh_character" not in notes:
        lines.append(f"Seventh character: one of {', '.join(seventh)}")
    return Document(code, "\n".join(lines), title, metadata, entries=tuple(entries))


def clean(text: str) -> str:
    """Return a text on one line: no control characters, no halves of surrogate pairs, single spaces."""
    if not text.isprintable():
        text = _SURROGATE.sub("\ufffd", _CONTROL.sub(" ", text.translate(MISREAD)))
    return " ".join(text.split())


def distinct(names: Iterable[str]) -> list[str]:
    """Return the names without empty ones and without those that differ from an earlier one in case only."""
    found: dict[str, str] = {}
    for name in names:
        if name:
            found.setdefault(name.casefold(), name)
    return list(found.values())


def _joined(lines: list[str]) -> str:
    """Return the lines as one; after a heading (``any associated:``) follows what it is about."""
    return "; ".join(lines).replace(":; ", ": ")
