"""What a ranking is worth: one definition of each measure, that of ir-measures, for every system alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.fusion import strictly_decreasing
from cmbert_retrieval.types import Qrels, Run

DEFAULT_MEASURES = ("nDCG@10", "R@100", "MRR@10", "P@10", "Judged@10")

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a run is worth.

    Attributes:
        mean: measure -> mean over all judged queries, those without results included as 0.
        per_query: query id -> measure -> value, one entry for every judged query, in the order of the qrels.
        without_results: judged queries that the run has nothing for.
        without_relevant: judged queries with nothing relevant among their judgements: 0 for every system.
        unjudged: queries of the run that nobody judged; they take no part.
        tied: queries with equal scores within the run; ties are broken as trec_eval breaks them.
    """

    mean: Mapping[str, float]
    per_query: Mapping[str, Mapping[str, float]]
    without_results: Sequence[str] = field(default=())
    without_relevant: Sequence[str] = field(default=())
    unjudged: Sequence[str] = field(default=())
    tied: Sequence[str] = field(default=())

    def remarks(self) -> list[str]:
        """Return a line for each thing that a reader of the figures has to know."""
        kinds = {
            "without results, counted as 0": self.without_results,
            "without anything relevant among the judgements, 0 for every system": self.without_relevant,
            "in the run that nobody judged, left out": self.unjudged,
            "with equal scores, ordered as trec_eval orders them": self.tied,
        }
        return [f"{_counted(ids)} {what}{_named(ids)}" for what, ids in kinds.items() if ids]


def evaluate(qrels: Qrels, run: Run, measures: Iterable[str] = DEFAULT_MEASURES) -> Evaluation:
    """Return what ``run`` is worth by the judgements ``qrels``.

    The mean is over all judged queries: one that the run has nothing for counts 0. Within a query, documents
    are ordered by score in float32 and then by id, the greater first, as trec_eval orders them, so that all
    measures see one order.

    Args:
        qrels: query id -> document id -> grade; relevant from 1 on.
        run: query id -> document id -> score, higher is better.
        measures: names as ir-measures writes them (``nDCG@10``, ``MRR@10``, ``AP``, ``R(rel=2)@100``).

    Raises:
        ConfigError: a measure is not known, a score is not finite, or nothing is judged.

    Source:
        Macavaney, Macdonald & Ounis, "Streamlining evaluation with ir-measures", ECIR 2022; Jarvelin &
        Kekalainen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002, for nDCG.
    """
    names = list(dict.fromkeys(measures))
    parsed = {name: _parse(name) for name in names}
    if not qrels:
        raise ConfigError("no judgements; expected at least one query with judged documents")
    ordered, tied = _in_order(qrels, run)
    import ir_measures

    # ir-measures divides by the number of results: a query with none is left out, which means 0.
    found = {id_: scores for id_, scores in ordered.items() if scores}
    per_query: dict[str, dict[str, float]] = {id_: dict.fromkeys(names, 0.0) for id_ in qrels}
    by_measure: dict[Any, list[str]] = {}
    for name, measure in parsed.items():
        by_measure.setdefault(measure, []).append(name)
    for value in ir_measures.iter_calc(list(by_measure), qrels, found) if found else ():
        for name in by_measure[value.measure]:
            per_query[value.query_id][name] = float(value.value)
    mean = {name: math.fsum(values[name] for values in per_query.values()) / len(qrels) for name in names}
    return Evaluation(
        mean=mean,
        per_query=per_query,
        without_results=[id_ for id_ in qrels if not run.get(id_)],
        without_relevant=[id_ for id_, grades in qrels.items() if max(grades.values(), default=0) < 1],
        unjudged=[id_ for id_ in run if id_ not in qrels],
        tied=tied,
    )


def check_measures(names: Iterable[str]) -> None:
    """Refuse measures that nobody knows, before anything is run for them.

    Raises:
        ConfigError: the first of them.
    """
    for name in names:
        _parse(name)


def _in_order(qrels: Qrels, run: Run) -> tuple[Run, list[str]]:
    """Return the judged part of a run with strictly decreasing scores, and the queries that had ties."""
    ordered: Run = {}
    tied = []
    for id_, scores in run.items():
        if id_ not in qrels:
            continue
        if not all(math.isfinite(score) for score in scores.values()):
            raise ConfigError(f"query '{id_}': a score is not finite; expected numbers")
        # trec_eval keeps scores in single precision: what is equal there is a tie.
        single = {document: float(np.float32(score)) for document, score in scores.items()}
        if len(set(single.values())) < len(single):
            tied.append(id_)
        by_id = sorted(single.items(), key=lambda item: item[0], reverse=True)
        ordered[id_] = strictly_decreasing(dict(sorted(by_id, key=lambda item: -item[1])))
    return ordered, tied


def _parse(name: str) -> Any:
    import ir_measures

    try:
        measure = ir_measures.parse_measure(name)
        known = any(
            provider.is_available() and provider.supports(measure)
            for provider in ir_measures.DefaultPipeline.providers
        )
    except Exception:  # the parser raises what its grammar, Python's ast or the measure's class raise
        known = False
    if not known:
        raise ConfigError(f"unknown measure '{name}'; expected names like {', '.join(DEFAULT_MEASURES)}")
    return measure


def _counted(ids: Sequence[str]) -> str:
    return "1 query" if len(ids) == 1 else f"{len(ids):,} queries"


def _named(ids: Sequence[str]) -> str:
    shown = ", ".join(ids[:_SHOWN])
    return f" ({shown}{', ...' if len(ids) > _SHOWN else ''})"
