"""Code systems and ontologies as sentences: what a code is called, what it is a kind of, where it stands."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cmbert_retrieval.corpora.code_names import official_names
from cmbert_retrieval.types import Document

_SYSTEMS = {
    "icd10cm": "ICD-10-CM",
    "icd10pcs": "ICD-10-PCS",
    "icd9cm": "ICD-9-CM",
    "hcpcs": "HCPCS Level II",
    "cpt": "CPT",
    "mesh": "MeSH",
    "doid": "Disease Ontology",
    "mondo": "Mondo",
    "hp": "Human Phenotype Ontology",
    "efo": "Experimental Factor Ontology",
}
_MAX_TERMS = 8
_MAX_ANCESTORS = 6

_CALLED = (
    "{code} is the {system} code for {title}.",
    "{system} {code}: {title}.",
    "In {system}, {title} is coded {code}.",
    "The code {code} of {system} stands for {title}.",
)
_PARENT = (
    "{title} is a kind of {parent}.",
    "{code} belongs to {parent}.",
    "{parent} includes {title}.",
    "Among the codes of {parent} is {code}.",
)
_ANCESTORS = (
    "{title} comes under {above}.",
    "Above it stand {above}.",
    "Above {code} stand {above}.",
    "From the general to the special: {path}.",
)
_TERMS = (
    "{title} is also called {terms}.",
    "Other names of {title} are {terms}.",
    "{terms}: all of these are {title}.",
    "{title}, also known as {terms}, has the code {code}.",
)
_TERM = (
    "{title} is also called {terms}.",
    "{terms} is another name for {title}.",
    "{terms} is coded as {title}, {code}.",
)
_RANGE = (
    "The codes {block} are for {block_title}; {code} is one of them.",
    "{code} lies in {block}, {block_title}.",
    "It is in the block {block} ({block_title}).",
)
_CHAPTER = (
    "Its chapter is {chapter_title}.",
    "{code} is found in the chapter {chapter_title}.",
    "Chapter: {chapter_title}.",
)
_LABELS = (
    "Also: ",
    "Also under: ",
    "Code also: ",
    "Code first: ",
    "Excludes1: ",
    "Excludes2: ",
    "Includes: ",
    "Note: ",
    "Seventh character: ",
    "Short: ",
    "Use additional: ",
    "Visual impairment: ",
)
"""What lines of a code's document begin with that are no definition."""


@dataclass(frozen=True, slots=True)
class Above:
    """The title of a code and the code above it."""

    title: str
    parent: str | None


def tree_of(documents: Iterable[Document]) -> dict[str, Above]:
    """Return the tree that sentences take titles from; what is not in it is not spoken of.

    Held here for as long as a source is read: 283 bytes a code, measured.
    """
    return {
        document.id: Above(document.title, document.metadata.get("parent"))
        for document in documents
        if document.title
    }


def terms_of(document: Document) -> list[str]:
    """Return the other names of a code or a term, as its reader or its file has them."""
    found: dict[str, str] = {}
    for key in ("terms", "synonyms"):
        values = document.metadata.get(key)
        if isinstance(values, list | tuple):
            given = [value.strip() for value in values if isinstance(value, str) and value.strip()]
            for name in official_names(document.title, given)[1:]:
                found.setdefault(name.casefold(), name)
    return list(found.values())


def names_of(document: Document) -> list[str]:
    """Return the title of a document, its other names, and the texts by which it is found."""
    return list(dict.fromkeys(filter(None, (document.title, *terms_of(document), *document.entries))))


def code_sentences(document: Document, tree: Mapping[str, Above]) -> str:
    """Return sentences about a code: a line each, in an order and in words that a hash of the code decides.

    Args:
        document: of a reader of codes or ontologies, or any with a title; the metadata ``system``,
            ``parent``, ``terms`` or ``synonyms``, ``block``, ``block_title`` and ``chapter_title`` are used
            as far as they are there.
        tree: the codes whose titles may be used.

    Returns:
        "" where there is no title. The sentence that names the code comes first.
    """
    title = document.title.strip()
    if not title:
        return ""
    chosen = hashlib.blake2b(document.id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    system = str(document.metadata.get("system") or document.id.partition(":")[0]).lower()
    values = {
        "code": document.id,
        "title": title,
        "system": _SYSTEMS.get(system, "the " + system if system == document.id.lower() else system.upper()),
        **{key: str(document.metadata.get(key) or "") for key in ("block", "block_title", "chapter_title")},
    }
    templates: list[Sequence[str]] = []
    above = _ancestors(document, tree)
    if above:
        values["parent"] = above[0]
        templates.append(_PARENT)
    if len(above) > 1:
        values["above"] = _listed(above)
        values["path"] = ", ".join([*reversed(above), title])
        templates.append(_ANCESTORS)
    if terms := terms_of(document)[:_MAX_TERMS]:
        values["terms"] = _listed(terms)
        templates.append(_TERMS if len(terms) > 1 else _TERM)
    if values["block"] and values["block_title"]:
        templates.append(_RANGE)
    if values["chapter_title"]:
        templates.append(_CHAPTER)
    lines = [_filled(_CALLED, values, chosen[0])]
    others = [_filled(template, values, byte) for template, byte in zip(templates, chosen[1:], strict=False)]
    turn = chosen[15] % len(others) if others else 0
    lines += others[turn:] + others[:turn]
    if definition := _definition(document):
        lines.append(definition)
    return "\n".join(lines)


def _filled(templates: Sequence[str], values: Mapping[str, str], byte: int) -> str:
    sentence = templates[byte % len(templates)].format_map(values)
    return sentence[:1].upper() + sentence[1:] if sentence[:1].islower() else sentence


def _ancestors(document: Document, tree: Mapping[str, Above]) -> list[str]:
    """Return the titles above a code, the nearest first; none behind one that is not in the tree."""
    titles: list[str] = []
    seen = {document.id}
    parent = document.metadata.get("parent")
    while isinstance(parent, str) and parent in tree and parent not in seen and len(titles) < _MAX_ANCESTORS:
        seen.add(parent)
        titles.append(tree[parent].title)
        parent = tree[parent].parent
    return [name for name in dict.fromkeys(titles) if name != document.title.strip()]


def _definition(document: Document) -> str:
    """Return what a document says beyond names and notes: the line behind the title, or a text of its own."""
    lines = document.text.strip().split("\n")
    if lines and lines[0].strip() == document.title.strip():
        lines = lines[1:2]
    line = lines[0].strip() if lines else ""
    return "" if line.startswith(_LABELS) else line


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
