"""From a name to an open retriever: folders, bundled recipes, hub ids, documents in memory."""

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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmbert_retrieval import __version__
from cmbert_retrieval.encoders.hub import ENCODER_FILES
from cmbert_retrieval.errors import ConfigError, EncoderError, IndexLockedError, MissingExtraError
from cmbert_retrieval.hub import Hub, HubError, is_hub_id
from cmbert_retrieval.indexes.hub import NotAnIndexError, fetch_index
from cmbert_retrieval.indexes.manifest import MANIFEST, EncoderEntry, read_manifest
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.paths import cache_folder as built_folder
from cmbert_retrieval.types import Document

if TYPE_CHECKING:
    from cmbert_retrieval.config import IndexRecipe
    from cmbert_retrieval.corpora.base import Corpus
    from cmbert_retrieval.encoders.base import Encoder
    from cmbert_retrieval.retriever import Retriever

logger = logging.getLogger(__name__)

Notify = Callable[[str, int], None]
ENCODER_FOLDER = "encoder"
"""The folder within an index that holds its encoder."""

_POLL_SECONDS = 0.5
_WORDS_ALONE = "or search it by its words alone: --mode lexical, mode='lexical'"


def open_pretrained(
    cls: type[Retriever],
    name: str | Path,
    *,
    index: str | Path | None = None,
    encoder: str | Path | None = None,
    revision: str | None = None,
    cache_folder: str | Path | None = None,
    local_files_only: bool = False,
    token: bool | str | None = None,
    encoder_options: Mapping[str, Any] | None = None,
    notify: Notify | None = None,
) -> Retriever:
    """Open what ``Retriever.from_pretrained`` was asked for; see there."""
    options = {
        **(encoder_options or {}),
        "cache_folder": cache_folder,
        "local_files_only": local_files_only,
        "token": token,
    }
    hub = Hub(cache_folder, local_files_only, token)
    if index is not None:
        if encoder is not None:
            raise ConfigError(
                "give the encoder once: as the first argument or as encoder=, not both with index="
            )
        folder = _find_index(index, None, hub)
        if folder is None:
            raise ConfigError(
                f"index '{index}': neither a folder with a {MANIFEST} nor a bundled recipe nor a hub id"
            )
        return _open(cls, folder, name, {"revision": revision, **options}, options, notify)
    found = _find_index(name, revision, hub)
    if found is None:
        raise ConfigError(
            f"'{name}': no such folder, no bundled recipe and no hub id; a bundled one is 'icd10cm', a hub "
            "id is organisation/name"
        )
    return _open(cls, found, encoder, options, options, notify)


def _find_index(name: str | Path, revision: str | None, hub: Hub) -> str | Path | None:
    """Return the folder of an index, the name of a bundled recipe, or None for what is neither.

    A folder that is here comes before a hub id; what is written as a folder is never asked for on the hub.

    Raises:
        ConfigError: it is an encoder, the hub does not give it, or a revision is given of what has none.
    """
    folder = Path(name).expanduser()
    is_here = _is_dir(folder)
    if is_here or is_bundled(name):
        if revision is not None:
            what = "a folder" if is_here else "a bundled recipe"
            raise ConfigError(
                f"revision is {revision!r}; expected none for {what} ('{name}'). The revision of an encoder: "
                f"from_pretrained(ENCODER, index='{name}', revision={revision!r})"
            )
        if _is_file(folder / MANIFEST):
            return folder
        if is_bundled(name):
            return str(name)
        if any((folder / file).is_file() for file in ENCODER_FILES):
            raise _says_what_to_search(name)
        read_manifest(folder)  # says that there is no index, or only the beginning of one
    if _is_file(folder):
        raise ConfigError(f"'{name}' is a file; expected an index, which is a folder with a {MANIFEST}")
    if not is_hub_id(name):
        return None
    try:
        return fetch_index(str(name), revision, hub)
    except NotAnIndexError as error:
        if error.is_encoder:
            raise _says_what_to_search(name) from error
        raise
    except HubError as error:
        parent = str(name).split("/")[0]
        hint = f" ('{parent}' is a folder here, without '{folder.name}')" if _is_dir(Path(parent)) else ""
        raise ConfigError(f"'{name}': no such folder{hint}, no bundled recipe, and {error}") from error


