"""PubMed's records by their PMIDs, from NCBI's E-utilities: files of up to 200 of them."""

from __future__ import annotations

import gzip
import logging
import os
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from cmbert_retrieval.corpora.fetch import Fetch, FetchReport, Notify, Outcome
from cmbert_retrieval.corpora.fetch_address import Address, FetchError, TransientError, UnreachableError
from cmbert_retrieval.corpora.fetch_http import Client
from cmbert_retrieval.corpora.fetch_ids import read_id_file
from cmbert_retrieval.corpora.fetch_state import State
from cmbert_retrieval.corpora.files import UnusableError
from cmbert_retrieval.corpora.pubmed_files import file_number, list_pubmed
from cmbert_retrieval.corpora.pubmed_stream import PubmedStream
from cmbert_retrieval.corpora.pubmed_xml import DELETIONS, parse_record
from cmbert_retrieval.errors import ConfigError, CorpusError
from cmbert_retrieval.storage import fsync_file, fsync_folder, make_folder, writing

logger = logging.getLogger(__name__)

EUTILS_URL = "https://eutils.ncbi.nlm.nih.gov/entrez/eutils/"
"""Where ``efetch.fcgi`` is.

Source:
    Sayers, "A General Introduction to the E-utilities", https://www.ncbi.nlm.nih.gov/books/NBK25497/
"""
KEY = "NCBI_API_KEY"
"""The variable with the user's key, which is sent to NCBI (and to servers on this machine) only."""
RECORDS_A_REQUEST = 200
"""More would make addresses longer than servers take."""
ABSENT = "because PubMed has no such record"

# NCBI takes 3 requests a second, and 10 with a key. Some air: they do not arrive as evenly as they are sent.
_SPACING_S = 0.35
_SPACING_WITH_KEY_S = 0.11
_MAX_ANSWER_BYTES = 2**30
_MAX_RECORD_BYTES = 64 * 2**20
_MAX_ERROR_BYTES = 2**16
_SHOWN = 5
_PMID = re.compile(r"[1-9]\d{0,7}")
_NAME = re.compile(r"efetch-(\d{5,9})\.xml\.gz")


def fetch_pubmed_ids(
    to: str | Path,
    ids: str | Path,
    *,
    base_url: str = EUTILS_URL,
    connections: int = 4,
    timeout_s: float = 60.0,
    wait_s: float = 1.0,
    notify: Notify | None = None,
) -> FetchReport:
    """Fetch single records of PubMed into a folder that the reader ``pubmed`` reads as it is.

    The folder gets files ``efetch-00001.xml.gz`` of up to 200 records, in the order of ``ids``. They have no
    place among the files of the baseline and the updates, so both kinds are never put into one folder. A
    record that is there is not fetched again, whatever became of it meanwhile: for its present state, name
    another folder. Killed or cut, the same call goes on.

    Args:
        to: the folder; made where it is not there.
        ids: a file with a PMID a line; ``#`` begins a comment.
        base_url: the folder of ``efetch.fcgi``: NCBI's, or that of a mirror.
        connections: how many requests are under way at a time; at most 3 a second begin, or 10 with a key.
        timeout_s: seconds for an answer to begin, and to go on.
        wait_s: seconds before something is tried again; doubled each time.
        notify: told of progress.

    Returns:
        How many records were fetched, were there, do not exist (left out) and failed.

    Raises:
        ConfigError: an argument is wrong, a line is no PMID, the network is forbidden (``HF_HUB_OFFLINE``),
            or the folder holds files of the baseline or the updates.
        CorpusError: ``ids`` cannot be read, or a file of the folder is damaged.
        FetchError: the server has stopped to answer.
        StorageError: the disk is full.
    """
    asked = read_pmids(ids)
    key = _key(base_url)
    folder = Path(to).expanduser()
    report = FetchReport("pubmed", Path(to), listing=str(ids))
    spacing_s = _SPACING_WITH_KEY_S if key else _SPACING_S
    _refuse_numbered(folder)
    with (
        Client(base_url, timeout_s=timeout_s, wait_s=wait_s, spacing_s=spacing_s) as client,
        State(folder) as state,
    ):
        fetch: Fetch[_Chunk] = Fetch(report, client, state, connections=connections, notify=notify)
        with writing(folder):
            make_folder(folder)
        there = _records_in(folder)
        missing = [pmid for pmid in asked if pmid not in there]
        report.already_there = len(asked) - len(missing)
        worker = _Worker(client, folder, state.folder, key)
        fetch.run(_chunks(folder, missing), worker.outcomes, total=len(missing))
        fsync_folder(folder)
    absent = [pmid for pmid in missing if pmid in worker.absent]
    if absent:
        more = f" and {len(absent) - _SHOWN:,} more" if len(absent) > _SHOWN else ""
        logger.warning("PubMed has no record %s%s", ", ".join(map(str, absent[:_SHOWN])), more)
    return report


