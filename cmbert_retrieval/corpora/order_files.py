"""ICD-10-PCS and ICD-10-CM as flat files of CMS: the order file, or the file of codes and titles.

An order file has a line for every code and for everything above it: order number, code without its dot,
whether it is a code (1) or a heading (0), short and long title. Codes are in their order, so all of a
three-character category (of ICD-10-PCS: a table) stand together, and only these are held in memory.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmbert_retrieval.corpora.base import Source
from cmbert_retrieval.corpora.code_documents import clean, code_document
from cmbert_retrieval.corpora.code_files import CodeFilesCorpus, Problem, release_in_name, text_lines
from cmbert_retrieval.corpora.code_names import entry_texts
from cmbert_retrieval.corpora.files import existing, file_source
from cmbert_retrieval.corpora.lay import VOCABULARY
from cmbert_retrieval.corpora.xmlstream import stream_records
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.types import Document

_CODE = re.compile(r"[0-9A-Z]{3,7}")
_MAX_GROUP = 200_000
_FULL_LENGTH = 7

_SECTIONS = {
    "0": "Medical and Surgical",
    "1": "Obstetrics",
    "2": "Placement",
    "3": "Administration",
    "4": "Measurement and Monitoring",
    "5": "Extracorporeal or Systemic Assistance and Performance",
    "6": "Extracorporeal or Systemic Therapies",
    "7": "Osteopathic",
    "8": "Other Procedures",
    "9": "Chiropractic",
    "B": "Imaging",
    "C": "Nuclear Medicine",
    "D": "Radiation Therapy",
    "F": "Physical Rehabilitation and Diagnostic Audiology",
    "G": "Mental Health",
    "H": "Substance Abuse Treatment",
    "X": "New Technology",
}


@dataclass(frozen=True, slots=True)
class OrderLine:
    """A line of an order file.

    Attributes:
        number: the line's number in the file.
        code: without its dot.
        is_code: whether it may stand on a claim; a heading may not.
        short: the short title, "" in a file of codes and titles.
        long: the long title.
    """

    number: int
    code: str
    is_code: bool
    short: str
    long: str


def read_order_file(path: Path) -> Iterator[OrderLine | Problem]:
    """Yield the lines of an order file, or of a file of codes and titles, in constant memory.

    Source:
        "icd10OrderFiles.pdf" and "icd10cmCodesFile.pdf", which CMS ships with the files: order number in
        columns 1-5, code in 7-13, flag in 15, short title in 17-76, long title from 78; code in 1-7, title
        from 9.
    """
    for number, text, problem in text_lines(path):
        if not problem and not text.strip():
            continue
        line = None if problem else _parsed(text, number)
        yield line or Problem(
            f"{path.name}:{number}",
            problem or "no line of an order file: expected number, code, 0 or 1, and titles",
        )


def _parsed(text: str, number: int) -> OrderLine | None:
    if text[:5].isdigit() and text[5:6] == " " and text[13:16] in (" 0 ", " 1 "):
        code, is_code, short, long = text[6:13], text[14] == "1", clean(text[16:76]), clean(text[77:])
    elif text[7:8] == " ":
        code, is_code, short, long = text[:7], True, "", clean(text[8:])
    else:
        return None
    code = code.rstrip()
    return OrderLine(number, code, is_code, short, long) if _CODE.fullmatch(code) and long else None


class _OrderCorpus(CodeFilesCorpus):
    _shape: str
    """What is a code of this system, for the problem of a line with something else."""

    def sources(self) -> list[Source]:
        """Return the file with its checksum, and the vocabulary that adds what people call things."""
        return [*super().sources(), file_source(VOCABULARY, str(VOCABULARY))]

    def _items(self) -> Iterator[Document | Problem]:
        release = self._release or release_in_name(self.path)
        group: dict[str, OrderLine] = {}
        begun: set[str] = set()
        for line in read_order_file(self.path):
            if isinstance(line, Problem):
                yield line
                continue
            where, first = f"{self.path.name}:{line.number}", line.code[:3]
            if not self._fits(line):
                yield Problem(where, f"no code of this system: expected {self._shape}", line.code)
                continue
            if first not in begun:
                yield from self._group(group, release)
                group = {}
                begun.add(first)
            elif not group or first != next(iter(group))[:3]:
                raise CorpusError(
                    f"{where}: the codes of {first} stand in two places; expected them in order: sort it"
                )
            if line.code in group:
                yield Problem(where, f"stands twice, first in line {group[line.code].number}", line.code)
                continue
            group[line.code] = line
            if len(group) > _MAX_GROUP:
                raise CorpusError(
                    f"{where}: more than {_MAX_GROUP:,} codes of {first}; expected {self.expected}"
                )
        yield from self._group(group, release)

    @abstractmethod
    def _fits(self, line: OrderLine) -> bool:
        """Tell whether a line is one of this code system."""

    @abstractmethod
    def _group(self, group: dict[str, OrderLine], release: str) -> Iterator[Document]:
        """Yield the documents of the codes that begin with the same three characters."""


class Icd10pcsCorpus(_OrderCorpus):
    """The codes of one ICD-10-PCS release and the tables that they are built from."""

    reader = "icd10pcs"
    expected = "an order file of ICD-10-PCS (icd10pcs_order_2026.txt), or its file of codes and titles"
    _shape = "seven characters, or the three of a table"

    def __init__(self, path: str | Path, *, release: str = "", tables: str = "") -> None:
        """Find the files; nothing of them is read yet.

        Args:
            path: the order file, ``.gz`` or not.
            release: the release as its publisher names it; "" takes it from the file's name.
            tables: the code tables in XML (``icd10pcs_tables_2026.xml``): what the operations mean.

        Raises:
            CorpusError: there is no such file.
        """
        super().__init__(path, release=release)
        self._tables = existing(tables) if tables else None
        self._definitions: dict[str, str] = {}

    def _fits(self, line: OrderLine) -> bool:
        return len(line.code) == (_FULL_LENGTH if line.is_code else 3)

    def _paths(self) -> list[Path]:
        return [self.path, *([self._tables] if self._tables else [])]

    def _items(self) -> Iterator[Document | Problem]:
        self._definitions = _read_definitions(self._tables) if self._tables else {}
        yield from super()._items()

    def _group(self, group: dict[str, OrderLine], release: str) -> Iterator[Document]:
        for code, line in group.items():
            is_table = not line.is_code
            table = code[:3] if code[:3] in group and len(code) > 3 else None
            yield code_document(
                code,
                line.long,
                {
                    "system": "icd10pcs",
                    "license": "public domain",
                    "release": release,
                    "chapter": code[0],
                    "chapter_title": _SECTIONS.get(code[0], ""),
                    "block": code[:3],
                    "block_title": group[table].long if table else line.long if is_table else "",
                },
                kind="table" if is_table else "code",
                entries=entry_texts([line.long]),
                parent=table,
                children=[other for other in group if len(other) > 3] if is_table and len(code) == 3 else [],
                billable=line.is_code,
                definition=self._definitions.get(code, ""),
                facts=_names(line),
            )


class Icd10cmOrderCorpus(_OrderCorpus):
    """The codes of one ICD-10-CM release, from its order file: titles and the tree, without terms and notes.

    As in the tabular list, codes with a seventh character are offered on the code that they extend.
    """

    reader = "icd10cm_order"
    expected = "an order file of ICD-10-CM (icd10cm_order_2026.txt), or its file of codes and titles"
    _shape = "a letter, a digit and one to five characters"

    def __init__(self, path: str | Path, *, release: str = "", extensions: bool = False) -> None:
        """Find the file; nothing of it is read yet.

        Args:
            path: the file, ``.gz`` or not.
            release: the release as its publisher names it; "" takes it from the file's name.
            extensions: make documents of the codes with a seventh character, too.

        Raises:
            CorpusError: there is no such file.
        """
        super().__init__(path, release=release)
        self._extensions = extensions

    def _fits(self, line: OrderLine) -> bool:
        return line.code[0].isalpha() and line.code[1].isdigit()

    def _group(self, group: dict[str, OrderLine], release: str) -> Iterator[Document]:
        parents = {code: _above(code, group) for code in group}
        seventh: dict[str, dict[str, str]] = {}
        children: dict[str, list[str]] = {}
        for code, parent in parents.items():
            if parent is None:
                continue
            if len(code) == _FULL_LENGTH and code[:-1].rstrip("X") == parent.rstrip("X"):
                meaning = group[code].long.removeprefix(group[parent].long).lstrip(", ")
                seventh.setdefault(parent, {})[code[-1]] = meaning or group[code].long
                if not self._extensions:
                    continue
            children.setdefault(parent, []).append(dotted(code))
        for code, line in group.items():
            parent = parents[code]
            below = children.get(code, [])
            if not self._extensions and parent is not None and code not in children:
                if len(code) == _FULL_LENGTH and code[-1] in seventh.get(parent, {}):
                    continue
            yield code_document(
                dotted(code),
                line.long,
                {
                    "system": "icd10cm",
                    "license": "public domain",
                    "release": release,
                    "chapter": "",
                    "chapter_title": "",
                    "block": "",
                    "block_title": "",
                },
                kind="code" if not below else "category" if len(code) == 3 else "subcategory",
                entries=entry_texts([line.long]),
                parent=dotted(parent) if parent else None,
                children=below,
                billable=line.is_code,
                seventh=seventh.get(code, {}),
                facts=_names(line),
            )


def _read_definitions(path: Path) -> dict[str, str]:
    """Return for every table of ICD-10-PCS (three characters) what its operation means."""
    definitions = {}
    for table in stream_records(path, ("pcsTable",), roots=("ICD10PCS.tabular",)):
        axes = {axis.get("pos"): axis for axis in table.findall("axis")}
        labels = [axes[pos].find("label") if pos in axes else None for pos in ("1", "2", "3")]
        code = "".join(label.get("code", "") if label is not None else "" for label in labels)
        if definition := clean(axes["3"].findtext("definition") or "") if "3" in axes else "":
            definitions[code] = definition
    return definitions


def dotted(code: str) -> str:
    """Return a code of ICD-10-CM with its dot: ``A000`` is ``A00.0``."""
    return f"{code[:3]}.{code[3:]}" if len(code) > 3 else code


def _above(code: str, group: dict[str, OrderLine]) -> str | None:
    return next((code[:end] for end in range(len(code) - 1, 2, -1) if code[:end] in group), None)


def _names(line: OrderLine) -> dict[str, Any]:
    """Return all names by type. The short title only abbreviates the long one, so it is no entry."""
    return {"names": {"long": [line.long], "short": [line.short] if line.short else []}}
