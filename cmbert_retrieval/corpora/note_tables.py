"""Tables of notes: which column is what, in MIMIC's files and in those of others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cmbert_retrieval.corpora.fields import Fields, check_unique, missing_column
from cmbert_retrieval.errors import ConfigError, CorpusError

_IDS = ("note_id", "row_id", "id", "_id", "document_id", "doc_id", "report_id")
_TEXTS = ("text", "note_text", "note", "report_text", "report", "transcription", "body", "content")
_TITLES = ("title", "description", "note_title")
_MIMIC_IV = frozenset("note_id subject_id hadm_id note_type note_seq charttime storetime text".split())
_MIMIC_III = frozenset("row_id subject_id hadm_id chartdate category description iserror text".split())
_COLUMNS = {
    "MIMIC-IV": {
        "subject_id": "integer",
        "hadm_id": "integer",
        "note_type": "text",
        "charttime": "date",
    },
    "MIMIC-III": {
        "subject_id": "integer",
        "hadm_id": "integer",
        "category": "text",
        "chartdate": "date",
        "iserror": "boolean",
    },
}
_OTHER_NUMBERS = {"MIMIC-IV": ("note_seq",), "MIMIC-III": ("cgid",)}
_WHOLE = re.compile(r"(\d{1,18})(?:\.0)?")  # pandas writes a column of integers with gaps as 12.0


@dataclass(frozen=True, slots=True)
class NoteOptions:
    """What the user says about columns; "" stands for a guess, ``rest`` for all others."""

    id: str
    text: str
    title: str
    metadata: tuple[str, ...] | str

    @classmethod
    def checked(cls, id: str, text: str, title: str, metadata: str | Sequence[str]) -> NoteOptions:
        """Return the options.

        Raises:
            ConfigError: a name is no text.
        """
        for option, value in (("id", id), ("text", text), ("title", title)):
            if not isinstance(value, str):
                raise ConfigError(f"option '{option}': got {value!r}, expected the name of a column")
        if isinstance(metadata, str):
            listed = [name.strip() for name in metadata.split(",")]
            return cls(id, text, title, "rest" if metadata == "rest" else tuple(filter(None, listed)))
        if not isinstance(metadata, list | tuple) or not all(isinstance(name, str) for name in metadata):
            raise ConfigError(f"option 'metadata': got {metadata!r}, expected 'rest' or a list of columns")
        return cls(id, text, title, tuple(metadata))


class NoteTable:
    """The columns of one table of notes.

    Attributes:
        names: as the document's metadata have them: those of MIMIC-III in small letters.
        fields: which of them are id, text, title and metadata.
        columns: filter columns, name -> type; empty unless it is a table of MIMIC's.
    """

    def __init__(self, header: Sequence[str], options: NoteOptions, where: str, separator: str = "") -> None:
        """Find the columns.

        Args:
            header: the names as the file has them.
            options: what the user says.
            where: the file, for messages.
            separator: of a CSV file, whose columns another one may separate.

        Raises:
            CorpusError: a column is missing, or has the name of another.
        """
        self._where = where
        layout = _layout(header)
        self.names = [name.lower() for name in header] if layout == "MIMIC-III" else list(header)
        check_unique(self.names, where)
        if separator:
            self._check_separator(separator)
        self._id = self._find(options.id, _IDS, "id")
        self._text = self._find(options.text, _TEXTS, "text")
        title = self._find(options.title, _TITLES, "title")
        metadata: str | list[str] = "rest"
        if not isinstance(options.metadata, str):
            metadata = [self._find(name, (), "metadata") for name in options.metadata]
        self.fields = Fields(id=self._id, text=self._text, title=title, metadata=metadata, noun="column")
        self.fields.check(self.names, where)
        kept = set(self.fields.wanted(self.names)) - {self._id, self._text, title}
        known = _COLUMNS.get(layout, {})
        self.columns = {name: kind for name, kind in known.items() if name in kept}
        self._integers = [name for name, kind in self.columns.items() if kind == "integer"]
        self._integers += kept.intersection(_OTHER_NUMBERS.get(layout, ()))

    def _check_separator(self, separator: str) -> None:
        (name, *more) = self.names
        other = next((mark for mark in ";\t|," if mark in name and mark != separator), None)
        if not more and other:
            shown = "tab" if other == "\t" else other
            raise CorpusError(
                f"{self._where}: one column only; if '{shown}' separates columns: "
                f"--set source.options.separator='\"{shown}\"'"
            )

    def _find(self, wanted: str, guesses: tuple[str, ...], option: str) -> str:
        """Return the name of a column: as wanted, in any spelling if that is clear, or the first guess."""
        if wanted in self.names and wanted:
            return wanted
        lower: dict[str, list[str]] = {}
        for name in self.names:
            lower.setdefault(name.lower(), []).append(name)
        for guess in (wanted,) if wanted else guesses:
            if len(found := lower.get(guess.lower(), [])) == 1:
                return found[0]
        if option == "title" and not wanted:
            return ""
        looked_for = (wanted,) if wanted else guesses[:2]
        raise missing_column(looked_for, self.names, self._where, option, guess=bool(wanted))

    def of_cells(self, cells: Sequence[str]) -> dict[str, Any]:
        """Return a row of text as values: empty cells are absent, numbers of MIMIC's are numbers."""
        values: dict[str, Any] = {
            name: cell
            for name, cell in zip(self.names, cells, strict=True)
            if name and cell and not cell.isspace()
        }
        values.setdefault(self._text, "")
        for name in self._integers:
            if name in values:
                values[name] = _number(values[name])
        if "iserror" in self.columns:
            values["iserror"] = values.get("iserror") in ("1", "1.0")
        return values

    def of_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row of a Parquet file as values."""
        values = dict(zip(self.names, row.values(), strict=True))
        for name in self._integers:
            values[name] = _number(values[name])
        if "iserror" in self.columns:
            values["iserror"] = bool(values["iserror"])
        return values


def _number(value: Any) -> Any:
    """Return a whole number that is written as text or as a fraction as one; all else as it is."""
    if isinstance(value, str) and (found := _WHOLE.fullmatch(value)):
        return int(found[1])
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _layout(header: Sequence[str]) -> str:
    names = frozenset(name.lower() for name in header)
    if names >= _MIMIC_IV:
        return "MIMIC-IV"
    return "MIMIC-III" if names >= _MIMIC_III else ""
