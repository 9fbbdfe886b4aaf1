"""What is measured while a model is trained: held-out pairs, and sets' parts that nothing is reported on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.encoders.names import NAME
from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.evaluation.baselines import Rows
from cmbert_retrieval.evaluation.datasets import EvaluationSet, named_set
from cmbert_retrieval.evaluation.measures import evaluate
from cmbert_retrieval.finetuning.prepare import HELD_OUT
from cmbert_retrieval.finetuning.recipe import FinetuneRecipe
from cmbert_retrieval.finetuning.tables import read_rows

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MOST_PAIRS = 500
"""Held-out pairs of a source that are measured."""

FEWEST_PAIRS = 20
"""A source with fewer is not measured."""

MEASURE = "nDCG@10"
_DEEP = 100

Encode = Callable[[Sequence[str], str], NDArray[np.float32]]
"""Texts and their prompt (``query``, ``document``, ``name``) to ``[texts, dim]`` of unit length."""


class Measures:
    """Everything that a recipe measures, opened once."""

    def __init__(self, recipe: FinetuneRecipe, data: Path) -> None:
        """Open sets and held-out pairs.

        Raises:
            ConfigError: a set is not known, or no folder is named that it could be in.
            CorpusError: it is not there.
        """
        self._named = frozenset(recipe.model.name_sources)
        self._pairs: dict[str, list[Mapping[str, Any]]] = {}
        for name in recipe.data.sources:
            rows: list[Mapping[str, Any]] = list(read_rows(data / HELD_OUT / f"{name}.arrow"))
            if len(rows) >= FEWEST_PAIRS:
                step = max(1, len(rows) // MOST_PAIRS)
                self._pairs[name] = rows[::step][:MOST_PAIRS]
        if recipe.measured.sets and not recipe.measured.data:
            raise ConfigError("measured.sets names sets; say where they are: measured.data")
        self._sets: list[tuple[EvaluationSet, Rows]] = []
        for given in recipe.measured.sets:
            name, _, part = given.partition(":")
            one = named_set(name, Path(recipe.measured.data), split=part)
            self._sets.append((one, Rows(one.corpus)))

    def of(self, encode: Encode) -> dict[str, float]:
        """Return the share of anchors that find their positive first in their source, and nDCG@10.

        Keys are ``pairs_SOURCE``, ``pairs`` for their mean, ``SET`` and ``sets``.
        """
        found: dict[str, float] = {}
        for name, rows in self._pairs.items():
            found[f"pairs_{name}"] = _first_share(rows, encode, names=name in self._named)
        if found:
            found["pairs"] = float(np.mean(list(found.values())))
        values = {one.name: _ndcg(one, rows, encode) for one, rows in self._sets}
        if values:
            found |= values | {"sets": float(np.mean(list(values.values())))}
        return found


def encoder_of(model: SentenceTransformer, batch: int = 64) -> Encode:
    """Return what encodes texts with a model that is being trained."""

    def encode(texts: Sequence[str], prompt: str) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = model.encode(
            list(texts),
            prompt_name=prompt if model.prompts.get(prompt) else None,
            batch_size=batch,
            show_progress_bar=False,
            normalize_embeddings=True,
        )
        return vectors.astype(np.float32)

    return encode


def _first_share(rows: Sequence[Mapping[str, Any]], encode: Encode, *, names: bool) -> float:
    texts = list(dict.fromkeys(row["positive"] for row in rows))
    places = {text: place for place, text in enumerate(texts)}
    query, document = _prompts(names)
    scores = encode([row["anchor"] for row in rows], query) @ encode(texts, document).T
    wanted = np.array([places[row["positive"]] for row in rows])
    return float((scores.argmax(axis=1) == wanted).mean())


def _prompts(names: bool) -> tuple[str, str]:
    return (NAME, NAME) if names else ("query", "document")


def _ndcg(one: EvaluationSet, rows: Rows, encode: Encode) -> float:
    queries = {id_: text for id_, text in one.queries.items() if id_ in one.qrels}
    query, document = _prompts(rows.named)
    scores = encode(list(queries.values()), query) @ encode(rows.texts, document).T
    run = {id_: rows.nearest(row, _DEEP) for id_, row in zip(queries, scores, strict=True)}
    return float(evaluate(one.qrels, run, [MEASURE]).mean[MEASURE])
