"""How a document is named in one line."""

from __future__ import annotations

from cmbert_retrieval.types import Document


def cite(document: Document) -> str:
    """Return one line that names a document: authors, title, journal, year, identifiers."""
    metadata = document.metadata
    given = metadata.get("authors")
    authors = [name for name in (given if isinstance(given, list | tuple) else [given]) if _is_plain(name)]
    who = f"{authors[0]} et al." if len(authors) > 1 else f"{authors[0]}." if authors else ""
    title = document.title.strip().rstrip(".")
    places = (metadata.get("journal"), metadata.get("year"))
    where = " ".join(str(part) for part in places if _is_plain(part) or (isinstance(part, int) and part))
    ids = [document.id]
    if metadata.get("pmid") == document.id:
        ids = [f"PMID {document.id}"]  # a bare number would not say what it is
    elif metadata.get("pmid") and f"pmid:{metadata['pmid']}" != document.id:
        ids.append(f"PMID {metadata['pmid']}")
    if metadata.get("doi"):
        ids.append(f"doi:{metadata['doi']}")
    retracted = "RETRACTED" if metadata.get("is_retracted") else ""
    parts = (retracted, who, title and f"{title}.", where and f"{where}.", ", ".join(ids))
    return " ".join(" ".join(parts).split())


def _is_plain(value: object) -> bool:
    """Return whether a value of anybody's metadata can stand in a sentence."""
    return isinstance(value, str) and bool(value.strip())
