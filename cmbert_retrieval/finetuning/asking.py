"""Asking teachers about the texts that stages draw, and writing down what is to be learnt of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.encoders.base import Encoder, EncoderIdentity, Progress
from cmbert_retrieval.encoders.load import load_encoder
from cmbert_retrieval.encoders.named import trained_folder
from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.finetuning.drawing import answered, drawn_texts
from cmbert_retrieval.finetuning.joined import Joining
from cmbert_retrieval.finetuning.prepare import COMPLETE, TEXTS, VECTORS
from cmbert_retrieval.finetuning.recipe import FinetuneRecipe, TeacherRecipe
from cmbert_retrieval.finetuning.tables import Table
from cmbert_retrieval.finetuning.teacher import SHARD, VectorCache, cache_of, vectors_of
from cmbert_retrieval.finetuning.word_vectors import WordVectors, with_words
from cmbert_retrieval.paths import cache_folder
from cmbert_retrieval.pretraining.workfolder import write_json
from cmbert_retrieval.storage import atomic_file, fsync_file, make_folder, sha256_of

if TYPE_CHECKING:
    from cmbert_retrieval.pretraining.callbacks import Bar

Bars = Callable[[str, int | None, str], AbstractContextManager["Bar"]]
"""Label, total and unit to what progress is shown on."""

JOINING = "_joining.npy"
"""The file, beside the vectors, of how two teachers are brought together; no source can be called so."""

_JOINED_BY = 30_000
"""Texts that decide about it."""

_SETTINGS = "settings.json"


@dataclass(frozen=True, slots=True)
class Asked:
    """A teacher with the cache of its vectors."""

    encoder: Encoder
    cache: VectorCache

    @classmethod
    def of(cls, model: str, recipe: TeacherRecipe) -> Asked:
        """Open a teacher that a recipe names."""
        encoder = open_teacher(model, recipe)
        return cls(encoder, cache_of(encoder, _precision(encoder), cache_folder() / "teachers"))

    def about(self, texts: Sequence[str], notify: Progress) -> NDArray[np.float16]:
        """Return ``[texts, dim]``."""
        parts = list(vectors_of(iter(texts), self.encoder, self.cache, notify=notify))
        return np.concatenate(parts) if parts else np.empty((0, self.encoder.identity.dim), np.float16)


def open_teacher(model: str, recipe: TeacherRecipe) -> Encoder:
    """Return a teacher as a recipe asks it, without the cache of its vectors."""
    return load_encoder(model, max_tokens=recipe.max_tokens, dtype=recipe.dtype)


def ask(recipe: FinetuneRecipe, data: Path, teacher: Asked, bars: Bars) -> None:
    """Write what is to be learnt of the texts that stages draw; each teacher is asked once about each.

    Rows of other texts are no numbers.

    Raises:
        ConfigError: vectors of another teacher are there.
    """
    assert recipe.teacher is not None
    folder = data / VECTORS
    begin_folder(folder, recipe.teacher.model_dump(mode="json"), data)
    tables = {name: Table(data / TEXTS / f"{name}.arrow") for name in recipe.data.sources}
    drawn = drawn_texts(recipe, list(map(len, tables.values())))
    missing = {name: _missing(folder / f"{name}.npy", rows) for name, rows in zip(tables, drawn, strict=True)}
    number = sum(map(len, missing.values()))
    targets = _Targets(recipe.teacher, teacher, tables, bars) if number else None
    if targets is not None and targets.second is not None:
        targets.join(folder / JOINING, missing, bars)
    with bars("asking the teacher", number, "texts") as bar:
        for name, table in tables.items():
            path = folder / f"{name}.npy"
            if path.exists() and not len(missing[name]):
                continue
            shape = (len(table), teacher.encoder.identity.dim)
            if not len(table):  # nothing cannot be mapped
                with atomic_file(path) as file:
                    np.save(file, np.empty(shape, np.float16))
                continue
            building = path.with_suffix(".building")
            vectors = _begun(building, path, shape)
            for rows in _parts(missing[name].tolist()):
                assert targets is not None
                vectors[rows] = targets.of(table.take("text", rows), bar)
            vectors.flush()
            del vectors
            fsync_file(building)
            building.rename(path)


class _Targets:
    """What a recipe's teachers make of texts."""

    def __init__(
        self, recipe: TeacherRecipe, teacher: Asked, tables: Mapping[str, Table], bars: Bars
    ) -> None:
        self._recipe, self._teacher, self._tables = recipe, teacher, tables
        self._words = _words(recipe, tables.values(), teacher.encoder.identity.dim, bars)
        self.second = Asked.of(recipe.beside, recipe) if recipe.beside is not None else None
        self._joining: Joining | None = None

    def join(self, path: Path, missing: Mapping[str, NDArray[np.int64]], bars: Bars) -> None:
        """Find how the two teachers are brought together, unless that is known."""
        if path.exists():
            self._joining = Joining(np.load(path))
            return
        assert self.second is not None
        chosen = _some(missing, _JOINED_BY)
        firsts, seconds = [], []
        with bars("joining the teachers", sum(map(len, chosen.values())), "texts") as bar:
            for name, all_rows in chosen.items():
                for rows in _parts(all_rows):
                    texts = self._tables[name].take("text", rows)
                    firsts.append(self._first(texts, _quietly))
                    seconds.append(self._second(texts, bar))
        self._joining = Joining.learn(np.concatenate(firsts), np.concatenate(seconds))
        with atomic_file(path) as file:
            np.save(file, self._joining.matrix)

    def of(self, texts: Sequence[str], notify: Progress) -> NDArray[np.float16]:
        """Return ``[texts, dim]`` of unit length."""
        if self._joining is None:
            return self._first(texts, notify).astype(np.float16)
        second = self._second(texts, notify)
        return self._joining.of(self._first(texts, _quietly), second).astype(np.float16)

    def _first(self, texts: Sequence[str], notify: Progress) -> NDArray[np.float32]:
        vectors = self._teacher.about(texts, notify)
        if self._words is not None:
            vectors = with_words(vectors, self._words.of(texts), self._recipe.words)
        return vectors.astype(np.float32)

    def _second(self, texts: Sequence[str], notify: Progress) -> NDArray[np.float32]:
        assert self.second is not None
        return self.second.about(texts, notify).astype(np.float32) * (self._recipe.beside_weight or 1.0)


