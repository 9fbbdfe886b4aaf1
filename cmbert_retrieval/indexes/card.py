"""The README.md beside an index that is saved or uploaded: what it is, and how to open it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cmbert_retrieval.indexes.manifest import EncoderEntry, Manifest

CARD = "README.md"

_OPEN = """## How to open it

```python
from cmbert_retrieval import Retriever

retriever = Retriever.from_pretrained("{name}")  # a folder, or an id of the Hugging Face hub
for hit in retriever.search("your question", k=5):
    print(hit.rank, hit.id, hit.document.title)
```

or `cmbert search {name} "your question"`. `cmbert index verify FOLDER` checks a copy against the hashes in
`manifest.json`.
"""


def index_card(manifest: Manifest, licenses: Mapping[str, int], *, name: str = "FOLDER") -> str:
    """Return the text of a card: counts, encoder, sources, licences. No text of any document.

    Args:
        manifest: without folders of this machine in it.
        licenses: licence -> number of documents; "" for those that do not name one.
        name: what opens the index.
    """
    import yaml

    header: dict[str, Any] = {"library_name": "cmbert-retrieval", "tags": ["retrieval", "search-index"]}
    encoder = manifest.encoder
    if encoder is not None and encoder.source.count("/") == 1:
        header["base_model"] = encoder.source
    title = _plain(str(manifest.recipe["name"]))
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n",
        f"# {title}: an index of cmbert-retrieval\n",
        f"{manifest.documents:,} documents in {manifest.rows:,} rows (passages), searched "
        f"{'by words and by meaning' if encoder else 'by words'}. The folder holds the documents' text.\n",
        _OPEN.format(name=name),
        "## What is in it\n",
        _table([("what", "value"), *_facts(manifest, encoder)]),
        "## Sources and licences\n",
        _sources(manifest.sources),
        _licences(licenses),
    ]
    return "\n".join(parts)


def _facts(manifest: Manifest, encoder: EncoderEntry | None) -> list[tuple[str, str]]:
    facts = [("documents", f"{manifest.documents:,}"), ("rows", f"{manifest.rows:,}")]
    if encoder is None:
        facts.append(("encoder", "none: words alone"))
    else:
        identity = encoder.identity
        facts += [
            ("encoder", identity.name + (f" at {identity.revision}" if identity.revision else "")),
            (
                "its weights",
                f"SHA-256 {identity.weights_sha256}" if identity.weights_sha256 else "not hashed",
            ),
            (
                "vectors",
                f"{identity.dim} dimensions, pooling {identity.pooling}, {identity.max_tokens} tokens",
            ),
        ]
    columns = ", ".join(f"{name} ({kind})" for name, kind in manifest.columns.items())
    facts += [
        ("columns to filter on", columns or "none"),
        ("written", f"{manifest.created}, cmbert-retrieval {manifest.versions.get('cmbert-retrieval', '?')}"),
        ("commit of the index", str(manifest.commit)),
    ]
    return facts


def _sources(sources: tuple[Mapping[str, Any], ...]) -> str:
    rows = [(str(source["path"]), str(source.get("checksum", ""))) for source in sources]
    return _table([("source", "checksum"), *rows])


def _licences(licenses: Mapping[str, int]) -> str:
    ranked = sorted(licenses.items(), key=lambda pair: (-pair[1], pair[0]))
    rows = [(name or "not named by the source", f"{count:,}") for name, count in ranked]
    return _table([("licence", "documents"), *rows]) + "\nEach document keeps the terms of its source.\n"


def _table(rows: list[tuple[str, str]]) -> str:
    """Return a table; the first row is its head."""
    head, *body = [f"| {_plain(name)} | {_plain(value)} |" for name, value in rows]
    return "\n".join([head, "|---|---|", *body]) + "\n"


def _plain(text: str) -> str:
    """Return a text that is no markup, and stays within its cell."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
