"""PMC's articles from its cloud service: the XML of the newest version of each, beside its metadata."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from cmbert_retrieval.corpora.fetch import Fetch, FetchReport, Notify, Outcome, one_choice, outcome_of
from cmbert_retrieval.corpora.fetch_address import FetchError
from cmbert_retrieval.corpora.fetch_files import RemoteFile, download, md5_of, plain_md5, published_md5
from cmbert_retrieval.corpora.fetch_http import Client
from cmbert_retrieval.corpora.fetch_ids import read_id_file
from cmbert_retrieval.corpora.fetch_listing import list_articles, newest_inventory, read_inventory
from cmbert_retrieval.corpora.fetch_state import Listed, State
from cmbert_retrieval.corpora.files import MAX_BYTES
from cmbert_retrieval.corpora.licenses import license_set, normalize_license
from cmbert_retrieval.storage import atomic_file, fsync_folder, make_folder, writing

PMC_URL = "https://pmc-oa-opendata.s3.amazonaws.com/"
"""The bucket of PMC's cloud service, which holds all that PMC may pass on since the bulk packages ended.

Source:
    README.txt in the bucket; https://pmc.ncbi.nlm.nih.gov/tools/cloud/
"""

MAX_METADATA_BYTES = 2**20
NO_TEXT = "without XML"

_PMCID = re.compile(r"PMC([1-9]\d{0,14})(?:\.(\d{1,3}))?", re.IGNORECASE)
_LEFT_OUT = tuple[int, str, str]


def fetch_pmc(
    to: str | Path,
    *,
    ids: str | Path | None = None,
    since: str | None = None,
    everything: bool = False,
    licenses: Sequence[str] | str | None = None,
    base_url: str = PMC_URL,
    connections: int = 4,
    timeout_s: float = 60.0,
    wait_s: float = 1.0,
    notify: Notify | None = None,
) -> FetchReport:
    """Fetch articles of PMC into a folder that the reader ``pmc`` reads as it is.

    Metadata (about a kilobyte) come first and say licence and checksum, then the XML follows. What is there
    already and as published is not fetched again; an article whose XML or metadata changed is. Killed or cut,
    the same call goes on. Nothing is deleted: articles that PMC withdrew stay until you remove them.

    Args:
        to: the folder; made where it is not there.
        ids: a file with a PMCID a line (``PMC123``: the newest version, ``PMC123.1``: this one); ``#`` begins
            a comment.
        since: a date (``2026-01-31``): all articles whose newest version came or changed on it or later.
        everything: all articles. Exactly one of ``ids``, ``since`` and ``everything`` is given.
        licenses: only these, as in ``"CC0,CC BY"``; an article whose licence is not known is then left out.
        base_url: PMC's bucket, or a copy of it.
        connections: how many articles are fetched at a time.
        timeout_s: seconds for an answer to begin, and to go on.
        wait_s: seconds before something is tried again; doubled each time.
        notify: told of progress.

    Returns:
        What was fetched, was there, was left out and failed. Single articles that fail are counted there.

    Raises:
        ConfigError: an argument is wrong, or the network is forbidden (``HF_HUB_OFFLINE``).
        FetchError: the list of articles cannot be fetched, or the server has stopped to answer.
        StorageError: the disk is full.
    """
    one_choice(ids=ids, since=since, everything=everything)
    wanted = license_set(licenses)
    asked = read_ids(ids) if ids is not None else []
    folder = Path(to).expanduser()
    report = FetchReport("pmc", Path(to))
    with Client(base_url, timeout_s=timeout_s, wait_s=wait_s) as client, State(folder) as state:
        fetch: Fetch[tuple[Listed, _LEFT_OUT | None]] = Fetch(
            report, client, state, connections=connections, notify=notify
        )
        with writing(folder):
            make_folder(folder / "metadata")
        if ids is not None:
            report.listing = str(ids)
            total, articles = len(asked), iter(asked)
        else:
            report.listing = _list(client, state, notify or (lambda phase, count: None))
            total, articles = state.count(since or ""), state.articles(since or "")
        worker = _Worker(client, folder, state.folder, wanted)
        fetch.run(
            ((article, state.left_out(article.number)) for article in articles),
            worker.outcome,
            total=total,
            remember=lambda note: state.leave_out(*note),
        )
        for changed in (folder, folder / "metadata"):
            fsync_folder(changed)
    return report


def read_ids(path: str | Path) -> list[Listed]:
    """Return the articles that a file names, each once, in its order.

    Raises:
        ConfigError: a line is no PMCID, or there is none.
        CorpusError: the file cannot be read.
    """

    def parse(text: str) -> Listed | None:
        match = _PMCID.fullmatch(text)
        return Listed(int(match[1]), int(match[2]) if match[2] else None) if match else None

    def hint(text: str) -> str:
        digits = text.isascii() and text.isdigit()
        return "; a number alone may be a PMID, which is another thing" if digits else ""

    return read_id_file(path, "PMCID", "PMC123 or PMC123.1", parse, hint)


def _list(client: Client, state: State, notify: Notify) -> str:
    """Bring the list of all articles up to date, and return where it is from."""
    notify("listed", 0)
    inventory = newest_inventory(client)
    if inventory is None:
        # A copy of the bucket has no inventory: ask for all names, a thousand at a time.
        source = f"bucket listing of {client.host}"
        state.list_articles(_told(list_articles(client), notify), source=source)
        return source
    source = f"inventory of {inventory.date}"
    key = f"{source} {client.base_url} {inventory.files}"
    if state.listed_from() != key:
        state.list_articles(_told(read_inventory(client, inventory, state.folder), notify), source=key)
    return source


def _told(articles: Iterator[Listed], notify: Notify) -> Iterator[Listed]:
    while some := list(islice(articles, 1000)):
        notify("listed", len(some))
        yield from some


class _Worker:
    """Fetches one article; called from many threads."""

    def __init__(self, client: Client, folder: Path, parts: Path, wanted: frozenset[str] | None) -> None:
        self._client, self._folder, self._parts, self._wanted = client, folder, parts, wanted
        self._looked_up: set[str] = set()
        self._lock = threading.Lock()

    def outcome(self, item: tuple[Listed, _LEFT_OUT | None]) -> Outcome:
        article, left_out = item
        return outcome_of(article.name, lambda: self._fetch(article, left_out))

    def _fetch(self, article: Listed, left_out: _LEFT_OUT | None) -> Outcome:
        if not article.etag:
            article = self._look_up(article)
            with self._lock:
                if article.name in self._looked_up:
                    return Outcome(article.name)  # asked for twice: as PMC123 and as its newest version
                self._looked_up.add(article.name)
        name = article.name
        if left_out and left_out[:2] == (article.version, article.etag) and not self._wants(left_out[2]):
            return Outcome(name, left_out=_reason(left_out[2]))
        described = self._folder / "metadata" / f"{name}.json"
        data = self._local_metadata(described, article.etag)
        came = data is None
        if data is None:
            data = self._metadata(name)
        license_name, md5, has_xml = _read(name, data)
        if not self._wants(license_name):
            note = (article, license_name) if article.etag else None
            return Outcome(name, came, left_out=_reason(license_name), bytes=len(data) * came, note=note)
        if not has_xml:
            return Outcome(name, left_out=NO_TEXT)
        target = self._folder / name / f"{name}.xml"
        received = len(data) * came
        if came and md5:
            _write(described, data)  # first: so no article is ever here without its licence and retraction
        if not target.is_file() or (md5_of(target) != md5 if md5 else came):
            file = RemoteFile(f"{name}/{name}.xml", target, MAX_BYTES, md5, etag_is_md5=True)
            received += download(self._client, file, self._parts)
            fetched = True
        else:
            fetched = False
        if came and not md5:
            _write(
                described, data
            )  # last: where no checksum is published, it tells that the XML belongs to it
        return Outcome(name, fetched or came, bytes=received)

    def _wants(self, license_name: str) -> bool:
        return self._wanted is None or license_name in self._wanted

    def _look_up(self, article: Listed) -> Listed:
        """Return the article as the bucket lists it now, in its newest version unless one is named."""
        prefix = f"metadata/{article.name}."
        found = [one for one in list_articles(self._client, prefix) if one.number == article.number]
        if article.version is not None:
            found = [one for one in found if one.version == article.version]
        if not found:
            raise FetchError(f"{article.name}: PMC's cloud service has no such article", 404)
        return max(found, key=lambda one: one.version or 0)

    def _local_metadata(self, path: Path, etag: str) -> bytes | None:
        """Return the metadata that are here, if they are those that the bucket has."""
        try:
            data = path.read_bytes()
        except OSError:
            return None
        return data if etag and hashlib.md5(data, usedforsecurity=False).hexdigest() == etag else None

    def _metadata(self, name: str) -> bytes:
        path = f"metadata/{name}.json"
        reply = self._client.get(path, max_bytes=MAX_METADATA_BYTES)
        md5 = published_md5(reply)
        if md5 and hashlib.md5(reply.data, usedforsecurity=False).hexdigest() != md5:
            raise FetchError(f"{path}: the checksum does not agree, expected the MD5 {md5}")
        return reply.data


def _write(path: Path, data: bytes) -> None:
    with atomic_file(path) as file:
        file.write(data)


def _read(name: str, data: bytes) -> tuple[str, str, bool]:
    """Return licence, MD5 of the XML ("" where not published), and whether there is an XML.

    Addresses in the metadata are not followed: where the files are is known from the article's name.
    """
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise FetchError(f"metadata/{name}.json: not a JSON object")
    code, url = values.get("license_code"), values.get("xml_url")
    query = urllib.parse.urlsplit(url).query if isinstance(url, str) and len(url) < 2000 else ""
    md5 = plain_md5("".join(urllib.parse.parse_qs(query).get("md5", [])[:1]))
    license_name = normalize_license(code) if isinstance(code, str) else ""
    return license_name, md5, "xml_url" not in values or bool(url)


def _reason(license_name: str) -> str:
    return f"with the licence {license_name or '(unknown)'}"