def read_pmids(path: str | Path) -> list[int]:
    """Return the PMIDs that a file names, each once, in its order.

    Raises:
        ConfigError: a line is no PMID, or there is none.
        CorpusError: the file cannot be read.
    """

    def parse(text: str) -> int | None:
        return int(text) if text.isascii() and _PMID.fullmatch(text) else None

    def hint(text: str) -> str:
        pmc = text.upper().startswith("PMC")
        return "; this looks like a PMCID: fetch it from pmc" if pmc else ""

    return read_id_file(path, "PMID", "12345678", parse, hint)


def efetch_files(folder: Path) -> list[Path]:
    """Return the files that a fetch by PMIDs put into a folder, by number."""
    return sorted(path for path in folder.glob("efetch-*.xml.gz") if _NAME.fullmatch(path.name))


def _key(base_url: str) -> str:
    """Return the user's key where the server may see it, "" without one."""
    key = os.environ.get(KEY, "").strip()
    if key and not re.fullmatch(r"[0-9A-Za-z_-]{1,100}", key):
        raise ConfigError(f"{KEY} is no key of NCBI; expected letters and digits, or no such variable")
    address = Address.parse(base_url)
    theirs = address.host.endswith(".ncbi.nlm.nih.gov")
    return key if theirs or address.is_loopback else ""


def _refuse_numbered(folder: Path) -> None:
    names = list_pubmed(folder) if folder.is_dir() else []
    if numbered := next((name for name in names if file_number(name)), None):
        raise ConfigError(
            f"{folder}: holds files of PubMed's baseline or updates ({numbered}), and single records would "
            "be read behind them, whichever are newer; name another folder"
        )


def _records_in(folder: Path) -> set[int]:
    """Return the PMIDs that earlier calls fetched; the files themselves tell them.

    Raises:
        CorpusError: a file is damaged.
    """
    found: set[int] = set()
    for path in efetch_files(folder):
        try:
            found.update(_pmids(path))
        except (CorpusError, UnusableError) as error:
            raise CorpusError(
                f"{path}: {_reason(path, error)}; remove this file, and what it held is fetched again"
            ) from None
    return found


def _pmids(path: Path) -> Iterator[int]:
    """Yield the PMIDs of a file, reading it to its end.

    Raises:
        CorpusError: it is no file of PubMed, or not whole.
        UnusableError: one of its records is none.
    """
    stream = PubmedStream(path, max_bytes=_MAX_RECORD_BYTES)
    for piece in stream.pieces():
        if piece.problem:
            raise UnusableError(f"line {piece.line}: {piece.problem}")
        record = parse_record(piece.data, stream.declaration)
        text = "" if record.tag in DELETIONS else (record.findtext(".//PMID") or "").strip()
        if not _PMID.fullmatch(text):
            raise UnusableError(f"line {piece.line}: not a record with a PMID")
        yield int(text)


def _reason(path: Path, error: Exception) -> str:
    """Return what is wrong with a file, without its name and the advice of the reader."""
    text = str(error).removeprefix(f"{path.name}:").removesuffix("; fetch the file again")
    return re.sub(r"^(\d+):", r"line \1:", text).strip()


