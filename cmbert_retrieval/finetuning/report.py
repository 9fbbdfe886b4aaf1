"""What became of every document, pair and text: counts by source. No text, no ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cmbert_retrieval.wording import markdown_table

REPORT_JSON, REPORT_MARKDOWN = "report.json", "report.md"

LEFT_OUT = {
    "unusable": "unusable",
    "withdrawn": "withdrawn",
    "missing": "not there",
    "other_license": "other licence",
    "excluded_ids": "excluded by id",
    "excluded_split": "frozen split",
    "excluded_names": "excluded by name",
    "copies": "of an evaluation set",
}
"""Why a document gives nothing -> its heading."""

DROPPED = {
    "long_anchor": "anchor too long",
    "short": "too short",
    "same": "both alike",
    "duplicate": "duplicates",
    "excluded_names": "excluded by name",
    "overlap": "overlaps",
}
"""Why a pair is not taken -> its heading."""


@dataclass(slots=True)
class PairsReport:
    """Counts of one source.

    Attributes:
        name: the source's.
        documents: that were read; for readers of pairs 0.
        left_out: reason of ``LEFT_OUT`` -> documents.
        kinds: kind -> pairs for training.
        dropped: reason of ``DROPPED`` -> pairs.
        held_out: pairs that are kept for measuring.
        texts: for the teacher, each once.
        texts_overlap: texts that were dropped, since they overlap an evaluation set.
        licenses: licence -> documents that gave something.
    """

    name: str
    documents: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    held_out: int = 0
    texts: int = 0
    texts_overlap: int = 0
    licenses: dict[str, int] = field(default_factory=dict)

    @property
    def pairs(self) -> int:
        """Pairs for training."""
        return sum(self.kinds.values())


@dataclass(slots=True)
class OverlapReport:
    """What was looked for in one evaluation set.

    Attributes:
        name: the set's, as the recipe has it.
        documents: of it.
        questions: of its test and validation parts.
        short: titles, documents and questions too short to be looked for.
        found: texts that were dropped for it.
        copies: documents that were left out as one of its own.
    """

    name: str
    documents: int
    questions: int
    short: int
    found: int = 0
    copies: int = 0


@dataclass(slots=True)
class Report:
    """The counts of all sources, in the order of the recipe, and what they had in common with evaluation."""

    sources: list[PairsReport]
    overlaps: list[OverlapReport]
    words: int = 0
    """That make a run."""

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Report:
        """Return the report that ``to_json`` wrote."""
        return cls(
            [PairsReport(**source) for source in values["sources"]],
            [OverlapReport(**overlap) for overlap in values["overlaps"]],
            values["words"],
        )

    def to_markdown(self) -> str:
        """Return the counts as tables: pairs, documents, licences, overlaps."""
        kinds = sorted({kind for source in self.sources for kind in source.kinds})
        lines = ["# Pairs", "", "Pairs for training, and why others are not taken:", ""]
        lines += markdown_table(
            ["source", *kinds, "all", "held out", *DROPPED.values()],
            [
                [source.name, *_counts(source.kinds, kinds), f"{source.pairs:,}", f"{source.held_out:,}",
                 *_counts(source.dropped, list(DROPPED))]
                for source in self.sources
            ],
        )  # fmt: skip
        lines += ["", "Documents, and texts that the teacher is asked about:", ""]
        lines += markdown_table(
            ["source", "read", *LEFT_OUT.values(), "texts", "texts that overlap"],
            [
                [source.name, f"{source.documents:,}", *_counts(source.left_out, list(LEFT_OUT)),
                 f"{source.texts:,}", f"{source.texts_overlap:,}"]
                for source in self.sources
            ],
        )  # fmt: skip
        lines += ["", "Licences:", ""]
        lines += markdown_table(
            ["source", "documents that gave something"],
            [
                [source.name, ", ".join(f"{name} {count:,}" for name, count in source.licenses.items())]
                for source in self.sources
            ],
        )
        lines += ["", *self._overlap_lines()]
        return "\n".join([*lines, ""])

    def _overlap_lines(self) -> list[str]:
        if not self.overlaps:
            return ["Overlap with evaluation sets was not looked for: data.overlap names none."]
        table = markdown_table(
            ["evaluation set", "documents", "questions", "too short", "documents left out", "texts dropped"],
            [
                [
                    one.name,
                    f"{one.documents:,}",
                    f"{one.questions:,}",
                    f"{one.short:,}",
                    f"{one.copies:,}",
                    f"{one.found:,}",
                ]
                for one in self.overlaps
            ],
        )
        about = (
            f"Texts that have {self.words} words in a row in common with a document or a question of these "
            "sets, or a whole one of at least 4, are dropped, and documents that have twice as many or the "
            "title of one are left out; function words and numbers do not count:"
        )
        return [about, "", *table]


def _counts(counts: dict[str, int], names: Sequence[str]) -> list[str]:
    return [f"{counts.get(name, 0):,}" for name in names]
