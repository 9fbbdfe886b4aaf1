"""How a document is named in one line."""

from __future__ import annotations

from cmbert_retrieval.types import Document


def cite(document: Document) -> str:
    """Return one line that names a document: authors, title, journal, year, identifiers."""
    metadata = document.metadata
    authors = metadata.get("authors") or []
    who = f"{authors[0]} et al." if len(authors) > 1 else (authors[0] + "." if authors else "")
    title = document.title.rstrip(".")
    where = " ".join(str(part) for part in (metadata.get("journal"), metadata.get("year")) if part)
    ids = [document.id]
    if metadata.get("pmid") and f"pmid:{metadata['pmid']}" != document.id:
        ids.append(f"PMID {metadata['pmid']}")
    if metadata.get("doi"):
        ids.append(f"doi:{metadata['doi']}")
    retracted = "RETRACTED" if metadata.get("is_retracted") else ""
    return " ".join(
        part
        for part in (retracted, who, title and f"{title}.", where and f"{where}.", ", ".join(ids))
        if part
    )
