"""PubMed's XML made on the spot: records, deletions, and the files that hold them."""

from __future__ import annotations

import gzip
from pathlib import Path
from xml.sax.saxutils import escape


def article(pmid: int, text: str = "Some words.", *, title: str = "A title.", version: int = 1) -> bytes:
    """Return a record with little in it."""
    return (
        f'<PubmedArticle><MedlineCitation><PMID Version="{version}">{pmid}</PMID><Article><Journal>'
        "<JournalIssue><PubDate><Year>2020</Year></PubDate></JournalIssue><Title>A journal</Title></Journal>"
        f"<ArticleTitle>{escape(title)}</ArticleTitle>"
        f"<Abstract><AbstractText>{escape(text)}</AbstractText></Abstract>"
        "<Language>eng</Language></Article></MedlineCitation></PubmedArticle>\n"
    ).encode()


def deletion(*pmids: int, version: int = 1) -> bytes:
    """Return a list of deletions."""
    inside = "".join(f'<PMID Version="{version}">{pmid}</PMID>\n' for pmid in pmids)
    return f"<DeleteCitation>\n{inside}</DeleteCitation>\n".encode()


def article_set(*records: bytes, head: bytes = b'<?xml version="1.0" encoding="utf-8"?>\n') -> bytes:
    """Return a whole file; its records begin at line 3."""
    return head + b"<PubmedArticleSet>\n" + b"".join(records) + b"</PubmedArticleSet>\n"


def write(path: Path, *records: bytes) -> Path:
    """Write a file of records, packed where its name says so."""
    data = article_set(*records)
    path.write_bytes(gzip.compress(data, mtime=0) if path.name.endswith(".gz") else data)
    return path
