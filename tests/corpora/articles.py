"""Articles made on the spot."""

from __future__ import annotations


def article(number: int, text: str = "Some words.", *, title: str = "A title", extra: str = "") -> bytes:
    """Return the XML of a small article."""
    return (
        f'<article article-type="research-article"><front><article-meta><article-id pub-id-type="pmc">'
        f"{number}</article-id><title-group><article-title>{title}</article-title></title-group>{extra}</article-meta>"
        f"</front><body><p>{text}</p></body></article>"
    ).encode()
