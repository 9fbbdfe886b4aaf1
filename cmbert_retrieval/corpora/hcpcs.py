"""HCPCS Level II as CMS publishes it: the fixed-width text of the "ANWEB" file, or a CSV of the same columns.

Current procedural terminology (CPT, five digits) and dental codes (CDT, "D" and four digits) belong to the
American Medical and Dental Associations. They are read from a user's own file like the others, and say so in
their licence; nothing of them comes with this library.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from cmbert_retrieval.corpora.base import Source
from cmbert_retrieval.corpora.code_documents import clean, code_document, distinct
from cmbert_retrieval.corpora.code_files import (
    CodeFilesCorpus,
    Problem,
    first_day,
    release_in_name,
    text_lines,
)
from cmbert_retrieval.corpora.code_names import entry_texts
from cmbert_retrieval.corpora.files import file_source
from cmbert_retrieval.corpora.lay import VOCABULARY
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.types import Document

_CODE = re.compile(r"[A-Z][0-9]{4}|[0-9]{4}[0-9A-Z]")
_MODIFIER = re.compile(r"[0-9A-Z]{2}")
_MAX_PARTS = 1_000
_MAX_CELL = 2**17
_MAX_REMARKS = 100

# First and last column of what is read, counted from 1 as in the record layout of CMS.
_COLUMNS = {
    "code": (1, 5),
    "record": (11, 11),
    "long": (12, 91),
    "short": (92, 119),
    "cross_reference": (205, 229),
    "coverage": (230, 230),
    "betos": (257, 259),
    "type_of_service": (261, 265),
    "added": (269, 276),
    "effective": (277, 284),
    "terminated": (285, 292),
    "action_code": (293, 293),
}
_NEW, _MORE = frozenset("37"), frozenset("48")  # 3 and 4 of a procedure, 7 and 8 of a modifier
_HEADINGS = {
    "code": ("hcpc", "hcpcs", "hcpcscode", "code", "hcpcscd"),
    "record": ("recid",),
    "long": ("longdescription", "long", "description", "longdesc"),
    "short": ("shortdescription", "short", "shortdesc"),
    "cross_reference": ("xref1",),
    "coverage": ("cov",),
    "betos": ("betos",),
    "type_of_service": ("tos1",),
    "added": ("adddt",),
    "effective": ("acteffdt", "effectivedate"),
    "terminated": ("termdt", "terminationdate"),
    "action_code": ("actioncd", "actioncode"),
}
_CHAPTERS = {
    "A": "Transportation services, medical and surgical supplies, miscellaneous",
    "B": "Enteral and parenteral therapy",
    "C": "Outpatient hospital services (temporary)",
    "D": "Dental procedures",
    "E": "Durable medical equipment",
    "G": "Procedures and professional services (temporary)",
    "H": "Alcohol and drug abuse treatment services",
    "J": "Drugs administered other than by mouth, chemotherapy drugs",
    "K": "Durable medical equipment (temporary)",
    "L": "Orthotic and prosthetic procedures and devices",
    "M": "Medical services and quality measures",
    "P": "Pathology and laboratory services",
    "Q": "Procedures, services and supplies (temporary)",
    "R": "Diagnostic radiology services",
    "S": "National codes of private payers (temporary)",
    "T": "Codes of state Medicaid agencies",
    "U": "Clinical laboratory tests",
    "V": "Vision, hearing and speech-language services",
}


@dataclass(slots=True)
class _Draft:
    """A code while its lines are read."""

    line: int
    values: dict[str, str]
    parts: list[str] = field(default_factory=list)


class HcpcsCorpus(CodeFilesCorpus):
    """The codes and modifiers of one HCPCS release, in the file's order, in constant memory.

    The long description is the title. The short one, with which claims are printed, is an entry, too.
    """

    reader = "hcpcs"
    expected = (
        "HCPCS Level II of CMS: the fixed-width HCPC..._ANWEB.txt, "
        "or a CSV with the columns HCPC and LONG DESCRIPTION"
    )

    def sources(self) -> list[Source]:
        """Return the file with its checksum, and the vocabulary that adds what people call things."""
        return [*super().sources(), file_source(VOCABULARY, str(VOCABULARY))]

    def _items(self) -> Iterator[Document | Problem]:
        release = self._release or release_in_name(self.path)
        for draft in self._drafts():
            yield draft if isinstance(draft, Problem) else self._document(draft, release)

    def _drafts(self) -> Iterator[_Draft | Problem]:
        name = self.path.name.lower().removesuffix(".gz")
        return self._from_table() if name.endswith((".csv", ".tsv")) else self._from_columns()

    def _from_columns(self) -> Iterator[_Draft | Problem]:
        """Yield the codes of the fixed-width file; a description goes on over several lines."""
        draft: _Draft | None = None
        remarks = 0
        for number, text, problem in text_lines(self.path):
            where = f"{self.path.name}:{number}"
            values = {key: text[first - 1 : last].strip() for key, (first, last) in _COLUMNS.items()}
            record, code = values["record"], values["code"]
            if not problem and record in _NEW and _is_code(code):
                if draft:
                    yield draft
                draft = _Draft(number, values, [values["long"]])
            elif not problem and record in _MORE and _is_code(code):
                if draft is None or code != draft.values["code"]:
                    yield Problem(where, "goes on with a code whose first line is not before it", code)
                elif len(draft.parts) >= _MAX_PARTS:
                    yield Problem(where, f"a description of more than {_MAX_PARTS:,} lines", code)
                else:
                    draft.parts.append(values["long"])
            elif problem or text.strip():
                remarks += draft is None
                # Before the first code stand the publisher's remarks, of which there are few.
                if problem or draft or remarks > _MAX_REMARKS:
                    yield Problem(
                        where, problem or "no record of HCPCS: expected a code and a record type 3, 4, 7 or 8"
                    )
        if draft:
            yield draft

    def _from_table(self) -> Iterator[_Draft | Problem]:
        """Yield the codes of a CSV; rows that go on with the same code are joined, as in the text file."""
        draft: _Draft | None = None
        for number, row in self._rows():
            code, long = row["code"], row["long"]
            if not _is_code(code):
                yield Problem(f"{self.path.name}:{number}", "no code of HCPCS in its column")
            elif draft and row["record"] in _MORE and code == draft.values["code"]:
                if len(draft.parts) >= _MAX_PARTS:
                    raise CorpusError(
                        f"{self.path.name}:{number}: a description of more than {_MAX_PARTS:,} rows"
                    )
                draft.parts.append(long)
            else:
                if draft:
                    yield draft
                draft = _Draft(number, row, [long])
        if draft:
            yield draft

    def _rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield line number and the wanted columns of every row."""
        lines = text_lines(self.path)
        number, header, problem = next(lines, (0, "", ""))
        if problem:
            raise CorpusError(f"{self.path.name}:1: {problem}")
        delimiter = "\t" if "\t" in header else ","
        headings = [re.sub(r"[^a-z0-9]", "", cell.lower()) for cell in header.split(delimiter)]
        places = {
            key: next((headings.index(name) for name in names if name in headings), -1)
            for key, names in _HEADINGS.items()
        }
        if places["code"] < 0 or max(places["long"], places["short"]) < 0:
            raise CorpusError(f"{self.path}: no columns of codes and descriptions; expected {self.expected}")
        # The module's own bound is one for the whole process. Ours is kept below, so this one is only raised.
        if csv.field_size_limit() < _MAX_CELL:
            csv.field_size_limit(_MAX_CELL)
        # With tabs between them, cells need no quotes, and a quote belongs to the text.
        texts = self._texts(lines)
        if delimiter == "\t":
            reader = csv.reader(texts, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        else:
            # Strict: the end within a quote is an error, however long a cell the process allows by then.
            reader = csv.reader(texts, strict=True)
        try:
            for cells in reader:
                if max(map(len, cells), default=0) > _MAX_CELL:  # the module's own bound may have been raised
                    raise csv.Error
                number = reader.line_num + 1
                if any(cells):
                    yield (
                        number,
                        {
                            key: cells[place].strip() if 0 <= place < len(cells) else ""
                            for key, place in places.items()
                        },
                    )
        except csv.Error:
            raise CorpusError(
                f"{self.path.name}:{number + 1}: not well-formed CSV, perhaps a quote without its end"
            ) from None

    def _texts(self, lines: Iterator[tuple[int, str, str]]) -> Iterator[str]:
        for number, text, problem in lines:
            if problem:
                raise CorpusError(f"{self.path.name}:{number}: {problem}")
            yield re.sub(r"[\0\r]", " ", text) + "\n"

    def _document(self, draft: _Draft, release: str) -> Document | Problem:
        values = draft.values
        code = values["code"]
        long, short = clean(" ".join(draft.parts)), clean(values["short"])
        title = long or short
        if not title:
            return Problem(f"{self.path.name}:{draft.line}", "a code without a description", code)
        is_modifier = len(code) == 2
        terminated = _iso_date(values["terminated"])
        facts: dict[str, Any] = {"names": {"long": [long] if long else [], "short": [short] if short else []}}
        for key in ("added", "effective"):
            facts[key] = _iso_date(values[key])
        facts["terminated"] = terminated
        for key in ("action_code", "coverage", "betos", "type_of_service", "cross_reference"):
            facts[key] = values[key]
        return code_document(
            code,
            title,
            {
                "system": "hcpcs",
                "license": _license(code),
                "release": release,
                "chapter": "" if is_modifier else code[0],
                "chapter_title": "" if is_modifier else _CHAPTERS.get(code[0], ""),
                "block": "",
                "block_title": "",
            },
            kind="modifier" if is_modifier else "code",
            entries=distinct([*entry_texts([title]), short]),
            billable=not is_modifier and (not terminated or terminated >= (first_day(release) or "9999")),
            terms=[short] if short and short.casefold() != title.casefold() else [],
            terms_label="Short",
            facts={key: value for key, value in facts.items() if value},
        )


def _is_code(code: str) -> bool:
    return bool(_CODE.fullmatch(code) or _MODIFIER.fullmatch(code))


def _license(code: str) -> str:
    if len(code) == 5 and code[0] == "D":
        return "CDT, copyright American Dental Association"
    if len(code) == 5 and code[0].isdigit():
        return "CPT, copyright American Medical Association"
    return "public domain"


def _iso_date(digits: str) -> str:
    """Return ``20190131`` (in CSV exports, 1/31/2019) as ``2019-01-31``, anything else as it is."""
    found = re.fullmatch(r"(\d{4})-?(\d\d)-?(\d\d)", digits)
    parts = found.groups() if found else ()
    if not found and (found := re.fullmatch(r"(\d\d?)/(\d\d?)/(\d{4})", digits)):
        parts = (found[3], found[1], found[2])
    try:
        return date(*map(int, parts)).isoformat() if parts else digits
    except ValueError:
        return digits