@dataclass(frozen=True, slots=True)
class _Chunk:
    """What is asked for at once, and the name of the file that it becomes."""

    name: str
    pmids: tuple[int, ...]

    def __str__(self) -> str:
        others = len(self.pmids) - 1
        return f"PMID {self.pmids[0]}" + (f" and {others} other{'s' * (others > 1)}" if others else "")


def _chunks(folder: Path, pmids: Sequence[int]) -> Iterator[_Chunk]:
    last = max((int(path.name[7:-7]) for path in efetch_files(folder)), default=0)
    for number, begin in zip(count(last + 1), range(0, len(pmids), RECORDS_A_REQUEST), strict=False):
        yield _Chunk(f"efetch-{number:05}.xml.gz", tuple(pmids[begin : begin + RECORDS_A_REQUEST]))


class _Worker:
    """Fetches some records; called from many threads.

    Attributes:
        absent: the PMIDs that PubMed does not have.
    """

    def __init__(self, client: Client, folder: Path, parts: Path, key: str) -> None:
        self.absent: set[int] = set()
        self._client, self._folder, self._parts, self._key = client, folder, parts, key

    def outcomes(self, chunk: _Chunk) -> list[Outcome]:
        """Fetch the records of a chunk, and tell of each what became of it."""
        part = self._parts / f"{chunk.name}.part"
        try:
            found = self._client.patiently(str(chunk), lambda: self._attempt(chunk.pmids, part))
        except FetchError as error:
            part.unlink(missing_ok=True)
            unreachable = isinstance(error, UnreachableError)
            return [Outcome(str(pmid), failure=str(error), unreachable=unreachable) for pmid in chunk.pmids]
        received = part.stat().st_size
        if found:
            _pack(part, self._folder / chunk.name)
        self.absent.update(pmid for pmid in chunk.pmids if pmid not in found)
        outcomes = [
            Outcome(str(pmid), fetched=True) if pmid in found else Outcome(str(pmid), left_out=ABSENT)
            for pmid in chunk.pmids
        ]
        outcomes[0] = replace(outcomes[0], bytes=received)
        part.unlink()
        return outcomes

    def _attempt(self, pmids: tuple[int, ...], part: Path) -> Collection[int]:
        """Put the answer into ``part`` and return which records are in it; once."""
        query = {
            "db": "pubmed",
            "retmode": "xml",
            "id": ",".join(map(str, pmids)),
            "tool": "cmbert-retrieval",
        }
        if self._key:
            query["api_key"] = self._key
        with self._client.open("efetch.fcgi", query=query, statuses=(200, 400)) as reply:
            size = 0
            with writing(part), part.open("wb") as file:
                for data in reply.chunks():
                    size += len(data)
                    if size > _MAX_ANSWER_BYTES:
                        raise FetchError(f"efetch.fcgi: more than the expected {_MAX_ANSWER_BYTES:,} bytes")
                    file.write(data)
        if reply.status == 400:
            return self._refused(part)
        try:
            found = {*_pmids(part)}
        except (CorpusError, UnusableError) as error:
            raise TransientError(_reason(part, error)) from None
        if not found <= {*pmids}:
            raise TransientError("a record came that was not asked for")
        return found

    def _refused(self, part: Path) -> Collection[int]:
        """Return no records where the answer means that there are none.

        Source:
            answers that were seen: an ``eFetchResult`` with the error "ID list is empty! Possibly it has no
            correct IDs.", JSON that speaks of the key, and failures of the servers behind it.
        """
        with part.open("rb") as file:
            text = file.read(_MAX_ERROR_BYTES)
        if b"ID list is empty" in text:
            return ()
        if self._key and b"api key" in text.lower():
            raise ConfigError(f"{KEY}: NCBI does not take this key; correct it, or unset the variable")
        raise TransientError("HTTP 400")


def _pack(part: Path, target: Path) -> None:
    """Move a finished file to its place, packed."""
    packed = part.with_name(f"{part.name}.gz")
    with writing(target):
        with (
            part.open("rb") as source,
            packed.open("wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=0) as stream,
        ):
            shutil.copyfileobj(source, stream, 2**20)
        fsync_file(packed)
        packed.replace(target)
