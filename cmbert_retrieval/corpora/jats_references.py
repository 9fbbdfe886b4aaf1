"""The reference list of a JATS article, as structured metadata."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cmbert_retrieval.corpora.jats_blocks import clean

if TYPE_CHECKING:
    from lxml import etree

_YEAR = re.compile(r"\d{4}")
_TITLES = ("article-title", "chapter-title", "part-title", "data-title", "source")
_CITATIONS = ("mixed-citation", "element-citation", "nlm-citation", "citation")
_LONGEST = 500


def read_references(part: etree._Element) -> list[dict[str, Any]]:
    """Return the references of the lists in a part of an article.

    Each has ``id``, and ``pmid``, ``doi``, ``title``, ``year`` as far as given. The title of a book or of
    something untitled is that of its source; where nothing says what is cited, ``text`` has the first words
    of the reference. Several works under one number are several references of the same id.
    """
    references: list[dict[str, Any]] = []
    titles: list[dict[str, str]] = []
    whole: list[etree._Element] = []
    lists = [found for found in part.iter("ref-list") if next(found.iterancestors("ref-list"), None) is None]
    for found in lists:
        cited = False  # whether the present reference has had its citation
        # One pass over the list: an iteration for each reference would cost three times as much.
        for element in found.iter("ref", "pub-id", "year", *_CITATIONS, *_TITLES):
            tag = element.tag
            if tag == "ref" or (tag in _CITATIONS and cited and _is_another(element)):
                id_ = element.get("id", "") if tag == "ref" else references[-1]["id"]
                references.append({"id": id_})
                titles.append({})
                whole.append(element)
                cited = tag != "ref"
                continue
            if not references:
                continue  # a year in a paragraph
            if tag in _CITATIONS:
                cited = True
                continue
            text = element.text if len(element) == 0 else "".join(map(str, element.itertext()))
            if not text or not (text := clean(text)):
                continue
            reference = references[-1]
            if tag == "pub-id":
                kind = element.get("pub-id-type")
                if kind == "pmid" or kind == "doi":
                    reference.setdefault(kind, text)
            elif tag == "year":
                if "year" not in reference and (year := _YEAR.match(text)):
                    reference["year"] = int(year[0])
            else:
                titles[-1].setdefault(tag, text)
    for reference, found_titles, element in zip(references, titles, whole, strict=True):
        if title := next((found_titles[name] for name in _TITLES if name in found_titles), ""):
            reference["title"] = title
        elif text := clean(" ".join(map(str, element.itertext())))[:_LONGEST]:
            reference["text"] = text
    return references


def _is_another(citation: etree._Element) -> bool:
    """Tell whether a second citation is of another work, not another form of the same or a part of it."""
    parent = citation.getparent()
    return parent is not None and parent.tag in ("ref", "note", "p")
