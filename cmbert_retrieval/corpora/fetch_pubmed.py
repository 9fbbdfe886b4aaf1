"""PubMed's records from its publisher: the files of the yearly baseline and of the daily updates."""

from __future__ import annotations

import re
from pathlib import Path

from cmbert_retrieval.corpora.fetch import Fetch, FetchReport, Notify, Outcome, one_choice, outcome_of
from cmbert_retrieval.corpora.fetch_address import FetchError
from cmbert_retrieval.corpora.fetch_efetch import efetch_files
from cmbert_retrieval.corpora.fetch_files import RemoteFile, download, md5_of
from cmbert_retrieval.corpora.fetch_http import Client
from cmbert_retrieval.corpora.fetch_listing import IndexEntry, list_index
from cmbert_retrieval.corpora.fetch_state import State
from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.storage import fsync_folder, make_folder, writing

PUBMED_URL = "https://ftp.ncbi.nlm.nih.gov/pubmed/"
"""Where ``baseline/`` and ``updatefiles/`` are.

Source:
    https://pubmed.ncbi.nlm.nih.gov/download/
"""

MAX_FILE_BYTES = 2 * 2**30

_FILE = re.compile(r"pubmed(\d\d)n(\d{4,6})\.xml\.gz")


def fetch_pubmed(
    to: str | Path,
    *,
    since: str | None = None,
    everything: bool = False,
    base_url: str = PUBMED_URL,
    connections: int = 4,
    timeout_s: float = 60.0,
    wait_s: float = 1.0,
    notify: Notify | None = None,
) -> FetchReport:
    """Fetch PubMed's files into a folder that the reader ``pubmed`` reads as it is.

    Each file is checked against its published MD5. What is there already and as published is not fetched
    again. Killed or cut, the same call goes on.

    Args:
        to: the folder; made where it is not there.
        since: a date (``2026-01-31``): the update files of this day and later, by the server's index.
        everything: the baseline and all update files. Exactly one of ``since`` and ``everything`` is given.
        base_url: PubMed's folder, or a copy of it.
        connections: how many files are fetched at a time.
        timeout_s: seconds for an answer to begin, and to go on.
        wait_s: seconds before something is tried again; doubled each time.
        notify: told of progress.

    Returns:
        What was fetched, was there and failed. Single files that fail are counted there.

    Raises:
        ConfigError: an argument is wrong, the network is forbidden (``HF_HUB_OFFLINE``), or the folder holds
            the files of another year, or records that were fetched by their PMIDs.
        FetchError: an index page cannot be fetched, or the server has stopped to answer.
        StorageError: the disk is full.
    """
    one_choice(ids=None, since=since, everything=everything)
    folder = Path(to).expanduser()
    report = FetchReport("pubmed", Path(to), updates_only=not everything)
    if single := efetch_files(folder):
        raise ConfigError(
            f"{folder}: holds records that were fetched by their PMIDs ({single[0].name}), which would be "
            "read behind PubMed's own files, whichever are newer; name another folder"
        )
    with Client(base_url, timeout_s=timeout_s, wait_s=wait_s) as client, State(folder) as state:
        fetch: Fetch[tuple[str, IndexEntry, str]] = Fetch(
            report, client, state, connections=connections, notify=notify
        )
        folders = ("baseline", "updatefiles") if everything else ("updatefiles",)
        files = [(name, entry) for name in folders for entry in list_index(client, name, _FILE)]
        if since is not None:
            undated = [entry.name for _, entry in files if not entry.date]
            if undated:
                raise FetchError(f"{base_url}: the index shows no date for {undated[0]}; fetch all instead")
            files = [(name, entry) for name, entry in files if entry.date >= since]
        report.listing = f"index of {client.host}: {' and '.join(folders)}"
        _same_year(folder, files)
        with writing(folder):
            make_folder(folder)
        worker = _Worker(client, folder, state.folder)
        fetch.run(
            ((name, entry, state.seen(entry.name, entry.stamp)) for name, entry in files),
            worker.outcome,
            total=len(files),
            remember=lambda note: state.see(*note),
        )
        fsync_folder(folder)
    return report


def _same_year(folder: Path, files: list[tuple[str, IndexEntry]]) -> None:
    """Refuse to mix years: each December all records are published anew, numbered from 1 again.

    Raises:
        ConfigError: the folder holds files of another year.
    """
    here = {found[1] for path in folder.glob("pubmed*.xml.gz") if (found := _FILE.fullmatch(path.name))}
    there = {found[1] for _, entry in files if (found := _FILE.fullmatch(entry.name))}
    if len(here | there) > 1:
        raise ConfigError(
            f"{folder}: years would be mixed (here {_years(here)}, on the server {_years(there)}); "
            "each year's baseline replaces all files of the year before: name an empty folder"
        )


def _years(found: set[str]) -> str:
    return " and ".join(f"pubmed{year}n" for year in sorted(found)) or "none"


class _Worker:
    """Fetches one file; called from many threads."""

    def __init__(self, client: Client, folder: Path, parts: Path) -> None:
        self._client, self._folder, self._parts = client, folder, parts

    def outcome(self, item: tuple[str, IndexEntry, str]) -> Outcome:
        where, entry, md5 = item
        return outcome_of(entry.name, lambda: self._fetch(where, entry, md5))

    def _fetch(self, where: str, entry: IndexEntry, md5: str) -> Outcome:
        target = self._folder / entry.name
        here = md5_of(target)
        if here is not None and here == md5:
            return Outcome(entry.name)
        md5 = self._published(where, entry.name)
        if here is not None and here == md5:
            return Outcome(entry.name, note=(entry.name, entry.stamp, md5))
        received = download(
            self._client, RemoteFile(f"{where}/{entry.name}", target, MAX_FILE_BYTES, md5), self._parts
        )
        return Outcome(entry.name, True, bytes=received, note=(entry.name, entry.stamp, md5))

    def _published(self, where: str, name: str) -> str:
        """Return the MD5 that stands beside a file: ``MD5(pubmed26n0001.xml.gz)= 0123...``."""
        path = f"{where}/{name}.md5"
        text = self._client.get(path, max_bytes=4096).data.decode("ascii", "replace")
        found = re.search(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", text.lower())
        if not found or not ({name, f"({name})="} & {*text.replace("MD5", " ").split()}):
            raise FetchError(f"{path}: not the MD5 of this file; expected 'MD5({name})= ...'")
        return found[0]
