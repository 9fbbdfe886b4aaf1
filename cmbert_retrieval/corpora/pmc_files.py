"""Where the articles of a PMC download lie: archives, the cloud service's versioned folders, loose files."""

from __future__ import annotations

import csv
import json
import os
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cmbert_retrieval.corpora.files import UnusableError, read_bounded
from cmbert_retrieval.corpora.licenses import normalize_license
from cmbert_retrieval.errors import CorpusError

ARTICLE_SUFFIXES = (".xml", ".nxml")
ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar")
_VERSIONED = re.compile(r"PMC(\d{1,15})\.(\d{1,3})")
_VERSION_BITS = 10
_LOOSE_VERSION = re.compile(
    r"(?P<above>.*/)?(?P<pmcid>PMC\d{1,15})\.(?P<version>\d{1,3})/(?P=pmcid)\.(?P=version)\.xml(?:\.gz)?"
)
VERSIONED_FILE = re.compile(rf"(?P<folder>{_VERSIONED.pattern})/(?P=folder)\.xml")
"""Names of articles in the cloud service's layout, as ``Listing.versioned_after`` yields them."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about an article besides its XML. None and "" stand for unknown."""

    pmcid: str = ""
    version: int | None = None
    pmid: str = ""
    doi: str = ""
    license: str = ""
    is_retracted: bool | None = None


@dataclass(slots=True)
class Listing:
    """The files of a corpus in reading order: archives by name, versioned folders by number, loose files.

    Attributes:
        root: the folder that names are relative to.
        archives: names of tar archives.
        versioned: for every article of the cloud service's layout the highest version, as one number each
            (millions of them fit into memory).
        loose: names of ``.xml`` and ``.nxml`` files, also with ``.gz``.
    """

    root: Path
    archives: list[str] = field(default_factory=list)
    versioned: list[int] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.archives) + len(self.versioned) + len(self.loose)

    def versioned_after(self, name: str | None) -> Iterator[tuple[str, str, int]]:
        """Yield file name, PMCID and version, behind the article of the file ``name``."""
        start = 0
        if name is not None and (found := _VERSIONED.match(name)):
            start = bisect_right(
                self.versioned, (int(found[1]) << _VERSION_BITS) | ((1 << _VERSION_BITS) - 1)
            )
        for index in range(start, len(self.versioned)):
            number = self.versioned[index]
            pmcid, version = f"PMC{number >> _VERSION_BITS}", number & ((1 << _VERSION_BITS) - 1)
            yield f"{pmcid}.{version}/{pmcid}.{version}.xml", pmcid, version

    def article_names(self) -> Iterator[str]:
        """Yield the names of all articles outside of archives, as they lie there, for a checksum."""
        for name, _, _ in self.versioned_after(None):
            yield self.packed_name(name)
        yield from self.loose

    def packed_name(self, name: str) -> str:
        """Return the name of a versioned article's file: it may have been gzipped."""
        packed = name + ".gz"
        return packed if not (self.root / name).exists() and (self.root / packed).exists() else name

    def metadata_names(self) -> Iterator[str]:
        """Yield the names, below their folder, of the files that tell of versioned articles."""
        for _, pmcid, version in self.versioned_after(None):
            yield f"{pmcid}.{version}.json"


def list_files(path: Path) -> Listing:
    """Return what there is to read at a file or folder, without opening anything.

    Links to files are followed, links to folders are not.
    """
    if path.is_file():
        archive = path.name.lower().endswith(ARCHIVE_SUFFIXES)
        return Listing(path.parent, [path.name] if archive else [], [], [] if archive else [path.name])
    listing = Listing(path)
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                found = _VERSIONED.fullmatch(entry.name)
                if entry.is_dir(follow_symlinks=False):
                    if found:
                        listing.versioned.append((int(found[1]) << _VERSION_BITS) | int(found[2]))
                    else:
                        for name in _files_below(path, entry.name):
                            if _is_article(name):
                                listing.loose.append(name)
                            elif name.lower().endswith(ARCHIVE_SUFFIXES):
                                listing.archives.append(name)
                elif entry.name.lower().endswith(ARCHIVE_SUFFIXES):
                    listing.archives.append(entry.name)
                elif _is_article(entry.name):
                    listing.loose.append(entry.name)
    except OSError as error:
        raise CorpusError(
            f"{error.filename or path}: cannot be listed ({error.strerror or type(error).__name__})"
        ) from None
    listing.archives.sort()
    listing.loose = _latest(sorted(listing.loose))
    listing.versioned = _highest(sorted(listing.versioned))
    return listing


def _files_below(root: Path, folder: str) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise error  # a folder that may not be read would be passed over without a word

    for base, _, names in os.walk(root / folder, onerror=fail):
        prefix = Path(base).relative_to(root).as_posix()
        yield from (f"{prefix}/{name}" for name in names)


