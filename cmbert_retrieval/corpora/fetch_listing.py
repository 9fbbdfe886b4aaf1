"""What a server has: S3's bucket listing and inventory, index pages of file servers. None is trusted."""

from __future__ import annotations

import csv
import gzip
import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from cmbert_retrieval.corpora.fetch_address import FetchError
from cmbert_retrieval.corpora.fetch_files import RemoteFile, download, md5_of, plain_md5
from cmbert_retrieval.corpora.fetch_http import Client
from cmbert_retrieval.corpora.fetch_state import Listed
from cmbert_retrieval.corpora.files import GZIP_ERRORS
from cmbert_retrieval.corpora.xmltree import XmlError, parse_xml
from cmbert_retrieval.wording import plural

PAGE_BYTES = 8 * 2**20
"""The largest page of a listing that is read; S3's have at most 1,000 keys of 1,024 bytes."""
MAX_PAGES = 100_000
MAX_INVENTORY_BYTES = 4 * 2**30
MAX_INVENTORY_LINE = 2**14

INVENTORY = "inventory-reports/pmc-oa-opendata/metadata/"
"""Where PMC puts the daily inventory of its bucket's metadata.

Source:
    README.txt of the bucket pmc-oa-opendata, section 5.2.
"""

_METADATA_KEY = re.compile(r"metadata/PMC([1-9]\d{0,14})\.(\d{1,3})\.json")
_INVENTORY_FOLDER = re.compile(re.escape(INVENTORY) + r"(\d{4}-\d\d-\d\dT\d\d-\d\dZ)/")
_INVENTORY_FILE = re.compile(re.escape(INVENTORY) + r"data/([0-9A-Za-z-]{1,64}\.csv\.gz)")
_MODIFIED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]{0,10}Z")
_INDEX_LINE = re.compile(
    r"""<a\s[^<>]{0,200}?href\s*=\s*(["']?)(?:\./)?([\w.-]{1,100})\1(?=[\s>])[^<>]{0,200}>[^<>]{0,200}</a>([^<>\n]{0,200})""",
    re.IGNORECASE,
)
_INDEX_CELLS = re.compile(r"</?t[dr]\b[^<>]{0,200}>", re.IGNORECASE)
_DATE = re.compile(r"(\d{4}-\d\d-\d\d|\d\d-[A-Z][a-z]{2}-\d{4})(?:[ T](\d\d:\d\d))?")
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


# --- S3's ListObjectsV2 ---


def list_articles(client: Client, prefix: str = "metadata/PMC") -> Iterator[Listed]:
    """Yield the versions of articles whose metadata have this prefix, page by page of the bucket's listing.

    Raises:
        FetchError: the answer is no listing, or one that does not come to an end.
        UnreachableError: the server did not answer.
    """
    for root in _pages(client, {"prefix": prefix}):
        for entry in _children(root, "Contents"):
            article = _article(_text(entry, "Key"), _text(entry, "LastModified"), _text(entry, "ETag"))
            if article is not None:
                yield article


def _pages(client: Client, query: dict[str, str]) -> Iterator[Any]:
    """Yield the pages of a listing. S3 lists by name; pages that go back would never end."""
    token, last = "", ""
    for _ in range(MAX_PAGES):
        asked = {"list-type": "2", **query, **({"continuation-token": token} if token else {})}
        reply = client.get("", max_bytes=PAGE_BYTES, query=asked)
        try:
            root = parse_xml(reply.data)
        except XmlError as error:
            raise FetchError(
                f"{client.base_url}: no bucket listing ({error}); expected ListBucketResult"
            ) from None
        if _local(root) != "ListBucketResult":
            raise FetchError(f"{client.base_url}: no bucket listing; expected the XML of ListBucketResult")
        yield root
        if _text(root, "IsTruncated").strip().lower() != "true":
            return
        names = [_text(entry, "Key") for entry in _children(root, "Contents")]
        names += [_text(entry, "Prefix") for entry in _children(root, "CommonPrefixes")]
        token = _text(root, "NextContinuationToken")
        if not token or not names or max(names) <= last:
            raise FetchError(f"{client.base_url}: a bucket listing that does not come to an end")
        last = max(names)
    raise FetchError(f"{client.base_url}: a bucket listing of more than {MAX_PAGES:,} pages")


def _article(key: str, modified: str, etag: str) -> Listed | None:
    """Return what a line of a listing says, None when it is of something else."""
    found = _METADATA_KEY.fullmatch(key)
    if not found:
        return None
    when = modified if _MODIFIED.fullmatch(modified) else ""
    return Listed(int(found[1]), int(found[2]), when, plain_md5(etag))


def _local(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]


def _children(root: Any, name: str) -> list[Any]:
    return [child for child in root if _local(child) == name]


def _text(root: Any, name: str) -> str:
    return next((str(child.text or "") for child in root if _local(child) == name), "")


# --- S3's inventory ---


@dataclass(frozen=True, slots=True)
class Inventory:
    """A list of everything in a bucket, as of some hour.

    Attributes:
        date: the hour, as its publisher writes it.
        files: path and MD5 of its parts.
        columns: names of the columns of its parts.
    """

    date: str
    files: tuple[tuple[str, str], ...]
    columns: tuple[str, ...]


