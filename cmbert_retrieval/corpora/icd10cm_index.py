"""The alphabetic index of ICD-10-CM as CMS publishes it: index, external causes, neoplasm and drug tables.

All four are XML of one schema: main terms with terms below them, each with a code, a reference, or (in the
tables) a code for every column. The words under which a code is filed say better than its title how it is
asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cmbert_retrieval.corpora.code_documents import clean, code_document, distinct
from cmbert_retrieval.corpora.code_files import CodeFilesCorpus, Problem
from cmbert_retrieval.corpora.files import existing
from cmbert_retrieval.corpora.icd10cm import release_of
from cmbert_retrieval.corpora.index_phrases import phrases
from cmbert_retrieval.corpora.xmlstream import stream_records
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.types import Document

MAX_ENTRIES = 2_000_000
"""Entries above which a file is refused; they are held in memory, grouped by code. CMS's have 200,000."""

_ROOT = "ICD10CM.index"
_CODE = re.compile(r"(?P<code>[A-Z][0-9][0-9A-Z](?:\.[0-9A-Z]{1,4})?)\.?(?P<open>-*)")
_NO_CODE = re.compile(r"[-–\s]*")
_MODIFIER = re.compile(r"\(([^()]*)\)")
_PARTS = ("*index*.xml*", "*neoplasm*.xml*", "*drug*.xml*")


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """What an index files under one path.

    Attributes:
        path: the terms from the main one downwards, without nonessential modifiers.
        modifiers: for each of them, the words in brackets that may be there and change nothing.
        code: the code, "" for a mere reference. A code that needs more characters is without its dash.
        incomplete: whether the code needs more characters, or only its category is named.
        column: heading of the table's column (``Malignant Primary``), "" in an index.
        manifestation: the code that goes with it.
        see: where the codes of this term stand.
        see_also: where more stands.
        where: file and line.
    """

    path: tuple[str, ...]
    modifiers: tuple[tuple[str, ...], ...]
    code: str = ""
    incomplete: bool = False
    column: str = ""
    manifestation: str = ""
    see: str = ""
    see_also: str = ""
    where: str = ""


@dataclass(slots=True)
class _Filed:
    """What is filed under one code."""

    paths: list[tuple[str, ...]] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    phrases: list[str] = field(default_factory=list)
    manifestations: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    incomplete: bool = True


def index_entries(path: str | Path) -> Iterator[IndexEntry]:
    """Yield the entries of an index or a table in their order, one main term in memory at a time.

    Raises:
        CorpusError: the file cannot be read, or has something else where a code should be.
    """
    for entry in _entries(existing(path), []):
        if isinstance(entry, Problem):
            raise CorpusError(f"{entry.where}: {entry.reason}")
        yield entry


class Icd10cmIndexCorpus(CodeFilesCorpus):
    """The codes of the index, each with the phrases under which it is filed, in order of first mention.

    Readable phrases ("abscess of scalp") are entries; the paths as printed, with their nonessential modifiers
    ("Diabetes, diabetic (mellitus) (sugar)"), stand in the metadata under ``names`` and in the text. What
    refers to other terms only has no code and so no document.
    """

    reader = "icd10cm_index"
    columns: Mapping[str, str] = {"kind": "text", "system": "text"}
    expected = (
        "index files of ICD-10-CM in XML (icd10cm_index_2026.xml, icd10cm_eindex, _neoplasm, _drug), "
        "or a folder of them"
    )

    def __init__(self, path: str | Path, *, release: str = "") -> None:
        """Find the files; nothing of them is read yet.

        Args:
            path: one of the four files, ``.gz`` or not, or a folder with some of them.
            release: the release as its publisher names it; "" takes it from the file.

        Raises:
            CorpusError: there is no such file, or none in the folder.
        """
        given = existing(path)
        self._files = _index_files(given) if given.is_dir() else [given]
        if not self._files:
            raise CorpusError(f"{path}: no index of ICD-10-CM in this folder; expected {self.expected}")
        super().__init__(self._files[0], release=release)

    def _paths(self) -> list[Path]:
        return self._files

    def _items(self) -> Iterator[Document | Problem]:
        filed: dict[str, _Filed] = {}
        versions: list[str] = []
        count = 0
        for path in self._files:
            for entry in _entries(path, versions):
                if isinstance(entry, Problem):
                    yield entry
                    continue
                count += 1
                if count > MAX_ENTRIES:
                    raise CorpusError(
                        f"{entry.where}: more than {MAX_ENTRIES:,} entries; expected {self.expected}"
                    )
                if entry.code:
                    _file(filed.setdefault(entry.code, _Filed()), entry)
        release = self._release or release_of(self.path.name, versions[0] if versions else "")
        for code, found in filed.items():
            yield _document(code, found, release)


