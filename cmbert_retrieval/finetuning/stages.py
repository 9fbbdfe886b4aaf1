"""All that a recipe asks for, in order: pairs, what the teacher says, negatives, training."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.encoders.load import load_encoder
from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.finetuning.asking import (
    Asked,
    Bars,
    RememberingEncoder,
    ask,
    begin_folder,
    check_folder,
    open_teacher,
    teacher_folder,
)
from cmbert_retrieval.finetuning.drawing import PAIRS_NAME, stage_weights
from cmbert_retrieval.finetuning.mining import MinedPair, MiningReport, mine
from cmbert_retrieval.finetuning.prepare import (
    COMPLETE,
    NEGATIVES,
    TRAIN,
    VECTORS,
    check_prepared,
    prepare,
)
from cmbert_retrieval.finetuning.recipe import FinetuneRecipe, NegativesRecipe
from cmbert_retrieval.finetuning.report import Report
from cmbert_retrieval.finetuning.tables import Table
from cmbert_retrieval.pretraining.workfolder import write_json
from cmbert_retrieval.storage import atomic_file, make_folder

if TYPE_CHECKING:
    from cmbert_retrieval.finetuning.students import Teacher
    from cmbert_retrieval.finetuning.training import Outcome

MINED_TOGETHER = 500_000
"""Pairs of a source whose positives are searched together: what is held in memory."""


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
        check_folder(data / VECTORS, recipe.teacher.model_dump(mode="json"), data)
    if recipe.negatives is not None and _mined_sources(recipe):
        check_folder(data / NEGATIVES, recipe.negatives.model_dump(mode="json"), data)
        for name in _mined_sources(recipe):
            if not (data / NEGATIVES / f"{name}.json").is_file():
                raise ConfigError(
                    f"{data / NEGATIVES}: nothing was mined for the pairs of '{name}'; run first: "
                    f"cmbert finetune prepare RECIPE --out {data}"
                )
    from cmbert_retrieval.finetuning.training import finetune

    return finetune(
        recipe, data, out, teacher=_teacher(recipe), bar=lambda label, steps: bars(label, steps, "steps")
    )


def _teacher(recipe: FinetuneRecipe) -> Teacher | None:
    """Return the teacher where the model takes something of it."""
    model, teacher = recipe.model, recipe.teacher
    if teacher is None or not ("teacher" in (model.tokenizer, model.embeddings) or model.words):
        return None
    from cmbert_retrieval.finetuning.students import Teacher

    return Teacher(
        teacher_folder(teacher), lambda texts: open_teacher(teacher.model, teacher).encode_document(texts)
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
    searching: Encoder | None = None
    if recipe.teacher is not None:
        teacher = Asked.of(recipe.teacher.model, recipe.teacher)
        searching = RememberingEncoder(teacher)
        if _needs_vectors(recipe):
            ask(recipe, data, teacher, bars)
    if recipe.negatives is not None and _mined_sources(recipe):
        mine_all(recipe, recipe.negatives, data, searching, bars)
    return report


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
    begin_folder(folder, negatives.model_dump(mode="json"), data)
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
    weights = [
        stage_weights(recipe, number, PAIRS_NAME)
        for number, stage in enumerate(recipe.stages)
        if stage.pairs and stage.negatives
    ]
    return [name for name in recipe.data.sources if any(stage[name] for stage in weights)]
