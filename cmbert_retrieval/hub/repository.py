"""A repository of the hub at one commit, and the download of some of its files."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TypeVar, cast

from cmbert_retrieval.hub.cache import COMMIT, Hub, cached_commit, cached_files, storage
from cmbert_retrieval.hub.errors import (
    HubError,
    NoSuchRevisionError,
    UnreachableError,
    download_command,
    explained,
    not_cached,
    why_offline,
)

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5
"""How long the hub may take to say what a repository holds; ``HF_HUB_ETAG_TIMEOUT`` wins."""

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Repository:
    """One commit of a repository.

    Attributes:
        name: its id.
        commit: of 40 hex digits.
        hub: how its files are fetched.
        requested: branch or tag that stands for the commit; the commit itself when there is none.
        files: names of all files, or None where nobody was asked.
        unreachable: why nobody can be asked, though it is allowed.
    """

    name: str
    commit: str
    hub: Hub
    requested: str
    files: tuple[str, ...] | None = None
    unreachable: str = ""

    @property
    def folder(self) -> Path:
        """Where its files are, or will be."""
        return storage(self.name, self.hub) / "snapshots" / self.commit

    def has(self, *names: str) -> bool:
        """Tell whether it has one of these files, as far as that is known."""
        if self.files is not None:
            return any(name in self.files for name in names)
        return any((self.folder / name).is_file() for name in names)

    def fetch(self, patterns: Sequence[str], whole: Callable[[Path], bool]) -> Path:
        """Return the folder with the files that match ``patterns``.

        Args:
            patterns: as the shell knows them; ``*`` matches slashes, too.
            whole: whether a folder holds all that is needed. Where it does, and where nothing is missing of
                the files that are known, nobody is asked.

        Raises:
            HubError: something is missing and cannot be fetched.
        """
        return self._fetch(
            lambda files: patterns, lambda folder: not self._missing(patterns) and whole(folder)
        )

    def fetch_files(self, names: Collection[str]) -> Path:
        """Return the folder with these files, and no others fetched.

        Raises:
            HubError: something is missing and cannot be fetched.
        """
        return self._fetch(
            lambda files: covering_patterns(names, files),
            lambda folder: all((folder / name).is_file() for name in names),
        )

    def _fetch(
        self, patterns: Callable[[Sequence[str]], Sequence[str]], whole: Callable[[Path], bool]
    ) -> Path:
        # A cache without the branch's name would not find the commit again when it is offline.
        alone = bool(self.unreachable) or self.hub.offline
        named = alone or cached_commit(self.name, self.requested, self.hub) == self.commit
        if named and self.folder.is_dir() and whole(self.folder):
            return self.folder
        if alone:
            why = self.unreachable or why_offline(self.hub)
            raise HubError(
                f"the hub's cache ({self.hub.cache}) holds only a part of it, and {why}; "
                f"fetch the rest with a connection: {download_command(self.name, self.requested, self.hub)}"
            )
        # Where nobody was asked yet: the download itself would try for half a minute.
        files = self.files if self.files is not None else _ask(self.name, self.commit, self.hub)[1]
        self._download(patterns(files))
        if not whole(self.folder):
            raise HubError(f"some of its files are missing in commit {self.commit}; take another revision")
        return self.folder

    def _missing(self, patterns: Sequence[str]) -> bool:
        wanted = [
            name for name in self.files or () if any(fnmatchcase(name, pattern) for pattern in patterns)
        ]
        return any(not (self.folder / name).is_file() for name in wanted)

    def _download(self, patterns: Sequence[str]) -> None:
        from huggingface_hub import snapshot_download

        # With the name of a branch, the cache learns which commit it stands for. The branch may have moved
        # since we asked: then it is the commit that counts.
        for revision in (self.requested, self.commit):
            try:
                found = snapshot_download(
                    self.name,
                    revision=revision,
                    cache_dir=self.hub.cache_folder,
                    token=self.hub.token,
                    allow_patterns=list(patterns),
                )
            except Exception as error:
                raise explained(error, self.name, revision, self.hub) from error
            if Path(found).name == self.commit:
                return


def is_hub_id(name: str | Path) -> bool:
    """Tell whether a name can be an id of the hub (``organisation/name``) and is not meant as a folder."""
    return isinstance(name, str) and _ID.fullmatch(name) is not None


def covering_patterns(names: Collection[str], files: Iterable[str]) -> list[str]:
    """Return patterns that match all of ``names``, and of ``files`` no others.

    A folder of which everything is wanted is one pattern: the hub's client compares every file with every
    pattern, and a large index has thousands of files.
    """
    wanted = set(names)
    mixed: set[str] = set()  # folders with something below that is not wanted
    for file in files:
        if file not in wanted:
            mixed.update(str(folder) for folder in PurePosixPath(file).parents)
    patterns = set()
    for name in wanted:
        folder = str(PurePosixPath(name).parent)
        whole = folder != "." and folder not in mixed
        patterns.add(f"{_literal(folder)}/*" if whole else _literal(name))
    return sorted(patterns)


def _literal(name: str) -> str:
    """Return the pattern that matches this name only."""
    return re.sub(r"([*?[])", r"[\1]", name)


def find_repository(name: str, revision: str | None, hub: Hub, *, with_files: bool = False) -> Repository:
    """Return the commit that a revision stands for.

    Args:
        name: an id of the hub.
        revision: branch, tag or commit; None for the main branch.
        hub: how to ask.
        with_files: ask for the names of the files even where the commit is in the cache without them.

    Raises:
        HubError: there is no such repository or revision, it may not be read, or nobody can be asked and the
            cache does not hold it.
    """
    requested = revision or "main"
    cached = cached_commit(name, requested, hub)
    if cached is None and hub.offline:
        raise not_cached(name, revision, hub)
    known = Repository(name, cached or requested, hub, requested, cached_files(name, cached, hub))
    if cached is not None and (
        hub.offline or (cached == requested and (known.files is not None or not with_files))
    ):
        return known
    try:
        commit, files = _ask(name, requested, hub)
    except NoSuchRevisionError:
        raise
    except HubError as error:
        if cached is None:
            raise
        why = error.why if isinstance(error, UnreachableError) else str(error)
        logger.warning("'%s': %s; taken as it was fetched before (commit %s)", name, why, cached[:8])
        return replace(known, unreachable=why)
    return Repository(name, commit, hub, requested, files)


def _ask(name: str, revision: str, hub: Hub) -> tuple[str, tuple[str, ...]]:
    """Return the commit of a revision and the names of its files, without trying again."""
    from huggingface_hub import HfApi, constants

    seconds = constants.HF_HUB_ETAG_TIMEOUT if "HF_HUB_ETAG_TIMEOUT" in os.environ else PATIENCE_SECONDS
    api = HfApi(token=hub.token)
    try:
        info = _within(seconds, lambda: api.model_info(name, revision=revision, timeout=seconds))
    except Exception as error:
        raise explained(error, name, revision, hub) from error
    if not isinstance(info.sha, str) or not COMMIT.fullmatch(info.sha):
        raise HubError(f"the hub ({api.endpoint}) names no commit of it; is that a Hugging Face hub?")
    return info.sha, tuple(sibling.rfilename for sibling in info.siblings or ())


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Return what a call returns, or give it up.

    A time limit on a connection is one for each address of the server and none for the name service: behind
    a firewall that swallows packets, a minute goes by.
    """
    outcome: list[tuple[T | None, Exception | None]] = []

    def run() -> None:
        try:
            outcome.append((call(), None))
        except Exception as error:
            outcome.append((None, error))

    # A daemon: a thread that hangs must not keep the process from ending.
    thread = threading.Thread(target=run, name="cmbert-hub", daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:g} seconds; HF_HUB_ETAG_TIMEOUT=30 waits longer")
    result, error = outcome[0]
    if error is not None:
        raise error
    return cast(T, result)
