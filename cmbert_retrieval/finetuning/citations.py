"""The articles that others cite: title and abstract by PubMed id or DOI, on disk while pairs are made."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cmbert_retrieval.finetuning.pairs import Surroundings, make_pairs
from cmbert_retrieval.types import Document

_TITLE_CHARACTERS = 30
"""Shorter titles ("Methods in Enzymology") say nothing of an article."""


class CitedArticles:
    """What a citing sentence asks for: the article where it is there, else its title.

    Articles that nothing may be learnt from are known, too, so that not even their titles are.
    """

    def __init__(self, path: Path) -> None:
        """Make an empty store; one that is there is thrown away."""
        path.unlink(missing_ok=True)
        self._rows = sqlite3.connect(path)
        self._rows.execute("create table articles (key text primary key, text text) without rowid")

    def add(self, documents: Iterable[tuple[Document, bool]]) -> None:
        """Take articles that have an id of their own, and whether they may be learnt from.

        One that may not in any source may not in all.
        """
        with self._rows:
            for document, is_free in documents:
                keys = _keys(document.metadata)
                if not keys:
                    continue
                made = next(make_pairs(document, "title-text", Surroundings()), None) if is_free else None
                article = f"{made.anchor}\n{made.positive}".strip() if made is not None else ""
                for key in keys:
                    self._rows.execute(
                        "insert into articles values (?, ?) on conflict (key) do update set "
                        "text = case when text = '' then '' else excluded.text end",
                        (key, article),
                    )

    def __call__(self, reference: Mapping[str, Any]) -> str:
        """Return title and abstract of what is cited, else its title; "" where it may not be learnt from."""
        for key in _keys(reference):
            found = self._rows.execute("select text from articles where key = ?", (key,)).fetchone()
            if found:
                return str(found[0])
        title = str(reference.get("title") or "")
        return title if len(title) >= _TITLE_CHARACTERS else ""

    def close(self) -> None:
        """Let go of the file."""
        self._rows.close()


def _keys(values: Mapping[str, Any]) -> list[str]:
    return [f"{kind}:{str(values[kind]).casefold()}" for kind in ("pmid", "doi") if values.get(kind)]