def _is_article(name: str) -> bool:
    return name.lower().removesuffix(".gz").endswith(ARTICLE_SUFFIXES)


def _highest(numbers: list[int]) -> list[int]:
    last = len(numbers) - 1
    return [
        number
        for index, number in enumerate(numbers)
        if index == last or numbers[index + 1] >> _VERSION_BITS != number >> _VERSION_BITS
    ]


def _latest(names: list[str]) -> list[str]:
    """Return the names without earlier versions of articles: PMC1.1/ goes where PMC1.2/ is beside it."""
    latest: dict[tuple[str, str], int] = {}
    found = [(name, _LOOSE_VERSION.fullmatch(name)) for name in names]
    for _, match in found:
        if match:
            place = (match["above"], match["pmcid"])
            latest[place] = max(latest.get(place, 0), int(match["version"]))
    return [
        name
        for name, match in found
        if not match or int(match["version"]) == latest[match["above"], match["pmcid"]]
    ]


def beside(path: Path, known: Known) -> Known:
    """Return ``known`` with the metadata of a loose article in the cloud service's layout, if they are there.

    One article or its folder may be all that is asked for, or a folder above that of the layout.
    """
    folder = path.parent
    if not _VERSIONED.fullmatch(folder.name):
        return known
    try:
        return read_metadata(folder.parent / "metadata" / f"{folder.name}.json", known)
    except UnusableError:
        return known


def known_from_name(name: str) -> Known:
    """Return what a file's name tells: ``PMC123.xml`` and ``PMC123.2.xml`` tell the PMCID."""
    stem = name.rpartition("/")[2].removesuffix(".gz").rpartition(".")[0]
    found = re.fullmatch(r"(PMC\d+)(?:\.(\d+))?", stem)
    return Known(found[1], int(found[2]) if found[2] else None) if found else Known()


def read_metadata(path: Path, known: Known) -> Known:
    """Return ``known`` with what a ``metadata/PMC123.1.json`` adds.

    Raises:
        UnusableError: the file is absent or no JSON object.
    """
    try:
        values = json.loads(read_bounded(path, 2**20))
    except (ValueError, RecursionError):
        raise UnusableError("not well-formed JSON") from None
    if not isinstance(values, dict):
        raise UnusableError("not a JSON object")
    told = str(values.get("is_retracted")).strip().lower()
    retracted = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(told)
    return Known(
        pmcid=known.pmcid,
        version=known.version,
        pmid=_text(values.get("pmid")),
        doi=_text(values.get("doi")),
        license=normalize_license(_text(values.get("license_code"))),
        is_retracted=retracted,
    )


def _text(value: Any) -> str:
    return (
        ""
        if value is None or isinstance(value, bool)
        else "".join(str(value).split(" "))
        if isinstance(value, int)
        else str(value).strip()
    )


def filelist_name(archive: str) -> str:
    """Return the name of the file list that PMC put beside an archive."""
    return re.sub(r"\.(?:tar\.gz|tgz|tar)$", "", archive, flags=re.IGNORECASE) + ".filelist.csv"


def is_regular(path: Path) -> bool:
    """Tell whether there is a file; a name that is too long for one, made from another name, is none."""
    try:
        return path.is_file()
    except OSError:
        return False


class FileList:
    """The file list of one archive: PMCID -> licence, retraction, PMID.

    A list has up to a million lines, so PMCIDs are kept as numbers and equal values once.
    """

    def __init__(self, path: Path) -> None:
        self.licenses: Counter[str] = Counter()
        self._rows: dict[int, tuple[str, bool, int]] = {}
        spelled: dict[str, str] = {}
        try:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                reader = csv.DictReader(stream)
                missing = {"AccessionID", "License", "Retracted"} - set(reader.fieldnames or ())
                if missing:
                    raise CorpusError(
                        f"{path.name}:1: no column {', '.join(sorted(missing))}; expected PMC's file list"
                    )
                for row in reader:
                    number = (row["AccessionID"] or "").removeprefix("PMC")
                    if not number.isdecimal():
                        raise CorpusError(f"{path.name}:{reader.line_num}: the AccessionID is no PMCID")
                    code = row["License"] or ""
                    name = spelled.setdefault(code, normalize_license(code))
                    pmid = row.get("PMID") or ""
                    self.licenses[name or "unknown"] += 1
                    retracted = (row["Retracted"] or "").lower() in ("yes", "true")
                    self._rows[int(number)] = (name, retracted, int(pmid) if pmid.isdecimal() else 0)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise CorpusError(
                f"{path.name}: cannot be read as a file list ({type(error).__name__})"
            ) from None

    def look_up(self, known: Known) -> Known:
        """Return ``known`` with what the list adds."""
        number = known.pmcid.removeprefix("PMC")
        row = self._rows.get(int(number)) if number else None
        if row is None:
            return known
        return Known(known.pmcid, known.version, str(row[2]) if row[2] else "", "", row[0], row[1])