def newest_inventory(client: Client) -> Inventory | None:
    """Return the bucket's newest inventory, or None where it has none: the copy on a mirror, say.

    Raises:
        FetchError: there is one, but of another format.
        UnreachableError: the server did not answer.
    """
    dates: list[str] = []
    for root in _pages(client, {"prefix": INVENTORY, "delimiter": "/"}):
        for entry in _children(root, "CommonPrefixes"):
            if found := _INVENTORY_FOLDER.fullmatch(_text(entry, "Prefix")):
                dates.append(found[1])
    for date in sorted(dates, reverse=True)[:3]:
        path = f"{INVENTORY}{date}/manifest.json"
        try:
            reply = client.get(path, max_bytes=PAGE_BYTES)
        except FetchError as error:
            if error.status == 404:
                continue  # the newest may still be being written
            raise
        return _read_manifest(path, date, reply.data)
    return None


def _read_manifest(path: str, date: str, data: bytes) -> Inventory:
    try:
        values = json.loads(data)
        columns = tuple(name.strip() for name in str(values["fileSchema"]).split(","))
        files = tuple((str(one["key"]), str(one.get("MD5checksum", ""))) for one in values["files"])
        if str(values["fileFormat"]).upper() != "CSV" or not {"Key", "LastModifiedDate", "ETag"} <= {
            *columns
        }:
            raise ValueError("another schema")
        if not all(_INVENTORY_FILE.fullmatch(key) for key, _ in files):
            raise ValueError("files elsewhere")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FetchError(
            f"{path}: not an inventory that is known here; "
            "expected CSV files with Key, LastModifiedDate and ETag"
        ) from None
    return Inventory(date, files, columns)


def read_inventory(client: Client, inventory: Inventory, folder: Path) -> Iterator[Listed]:
    """Yield the versions of articles in an inventory; its files stay in ``folder`` for the next run.

    Raises:
        FetchError: a file is not there, damaged, or of another format.
        UnreachableError: the server did not answer.
        StorageError: a file cannot be written.
    """
    kept = {Path(path).name for path, _ in inventory.files}
    for old in folder.glob("*.csv.gz"):
        if old.name not in kept:
            old.unlink()
    for path, md5 in inventory.files:
        target = folder / Path(path).name
        if not target.is_file() or (md5 and md5_of(target) != md5.lower()):
            download(
                client,
                RemoteFile(path, target, MAX_INVENTORY_BYTES, plain_md5(md5), etag_is_md5=True),
                folder,
            )
        yield from _rows(target, inventory.columns)


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[Listed]:
    key, modified, etag = (columns.index(name) for name in ("Key", "LastModifiedDate", "ETag"))
    count, number = len(columns), 0
    try:
        with gzip.open(path, "rb") as stream:
            for number, row in enumerate(csv.reader(_lines(cast("IO[bytes]", stream))), start=1):
                if len(row) != count:
                    raise FetchError(f"{path.name}:{number}: {plural(len(row), 'column')}, expected {count}")
                article = _article(row[key], row[modified], row[etag])
                if article is not None:
                    yield article
    except (*GZIP_ERRORS, ValueError, csv.Error, OSError) as error:
        reason = "damaged gzip data" if isinstance(error, GZIP_ERRORS) else "not the lines of an inventory"
        raise FetchError(f"{path.name}: {reason} behind line {number}; remove it: {path}") from None


def _lines(stream: IO[bytes]) -> Iterator[str]:
    while line := stream.readline(MAX_INVENTORY_LINE):
        if len(line) == MAX_INVENTORY_LINE:
            raise ValueError("longer than a line of an inventory can be")
        yield line.decode("ascii")


# --- index pages ---


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A file in an index page.

    Attributes:
        name: without folders.
        stamp: date, time and size as the page shows them, to tell whether the file is still the same.
        date: the day as ``2026-01-31``, "" when the page shows none.
    """

    name: str
    stamp: str
    date: str


def list_index(client: Client, folder: str, names: re.Pattern[str]) -> list[IndexEntry]:
    """Return the files of an index page (Apache, nginx, NCBI) whose names match, by name.

    Raises:
        FetchError: there is no page, or no such file on it.
        UnreachableError: the server did not answer.
    """
    reply = client.get(f"{folder}/", max_bytes=PAGE_BYTES)
    text = _INDEX_CELLS.sub(" ", reply.data.decode("utf-8", "replace"))
    found: dict[str, IndexEntry] = {}
    for match in _INDEX_LINE.finditer(text):
        name = match[2]
        if names.fullmatch(name):
            stamp = " ".join(html.unescape(match[3]).split())
            found[name] = IndexEntry(name, stamp, _day(stamp))
    if not found:
        raise FetchError(
            f"{client.base_url.rstrip('/')}/{folder}/: no files like pubmed26n0001.xml.gz on this page; "
            "expected the index of a folder"
        )
    return [found[name] for name in sorted(found)]


def _day(stamp: str) -> str:
    found = _DATE.search(stamp)
    if not found:
        return ""
    if found[1][2] != "-":
        return found[1]
    day, month, year = found[1].split("-")
    return f"{year}-{_MONTHS.index(month) + 1:02}-{day}" if month in _MONTHS else ""
