"""The hub's own cache on this machine: which commits of a repository it holds."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

COMMIT = re.compile(r"[0-9a-f]{40}")
"""A whole commit, which always means the same files."""


@dataclass(frozen=True, slots=True)
class Hub:
    """How the hub is asked.

    Attributes:
        cache_folder: where downloads are kept; the hub's own cache when None.
        local_files_only: ask nobody.
        token: for private and gated repositories; None for the one that ``hf auth login`` or ``HF_TOKEN``
            gave, True for that one or an error, False for none.
    """

    cache_folder: str | Path | None = None
    local_files_only: bool = False
    token: bool | str | None = field(default=None, repr=False)

    @property
    def offline(self) -> bool:
        """Whether nobody may be asked."""
        from huggingface_hub import constants

        return self.local_files_only or bool(constants.HF_HUB_OFFLINE)

    @property
    def cache(self) -> Path:
        """The folder of downloads."""
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE if self.cache_folder is None else self.cache_folder).expanduser()


def storage(name: str, hub: Hub) -> Path:
    """Return the folder of a repository in the cache, with ``blobs``, ``refs`` and ``snapshots`` in it."""
    return hub.cache / "--".join(("models", *name.split("/")))


def cached_commit(name: str, revision: str, hub: Hub) -> str | None:
    """Return the commit that a revision stands for in the cache, if files of it are there."""
    folder = storage(name, hub)
    commit = revision
    with suppress(OSError, ValueError):  # no such file, or a name that is none
        if not COMMIT.fullmatch(revision):
            # A revision may hold slashes (refs/pr/1), but must not lead out of the cache.
            if ".." in revision.split("/"):
                return None
            commit = (folder / "refs" / revision).read_text(encoding="ascii").strip()
        if COMMIT.fullmatch(commit) and (folder / "snapshots" / commit).is_dir():
            return commit
    return None


def cached_files(name: str, commit: str | None, hub: Hub) -> tuple[str, ...] | None:
    """Return the names of a commit's files, if the hub's client has kept them, as its newer versions do."""
    if commit is None:
        return None
    try:
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError
    except ImportError:
        return None
    try:
        tree = get_cached_repo_tree(name, revision=commit, cache_dir=hub.cache_folder)
    except CachedRepoTreeNotFoundError:
        return None
    return tuple(file.path for file in tree)


def cached_revisions(name: str, hub: Hub) -> list[str]:
    """Return what is held of a repository: branches and tags with their commits, then other commits."""
    folder = storage(name, hub)
    refs = folder / "refs"
    commits = {}
    for path in sorted(refs.rglob("*")) if refs.is_dir() else ():
        label = path.relative_to(refs).as_posix()
        if path.is_file() and (commit := cached_commit(name, label, hub)):
            commits[label] = commit
    snapshots = folder / "snapshots"
    others = {path.name for path in snapshots.iterdir()} if snapshots.is_dir() else set()
    named = [f"'{label}' ({commit[:8]})" for label, commit in commits.items()]
    return named + sorted(f"'{commit}'" for commit in others - set(commits.values()))
