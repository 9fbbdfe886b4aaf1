"""From a name to an open retriever, and from a retriever to a folder or the hub."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmbert_retrieval import __version__
from cmbert_retrieval.errors import ConfigError, EncoderError, IndexLockedError
from cmbert_retrieval.indexes.locks import commit_name
from cmbert_retrieval.indexes.manifest import (
    COMMITS,
    MANIFEST,
    EncoderEntry,
    FileEntry,
    Manifest,
    read_manifest,
    write_manifest,
)
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.paths import cache_folder as default_cache
from cmbert_retrieval.storage import atomic_file, files_below, fsync_tree
from cmbert_retrieval.types import Document

if TYPE_CHECKING:
    from cmbert_retrieval.config import IndexRecipe
    from cmbert_retrieval.corpora.base import Corpus
    from cmbert_retrieval.encoders.base import Encoder
    from cmbert_retrieval.retriever import Retriever

logger = logging.getLogger(__name__)

Notify = Callable[[str, int], None]
_ENCODER_FILES = ("config.json", "modules.json", "config_sentence_transformers.json", "router_config.json")
_ENCODER = "encoder"  # the folder within an index
_POLL_SECONDS = 0.5


def open_pretrained(
    cls: type[Retriever],
    name: str | Path,
    *,
    index: str | Path | None = None,
    encoder: str | Path | None = None,
    revision: str | None = None,
    cache_folder: str | Path | None = None,
    local_files_only: bool = False,
    encoder_options: Mapping[str, Any] | None = None,
    notify: Notify | None = None,
) -> Retriever:
    """Open what ``Retriever.from_pretrained`` was asked for; see there."""
    hub = {"cache_folder": cache_folder, "local_files_only": local_files_only}
    options = {**(encoder_options or {}), **hub}
    if index is not None:
        if encoder is not None:
            raise ConfigError(
                "give the encoder once: as the first argument or as encoder=, not both with index="
            )
        return _open(cls, index, name, revision, options, cache_folder, notify)
    folder = Path(name).expanduser()
    if _is_file(folder / MANIFEST) or is_bundled(name):
        return _open(cls, name, encoder, None, options, cache_folder, notify)
    if _is_dir(folder):
        if any((folder / file).is_file() for file in _ENCODER_FILES):
            raise _says_what_to_search(name)
        read_manifest(folder)  # says that there is no index, or only the beginning of one
    path = _download_index(str(name), revision, cache_folder, local_files_only)
    return _open(cls, path, encoder, None, options, cache_folder, notify)


def is_bundled(name: str | Path) -> bool:
    """Tell whether a recipe of that name comes with the package, without loading what reads recipes."""
    text = str(name)
    return text.isidentifier() and _is_file(Path(__file__).parent / "recipes" / f"{text}.yaml")


def _says_what_to_search(name: str | Path) -> ConfigError:
    return ConfigError(
        f"'{name}' is an encoder: say what to search: "
        f"Retriever.from_pretrained('{name}', index='icd10cm'), "
        f"or build an index with it: cmbert index build --from READER:PATH --encoder {name} --out DIR"
    )


def _open(
    cls: type[Retriever],
    index: str | Path,
    encoder: str | Path | None,
    revision: str | None,
    options: Mapping[str, Any],
    cache_folder: str | Path | None,
    notify: Notify | None,
) -> Retriever:
    from cmbert_retrieval.encoders import load_encoder

    if _is_file(Path(index).expanduser() / MANIFEST):
        reader = IndexReader(Path(index).expanduser())
        try:
            opened, entry = None, reader.manifest.encoder
            if _is_none(encoder):
                if entry is not None:
                    raise ConfigError(
                        f"{index} has vectors; to search it by its words alone, without an encoder: "
                        "mode='lexical', or --mode lexical"
                    )
            elif encoder is not None:
                given = {"revision": revision, **options}
                opened = _load_as(entry, encoder, given) if entry else load_encoder(encoder, **given)
            retriever = cls(reader, opened, encoder_options=options)
            if opened is not None:
                _ = retriever.encoder  # refuses another encoder now, not at the first query
        except BaseException:
            reader.close()
            raise
        return retriever
    if is_bundled(index):
        opened = None if _is_none(encoder) else load_encoder(encoder, **{"revision": revision, **options})
        folder = build_bundled(str(index), opened, cache_folder=cache_folder, notify=notify)
        return cls(IndexReader(folder), opened, encoder_options=options)
    raise ConfigError(f"index '{index}': neither a folder with a {MANIFEST} nor a bundled recipe")


def _is_none(encoder: object) -> bool:
    """Tell whether words alone were asked for."""
    return isinstance(encoder, str | Path) and str(encoder) == "none"


def load_index_encoder(entry: EncoderEntry, index: Path, options: Mapping[str, Any]) -> Encoder:
    """Open the encoder of an index, with the prompts, length and pooling that made its vectors.

    Args:
        entry: what the manifest says of it.
        index: the index's folder; an encoder inside comes first.
        options: as ``load_encoder`` takes them; they win.

    Raises:
        EncoderError: it is not where it was.
    """
    inside = index / _ENCODER
    if inside.is_dir():
        return _load_as(entry, inside, options)
    name = entry.source
    if name == _ENCODER or (_is_local(name) and not _is_dir(Path(name).expanduser())):
        raise EncoderError(
            f"the index was built with the encoder '{entry.identity.name}' from a folder, which is not here; "
            "name a copy of it: encoder=FOLDER, or --encoder FOLDER"
        )
    revision = None if _is_local(name) else entry.identity.revision or None
    return _load_as(entry, name, {"revision": revision, **options})


def _load_as(entry: EncoderEntry, name: str | Path, options: Mapping[str, Any]) -> Encoder:
    """Open an encoder with an index's settings. Whether it is the index's own is asked elsewhere."""
    from cmbert_retrieval.encoders import load_encoder

    identity = entry.identity
    settings = {
        "prompts": dict(identity.prompts),
        "max_tokens": identity.max_tokens,
        "pooling": identity.pooling,
    }
    try:
        return load_encoder(name, **{**settings, **options})
    except ConfigError:
        # Another model may not have so many positions; that it is another one says more.
        return load_encoder(name, **options)


def _is_local(source: str) -> bool:
    """Tell whether an encoder's source is a folder rather than a name: "encoder" is the one inside."""
    return source == _ENCODER or source.startswith((".", "~", "/")) or _is_dir(Path(source))


