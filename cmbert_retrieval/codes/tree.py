"""An entry of a code system: out of the document that holds it, and as text for people."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

from cmbert_retrieval.errors import IndexMismatchError
from cmbert_retrieval.types import Code, Document

Lookup = Callable[[str], Code | None]

SYSTEM_TITLES = {
    "icd10cm": "ICD-10-CM",
    "icd10pcs": "ICD-10-PCS",
    "icd9cm": "ICD-9-CM",
    "hcpcs": "HCPCS Level II",
    "mesh": "MeSH",
}
NOTE_TITLES = {
    "excludes1": "Excludes1, never coded together with",
    "excludes2": "Excludes2, not included here",
    "code_first": "Code first",
    "use_additional": "Use additional",
    "code_also": "Code also",
    "notes": "Notes",
    "visual_impairment": "Visual impairment",
}
_LENGTH_BEFORE_SEVENTH = 6
_WIDTH = 100


def code_from_document(document: Document) -> Code:
    """Return the code that a document of a code system stands for.

    Raises:
        IndexMismatchError: the document is none of a code system.
    """
    metadata = document.metadata
    missing = [name for name in ("system", "release", "kind") if not isinstance(metadata.get(name), str)]
    if missing:
        raise IndexMismatchError(
            f"document '{document.id}' is no code: its metadata has no '{missing[0]}'; "
            "look codes up in an index of codes, such as the bundled 'icd10cm'"
        )
    return Code(
        code=document.id,
        title=document.title,
        system=metadata["system"],
        release=metadata["release"],
        kind=metadata["kind"],
        parent=metadata.get("parent"),
        children=tuple(metadata.get("children", ())),
        chapter=metadata.get("chapter", ""),
        block=metadata.get("block", ""),
        billable=None if (billable := metadata.get("billable")) is None else bool(billable),
        terms=tuple(metadata.get("terms", ())),
        notes={name: tuple(lines) for name, lines in metadata.get("notes", {}).items()},
        seventh=dict(metadata.get("seventh", {})),
        chapter_title=metadata.get("chapter_title", ""),
        block_title=metadata.get("block_title", ""),
    )


def code_to_json(code: Code) -> dict[str, Any]:
    """Return a code as JSON values. All but ``code`` and ``title`` is metadata of its document, too."""
    values = {field.name: getattr(code, field.name) for field in fields(code)}
    values["children"] = list(code.children)
    values["terms"] = list(code.terms)
    values["notes"] = {name: list(lines) for name, lines in code.notes.items()}
    values["seventh"] = dict(code.seventh)
    return values


def extend(code: str, character: str) -> str:
    """Return a code with a seventh character; ``X`` holds empty places: T07 with A is ``T07.XXXA``."""
    flat = code.replace(".", "").ljust(_LENGTH_BEFORE_SEVENTH, "X") + character
    return f"{flat[:3]}.{flat[3:]}"


def full_title(code: Code, seventh: str = "") -> str:
    """Return a code's title with the meaning of a seventh character."""
    return f"{code.title}, {code.seventh[seventh]}" if seventh in code.seventh else code.title


def is_billable(code: Code, *, seventh: str = "") -> bool | None:
    """Tell whether a code may stand on a claim, with the seventh character that was asked for with it.

    None: that is not known, or not asked of its system.
    """
    if code.billable is None:
        return None
    return code.billable or (seventh in code.seventh and not code.children)


def billing_status(code: Code, *, seventh: str = "") -> str:
    """Return whether a code may stand on a claim, and if not, what it lacks; "" where nothing is known of it.

    Args:
        code: the code.
        seventh: the seventh character that was asked for with it.
    """
    billable = is_billable(code, seventh=seventh)
    if billable is None:
        return ""
    if billable:
        return "valid for billing"
    if code.children:
        return "not valid for billing: choose a code below it"
    if code.seventh:
        return f"not valid for billing: needs a seventh character ({', '.join(code.seventh)})"
    return "not valid for billing"


def describe_code(code: Code, *, lookup: Lookup | None = None, seventh: str = "") -> str:
    """Return an entry with its place in the tree, as plain text for a terminal.

    Args:
        code: the entry.
        lookup: gives the codes above and below, for their titles and for the notes that apply to all below
            them; None shows their names only.
        seventh: the seventh character that was asked for with it.
    """
    find: Lookup = lookup or (lambda _: None)
    above = list(_ancestors(code, find))
    name = extend(code.code, seventh) if seventh else code.code
    title = full_title(code, seventh)
    source = f"{SYSTEM_TITLES.get(code.system, code.system)}, release {code.release}"
    status = billing_status(code, seventh=seventh)
    sections = [
        [f"{name}  {title}", f"{source}: {status}" if status else source],
        _place(code, above),
    ]
    if code.terms:
        sections.append(["Also:", *_items(code.terms)])
    sections += _note_sections(code)
    if code.children:
        below = [(child, found.title if (found := find(child)) else "") for child in code.children]
        sections.append(["Below it:", *_columns(below)])
    if code.seventh and code.children:
        sections.append(["Its codes take a seventh character:", *_columns(list(code.seventh.items()))])
    elif code.seventh:
        extensions = [(f"{extend(code.code, character)}", text) for character, text in code.seventh.items()]
        sections.append(["With a seventh character:", *_columns(extensions)])
    for ancestor in above:
        for lines in _note_sections(ancestor):
            sections.append([f"{lines[0][:-1]} (from {ancestor.code}, for all below it):", *lines[1:]])
    return "\n\n".join("\n".join(section) for section in sections if section)


def _ancestors(code: Code, find: Lookup) -> Iterator[Code]:
    """Yield the codes above, nearest first."""
    seen = {code.code}
    while code.parent is not None and code.parent not in seen:
        seen.add(code.parent)
        parent = find(code.parent)
        if parent is None:
            return
        yield parent
        code = parent


def _place(code: Code, above: list[Code]) -> list[str]:
    steps = []
    if code.chapter:
        steps.append((f"Chapter {code.chapter}", code.chapter_title))
    if code.block:
        steps.append((code.block, code.block_title))
    steps += [(ancestor.code, ancestor.title) for ancestor in reversed(above)]
    if not above and code.parent:
        steps.append((code.parent, ""))
    steps.append((code.code, code.title))
    return _columns(steps)


def _note_sections(code: Code) -> list[list[str]]:
    return [
        [f"{NOTE_TITLES.get(name, name)}:", *_items(lines)]
        for name, lines in code.notes.items()
        # What it says is shown as the characters themselves.
        if name != "seventh_character"
    ]


def _items(lines: tuple[str, ...]) -> list[str]:
    items = []
    for line in lines:
        items += textwrap.wrap(line, _WIDTH, initial_indent="  - ", subsequent_indent="    ")
    return items


def _columns(rows: list[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    lines = []
    for name, title in rows:
        first = f"  {name.ljust(width)}  "
        lines += textwrap.wrap(title, _WIDTH, initial_indent=first, subsequent_indent=" " * len(first)) or [
            first.rstrip()
        ]
    return lines