def teacher_folder(recipe: TeacherRecipe) -> Path:
    """Return where the teacher's own weights and tokenizer are."""
    ours = trained_folder(recipe.model)
    if ours is not None:
        return ours
    if Path(recipe.model).is_dir():
        return Path(recipe.model)
    folder: Path = load_encoder(recipe.model, backend="sentence_transformers").folder  # type: ignore[attr-defined]
    return folder


def begin_folder(folder: Path, settings: Mapping[str, Any], data: Path) -> None:
    """Make a folder of what is found for prepared pairs, or see that it was begun with these settings.

    Raises:
        ConfigError: with others, or for other pairs.
    """
    make_folder(folder)
    if (folder / _SETTINGS).exists():
        check_folder(folder, settings, data)
    else:
        write_json(folder / _SETTINGS, {"settings": settings, "pairs": sha256_of(data / COMPLETE)})


def check_folder(folder: Path, settings: Mapping[str, Any], data: Path) -> None:
    """Raise ``ConfigError`` unless a folder was made with these settings, for these pairs."""
    path = folder / _SETTINGS
    if not path.is_file():
        raise ConfigError(f"{folder}: not there; run first: cmbert finetune prepare RECIPE --out {data}")
    known = json.loads(path.read_bytes())
    if known["pairs"] != sha256_of(data / COMPLETE):
        raise ConfigError(f"{folder}: was made for other pairs; remove it and prepare again")
    for name, value in settings.items():
        if known["settings"].get(name) != value:
            raise ConfigError(
                f"{folder}: was made with {name}={known['settings'].get(name)!r}, not {value!r}; give that "
                "back, or remove it and prepare again"
            )


def _words(recipe: TeacherRecipe, tables: Iterable[Table], dim: int, bars: Bars) -> WordVectors | None:
    """Return what tells what words say by themselves, where the recipe wants that.

    Raises:
        ConfigError: the teacher has no table of token embeddings, or its vectors have another length.
    """
    if not recipe.words:
        return None
    texts = (text for table in tables for text in table.values("text"))
    with bars("counting words", None, "texts") as bar:
        words = WordVectors(teacher_folder(recipe), texts, max_tokens=recipe.max_tokens, notify=bar)
    if words.dim != dim:
        raise ConfigError(
            f"teacher.words: vectors of {recipe.model} have {dim} numbers, its token embeddings {words.dim}; "
            "leave it out"
        )
    return words


def _begun(building: Path, path: Path, shape: tuple[int, int]) -> np.memmap[Any, np.dtype[np.float16]]:
    """Return a file to write to, not held in memory: what is known already, no numbers elsewhere."""
    known = np.load(path, mmap_mode="r") if path.exists() else None
    vectors = np.lib.format.open_memmap(building, mode="w+", dtype=np.float16, shape=shape)
    for at in range(0, shape[0], SHARD):
        vectors[at : at + SHARD] = np.nan if known is None else known[at : at + SHARD]
    return vectors


def _missing(path: Path, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of some rows that a file of vectors does not have."""
    if not path.exists() or not len(rows):
        return rows
    return rows[~answered(np.load(path, mmap_mode="r"), rows)]


def _some(rows: Mapping[str, NDArray[np.int64]], count: int) -> dict[str, list[int]]:
    """Return about so many of all rows, spread evenly."""
    step = max(1, sum(map(len, rows.values())) // count)
    return {name: some[::step].tolist() for name, some in rows.items()}


def _parts(rows: list[int]) -> Iterator[list[int]]:
    yield from (rows[at : at + SHARD] for at in range(0, len(rows), SHARD))


def _precision(encoder: Encoder) -> str:
    graph = getattr(encoder, "graph", None)
    return graph.name if graph is not None else str(getattr(encoder, "model").dtype)  # noqa: B009


def _quietly(count: int) -> None:
    """Show nothing."""


class RememberingEncoder:
    """An encoder that looks into a cache of its document vectors before it computes."""

    def __init__(self, asked: Asked) -> None:
        self._encoder, self._cache = asked.encoder, asked.cache

    @property
    def identity(self) -> EncoderIdentity:
        """That of the encoder."""
        return self._encoder.identity

    @property
    def source(self) -> str:
        """That of the encoder."""
        return self._encoder.source

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return ``[texts, dim]``; the cache is asked where queries have the documents' prompt."""
        prompts = self.identity.prompts
        if prompts.get("query", "") == prompts.get("document", ""):
            return self.encode_document(texts)
        return self._encoder.encode_query(texts)

    def encode_document(
        self, texts: Sequence[str], *, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Return ``[texts, dim]``."""
        vectors = np.empty((len(texts), self.identity.dim), np.float32)
        known, found = self._cache.take(texts)
        vectors[known] = found
        if not known.all():
            missing = [text for text, there in zip(texts, known.tolist(), strict=True) if not there]
            vectors[~known] = self._encoder.encode_document(missing)
        if progress is not None:
            progress(len(texts))
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return what the encoder does."""
        return self._encoder.count_tokens(texts)

    def save_pretrained(self, path: str) -> None:
        """Write the encoder."""
        self._encoder.save_pretrained(path)
