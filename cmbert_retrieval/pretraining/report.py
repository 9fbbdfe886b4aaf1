"""What became of every document that was read: counts by source, licences, sizes. No text, no ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from cmbert_retrieval.wording import markdown_table

REPORT_JSON = "report.json"
"""The counts, in a folder of prepared text."""

PROBLEMS = 5

_HEADINGS = {
    "read": "read",
    "unusable": "unusable",
    "withdrawn": "withdrawn",
    "other_license": "other licence",
    "excluded_ids": "excluded by id",
    "excluded_split": "frozen split",
    "excluded_names": "excluded by name",
    "too_short": "too short",
    "copies_of_excluded": "copies of excluded",
    "exact_duplicates": "exact duplicates",
    "near_duplicates": "near-duplicates",
    "held_out": "held out",
    "kept": "kept",
}
_SIZES = ("characters", "words", "tokens", "held_out_tokens")


@dataclass(slots=True)
class SourceReport:
    """Counts of one source. ``read`` is the sum of the twelve counts behind it.

    Attributes:
        name: the source's.
        reader: what read it.
        read: documents and unusable records.
        unusable: records that are no document; the first few problems are in ``problems``.
        withdrawn: documents that the source itself takes back later on.
        other_license: of a licence that the recipe does not list.
        excluded_ids: named by ``exclude_ids``.
        excluded_split: for testing or validation, by the frozen splits.
        excluded_names: called like a held-out question.
        too_short: shorter than ``minimum_characters``, when cleaned.
        copies_of_excluded: equal or nearly so to a document that is excluded by id or split, in any source.
        exact_duplicates: equal to an earlier document.
        near_duplicates: nearly equal to an earlier document.
        held_out: kept for measuring.
        kept: for training.
        characters: of what is kept for training.
        words: of what is kept for training.
        tokens: of what is kept for training, without special ones.
        held_out_tokens: of what is held out.
        licenses: licence -> documents kept for training.
        problems: the first problems, as file and line with the reason.
    """

    name: str
    reader: str
    read: int = 0
    unusable: int = 0
    withdrawn: int = 0
    other_license: int = 0
    excluded_ids: int = 0
    excluded_split: int = 0
    excluded_names: int = 0
    too_short: int = 0
    copies_of_excluded: int = 0
    exact_duplicates: int = 0
    near_duplicates: int = 0
    held_out: int = 0
    kept: int = 0
    characters: int = 0
    words: int = 0
    tokens: int = 0
    held_out_tokens: int = 0
    licenses: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """The counts of all sources, in the order of the recipe.

    Attributes:
        sources: one a source.
        terms: in the lexicon.
        vocabulary: entries of the tokenizer.
        seconds: that this run took; what an earlier run did is not in it.
    """

    sources: list[SourceReport]
    terms: int = 0
    vocabulary: int = 0
    seconds: float = 0.0

    def total(self) -> SourceReport:
        """Return the sums over all sources."""
        total = SourceReport("all", "")
        for entry in fields(SourceReport):
            values = [getattr(source, entry.name) for source in self.sources]
            if values and isinstance(values[0], int):
                setattr(total, entry.name, sum(values))
        licenses: Counter[str] = Counter()
        for source in self.sources:
            licenses.update(source.licenses)
        total.licenses = dict(licenses.most_common())
        return total

    def losses(self) -> str:
        """Return what became of documents that are not for training, as part of a sentence."""
        total = self.total()
        names = [name for name in _HEADINGS if name not in ("read", "kept") and getattr(total, name)]
        return f"of {total.read:,} documents, " + ", ".join(
            f"{getattr(total, name):,} {_HEADINGS[name]}" for name in names
        )

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values, with the totals."""
        return {
            "sources": [asdict(source) for source in self.sources],
            "total": asdict(self.total()),
            "terms": self.terms,
            "vocabulary": self.vocabulary,
            "seconds": round(self.seconds, 1),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Report:
        """Return the report that ``to_json`` wrote."""
        sources = [SourceReport(**source) for source in values["sources"]]
        return cls(sources, values["terms"], values["vocabulary"], values["seconds"])

    def to_markdown(self) -> str:
        """Return the counts as tables: documents, sizes, licences."""
        rows = [*self.sources, self.total()]
        documents = markdown_table(
            ["source", *_HEADINGS.values()],
            [[row.name, *(f"{getattr(row, key):,}" for key in _HEADINGS)] for row in rows],
        )
        sizes = markdown_table(
            ["source", "characters", "words", "tokens", "tokens a word", "held-out tokens"],
            [
                [
                    row.name,
                    f"{row.characters:,}",
                    f"{row.words:,}",
                    f"{row.tokens:,}",
                    f"{row.tokens / row.words:.2f}" if row.words else "",
                    f"{row.held_out_tokens:,}",
                ]
                for row in rows
            ],
        )
        licenses = markdown_table(
            ["source", "licences of what is kept"],
            [
                [row.name, ", ".join(f"{name} {count:,}" for name, count in row.licenses.items())]
                for row in rows
            ],
        )
        problems = [f"- {row.name}: {problem}" for row in self.sources for problem in row.problems]
        first = ["The first problems of each source:", "", *problems, ""] if problems else []
        return "\n".join(
            [
                "# Prepared text",
                "",
                "Documents:",
                "",
                *documents,
                "",
                "Sizes of what is kept; no document is cut here, long ones are divided when rows are packed:",
                "",
                *sizes,
                "",
                *licenses,
                "",
                f"{self.terms:,} terms in the lexicon, {self.vocabulary:,} entries in the vocabulary.",
                "",
                *first,
            ]
        )
