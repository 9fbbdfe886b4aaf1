"""What a build did: counts of what was stored, reused, skipped or cut, and the first ids of each kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.wording import plural

EXAMPLES = 5


@dataclass(slots=True)
class Report:
    """Counts of a build, an update or a deletion. Nothing is dropped without being counted here.

    Attributes:
        commit: the commit that holds the result; 0 before it happened.
        documents: documents stored, new or changed.
        rows: rows stored for them.
        encoded: rows that the encoder saw in this run; a resumed run counts only its own.
        reused: rows whose text had not changed and that kept their vector.
        unchanged: documents that were there already, to the letter.
        replaced: documents that took the place of an earlier revision.
        outdated: documents of an earlier version than the one that is there, left out.
        duplicates: ids that came again within the run; the later one counts.
        deleted: documents removed.
        skipped: records that could not be read or used.
        empty: documents without title and text.
        truncated: rows longer than the encoder reads.
        unusable_values: metadata values that did not fit their declared column; the documents are kept
            without them.
        empty_columns: columns that the user declared and no document has a usable value in.
        examples: kind of trouble -> the first few, as one line each.
    """

    commit: int = 0
    documents: int = 0
    rows: int = 0
    encoded: int = 0
    reused: int = 0
    unchanged: int = 0
    replaced: int = 0
    outdated: int = 0
    duplicates: int = 0
    deleted: int = 0
    skipped: int = 0
    empty: int = 0
    truncated: int = 0
    unusable_values: int = 0
    empty_columns: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, kind: str, example: str, *, strict: bool = False) -> None:
        """Count one more of ``kind`` and keep the first few examples.

        Raises:
            CorpusError: ``strict`` is set: the example is the message.
        """
        if strict:
            raise CorpusError(f"{kind.replace('_', ' ')}: {example}")
        setattr(self, kind, getattr(self, kind) + 1)
        examples = self.examples.setdefault(kind, [])
        if len(examples) < EXAMPLES:
            examples.append(example)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Report:
        """Return the report that ``to_json`` wrote."""
        return cls(**values)

    def lines(self) -> list[str]:
        """Return the trouble as sentences for people, the harmless counts first."""
        texts = {
            "unchanged": (
                "document was there already and did not change",
                "documents were there already and did not change",
            ),
            "replaced": ("document replaced an earlier revision", "documents replaced an earlier revision"),
            "outdated": (
                "document is of an earlier version than what is there and was left out",
                "documents are of an earlier version than what is there and were left out",
            ),
            "reused": (
                "row kept its vector, its text had not changed",
                "rows kept their vector, their text had not changed",
            ),
            "duplicates": (
                "id came more than once; the last one counts",
                "ids came more than once; the last one counts",
            ),
            "skipped": ("record was skipped", "records were skipped"),
            "empty": (
                "document without title and text was skipped",
                "documents without title and text were skipped",
            ),
            "truncated": (
                "text was longer than the encoder reads; its end is found by words only",
                "texts were longer than the encoder reads; their end is found by words only",
            ),
            "unusable_values": (
                "metadata value did not fit its column and cannot be filtered on",
                "metadata values did not fit their column and cannot be filtered on",
            ),
            "empty_columns": (
                "declared column has no usable value in any document: filters find nothing",
                "declared columns have no usable value in any document: filters find nothing",
            ),
        }
        lines = []
        for kind, (one, many) in texts.items():
            count = getattr(self, kind)
            if count:
                shown = "; ".join(self.examples.get(kind, ()))
                lines.append(plural(count, one, many) + (f" (first: {shown})" if shown else ""))
        return lines
