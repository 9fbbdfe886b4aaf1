"""From a retriever to a folder that opens anywhere, or to the hub."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.hub import Hub, HubError, explaining, why_offline
from cmbert_retrieval.indexes.card import CARD, index_card
from cmbert_retrieval.indexes.locks import commit_name
from cmbert_retrieval.indexes.manifest import COMMITS, MANIFEST, FileEntry, Manifest, write_manifest
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.opening import ENCODER_FOLDER, is_local
from cmbert_retrieval.storage import atomic_file, files_below, fsync_tree

if TYPE_CHECKING:
    from cmbert_retrieval.encoders.base import Encoder
    from cmbert_retrieval.retriever import Retriever

_OURS = tuple(f"{name}/" for name in ("segments", "lexical", "deleted", COMMITS, ENCODER_FOLDER))
"""The folders of an index."""


def save_index(reader: IndexReader, encoder: Encoder | None, path: Path) -> None:
    """Copy the open commit, the encoder into ``encoder/``, and a card; the manifest comes last.

    Args:
        reader: the index.
        encoder: its encoder, or None to leave it out.
        path: a folder that is empty or not there yet.

    Raises:
        ConfigError: there is something at ``path``.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path} is there and not empty; choose a new folder")
    path.mkdir(parents=True, exist_ok=True)
    manifest = _with_encoder(reader, encoder, path)
    for name in manifest.files:
        if not name.startswith(f"{ENCODER_FOLDER}/"):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(reader.path / name, path / name)
    (path / CARD).write_text(index_card(manifest, reader.licenses()), encoding="utf-8")
    fsync_tree(path)
    (path / COMMITS).mkdir()
    with atomic_file(path / COMMITS / commit_name(manifest.commit)) as file:
        file.write(manifest.to_bytes())
    write_manifest(path, manifest)


def _with_encoder(reader: IndexReader, encoder: Encoder | None, path: Path) -> Manifest:
    """Save the encoder into ``path/encoder`` and return the manifest of what is to be shared."""
    from cmbert_retrieval.indexes.pins import PINS

    manifest = reader.manifest
    # How a segment was built, and from which folders, is of no use beyond this machine.
    files = {
        name: entry
        for name, entry in manifest.files.items()
        if not name.startswith(f"{ENCODER_FOLDER}/") and Path(name).name != PINS
    }
    if encoder is not None and manifest.encoder is not None:
        encoder.save_pretrained(str(path / ENCODER_FOLDER))
        files |= {name: FileEntry.of(path / name) for name in files_below(path, path / ENCODER_FOLDER)}
    return _shareable(replace(manifest, files=files))


def _shareable(manifest: Manifest) -> Manifest:
    """Return the manifest without the folders of this machine: names of users and projects are in them."""
    sources = tuple({**source, "path": Path(source["path"]).name} for source in manifest.sources)
    recipe = dict(manifest.recipe)
    for section, key in (("source", "path"), ("encoder", "model")):
        part = recipe.get(section)
        if isinstance(part, Mapping) and isinstance(part.get(key), str):
            keep = key == "model" and not is_local(part[key])
            recipe[section] = {**part, key: part[key] if keep else Path(part[key]).name}
    encoder = manifest.encoder
    if encoder is not None and is_local(encoder.source):
        # A copy is inside, or has to be named; a hub id stays what finds it again.
        encoder = replace(encoder, source=ENCODER_FOLDER)
    return replace(manifest, sources=sources, recipe=recipe, encoder=encoder)


def push_index(
    retriever: Retriever, repo_id: str, *, private: bool, revision: str | None, token: bool | str | None
) -> str:
    """Upload what ``save_index`` writes, in one commit of the hub. A README.md that is there stays.

    Raises:
        ConfigError: the repository is public and ``private`` was asked for.
        HubError: the hub does not take it.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    hub = Hub(token=token)
    if hub.offline:
        raise HubError(f"'{repo_id}': {why_offline(hub)}; unset it to upload")
    reader, encoder = retriever.reader, retriever.encoder
    api = HfApi(token=token)
    with explaining(repo_id, revision, hub):
        api.create_repo(repo_id, private=private, exist_ok=True)
        if private and api.model_info(repo_id).private is False:
            # That it exists already may not make public what was meant to be private.
            raise ConfigError(
                f"'{repo_id}' is there and public, and the index holds the text of its documents; make the "
                "repository private, or upload with private=False"
            )
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        there = set(api.list_repo_files(repo_id, revision=revision))
    # The index itself is sent from where it lies: a copy of its texts would lie about for hours.
    with tempfile.TemporaryDirectory(prefix="cmbert-push-") as folder:
        manifest = _with_encoder(reader, encoder, Path(folder))
        parts: dict[str, Path | bytes] = {
            name: (Path(folder) if name.startswith(f"{ENCODER_FOLDER}/") else reader.path) / name
            for name in manifest.files
        }
        parts[f"{COMMITS}/{commit_name(manifest.commit)}"] = parts[MANIFEST] = manifest.to_bytes()
        if CARD not in there:
            parts[CARD] = index_card(manifest, reader.licenses(), name=repo_id).encode()
        # Of an index that was there: what was deleted since must not stay beside this one.
        outdated = sorted(name for name in there - set(parts) if name.startswith(_OURS))
        with explaining(repo_id, revision, hub):
            info = api.create_commit(
                repo_id,
                [
                    *(CommitOperationAdd(name, part) for name, part in parts.items()),
                    *(CommitOperationDelete(name) for name in outdated),
                ],
                commit_message="Upload an index of cmbert-retrieval",
                revision=revision,
            )
    return str(info.commit_url)
