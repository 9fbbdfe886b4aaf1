"""One line for each way in which the hub does not give what was asked for."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cmbert_retrieval.errors import CmbertError
from cmbert_retrieval.hub.cache import Hub, cached_revisions

_LISTED = 5
"""Revisions that an error names."""

_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)

_TOKEN = "token=..., the variable HF_TOKEN, or: hf auth login"


class HubError(CmbertError):
    """The hub or its cache does not give a repository; the message says why, and what to do."""


class NoSuchRevisionError(HubError):
    """The hub answered that there is no such revision: what was fetched before is not what was asked for."""


class UnreachableError(HubError):
    """The hub did not answer."""

    def __init__(self, why: str, advice: str) -> None:
        super().__init__(f"{why}, {advice}")
        self.why = why


@contextmanager
def explaining(name: str, revision: str | None, hub: Hub) -> Iterator[None]:
    """Turn what the hub's client raises in an upload into one line.

    Raises:
        HubError: which repository, why, and what to do.
    """
    try:
        yield
    except CmbertError:
        raise
    except Exception as error:
        why = explained(error, name, revision or "main", hub)
        if isinstance(why, UnreachableError):
            why = HubError(f"{why.why}; check the connection (a proxy: HTTPS_PROXY), then try again")
        raise HubError(f"'{name}': {why}") from error


def explained(error: Exception, name: str, revision: str, hub: Hub) -> HubError:
    """Return the error for what the hub's client raised."""
    from huggingface_hub import constants
    from huggingface_hub import errors as kinds

    if isinstance(error, HubError):
        return error
    page = f"{constants.ENDPOINT}/{name}"
    if isinstance(error, kinds.GatedRepoError):
        return HubError(f"access to it is restricted; ask for it at {page}, then give a token: {_TOKEN}")
    if isinstance(error, kinds.RepositoryNotFoundError):
        return HubError(
            "the hub has no repository of that name, or it is private; check the name, or give a token: "
            + _TOKEN
        )
    if isinstance(error, kinds.RevisionNotFoundError):
        return NoSuchRevisionError(
            f"the hub has no revision {revision!r} of it; expected a branch, a tag or a commit of 40 digits: "
            f"{page}/commits/main"
        )
    if isinstance(error, kinds.DisabledRepoError):
        return HubError(f"access to it was disabled by its owner or the hub; see {page}")
    if isinstance(error, kinds.HFValidationError):
        return HubError("that is no id of the hub; expected organisation/name")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return HubError(
            f"the hub refuses the token, or asks for one (status {status}); give a valid one: {_TOKEN}"
        )
    if isinstance(error, kinds.LocalEntryNotFoundError) and hub.offline:
        return not_cached(name, revision, hub)
    if type(error).__name__ == "LocalTokenNotFoundError":
        return HubError(f"token=True was given, but none is kept on this machine; give one: {_TOKEN}")
    if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
        return HubError(
            f"its files cannot be written to {hub.cache} ({os.strerror(error.errno)}); make room there, or "
            "choose another folder: cache_folder=..., or the variable HF_HUB_CACHE"
        )
    # What the client raises when there is no connection has changed with its HTTP library, of which there
    # were three; nor have these a base class in common.
    return UnreachableError(
        f"the hub ({constants.ENDPOINT}) cannot be reached ({_reason(error)})",
        f"and its cache ({hub.cache}) does not hold all of it; check the connection (a proxy: HTTPS_PROXY), "
        f"or fetch it where there is one: {download_command(name, revision, hub)}",
    )


def _reason(error: BaseException) -> str:
    """Return the first line of an error that says something, or what kind it is."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return text[:200] or type(error).__name__


def not_cached(name: str, revision: str | None, hub: Hub) -> HubError:
    """Return the error for what the cache does not hold while nobody may be asked."""
    fetch = download_command(name, revision, hub)
    there: list[str] = []
    with suppress(OSError):  # a name too long for the system
        there = cached_revisions(name, hub)
    if not there:
        return HubError(
            f"the hub's cache ({hub.cache}) does not hold it, and {why_offline(hub)}; fetch it once with a "
            f"connection: {fetch}"
        )
    more = f" and {len(there) - _LISTED} more" if len(there) > _LISTED else ""
    return HubError(
        f"the hub's cache ({hub.cache}) holds {', '.join(there[:_LISTED])}{more} of it, not "
        f"{(revision or 'main')!r}, and {why_offline(hub)}; take one of these with revision=, or fetch it "
        f"once with a connection: {fetch}"
    )


def why_offline(hub: Hub) -> str:
    """Return what keeps us from asking the hub."""
    return (
        "local_files_only was given" if hub.local_files_only else "HF_HUB_OFFLINE is set, so nobody is asked"
    )


def download_command(name: str, revision: str | None, hub: Hub) -> str:
    """Return the hub client's command that puts a revision into the cache."""
    version = f" --revision {shlex.quote(revision)}" if revision not in (None, "main") else ""
    where = f" --cache-dir {shlex.quote(str(hub.cache_folder))}" if hub.cache_folder is not None else ""
    return f"hf download {name}{version}{where}"