def _is_file(path: Path) -> bool:
    with suppress(OSError, ValueError):  # a name too long for the system, or with a NUL, is no file's
        return path.is_file()
    return False


def _is_dir(path: Path) -> bool:
    with suppress(OSError, ValueError):
        return path.is_dir()
    return False


def build_bundled(
    name: str,
    encoder: Encoder | None,
    *,
    cache_folder: str | Path | None = None,
    notify: Notify | None = None,
) -> Path:
    """Return the folder of a bundled recipe's index, built if need be; without encoder: of words alone."""
    from cmbert_retrieval.config import load_index_recipe
    from cmbert_retrieval.corpora import open_corpus

    recipe = load_index_recipe(name, overrides=[] if encoder is not None else ["encoder=none"])
    corpus = open_corpus(recipe.source.reader, recipe.source.path, **recipe.source.options)
    root = Path(cache_folder) if cache_folder is not None else default_cache()
    return build_cached(root / "indexes", recipe, corpus, encoder, notify=notify)


def build_cached(
    root: Path,
    recipe: IndexRecipe,
    corpus: Corpus,
    encoder: Encoder | None,
    *,
    notify: Notify | None = None,
) -> Path:
    """Return the folder in ``root`` of a corpus's index, built if it is not there yet.

    The folder's name holds a hash of recipe, sources and encoder: another release or encoder is another
    folder. Several processes may ask at once; one builds, the others wait.
    """
    from cmbert_retrieval.indexes.writer import IndexWriter

    checksums = [source.checksum for source in corpus.sources()]
    identity = encoder.identity.to_json() if encoder is not None else None
    key = [__version__, recipe.to_json(), checksums, identity]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    folder = root / f"{recipe.name}-{digest}"
    while not (folder / MANIFEST).is_file():
        try:
            with IndexWriter(folder, notify=notify or (lambda phase, count: None)) as writer:
                if not (folder / MANIFEST).is_file():
                    logger.warning("building the index '%s' once, into %s", recipe.name, folder)
                    writer.build(corpus, recipe, encoder)
        except IndexLockedError:
            time.sleep(_POLL_SECONDS)
    return folder


