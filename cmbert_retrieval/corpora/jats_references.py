"""The reference list of a JATS article, as structured metadata."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cmbert_retrieval.corpora.jats_blocks import clean

if TYPE_CHECKING:
    from lxml import etree

_TITLES = ("article-title", "chapter-title", "part-title", "data-title", "source")


def read_references(back: etree._Element) -> list[dict[str, Any]]:
    """Return the references below it: ``id``, ``pmid``, ``doi``, ``title``, ``year``, as far as given.

    The title of a book or of something untitled is that of its source.
    """
    references = []
    for item in back.iter("ref"):
        reference: dict[str, Any] = {"id": item.get("id", "")}
        titles: dict[str, str] = {}
        for element in item.iter("pub-id", "year", *_TITLES):
            text = element.text if len(element) == 0 else "".join(map(str, element.itertext()))
            text = clean(text or "")
            if not text:
                continue
            if element.tag == "pub-id":
                kind = element.get("pub-id-type", "")
                if kind in ("pmid", "doi"):
                    reference.setdefault(kind, text)
            elif element.tag == "year":
                if "year" not in reference and (found := re.match(r"\d{4}", text)):
                    reference["year"] = int(found[0])
            else:
                titles.setdefault(element.tag, text)
        title = next((titles[name] for name in _TITLES if name in titles), "")
        if title:
            reference["title"] = title
        references.append(reference)
    return references