def _file(filed: _Filed, entry: IndexEntry) -> None:
    filed.paths.append(entry.path)
    column = f": {entry.column}" if entry.column else ""
    filed.titles.append(", ".join(entry.path) + column)
    filed.names.append(", ".join(map(_printed, entry.path, entry.modifiers)) + column)
    filed.phrases += phrases(entry.path, column=entry.column)
    filed.incomplete = filed.incomplete and entry.incomplete
    if entry.manifestation:
        filed.manifestations.append(entry.manifestation)
    if entry.column:
        filed.tables.append(entry.column)


def _printed(step: str, modifiers: tuple[str, ...]) -> str:
    return " ".join([step, *(f"({modifier})" for modifier in modifiers)])


def _document(code: str, filed: _Filed, release: str) -> Document:
    found, names = distinct(filed.phrases), distinct(filed.names)
    shortest = min(range(len(filed.paths)), key=lambda index: len(filed.paths[index]))
    facts: dict[str, Any] = {"names": {"phrases": found, "index": names}, "incomplete": filed.incomplete}
    if filed.manifestations:
        facts["manifestations"] = distinct(filed.manifestations)
    if filed.tables:
        facts["table_columns"] = distinct(filed.tables)
    return code_document(
        code,
        filed.titles[shortest],
        {"system": "icd10cm", "license": "public domain", "release": release},
        kind="code",
        entries=found,
        terms=[name for name in names if name != filed.titles[shortest]],
        terms_label="Also under",
        facts=facts,
    )


def _entries(path: Path, versions: list[str]) -> Iterator[IndexEntry | Problem]:
    columns: dict[str, str] = {}
    for element in stream_records(path, ("version", "indexHeading", "mainTerm"), roots=(_ROOT,)):
        if element.tag == "version":
            versions.append(clean(element.text or ""))
        elif element.tag == "indexHeading":
            columns = {head.get("col", ""): clean(head.text or "") for head in element.findall("head")}
        else:
            yield from _main_term(element, path.name, columns)


def _main_term(main: Any, name: str, columns: Mapping[str, str]) -> Iterator[IndexEntry | Problem]:
    todo: list[tuple[Any, tuple[str, ...], tuple[tuple[str, ...], ...]]] = [(main, (), ())]
    while todo:
        element, path, modifiers = todo.pop()
        where = f"{name}:{element.sourceline}"
        title, modified = _title(element.find("title"))
        if not title and not modified:
            yield Problem(where, "a term without a title")
            continue
        path, modifiers = (*path, title), (*modifiers, modified)
        todo += [(below, path, modifiers) for below in reversed(element.findall("term"))]
        # An empty step, of a term that is nothing but a modifier, says nothing in a path.
        steps = [(step, words) for step, words in zip(path, modifiers, strict=True) if step]
        kept, kept_modifiers = tuple(step for step, _ in steps), tuple(words for _, words in steps)
        refers = {key: "; ".join(_texts(element, key)) for key in ("see", "seeAlso", "manif")}
        codes = [(text, "") for key in ("code", "subcat", "seecat") for text in _texts(element, key)]
        incomplete = not _texts(element, "code")
        for cell in element.findall("cell"):
            codes.append((clean(cell.text or ""), columns.get(cell.get("col", ""), cell.get("col", ""))))
            incomplete = False
        any_code = False
        for text, column in codes:
            found = _CODE.fullmatch(text)
            if found is None and not _NO_CODE.fullmatch(text):
                yield Problem(where, "no code of ICD-10-CM where one is expected")
            if found is None:
                continue
            any_code = True
            yield IndexEntry(
                kept,
                kept_modifiers,
                found["code"],
                incomplete or bool(found["open"]),
                column,
                refers["manif"].strip("[]"),
                refers["see"],
                refers["seeAlso"],
                where,
            )
        if not any_code and (refers["see"] or refers["seeAlso"]):
            yield IndexEntry(kept, kept_modifiers, see=refers["see"], see_also=refers["seeAlso"], where=where)


def _title(title: Any) -> tuple[str, tuple[str, ...]]:
    """Return a title without its nonessential modifiers, and these."""
    if title is None:
        return "", ()
    parts, modifiers = [title.text or ""], []
    for child in title:
        text = "".join(map(str, child.itertext()))
        if child.tag == "nemod":
            modifiers += [found for found in map(clean, _MODIFIER.findall(text)) if found] or [clean(text)]
        else:
            parts.append(text)
        parts.append(child.tail or "")
    return clean("".join(parts)).replace(" ,", ","), tuple(modifiers)


def _texts(element: Any, tag: str) -> list[str]:
    return [text for child in element.findall(tag) if (text := clean("".join(map(str, child.itertext()))))]


def _index_files(folder: Path) -> list[Path]:
    names = sorted(path for path in folder.iterdir() if path.is_file() and "addend" not in path.name.lower())
    return list(dict.fromkeys(p for part in _PARTS for p in names if Path(p.name.lower()).match(part)))
