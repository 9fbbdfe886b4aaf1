"""What is in a corpus, counted in one pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cmbert_retrieval.corpora.base import Corpus
from cmbert_retrieval.corpora.licenses import normalize_license

SHOWN_PROBLEMS = 5
UNKNOWN = "(unknown)"


@dataclass(slots=True)
class Stats:
    """Counts over one corpus.

    Attributes:
        documents: those that can be used.
        empty: those among them without any text (a title alone counts as none).
        words: words of all texts, separated by white space; titles are not counted.
        characters: characters of all texts.
        longest: words of the longest text.
        sections: kind of section -> how many.
        licenses: licence -> documents.
        years: year of publication -> documents.
        retracted: documents that are flagged so.
        deletions: documents that the corpus says are gone; those that stand in it before are counted above.
        unusable: records that cannot be read.
        problems: why, for the first of them.
    """

    documents: int = 0
    empty: int = 0
    words: int = 0
    characters: int = 0
    longest: int = 0
    sections: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    years: Counter[str] = field(default_factory=Counter)
    retracted: int = 0
    deletions: int = 0
    unusable: int = 0
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {
            "documents": self.documents,
            "empty": self.empty,
            "words": self.words,
            "characters": self.characters,
            "words_longest": self.longest,
            "words_mean": round(self.words / self.documents, 1) if self.documents else None,
            "sections": dict(self.sections.most_common()),
            "licenses": dict(self.licenses.most_common()),
            "years": dict(sorted(self.years.items())),
            "retracted": self.retracted,
            "deletions": self.deletions,
            "unusable": self.unusable,
            "problems": self.problems,
        }

    def rows(self) -> list[tuple[str, str]]:
        """Return the counts as lines of a table."""
        mean = self.words / self.documents if self.documents else 0.0
        rows = [
            ("documents", f"{self.documents:,}"),
            ("without text", f"{self.empty:,}"),
            ("words", f"{self.words:,}"),
            ("words a document", f"{mean:,.0f} (at most {self.longest:,})"),
            ("retracted", f"{self.retracted:,}"),
            *([("deletions", f"{self.deletions:,}")] if self.deletions else []),
            ("unusable records", f"{self.unusable:,}"),
        ]
        rows += [(f"section: {kind}", f"{count:,}") for kind, count in self.sections.most_common()]
        rows += [(f"licence: {name}", f"{count:,}") for name, count in self.licenses.most_common()]
        return rows + [(f"year: {year}", f"{count:,}") for year, count in sorted(self.years.items())]


def describe(corpus: Corpus, *, progress: Callable[[int], None] | None = None) -> Stats:
    """Count what is in a corpus.

    Args:
        corpus: read once, from its beginning.
        progress: called with 1 for each record.

    Raises:
        CorpusError: reading cannot go on.
    """
    found = Stats()
    for record in corpus.records():
        if progress is not None:
            progress(1)
        document = record.document
        if record.deleted:
            found.deletions += 1
            continue
        if document is None:
            found.unusable += 1
            if len(found.problems) < SHOWN_PROBLEMS:
                found.problems.append(str(record.problem))
            continue
        words = len(document.text.split())
        found.documents += 1
        found.empty += not words
        found.words += words
        found.characters += len(document.text)
        found.longest = max(found.longest, words)
        found.sections.update(section.kind for section in document.sections)
        found.licenses[normalize_license(str(document.metadata.get("license") or "")) or UNKNOWN] += 1
        found.years[_year(document.metadata.get("year"))] += 1
        found.retracted += document.metadata.get("is_retracted") is True
    return found


def _year(value: object) -> str:
    text = str(value)
    return text if text.isascii() and text.isdigit() and len(text) == 4 else UNKNOWN
