"""All that a recipe asks for, in order: pairs, what the teacher says, negatives, training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.encoders.base import Encoder, EncoderIdentity, Progress
from cmbert_retrieval.encoders.load import load_encoder
from cmbert_retrieval.encoders.named import trained_folder
from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.finetuning.mining import MinedPair, MiningReport, mine
from cmbert_retrieval.finetuning.prepare import (
    COMPLETE,
    NEGATIVES,
    TEXTS,
    TRAIN,
    VECTORS,
    check_prepared,
    prepare,
)
from cmbert_retrieval.finetuning.recipe import FinetuneRecipe, NegativesRecipe, TeacherRecipe
from cmbert_retrieval.finetuning.report import Report
from cmbert_retrieval.finetuning.tables import Table
from cmbert_retrieval.finetuning.teacher import VectorCache, cache_of, vectors_of
from cmbert_retrieval.finetuning.word_vectors import WordVectors, with_words
from cmbert_retrieval.paths import cache_folder
from cmbert_retrieval.pretraining.workfolder import write_json
from cmbert_retrieval.storage import atomic_file, fsync_file, make_folder, sha256_of

if TYPE_CHECKING:
    from cmbert_retrieval.finetuning.training import Outcome
    from cmbert_retrieval.pretraining.callbacks import Bar

MINED_TOGETHER = 500_000
"""Pairs of a source whose positives are searched together: what is held in memory."""

Bars = Callable[[str, int | None, str], AbstractContextManager["Bar"]]
"""Label, total and unit to what progress is shown on."""


def run(recipe: FinetuneRecipe, data: Path, out: Path, *, bars: Bars) -> Outcome:
    """Do all that a recipe asks for; what is there already is taken, without its sources.

    Args:
        recipe: what is done.
        data: the folder of prepared pairs, to make or to take.
        out: the folder of the run.
        bars: makes what progress is shown on.

    Raises:
        ConfigError, CorpusError, EncoderError, MissingExtraError, StorageError: as its stages do.
        DivergedError: the loss is not a number any more.
    """
    if not (data / COMPLETE).exists():
        prepare_all(recipe, data, bars)
    check_prepared(recipe, data)
    if recipe.teacher is not None and _needs_vectors(recipe):
        _check_made(data / VECTORS, recipe.teacher.model_dump(mode="json"), data)
    if recipe.negatives is not None and _mined_sources(recipe):
        _check_made(data / NEGATIVES, recipe.negatives.model_dump(mode="json"), data)
        for name in _mined_sources(recipe):
            if not (data / NEGATIVES / f"{name}.json").is_file():
                raise ConfigError(
                    f"{data / NEGATIVES}: nothing was mined for the pairs of '{name}'; run first: "
                    f"cmbert finetune prepare RECIPE --out {data}"
                )
    from cmbert_retrieval.finetuning.training import finetune

    begin = None
    if recipe.teacher is not None and "teacher" in (recipe.model.tokenizer, recipe.model.embeddings):
        begin = teacher_folder(recipe.teacher)
    return finetune(recipe, data, out, teacher=begin, bar=lambda label, steps: bars(label, steps, "steps"))


def prepare_all(recipe: FinetuneRecipe, data: Path, bars: Bars, *, restart: bool = False) -> Report:
    """Make pairs, ask the teacher, find negatives, as far as the recipe's stages need them.

    Raises:
        ConfigError, CorpusError, EncoderError, MissingExtraError, StorageError: as its parts do.
    """
    with bars("pairs", None, "documents") as bar:

        def notify(source: str, count: int) -> None:
            bar.describe(f"pairs of {source}")
            bar(count)

        report = prepare(recipe, data, progress=notify, restart=restart)
    searching: Encoder | None = None
    if recipe.teacher is not None:
        teacher = open_teacher(recipe.teacher)
        cache = cache_of(teacher, _precision(teacher), cache_folder() / "teachers")
        searching = RememberingEncoder(teacher, cache)
        if _needs_vectors(recipe):
            ask(recipe, data, teacher, cache, bars)
    if recipe.negatives is not None and _mined_sources(recipe):
        mine_all(recipe, recipe.negatives, data, searching, bars)
    return report


def open_teacher(recipe: TeacherRecipe) -> Encoder:
    """Return the teacher of a recipe."""
    return load_encoder(recipe.model, max_tokens=recipe.max_tokens, dtype=recipe.dtype)


def teacher_folder(recipe: TeacherRecipe) -> Path:
    """Return where the teacher's own weights and tokenizer are."""
    ours = trained_folder(recipe.model)
    if ours is not None:
        return ours
    if Path(recipe.model).is_dir():
        return Path(recipe.model)
    folder: Path = load_encoder(recipe.model, backend="sentence_transformers").folder  # type: ignore[attr-defined]
    return folder


