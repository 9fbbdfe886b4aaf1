"""The reference list of a JATS article, as structured metadata."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cmbert_retrieval.corpora.jats_blocks import clean

if TYPE_CHECKING:
    from lxml import etree

_YEAR = re.compile(r"\d{4}")
_TITLES = {"article-title": 0, "chapter-title": 1, "part-title": 2, "data-title": 3, "source": 4}
"""What names a work, and how late it is asked."""
_CITATIONS = frozenset(("mixed-citation", "element-citation", "nlm-citation", "citation"))
_WANTED = ("ref", "pub-id", "year", *sorted(_CITATIONS), *_TITLES)
_LONGEST = 500


def read_references(part: etree._Element) -> list[dict[str, Any]]:
    """Return the references of the lists in a part of an article.

    Each has ``id``, and ``pmid``, ``doi``, ``title``, ``year`` as far as given. The title of a book or of
    something untitled is that of its source; where nothing says what is cited, ``text`` has the first words
    of the reference. Several works under one number are several references of the same id.
    """
    references: list[dict[str, Any]] = []
    reference: dict[str, Any] = {}  # the present one
    whole, title, rank = part, "", len(_TITLES)
    lists = [found for found in part.iter("ref-list") if next(found.iterancestors("ref-list"), None) is None]
    for found in lists:
        cited = False  # whether the present reference has had its citation
        # One pass over the list: an iteration for each reference would cost three times as much.
        for element in found.iter(*_WANTED):
            tag = element.tag
            if tag == "ref" or (tag in _CITATIONS and cited and _is_another(element)):
                if reference:
                    _name(reference, title, whole)
                reference = {"id": element.get("id", "") if tag == "ref" else reference["id"]}
                references.append(reference)
                whole, title, rank = element, "", len(_TITLES)
                cited = tag != "ref"
            elif not reference:
                pass  # a year in a paragraph
            elif tag in _CITATIONS:
                cited = True
            elif tag == "pub-id":
                kind = element.get("pub-id-type")
                if (kind == "pmid" or kind == "doi") and kind not in reference and (text := _text(element)):
                    reference[kind] = text
            elif tag == "year":
                if "year" not in reference:
                    year = _YEAR.match(element.text or "") or _YEAR.match(_text(element))
                    if year is not None:
                        reference["year"] = int(year[0])
            elif _TITLES[tag] < rank and (text := _text(element)):
                title, rank = text, _TITLES[tag]
    if reference:
        _name(reference, title, whole)
    return references


def _text(element: etree._Element) -> str:
    if len(element):
        return clean("".join(map(str, element.itertext())))
    text = element.text or ""
    return text.strip(" ") if text.isprintable() and "  " not in text else clean(text)


def _name(reference: dict[str, Any], title: str, whole: etree._Element) -> None:
    """Give a reference its title or, where it has none, its first words."""
    if title:
        reference["title"] = title
    elif text := clean(" ".join(map(str, whole.itertext())))[:_LONGEST]:
        reference["text"] = text


def _is_another(citation: etree._Element) -> bool:
    """Tell whether a second citation is of another work, not another form of the same or a part of it."""
    parent = citation.getparent()
    return parent is not None and parent.tag in ("ref", "note", "p")
