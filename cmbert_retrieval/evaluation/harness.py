"""Running a suite: index each set once, ask every system, measure, and keep runs, values and results."""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmbert_retrieval.config import IndexRecipe
from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.evaluation import baselines
from cmbert_retrieval.evaluation.datasets import EvaluationSet
from cmbert_retrieval.evaluation.measures import Evaluation, check_measures, evaluate
from cmbert_retrieval.evaluation.runs import write_qrels, write_run
from cmbert_retrieval.evaluation.suites import SuiteRecipe, SystemRecipe, open_set
from cmbert_retrieval.indexes.manifest import library_versions
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.opening import build_cached
from cmbert_retrieval.paths import cache_folder
from cmbert_retrieval.retriever import Retriever
from cmbert_retrieval.storage import atomic_file
from cmbert_retrieval.types import Run

if TYPE_CHECKING:
    from cmbert_retrieval.encoders.base import Encoder

RESULTS = "results.json"

Progress = Callable[[], AbstractContextManager[Callable[[str, int], None] | None]]


@dataclass(frozen=True, slots=True)
class Score:
    """What one system reached on one set.

    Attributes:
        set: the set's name.
        system: the system's name in the suite.
        values: measure -> mean over the judged queries.
        queries: how many were judged.
        documents: how many were searched.
        trained_on_set: ``yes``, ``no`` or ``not stated``.
        seconds: for answering all queries, the index being there.
        remarks: what a reader of the figures has to know.
    """

    set: str
    system: str
    values: Mapping[str, float]
    queries: int
    documents: int
    trained_on_set: str
    seconds: float
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Results:
    """What a suite came to.

    Attributes:
        suite: its name.
        split: the part of the sets.
        scores: one a set and system, in the suite's order.
        sets: set -> what it is: licence, split, counts, checksums of its sources.
        versions: package -> version, with Python and the processor.
    """

    suite: str
    split: str
    scores: tuple[Score, ...]
    sets: Mapping[str, Mapping[str, Any]]
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the results as JSON values."""
        return asdict(self)


def run_suite(
    suite: SuiteRecipe,
    *,
    data: Path | None = None,
    out: Path | None = None,
    fresh: bool = False,
    progress: Progress = nullcontext,
    say: Callable[[str], None] = lambda line: None,
) -> Results:
    """Measure every system of a suite on every set of it.

    Args:
        suite: what is measured.
        data: the folder of evaluation sets, where the suite needs one.
        out: where ``SET/SYSTEM/run.trec.gz``, ``SET/SYSTEM/per_query.jsonl``, ``SET/qrels.trec.gz`` and
            ``results.json`` are written; None writes nothing.
        fresh: build the indexes anew, into a temporary folder, rather than take those in the cache, which an
            earlier state of the same version may have built.
        progress: called before an index is looked for; what it returns is entered meanwhile, and what that
            gives is told of the building, as ``IndexWriter`` tells it.
        say: called with a line for each set and system.

    Raises:
        ConfigError: a system, a set or a measure is wrong.
        CorpusError: a set cannot be read.
    """
    check_measures(suite.measures)
    # All at first: what is missing is said before hours of encoding.
    opened = [open_set(recipe, data, suite.split) for recipe in suite.sets]
    scores: list[Score] = []
    sets: dict[str, dict[str, Any]] = {}
    with _workplace(fresh) as cache, _Indexes(suite, cache, progress) as indexes:
        for one in opened:
            name = one.name
            say(f"{name}: {len(one.queries):,} queries, {one.about or 'split ' + one.split}")
            documents = 0
            for system_name, system in suite.systems.items():
                began = time.perf_counter()
                run, seconds, documents = indexes.answer(one, system, suite.k)
                evaluation = evaluate(one.qrels, run, suite.measures)
                if out is not None:
                    _keep(out / name / system_name, run, evaluation, tag=system_name)
                scores.append(
                    Score(
                        name,
                        system_name,
                        evaluation.mean,
                        len(one.qrels),
                        documents,
                        system.trained_on_set(name),
                        round(seconds, 3),
                        tuple(evaluation.remarks()),
                    )
                )
                first = suite.measures[0]
                took = time.perf_counter() - began
                say(f"{name}: {system_name}: {first} {evaluation.mean[first]:.4f} ({took:.0f} s)")
            sets[name] = {
                "about": one.about,
                "license": one.license,
                "split": one.split,
                "queries": len(one.qrels),
                "documents": documents,
                "sources": [source.checksum for source in one.corpus.sources()],
            }
            if out is not None:
                write_qrels(out / name / "qrels.trec.gz", one.qrels)
    results = Results(suite.name, suite.split, tuple(scores), sets, _versions())
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        with atomic_file(out / RESULTS) as file:
            file.write(json.dumps(results.to_json(), ensure_ascii=False, indent=1).encode())
    return results


@contextmanager
def _workplace(fresh: bool) -> Iterator[Path]:
    """Give the folder for indexes and vectors: in the cache, or one that goes afterwards."""
    if not fresh:
        yield cache_folder() / "evaluation"
        return
    with tempfile.TemporaryDirectory(prefix="cmbert-eval-") as folder:
        yield Path(folder)


class _Indexes:
    """Opens the indexes and encoders that the systems of a suite need, each once."""

    def __init__(self, suite: SuiteRecipe, cache: Path, progress: Progress) -> None:
        self._suite, self._cache, self._progress = suite, cache, progress
        self._encoders: dict[tuple[str | None, int | None], Encoder] = {}
        self._rows: tuple[str, baselines.Rows] | None = None  # of the last set: they take memory

    def __enter__(self) -> _Indexes:
        return self

    def __exit__(self, *_: object) -> None:
        self._encoders.clear()

    def answer(self, one: EvaluationSet, system: SystemRecipe, k: int) -> tuple[Run, float, int]:
        """Return a system's run on a set, the seconds that its answers took, and the number of documents."""
        if system.baseline is not None:
            rows = self._rows_of(one)
            began = time.perf_counter()
            if system.baseline == "bm25s":
                run = baselines.bm25s_run(
                    rows, one.queries, k, stemmer=system.stemmer, k1=system.k1, b=system.b
                )
            else:
                run = baselines.encoder_run(rows, one.queries, k, model=system.encoder, cache=self._cache)
            return run, time.perf_counter() - began, len(set(rows.ids))
        with self._retriever(one, system) as retriever:
            began = time.perf_counter()
            run = retriever.run(one.queries, k=k, mode=system.mode)
            return run, time.perf_counter() - began, len(retriever)

    @contextmanager
    def _retriever(self, one: EvaluationSet, system: SystemRecipe) -> Iterator[Retriever]:
        encoder = self._encoder_for(system)
        words_only = [] if encoder is not None else ["encoder=none"]
        settings = [*one.index, *self._suite.index, *system.index, *words_only]
        recipe = IndexRecipe.for_corpus(one.corpus.reader, name=one.name, overrides=settings)
        with self._progress() as notify:
            folder = build_cached(self._cache, recipe, one.corpus, encoder, notify=notify)
        with Retriever(IndexReader(folder), encoder) as retriever:
            yield retriever

    def _encoder_for(self, system: SystemRecipe) -> Encoder | None:
        """Return the encoder of the system's index; words are searched in one that others need anyway."""
        name, max_tokens = system.encoder, system.max_tokens
        if system.mode == "lexical":
            learned = [other for other in self._suite.systems.values() if other.mode in ("dense", "hybrid")]
            alike = [other for other in learned if other.index == system.index]
            if not alike:
                if name is not None:
                    raise ConfigError("a lexical system has no encoder; leave 'encoder' out")
                return None
            name, max_tokens = alike[0].encoder, alike[0].max_tokens
        key = (name, max_tokens)
        if key not in self._encoders:
            from cmbert_retrieval.encoders import load_encoder

            self._encoders[key] = load_encoder(name, max_tokens=max_tokens)
        return self._encoders[key]

    def _rows_of(self, one: EvaluationSet) -> baselines.Rows:
        if self._rows is None or self._rows[0] != one.name:
            self._rows = one.name, baselines.Rows(one.corpus)
        return self._rows[1]


def _keep(folder: Path, run: Run, evaluation: Evaluation, *, tag: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_run(folder / "run.trec.gz", run, tag=tag)
    lines = (
        json.dumps({"query": id_, **values}, ensure_ascii=False)
        for id_, values in evaluation.per_query.items()
    )
    with atomic_file(folder / "per_query.jsonl") as file:
        file.write("".join(f"{line}\n" for line in lines).encode())


def _versions() -> dict[str, str]:
    machine = f"{platform.system()} {platform.machine()}"
    facts = {"python": platform.python_version(), "machine": machine, "ir-measures": version("ir-measures")}
    return facts | library_versions()