def ask(recipe: FinetuneRecipe, data: Path, teacher: Encoder, cache: VectorCache, bars: Bars) -> None:
    """Write what the teacher says of all prepared texts, in their order; it is asked once about each.

    Raises:
        ConfigError: vectors of another teacher are there.
    """
    assert recipe.teacher is not None
    folder = data / VECTORS
    _begin(folder, recipe.teacher.model_dump(mode="json"), data)
    tables = {name: Table(data / TEXTS / f"{name}.arrow") for name in recipe.data.sources}
    done = all((folder / f"{name}.npy").exists() for name in tables)
    words = None if done else _words(recipe.teacher, tables.values(), teacher.identity.dim, bars)
    with bars("asking the teacher", sum(map(len, tables.values())), "texts") as bar:
        for name, table in tables.items():
            path = folder / f"{name}.npy"
            if path.exists():
                bar.resume(len(table))
                continue
            shape = (len(table), teacher.identity.dim)
            if not len(table):
                with atomic_file(path) as file:
                    np.save(file, np.empty(shape, np.float16))
                continue
            building = path.with_suffix(".building")
            rows = np.lib.format.open_memmap(building, mode="w+", dtype=np.float16, shape=shape)
            at = 0
            for vectors in vectors_of(table.values("text"), teacher, cache, notify=bar):
                if words is not None:
                    texts = table.take("text", range(at, at + len(vectors)))
                    vectors = with_words(vectors, words.of(texts), recipe.teacher.words)
                rows[at : at + len(vectors)] = vectors
                at += len(vectors)
            rows.flush()
            del rows
            fsync_file(building)
            building.rename(path)


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


def mine_all(
    recipe: FinetuneRecipe, negatives: NegativesRecipe, data: Path, encoder: Encoder | None, bars: Bars
) -> None:
    """Find negatives for the pairs that stages take them for, as far as they are not there.

    Those of a source are found among its own positives.

    Args:
        recipe: whose sources are searched.
        negatives: how.
        data: the folder of prepared pairs.
        encoder: searches where the recipe names none; None for the default one.
        bars: makes what progress is shown on.

    Raises:
        ConfigError: negatives of other settings are there.
    """
    folder = data / NEGATIVES
    _begin(folder, negatives.model_dump(mode="json"), data)
    if negatives.encoder is not None:
        encoder = None
    for name in _mined_sources(recipe):
        table = Table(data / TRAIN / f"{name}.arrow")
        how = negatives.model_copy(update={"margin": None}) if name in negatives.complete else negatives
        total = MiningReport()
        make_folder(folder / name)
        for start in range(0, len(table), MINED_TOGETHER):
            path = folder / name / f"{start // MINED_TOGETHER:04d}.npy"
            counts = path.with_suffix(".json")
            if not path.exists():
                encoder = encoder or load_encoder(negatives.encoder)
                rows = range(start, min(len(table), start + MINED_TOGETHER))
                columns = (table.take(column, rows) for column in ("anchor", "positive", "document"))
                pairs = [MinedPair(*values) for values in zip(*columns, strict=True)]
                with bars(f"negatives of {name}", len(pairs), "pairs") as bar:
                    found, report = mine(pairs, how, encoder, notify=bar)
                write_json(counts, asdict(report))
                with atomic_file(path) as file:
                    np.save(file, np.where(found >= 0, found + start, -1).astype(np.int32))
            total.add(MiningReport(**json.loads(counts.read_bytes())))
        write_json(folder / f"{name}.json", asdict(total))


def _needs_vectors(recipe: FinetuneRecipe) -> bool:
    return any(stage.texts for stage in recipe.stages)


def _mined_sources(recipe: FinetuneRecipe) -> list[str]:
    """Return the sources whose pairs come in a stage that takes negatives along."""
    return [
        name
        for name, source in recipe.data.sources.items()
        if any(
            stage.pairs and stage.negatives and stage.pair_weights.get(name, source.weight)
            for stage in recipe.stages
        )
    ]


def _precision(encoder: Encoder) -> str:
    graph = getattr(encoder, "graph", None)
    return graph.name if graph is not None else str(getattr(encoder, "model").dtype)  # noqa: B009


_SETTINGS = "settings.json"


def _begin(folder: Path, settings: Mapping[str, Any], data: Path) -> None:
    make_folder(folder)
    if (folder / _SETTINGS).exists():
        _check_made(folder, settings, data)
    else:
        write_json(folder / _SETTINGS, {"settings": settings, "pairs": sha256_of(data / COMPLETE)})


def _check_made(folder: Path, settings: Mapping[str, Any], data: Path) -> None:
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


class RememberingEncoder:
    """An encoder that looks into a cache of its document vectors before it computes."""

    def __init__(self, encoder: Encoder, cache: VectorCache) -> None:
        self._encoder, self._cache = encoder, cache

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
