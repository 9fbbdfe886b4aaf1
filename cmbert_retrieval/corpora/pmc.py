"""PubMed Central: full-text articles from whatever layout their XML was downloaded in."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cmbert_retrieval.corpora.archives import read_members
from cmbert_retrieval.corpora.base import Corpus, Cursor, Record, Source
from cmbert_retrieval.corpora.files import (
    MAX_BYTES,
    UnusableError,
    existing,
    file_source,
    listing_source,
    read_bounded,
)
from cmbert_retrieval.corpora.jats import parse_article
from cmbert_retrieval.corpora.licenses import license_set
from cmbert_retrieval.corpora.pmc_files import (
    ARTICLE_SUFFIXES,
    VERSIONED_FILE,
    FileList,
    Known,
    Listing,
    beside,
    filelist_name,
    is_regular,
    known_from_name,
    list_files,
    read_metadata,
)
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.types import Document

logger = logging.getLogger(__name__)


class PmcCorpus(Corpus):
    """Articles in JATS XML, one document each.

    Reads PMC's cloud service layout (``PMC123.1/PMC123.1.xml`` beside ``metadata/PMC123.1.json``, the highest
    version counts), the retired bulk archives (``oa_comm_xml.*.tar.gz`` beside ``*.filelist.csv``; one, or a
    folder of them), folders of ``.xml`` and ``.nxml`` at any depth, and single files; each also gzipped. A
    folder may mix them.

    The id is the PMCID; without one ``pmid:...``, ``doi:...``, or the file's name. An article that comes
    twice (in a baseline and in an increment) is yielded twice, in the order of the archives' names.
    """

    reader = "pmc"
    columns = {  # noqa: RUF012 - read-only by type
        "year": "integer",
        "journal": "text",
        "type": "text",
        "license": "text",
        "language": "text",
        "is_retracted": "boolean",
        "keywords": "text",
        "pmid": "text",
        "doi": "text",
    }

    def __init__(
        self,
        path: str | Path,
        *,
        include_retracted: bool = True,
        licenses: Sequence[str] | str | None = None,
        metadata: str | Path | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Open a corpus; nothing is read yet.

        Args:
            path: a folder, an archive or an article.
            include_retracted: whether retracted articles are yielded (flagged ``is_retracted``).
            licenses: only these, as in ``["CC BY", "CC0"]`` or ``"CC BY,CC0"``; an article whose licence is
                not known is then left out.
            metadata: the folder of ``PMC123.1.json`` files where it is not ``path/metadata``.
            max_bytes: articles larger than this, unpacked, are a problem.

        Raises:
            CorpusError: nothing is at ``path`` or ``metadata``.
            ConfigError: a licence is not known.
        """
        self.path = existing(path)
        self._given = str(path)
        self._include_retracted = include_retracted
        self._licenses = license_set(licenses)
        self._metadata = existing(metadata) if metadata is not None else None
        self._given_metadata = metadata
        self._max_bytes = max_bytes

    def records(self, after: Cursor | None = None) -> Iterator[Record]:
        """Yield an article a record, behind ``after``.

        Raises:
            CorpusError: there is no article at ``path``, or an archive is truncated.
        """
        listing = self._list()
        file = str(after["file"]) if after is not None else None
        left_out: Counter[str] = Counter()
        if file is None or _stage(file) == 0:
            for name in listing.archives:
                if file is None or name >= file:
                    done = int(after["member"]) if after is not None and name == file else 0
                    yield from self._read_archive(listing.root / name, name, done, left_out)
        if file is None or _stage(file) <= 1:
            # A cursor in an archive may name one that looks like a version: PMC123.1.tar.gz.
            behind = file if file is not None and _stage(file) == 1 else None
            yield from self._read_versioned(listing, behind, left_out)
        for name in listing.loose:
            if file is None or _stage(file) < 2 or name > file:
                known = beside(listing.root / name, known_from_name(name))
                yield from self._read_file(listing.root / name, name, {"file": name}, known, left_out)
        if left_out:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(left_out.items()))
            logger.info("%s: left out as asked: %s", self._given, reasons)

    def sources(self) -> list[Source]:
        """Return the archives and their file lists with checksums, and folders with those of their listings.

        The listing of a folder is the names and sizes of what is read there.
        """
        listing = self._list()
        sources = []
        single = self.path.is_file()
        for name in listing.archives:
            path = listing.root / name
            given = Path(self._given) if single else Path(self._given, name)
            listed = path.with_name(filelist_name(path.name))
            is_listed = is_regular(listed)
            licenses = dict(FileList(listed).licenses) if is_listed else {}
            sources.append(file_source(path, str(given), licenses=licenses))
            if is_listed:
                sources.append(file_source(listed, str(given.with_name(listed.name))))
        if single and listing.loose:
            sources.append(file_source(self.path, self._given))
        elif listing.versioned or listing.loose:
            sources.append(listing_source(self._given, listing.root, listing.article_names()))
            if listing.versioned:
                folder = self._metadata or listing.root / "metadata"
                named = str(self._given_metadata or Path(self._given, "metadata"))
                sources.append(listing_source(named, folder, listing.metadata_names()))
        return sources

    def total(self) -> int | None:
        """Return the number of articles; None where an archive has no list of its files beside it."""
        listing = self._list()
        total = len(listing) - len(listing.archives)
        for name in listing.archives:
            path = listing.root / name
            path = path.with_name(filelist_name(path.name))
            if not is_regular(path):
                return None
            total += sum(FileList(path).licenses.values())
        return total

    def _list(self) -> Listing:
        listing = list_files(self.path)
        if not len(listing):
            raise CorpusError(
                f"{self._given}: no article found; "
                "expected .xml or .nxml files, PMC123.1/ folders or .tar.gz archives"
            )
        return listing

    def _read_archive(self, path: Path, file: str, done: int, left_out: Counter[str]) -> Iterator[Record]:
        listed = path.with_name(filelist_name(path.name))
        file_list = FileList(listed) if is_regular(listed) else None
        if file_list is None:
            logger.warning(
                "%s: no %s beside it; licences and retractions are taken from the XML", path.name, listed.name
            )
        articles = 0
        for member in read_members(path, suffixes=ARTICLE_SUFFIXES, max_bytes=self._max_bytes, after=done):
            cursor = {"file": file, "member": member.number}
            known = known_from_name(member.name)
            name = f"{path.name}: {member.name}"
            if member.data is None:
                yield Record(cursor, None, f"{name}: {member.problem}", known.pmcid)
                continue
            articles += 1
            if file_list is not None:
                known = file_list.look_up(known)
            yield from self._parse(member.data, name, f"{path.name}:{member.name}", cursor, known, left_out)
        if not articles and not done:
            raise CorpusError(f"{path.name}: no article found; expected members that end with .xml or .nxml")

    def _read_versioned(
        self, listing: Listing, after: str | None, left_out: Counter[str]
    ) -> Iterator[Record]:
        folder = self._metadata or listing.root / "metadata"
        missing: list[str] = []
        count = 0
        for name, pmcid, version in listing.versioned_after(after):
            known = Known(pmcid, version)
            try:
                known = read_metadata(folder / f"{pmcid}.{version}.json", known)
            except UnusableError:
                count += 1
                missing += [f"{pmcid}.{version}"] if len(missing) < 3 else []
            path = listing.root / listing.packed_name(name)
            yield from self._read_file(path, name, {"file": name}, known, left_out)
        if count:
            logger.warning(
                "%s: no usable metadata/*.json for %s articles (%s%s); "
                "licences and retractions are taken from the XML",
                self._given,
                f"{count:,}",
                ", ".join(missing),
                ", ..." if count > len(missing) else "",
            )

    def _read_file(
        self, path: Path, name: str, cursor: Cursor, known: Known, left_out: Counter[str]
    ) -> Iterator[Record]:
        try:
            data = read_bounded(path, self._max_bytes)
        except UnusableError as error:
            yield Record(cursor, None, f"{name}: {error}", known.pmcid)
            return
        yield from self._parse(data, name, name, cursor, known, left_out)

    def _parse(
        self, data: bytes, name: str, source: str, cursor: Cursor, known: Known, left_out: Counter[str]
    ) -> Iterator[Record]:
        if reason := self._unwanted(known.license, known.is_retracted):
            left_out[reason] += 1
            return
        try:
            article = parse_article(data)
        except UnusableError as error:
            line = getattr(error, "line", 0)
            yield Record(cursor, None, f"{name}:{line}: {error}" if line else f"{name}: {error}", known.pmcid)
            return
        metadata = article.metadata
        _merge(metadata, known)
        metadata["source"] = source
        if reason := self._unwanted(metadata.get("license", ""), metadata["is_retracted"], final=True):
            left_out[reason] += 1
            return
        text, sections = article.text_and_sections()
        stem = re.sub(
            r"(?:\.n?xml)?(?:\.gz)?$", "", source.rpartition("/")[2].rpartition(":")[2], flags=re.IGNORECASE
        )
        yield Record(cursor, Document(_id(metadata, stem), text, article.title, metadata, sections))

    def _unwanted(self, license_name: str, is_retracted: bool | None, *, final: bool = False) -> str:
        if is_retracted and not self._include_retracted:
            return "retracted"
        if self._licenses is not None and (license_name or final) and license_name not in self._licenses:
            return f"with the licence {license_name or '(unknown)'}"
        return ""


