"""What a stage learns from: rows of prepared pairs and texts, in the shares that the recipe asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.finetuning.prepare import TEXTS, TRAIN
from cmbert_retrieval.finetuning.recipe import FinetuneRecipe, StageRecipe
from cmbert_retrieval.finetuning.teacher import VectorCache

if TYPE_CHECKING:
    from datasets import Dataset

NEGATIVES = "negatives"
"""The folder of mined negatives: a row for every row of ``train``."""

TEXTS_NAME = "texts"
"""What the texts of all sources are called among the datasets of a stage."""


def stage_datasets(
    recipe: FinetuneRecipe, stage: StageRecipe, data: Path, cache: VectorCache | None
) -> dict[str, Dataset]:
    """Return what a stage learns from: ``texts`` of all sources together, and the pairs of each source.

    Texts have the columns ``text`` and ``label``, the row of the teacher's vector. Pairs have ``anchor``,
    ``positive`` and, where negatives are taken along, ``negative_1`` and so on; pairs without any are a
    dataset of their own.

    Raises:
        ConfigError: there is nothing of what the stage asks for.
    """
    made: dict[str, Dataset] = {}
    if stage.texts:
        assert cache is not None
        made[TEXTS_NAME] = _texts(recipe, stage.texts, data, cache)
    if stage.pairs:
        parts = _opened(recipe, data / TRAIN)
        for number, (name, count) in enumerate(_shares(recipe, parts, stage.pairs).items()):
            chosen = repeated(len(parts[name]), count, np.random.default_rng((recipe.seed, 1, number)))
            made |= _pairs(name, parts[name], chosen, stage, recipe, data)
    return made


def repeated(rows: int, count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Return so many row numbers: all rows in an order by chance, again and again."""
    rounds = [random.permutation(rows) for _ in range(-(-count // rows))]
    return np.concatenate(rounds)[:count].astype(np.int64)


def _texts(recipe: FinetuneRecipe, count: int, data: Path, cache: VectorCache) -> Dataset:
    from datasets import concatenate_datasets

    parts = _opened(recipe, data / TEXTS)
    chosen = []
    for number, (name, share) in enumerate(_shares(recipe, parts, count).items()):
        rows = repeated(len(parts[name]), share, np.random.default_rng((recipe.seed, 0, number)))
        labels = cache.rows(parts[name]["text"])
        if (labels < 0).any():
            raise ConfigError(f"source '{name}': the teacher has not been asked about all of its texts")
        chosen.append(parts[name].add_column("label", labels).select(rows))
    return concatenate_datasets(chosen)


def _pairs(
    name: str,
    part: Dataset,
    chosen: NDArray[np.int64],
    stage: StageRecipe,
    recipe: FinetuneRecipe,
    data: Path,
) -> dict[str, Dataset]:
    columns = ["anchor", "positive"]
    if not stage.negatives:
        return {name: part.select(chosen).select_columns(columns)}
    assert recipe.negatives is not None
    mined: Sequence[Sequence[str]] = _open(data / NEGATIVES / f"{name}.arrow")[NEGATIVES]
    given: Sequence[Sequence[str]] = part["negatives"]
    known = [[*here, *there] for here, there in zip(given, mined, strict=True)]
    some = np.array([bool(texts) for texts in known])[chosen]
    wide = part.select_columns(columns)
    for place in range(recipe.negatives.count):
        # Those with fewer have one of them twice.
        texts = [negatives[place % len(negatives)] if negatives else "" for negatives in known]
        wide = wide.add_column(f"negative_{place + 1}", texts)
    made = {name: part.select_columns(columns).select(chosen[~some])} if not some.all() else {}
    return made | ({f"{name}-negatives": wide.select(chosen[some])} if some.any() else {})


def _shares(recipe: FinetuneRecipe, parts: Mapping[str, Dataset], count: int) -> dict[str, int]:
    """Return how many of ``count`` rows each source gives: by its size and its weight."""
    weights = {name: recipe.data.sources[name].weight * len(part) for name, part in parts.items()}
    total = sum(weights.values())
    if not total:
        raise ConfigError("there is nothing prepared of what a stage asks for; see the report of the data")
    shares = {name: round(count * weight / total) for name, weight in weights.items()}
    return {name: share for name, share in shares.items() if share}


def _opened(recipe: FinetuneRecipe, folder: Path) -> dict[str, Dataset]:
    return {name: _open(folder / f"{name}.arrow") for name in recipe.data.sources}


def _open(path: Path) -> Any:
    from datasets import Dataset

    return Dataset.from_file(str(path))
