"""The reference list of a JATS article, as structured metadata."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cmbert_retrieval.corpora.jats_blocks import clean

if TYPE_CHECKING:
    from lxml import etree

_YEAR = re.compile(r"\d{4}")
_TITLES = ("article-title", "chapter-title", "part-title", "data-title", "source")


def read_references(back: etree._Element) -> list[dict[str, Any]]:
    """Return the references below it: ``id``, ``pmid``, ``doi``, ``title``, ``year``, as far as given.

    The title of a book or of something untitled is that of its source.
    """
    references: list[dict[str, Any]] = []
    titles: list[dict[str, str]] = []
    # One pass over the list: an iteration for each reference would cost three times as much.
    for element in back.iter("ref", "pub-id", "year", *_TITLES):
        tag = element.tag
        if tag == "ref":
            references.append({"id": element.get("id", "")})
            titles.append({})
            continue
        if not references:
            continue  # a year in a paragraph
        text = element.text if len(element) == 0 else "".join(map(str, element.itertext()))
        if not text or not (text := clean(text)):
            continue
        reference = references[-1]
        if tag == "pub-id":
            kind = element.get("pub-id-type")
            if kind == "pmid" or kind == "doi":
                reference.setdefault(kind, text)
        elif tag == "year":
            if "year" not in reference and (found := _YEAR.match(text)):
                reference["year"] = int(found[0])
        else:
            titles[-1].setdefault(tag, text)
    for reference, found_titles in zip(references, titles, strict=True):
        if title := next((found_titles[name] for name in _TITLES if name in found_titles), ""):
            reference["title"] = title
    return references