def _stage(file: str) -> int:
    """Return the part of a listing a cursor's file is in: 0 archives, 1 versioned, 2 loose files."""
    if VERSIONED_FILE.fullmatch(file):
        return 1
    return 0 if file.lower().endswith((".tar.gz", ".tgz", ".tar")) else 2


def _merge(metadata: dict[str, Any], known: Known) -> None:
    """Put what the metadata files tell over what the XML tells: they are kept up to date, the XML is not."""
    if known.pmcid:
        metadata["pmcid"] = known.pmcid
    if known.version is not None:
        metadata["version"] = known.version
    if known.license:
        metadata["license"] = known.license
    if known.is_retracted is not None:
        metadata["is_retracted"] = known.is_retracted or metadata["is_retracted"]
    for key, value in (("pmid", known.pmid), ("doi", known.doi)):
        if value:
            metadata.setdefault(key, value)
    for key in ("journal", "type", "license"):
        if not metadata.get(key):
            metadata.pop(key, None)


def _id(metadata: dict[str, Any], stem: str) -> str:
    for key, prefix in (("pmcid", ""), ("pmid", "pmid:"), ("doi", "doi:")):
        if value := metadata.get(key):
            return re.sub(r"\s+", "_", f"{prefix}{value}")
    return re.sub(r"\s+", "_", stem.strip()) or "article"