def index_documents(
    cls: type[Retriever],
    documents: Iterable[Document],
    *,
    encoder: str | Path | Encoder | None,
    path: str | Path | None,
    columns: Mapping[str, str] | None,
    overrides: Sequence[str],
) -> Retriever:
    """Build what ``Retriever.from_documents`` was asked for; see there."""
    from cmbert_retrieval.config import IndexRecipe
    from cmbert_retrieval.corpora.memory import MemoryCorpus
    from cmbert_retrieval.encoders import load_encoder
    from cmbert_retrieval.indexes.writer import IndexWriter

    corpus = MemoryCorpus(documents)
    opened: Encoder | None = None
    if not _is_none(encoder):
        opened = load_encoder(encoder) if encoder is None or isinstance(encoder, str | Path) else encoder
    settings = [*overrides] if opened is not None else ["encoder=none", *overrides]
    recipe = IndexRecipe.for_corpus("memory", overrides=settings)
    declared = dict(columns) if columns is not None else corpus.guess_columns()
    recipe = IndexRecipe.from_json({**recipe.to_json(), "columns": declared})
    temporary = TemporaryFolder("cmbert-index-") if path is None else None
    folder = Path(path) if path is not None else Path(temporary.name) / "index"  # type: ignore[union-attr]
    try:
        with IndexWriter(folder) as writer:
            report = writer.build(corpus, recipe, opened)
        for line in report.lines():
            logger.warning("%s", line)  # nothing is left out or cut without a word
        retriever = cls(IndexReader(folder), opened)
    except BaseException:
        if temporary is not None:
            temporary.cleanup()
        raise
    retriever.keep(temporary)
    return retriever


class TemporaryFolder:
    """A folder that goes when it is cleaned up, or with the process that made it.

    A forked child has it, too, but must not remove it: the parent goes on reading.
    """

    def __init__(self, prefix: str) -> None:
        self.name = tempfile.mkdtemp(prefix=prefix)
        self.cleanup = weakref.finalize(self, _remove_own, self.name, os.getpid())


def _remove_own(name: str, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(name, ignore_errors=True)


def save_index(reader: IndexReader, encoder: Encoder | None, path: Path) -> None:
    """Copy the open commit, and the encoder into ``encoder/``; the manifest comes last."""
    from cmbert_retrieval.indexes.build import PINS

    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path} is there and not empty; choose a new folder")
    path.mkdir(parents=True, exist_ok=True)
    manifest = reader.manifest
    # How a segment was built, and from which folders, is of no use beyond this machine.
    files = {
        name: entry
        for name, entry in manifest.files.items()
        if not name.startswith(_ENCODER + "/") and Path(name).name != PINS
    }
    for name in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(reader.path / name, path / name)
    if encoder is not None and manifest.encoder is not None:
        encoder.save_pretrained(str(path / _ENCODER))
        files |= {name: FileEntry.of(path / name) for name in files_below(path, path / _ENCODER)}
    manifest = _shareable(replace(manifest, files=files))
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
            keep = key == "model" and not _is_local(part[key])
            recipe[section] = {**part, key: part[key] if keep else Path(part[key]).name}
    encoder = manifest.encoder
    if encoder is not None and _is_local(encoder.source):
        # A copy is inside, or has to be named; a hub id stays what finds it again.
        encoder = replace(encoder, source=_ENCODER)
    return replace(manifest, sources=sources, recipe=recipe, encoder=encoder)


def push_index(
    retriever: Retriever, repo_id: str, *, private: bool, revision: str | None, token: str | None
) -> str:
    """Upload what ``save_index`` writes, in one commit of the hub."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cmbert-push-") as folder:
        retriever.save_pretrained(Path(folder) / "index")
        info = api.upload_folder(
            repo_id=repo_id,
            folder_path=str(Path(folder) / "index"),
            revision=revision,
            commit_message="Upload an index of cmbert-retrieval",
        )
    return str(info.commit_url)


def _download_index(
    name: str, revision: str | None, cache_folder: str | Path | None, local_files_only: bool
) -> Path:
    """Return the local folder of an index on the hub.

    Raises:
        ConfigError: it is an encoder, or there is no such folder, recipe or repository.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    where = {"revision": revision, "cache_dir": cache_folder, "local_files_only": local_files_only}
    nothing = ConfigError(
        f"'{name}': no such folder, no bundled recipe, and no index on the hub that can be reached; "
        "a bundled one is 'icd10cm'"
    )
    if name.startswith((".", "~", "/")) or name.count("/") != 1:
        raise nothing
    try:
        hf_hub_download(name, MANIFEST, **where)  # type: ignore[arg-type]
    except EntryNotFoundError as error:
        if type(error).__name__ == "LocalEntryNotFoundError" and not _is_cached_encoder(name, where):
            raise nothing from None
        raise _says_what_to_search(name) from None
    except (HFValidationError, HfHubHTTPError, OSError, ValueError):
        raise nothing from None
    return Path(snapshot_download(name, **where))  # type: ignore[arg-type]


def _is_cached_encoder(name: str, where: Mapping[str, Any]) -> bool:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(
        name, "config.json", cache_dir=where["cache_dir"], revision=where["revision"]
    )
    return isinstance(found, str)