def may_be_index(name: str | Path) -> bool:
    """Tell whether something of that name is here, or could be on the hub."""
    path = Path(name).expanduser()
    return _is_dir(path) or _is_file(path) or is_bundled(name) or is_hub_id(name)


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
    given: Mapping[str, Any],
    options: Mapping[str, Any],
    notify: Notify | None,
) -> Retriever:
    """Open a folder or a bundled recipe.

    Args:
        cls: the class to make one of.
        index: a folder, or the name of a bundled recipe.
        encoder: what is to be opened instead of the index's own; "none" for words alone.
        given: the options of that encoder.
        options: the options of the index's own.
        notify: told of the progress of a build.
    """
    from cmbert_retrieval.encoders import load_encoder

    if isinstance(index, Path):
        reader = IndexReader(index)
        try:
            opened, entry = None, reader.manifest.encoder
            if _is_none(encoder):
                if entry is not None:
                    raise ConfigError(
                        f"{index} has vectors; to search it by its words alone, without an encoder: "
                        "mode='lexical', or --mode lexical"
                    )
            elif encoder is not None:
                opened = _load_as(entry, encoder, given) if entry else load_encoder(encoder, **given)
            retriever = cls(reader, opened, encoder_options=options)
            if opened is not None:
                _ = retriever.encoder  # refuses another encoder now, not at the first query
        except BaseException:
            reader.close()
            raise
        return retriever
    opened = None if _is_none(encoder) else load_encoder(encoder, **given)
    folder = build_bundled(index, opened, notify=notify)
    return cls(IndexReader(folder), opened, encoder_options=options)


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
    inside = index / ENCODER_FOLDER
    if inside.is_dir():
        return _load_as(entry, inside, options)
    name = entry.source
    if name == ENCODER_FOLDER or (is_local(name) and not _is_dir(Path(name).expanduser())):
        raise EncoderError(
            f"the index was built with the encoder '{entry.identity.name}' from a folder, which is not here; "
            f"name a copy of it: encoder=FOLDER, or --encoder FOLDER; {_WORDS_ALONE}"
        )
    revision = None if is_local(name) else entry.identity.revision or None
    return _load_as(entry, name, {"revision": revision, **options})


def _load_as(entry: EncoderEntry, name: str | Path, options: Mapping[str, Any]) -> Encoder:
    """Open an encoder with an index's settings. Whether it is the index's own is asked elsewhere."""
    try:
        return _load_with_settings(entry, name, options)
    except MissingExtraError as error:
        # An index that has vectors takes no encoder "none", which is advised where there is no index yet.
        raise MissingExtraError(error.needs, _WORDS_ALONE) from error


def _load_with_settings(entry: EncoderEntry, name: str | Path, options: Mapping[str, Any]) -> Encoder:
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


def is_local(source: str) -> bool:
    """Tell whether an encoder's source is a folder rather than a name: "encoder" is the one inside."""
    return source == ENCODER_FOLDER or source.startswith((".", "~", "/")) or _is_dir(Path(source))


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
    notify: Notify | None = None,
) -> Path:
    """Return the folder of a bundled recipe's index, built if need be; without encoder: of words alone."""
    from cmbert_retrieval.config import load_index_recipe
    from cmbert_retrieval.corpora import open_corpus

    recipe = load_index_recipe(name, overrides=[] if encoder is not None else ["encoder=none"])
    corpus = open_corpus(recipe.source.reader, recipe.source.path, **recipe.source.options)
    return build_cached(built_folder() / "indexes", recipe, corpus, encoder, notify=notify)


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
    from cmbert_retrieval.indexes.writer import IndexWriter, silent

    checksums = [source.checksum for source in corpus.sources()]
    identity = encoder.identity.to_json() if encoder is not None else None
    key = [__version__, recipe.to_json(), checksums, identity]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    folder = root / f"{recipe.name}-{digest}"
    while not (folder / MANIFEST).is_file():
        try:
            with IndexWriter(folder, notify=notify or silent) as writer:
                if not (folder / MANIFEST).is_file():
                    logger.warning("building the index '%s' once, into %s", recipe.name, folder)
                    report = writer.build(corpus, recipe, encoder)
                    for line in report.lines():
                        logger.warning("%s: %s", recipe.name, line)
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
