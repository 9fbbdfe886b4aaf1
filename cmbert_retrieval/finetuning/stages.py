"""All that a recipe asks for, in order: pairs, what the teacher says, negatives, training."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.encoders.base import Encoder, EncoderIdentity, Progress
from cmbert_retrieval.encoders.default import packaged_model
from cmbert_retrieval.encoders.load import load_encoder
from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.finetuning.mining import MinedPair, mine
from cmbert_retrieval.finetuning.mixture import NEGATIVES
from cmbert_retrieval.finetuning.prepare import COMPLETE, TEXTS, TRAIN, Table, prepare, read_rows
from cmbert_retrieval.finetuning.recipe import FinetuneRecipe, NegativesRecipe, TeacherRecipe
from cmbert_retrieval.finetuning.report import Report
from cmbert_retrieval.finetuning.teacher import VectorCache, cache_of, teach
from cmbert_retrieval.paths import cache_folder
from cmbert_retrieval.storage import make_folder, remove_tree

if TYPE_CHECKING:
    from cmbert_retrieval.finetuning.training import Outcome

logger = logging.getLogger(__name__)

MINILM = "minilm"
"""The teacher that the extra of this name brings."""


class Bar(Protocol):
    """What progress is shown on."""

    def __call__(self, count: int = 1) -> None:
        """Note that so many more are done."""

    def resume(self, count: int) -> None:
        """Note that an earlier run did so many."""

    def describe(self, label: str) -> None:
        """Say how it goes."""


Bars = Callable[[str, int | None, str], AbstractContextManager[Bar]]
"""Label, total and unit to what progress is shown on."""


def run(recipe: FinetuneRecipe, data: Path, out: Path, *, bars: Bars) -> Outcome:
    """Do all that a recipe asks for; what is there already is taken.

    One of several processes (under torchrun) only trains: the rest is there before, by ``prepare_all``.

    Args:
        recipe: what is done.
        data: the folder of prepared pairs, to make or to take.
        out: the folder of the run.
        bars: makes what progress is shown on.

    Raises:
        ConfigError, CorpusError, EncoderError, MissingExtraError, StorageError: as its stages do.
        DivergedError: the loss is not a number any more.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        prepare_all(recipe, data, bars)
    elif not (data / COMPLETE).exists():
        raise ConfigError(f"{data}: no {COMPLETE}; run first: cmbert finetune prepare RECIPE --out {data}")
    cache, folder = None, None
    if recipe.teacher is not None:
        cache = cache_of(open_teacher(recipe.teacher), cache_folder() / "teachers")
        folder = teacher_folder(recipe.teacher)
    from cmbert_retrieval.finetuning.training import finetune

    return finetune(
        recipe, data, out, cache=cache, teacher=folder, bar=lambda label, steps: bars(label, steps, "steps")
    )


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
    if restart:
        remove_tree(data / NEGATIVES)
    cache = None
    if recipe.teacher is not None:
        teacher = open_teacher(recipe.teacher)
        cache = cache_of(teacher, cache_folder() / "teachers")
        if any(stage.texts for stage in recipe.stages):
            ask(recipe, data, teacher, cache, bars)
    if recipe.negatives is not None and any(stage.negatives for stage in recipe.stages):
        mine_all(recipe, recipe.negatives, data, cache, bars)
    return report


def open_teacher(recipe: TeacherRecipe) -> Encoder:
    """Return the teacher of a recipe."""
    name = None if recipe.model == MINILM else recipe.model
    return load_encoder(name, max_tokens=recipe.max_tokens)


def teacher_folder(recipe: TeacherRecipe) -> Path | None:
    """Return where the teacher's own weights are; None for a hub id."""
    return packaged_model() if recipe.model == MINILM else Path(recipe.model)


def ask(recipe: FinetuneRecipe, data: Path, teacher: Encoder, cache: VectorCache, bars: Bars) -> None:
    """Let the teacher encode all prepared texts that it has not encoded before."""
    with bars("asking the teacher", None, "texts") as bar:
        for name in recipe.data.sources:
            texts: Iterator[str] = (row["text"] for row in read_rows(data / TEXTS / f"{name}.arrow"))
            teach(texts, teacher, cache, notify=bar)


def mine_all(
    recipe: FinetuneRecipe, negatives: NegativesRecipe, data: Path, cache: VectorCache | None, bars: Bars
) -> None:
    """Find negatives for the pairs of every source that has none yet."""
    encoder = load_encoder(negatives.encoder) if negatives.encoder else None
    if encoder is None and recipe.teacher is not None:
        assert cache is not None
        encoder = RememberingEncoder(open_teacher(recipe.teacher), cache)
    make_folder(data / NEGATIVES)
    for name in recipe.data.sources:
        path = data / NEGATIVES / f"{name}.arrow"
        if path.exists():
            continue
        rows = read_rows(data / TRAIN / f"{name}.arrow")
        pairs = [MinedPair(row["anchor"], row["positive"], row["document"]) for row in rows]
        found: list[list[str]] = [[] for _ in pairs]
        if pairs:
            with bars(f"negatives of {name}", len(pairs), "pairs") as bar:
                found, report = mine(pairs, negatives, encoder or load_encoder(), notify=bar)
            logger.info("negatives of %s: %s", name, report.line())
        with Table(path, {NEGATIVES: "list"}) as table:
            for texts in found:
                table.add({NEGATIVES: texts})


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
        rows = self._cache.rows(texts)
        vectors = np.empty((len(texts), self.identity.dim), np.float32)
        known = rows >= 0
        if known.any():
            vectors[known] = self._cache.take(rows[known])
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
