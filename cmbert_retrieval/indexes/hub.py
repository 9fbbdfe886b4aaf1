"""An index on the hub: what its manifest names is fetched, and nothing else that lies in the repository."""

from __future__ import annotations

from pathlib import Path

from cmbert_retrieval.encoders.hub import ENCODER_FILES
from cmbert_retrieval.errors import ConfigError, IndexCorruptError
from cmbert_retrieval.hub import Hub, Repository, find_repository
from cmbert_retrieval.indexes.locks import commit_name
from cmbert_retrieval.indexes.manifest import COMMITS, MANIFEST, Manifest, read_manifest


class NotAnIndexError(ConfigError):
    """The repository is there, but holds no index.

    Attributes:
        is_encoder: whether it holds an encoder.
    """

    def __init__(self, name: str, *, is_encoder: bool) -> None:
        super().__init__(f"'{name}': the repository holds neither an index (no {MANIFEST}) nor an encoder")
        self.is_encoder = is_encoder


def fetch_index(name: str, revision: str | None, hub: Hub) -> Path:
    """Return the folder of an index on the hub, fetching what is not there yet.

    Args:
        name: an id of the hub.
        revision: branch, tag or commit; None for the main branch.
        hub: how the hub is asked.

    Raises:
        HubError: no such repository or revision, no connection, or not fetched yet and offline.
        NotAnIndexError: the repository holds something else.
        IndexCorruptError: a file is not of the size that the manifest says.
    """
    repository = find_repository(name, revision, hub)
    if not repository.has(MANIFEST):
        if not hub.offline:  # what is in the cache may be only a part of it
            repository = find_repository(name, revision, hub, with_files=True)
        if not repository.has(MANIFEST):
            raise NotAnIndexError(name, is_encoder=repository.has(*ENCODER_FILES))
    folder = repository.fetch_files([MANIFEST])
    manifest = read_manifest(folder)
    repository.fetch_files([MANIFEST, f"{COMMITS}/{commit_name(manifest.commit)}", *manifest.files])
    _check_sizes(folder, manifest, repository)
    return folder


def _check_sizes(folder: Path, manifest: Manifest, repository: Repository) -> None:
    """Refuse files that are not those of the manifest, before anything opens them."""
    for name, entry in manifest.files.items():
        size = (folder / name).stat().st_size
        if size != entry.bytes:
            raise IndexCorruptError(
                f"'{repository.name}' at commit {repository.commit[:8]}: {name} has {size:,} bytes, "
                f"expected {entry.bytes:,}; tell its owner, or take another revision (if "
                f"it was changed here: remove {folder})"
            )
