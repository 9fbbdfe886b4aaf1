"""Fetching corpora from their publishers: what is common to all of them."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Generic, TypeVar

from cmbert_retrieval.corpora.fetch_address import FetchError, UnreachableError
from cmbert_retrieval.corpora.fetch_files import WORK
from cmbert_retrieval.corpora.fetch_http import Client
from cmbert_retrieval.corpora.fetch_state import State
from cmbert_retrieval.errors import ConfigError

T = TypeVar("T")

MAX_CONNECTIONS = 64
FAILED = "failed.txt"
"""The file, below the working folder, with what could not be fetched, one a line, as ``--ids`` takes it."""
SHOWN = 5

Notify = Callable[[str, int], None]
"""Takes ``("listed", n)`` for each n articles of a list that is being read, ``("total", n)`` once it is known
how much there is to look at, and ``("done", 1)`` or ``("failed", 1)`` for each of them."""


@dataclass(slots=True)
class FetchReport:
    """What a fetch did.

    Attributes:
        source: the reader that reads what was fetched.
        folder: where it is.
        listing: what said what there is, and as of when.
        fetched: articles or files that came.
        already_there: those that were there, whole and as published.
        left_out: why some were not fetched -> how many.
        failed: how many could not be fetched.
        failures: the first of them, with the reasons.
        bytes: what came over the network as files.
        updates_only: whether the folder was asked to hold updates, without what they are updates of.
    """

    source: str
    folder: Path
    listing: str = ""
    fetched: int = 0
    already_there: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    bytes: int = 0
    updates_only: bool = False

    @property
    def next_command(self) -> str:
        """The command that makes an index of the folder, or that brings one up to date."""
        folder = str(self.folder)
        if self.updates_only:
            return f"cmbert index update INDEX {shlex.quote(folder)}"
        out = shlex.quote(f"{folder.rstrip('/')}-index")
        return f"cmbert index build --from {shlex.quote(f'{self.source}:{folder}')} --out {out}"

    @property
    def failed_file(self) -> Path:
        """The file that names all that failed, one a line, as ``--ids`` takes it."""
        return self.folder / WORK / FAILED

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "source": self.source,
            "folder": str(self.folder),
            "listing": self.listing,
            "fetched": self.fetched,
            "already_there": self.already_there,
            "left_out": dict(sorted(self.left_out.items())),
            "failed": self.failed,
            "failures": self.failures,
            "failed_file": str(self.failed_file) if self.failed else None,
            "bytes": self.bytes,
            "next": self.next_command if self.fetched or self.already_there else None,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one article or file.

    Attributes:
        name: how users name it.
        fetched: whether something came; False: it was there already, unless it was left out or failed.
        left_out: why it was not fetched.
        failure: why it could not be.
        unreachable: whether the failure was that the server did not answer.
        bytes: what came over the network.
        note: for the source to remember.
    """

    name: str
    fetched: bool = False
    left_out: str = ""
    failure: str = ""
    unreachable: bool = False
    bytes: int = 0
    note: Any = None


def one_choice(*, ids: object, since: str | None, everything: bool) -> None:
    """Check that what to fetch is said, and once.

    Raises:
        ConfigError: it is not, or the date is none.
    """
    if sum((ids is not None, since is not None, everything)) != 1:
        raise ConfigError("say what to fetch: exactly one of ids, since and all")
    if since is not None:
        try:
            date.fromisoformat(since)
        except ValueError:
            raise ConfigError(f"since: {since!r} is no date; expected one like 2026-01-31") from None
        if len(since) != 10:
            raise ConfigError(f"since: {since!r}; expected a date like 2026-01-31")


class Fetch(Generic[T]):
    """Runs one fetch: items from a list, in threads, into a report."""

    def __init__(
        self,
        report: FetchReport,
        client: Client,
        state: State,
        *,
        connections: int,
        notify: Notify | None = None,
    ) -> None:
        """Prepare; ``connections`` is how many files are fetched at a time.

        Raises:
            ConfigError: ``connections`` is not in 1..``MAX_CONNECTIONS``.
        """
        if not 1 <= connections <= MAX_CONNECTIONS:
            raise ConfigError(f"connections: {connections}; expected 1 to {MAX_CONNECTIONS}")
        self.report, self.client, self.state = report, client, state
        self._connections = connections
        self._notify = notify or (lambda phase, count: None)
        self._unanswered = 0

    def run(
        self,
        items: Iterable[T],
        work: Callable[[T], Outcome | list[Outcome]],
        *,
        total: int | None = None,
        remember: Callable[[Any], None] | None = None,
    ) -> None:
        """Do ``work`` for each item, ``connections`` at a time, and count the outcomes.

        Args:
            items: what to do; taken as needed, so they may be many.
            work: called in threads; its errors other than ``FetchError`` end the run. An item may stand for
                several articles, with an outcome for each.
            total: how many outcomes there will be, for progress.
            remember: called in this thread with each outcome's note.

        Raises:
            UnreachableError: the server does not answer any more.
            StorageError: the disk is full.
        """
        self._notify("total", total or 0)
        failed = self.state.folder / FAILED
        failed.unlink(missing_ok=True)
        with ThreadPoolExecutor(self._connections, thread_name_prefix="fetch") as pool:
            pending: set[Future[Outcome | list[Outcome]]] = set()
            try:
                for item in items:
                    pending.add(pool.submit(work, item))
                    if len(pending) >= 2 * self._connections:
                        pending = self._settle(pending, remember)
                while pending:
                    pending = self._settle(pending, remember)
            except BaseException:
                # Ctrl-C, a full disk, a server that is gone: unfinished files stay to be continued.
                self.client.stop()
                pool.shutdown(cancel_futures=True)
                raise
        if not self.report.failed:
            for part in self.state.folder.glob("*.part*"):
                part.unlink()  # of something that an earlier run began and nobody asks for any more

    def _settle(
        self, pending: set[Future[Outcome | list[Outcome]]], remember: Callable[[Any], None] | None
    ) -> set[Future[Outcome | list[Outcome]]]:
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            result = future.result()
            outcomes = result if isinstance(result, list) else [result]
            for outcome in outcomes:
                self._count(outcome)
                if outcome.note is not None and remember is not None:
                    remember(outcome.note)
                self._notify("failed" if outcome.failure else "done", 1)
            unreachable = [outcome.failure for outcome in outcomes if outcome.unreachable]
            self._unanswered = self._unanswered + 1 if unreachable else 0
            if self._unanswered > 2 * self._connections:
                raise UnreachableError(
                    f"{self.client.host} does not answer any more ({unreachable[0]}); "
                    f"{self.report.fetched:,} fetched; run the same command again later to go on"
                )
        return pending

    def _count(self, outcome: Outcome) -> None:
        report = self.report
        report.bytes += outcome.bytes
        if outcome.failure:
            report.failed += 1
            if len(report.failures) < SHOWN and outcome.failure not in report.failures:
                report.failures.append(outcome.failure)
            with (self.state.folder / FAILED).open("a", encoding="utf-8") as file:
                file.write(f"{outcome.name}  # {outcome.failure}\n")
        elif outcome.left_out:
            report.left_out[outcome.left_out] += 1
        elif outcome.fetched:
            report.fetched += 1
        else:
            report.already_there += 1


def outcome_of(name: str, work: Callable[[], Outcome]) -> Outcome:
    """Return what ``work`` returns, or its ``FetchError`` as an outcome."""
    try:
        return work()
    except FetchError as error:
        return Outcome(name, failure=str(error), unreachable=isinstance(error, UnreachableError))
