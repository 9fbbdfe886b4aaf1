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
from cmbert_retrieval.indexes.manifest import COMMITS, FileEntry, Manifest, write_manifest
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.opening import ENCODER_FOLDER, is_local
from cmbert_retrieval.storage import atomic_file, files_below, fsync_tree

if TYPE_CHECKING:
    from cmbert_retrieval.encoders.base import Encoder
    from cmbert_retrieval.retriever import Retriever


def save_index(reader: IndexReader, encoder: Encoder | None, path: Path, *, label: str = "FOLDER") -> None:
    """Copy the open commit, the encoder into ``encoder/``, and a card; the manifest comes last.

    Args:
        reader: the index.
        encoder: its encoder, or None to leave it out.
        path: a folder that is empty or not there yet.
        label: what the card calls the index.
    """
    from cmbert_retrieval.indexes.build import PINS

    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path} is there and not empty; choose a new folder")
    path.mkdir(parents=True, exist_ok=True)
    manifest = reader.manifest
    # How a segment was built, and from which folders, is of no use beyond this machine.
    files = {
        name: entry
        for name, entry in manifest.files.items()
        if not name.startswith(ENCODER_FOLDER + "/") and Path(name).name != PINS
    }
    for name in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(reader.path / name, path / name)
    if encoder is not None and manifest.encoder is not None:
        encoder.save_pretrained(str(path / ENCODER_FOLDER))
        files |= {name: FileEntry.of(path / name) for name in files_below(path, path / ENCODER_FOLDER)}
    manifest = _shareable(replace(manifest, files=files))
    (path / CARD).write_text(index_card(manifest, reader.licenses(), name=label), encoding="utf-8")
    fsync_tree(path)
    (path / COMMITS).mkdir()
    with atomic_file(path / COMMITS / commit_name(manifest.commit)) as file:
        file.write(manifest.to_bytes())
    write_manifest(path, manifest)


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
    from huggingface_hub import HfApi

    hub = Hub(token=token)
    if hub.offline:
        raise HubError(f"'{repo_id}': {why_offline(hub)}; unset it to upload")
    api = HfApi(token=token)
    with explaining(repo_id, revision, hub):
        api.create_repo(repo_id, private=private, exist_ok=True)
        there = api.model_info(repo_id)
        if private and there.private is False:
            # That it exists already may not make public what was meant to be private.
            raise ConfigError(
                f"'{repo_id}' is there and public, and the index holds the text of its documents; make the "
                "repository private, or upload with private=False"
            )
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        files = {sibling.rfilename for sibling in there.siblings or ()}
    with tempfile.TemporaryDirectory(prefix="cmbert-push-") as folder:
        save_index(retriever.reader, retriever.encoder, Path(folder) / "index", label=repo_id)
        with explaining(repo_id, revision, hub):
            info = api.upload_folder(
                repo_id=repo_id,
                folder_path=str(Path(folder) / "index"),
                revision=revision,
                commit_message="Upload an index of cmbert-retrieval",
                ignore_patterns=[CARD] if CARD in files else None,
                # Of an index that was there: what was deleted since must not stay beside this one.
                delete_patterns=[
                    f"{name}/*" for name in ("segments", "lexical", "deleted", COMMITS, ENCODER_FOLDER)
                ],
            )
    return str(info.commit_url)
