"""Preparing the text of a pretraining run: sources to a folder of token shards, in resumable stages.

The folder::

    prepared.json        the recipe of the data, versions, checksums, counts: written last, when all is there
    preparing.json       before: what the preparation was begun with
    texts/               cleaned text a source; may be removed when the folder is complete
    tokenizer/           the tokenizer, as transformers opens it
    lexicon.npy salience.npy
    train/ held_out/     token shards
    report.md report.json

Killed at any time, the same command goes on where it stopped and makes the same bytes, whatever the number of
processes.
"""

from __future__ import annotations

import json
import logging
import platform
import time
import unicodedata
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from cmbert_retrieval import __version__
from cmbert_retrieval.errors import CorpusError, MissingExtraError
from cmbert_retrieval.pretraining.lexicon import Lexicon
from cmbert_retrieval.pretraining.processes import usable_processes
from cmbert_retrieval.pretraining.reading import (
    JudgedShard,
    Notify,
    ShardSize,
    count_documents,
    judged,
    read_texts,
)
from cmbert_retrieval.pretraining.recipe import DataRecipe, PretrainRecipe
from cmbert_retrieval.pretraining.report import REPORT_JSON, Report
from cmbert_retrieval.pretraining.salience import Salience, general_english
from cmbert_retrieval.pretraining.sources import (
    OpenSource,
    open_lexicon,
    open_sources,
    read_lines,
    source_facts,
)
from cmbert_retrieval.pretraining.terms import lexicon_terms
from cmbert_retrieval.pretraining.tokenising import (
    LEXICON,
    SALIENCE,
    corpus_word_counts,
    count_tokens,
    kept_texts,
    save_whole,
    token_tasks,
    write_tokens,
)
from cmbert_retrieval.pretraining.workfolder import WorkFolder, hash_of, write_json
from cmbert_retrieval.storage import atomic_file, make_folder, sha256_of

logger = logging.getLogger(__name__)

PREPARED, REPORT_MARKDOWN = "prepared.json", "report.md"
TEXTS, TOKENIZER, TRAIN, HELD_OUT = "texts", "tokenizer", "train", "held_out"
FORMAT = 1

_PARTS = (LEXICON, SALIENCE, REPORT_JSON, REPORT_MARKDOWN, TEXTS, TOKENIZER, TRAIN, HELD_OUT, "plans")
_PACKAGES = ("numpy", "pyarrow", "tokenizers", "transformers", "datasketch", "wordfreq")


def prepare(
    recipe: PretrainRecipe,
    out: Path,
    *,
    processes: int | None = None,
    progress: Notify = lambda phase, count: None,
    restart: bool = False,
    size: ShardSize = ShardSize(),  # noqa: B008
) -> Report:
    """Prepare the text of a recipe.

    Args:
        recipe: of which ``data`` is used.
        out: the folder to make, or to go on with. Complete, nothing is done.
        processes: that work at the same time; None takes as many as there are cores.
        progress: told a phase and how much more of it is done: ``total`` documents expected, ``documents``
            read, ``resumed`` documents of an earlier run, ``judging`` documents for duplicates,
            ``vocabulary``, ``terms``, ``words`` counted, ``shards`` to make, ``tokens``, ``resumed_tokens``.
        restart: throw away what an earlier run made of another recipe.
        size: of text shards.

    Raises:
        ConfigError: something in the recipe is wrong, or the folder is of another recipe.
        CorpusError: a source is not there, or has no document, or cannot be read on; or nothing is left.
        MissingExtraError: a package is missing.
        StorageError: something cannot be written, or another process prepares this folder.
    """
    began = time.monotonic()
    data = recipe.data
    _check_packages(data)
    sources, lexicon = open_sources(data), open_lexicon(data)
    make_folder(out)
    work = WorkFolder(out, "preparing.json", PREPARED, _PARTS, "prepared text")
    with work.alone():
        pins = _pins(data, sources, lexicon)
        if restart:
            work.clear()
        if work.begin(pins):
            return Report.from_json(json.loads((out / REPORT_JSON).read_bytes()))
        for folder in (TEXTS, TRAIN, HELD_OUT):
            make_folder(out / folder)
        report = _prepared(data, sources, lexicon, out, usable_processes(processes), progress, size)
        report.seconds = time.monotonic() - began
        work.finish({**_written(out, report), **pins})
    return report


def _prepared(
    data: DataRecipe,
    sources: list[OpenSource],
    lexicon: list[OpenSource],
    out: Path,
    processes: int,
    progress: Notify,
    size: ShardSize,
) -> Report:
    totals = [source.corpus.total() for source in sources]
    if None not in totals:
        progress("total", sum(total or 0 for total in totals))
    read_texts(sources, data, out / TEXTS, processes=processes, notify=progress, size=size)
    progress("judging", 0)
    shards = judged(len(sources), data, out / TEXTS)
    progress("judging", sum(len(shard.verdicts) for shard in shards))
    report = Report(count_documents(sources, shards))
    _check_kept(report)
    progress("vocabulary", 0)
    report.vocabulary = _tokenizer(data, shards, out / TOKENIZER)
    progress("vocabulary", report.vocabulary)
    report.terms = _lexicon_and_salience(data, lexicon, shards, out, processes, progress)
    tasks = token_tasks(shards, out / TRAIN, out / HELD_OUT)
    progress("shards", len(tasks))
    write_tokens(tasks, out, processes=processes, notify=progress)
    train = count_tokens([task for task in tasks if task.path.parent.name == TRAIN])
    held_out = count_tokens([task for task in tasks if task.path.parent.name == HELD_OUT])
    for number, source in enumerate(report.sources):
        source.tokens, source.held_out_tokens = train[number], held_out[number]
    return report


def _tokenizer(data: DataRecipe, shards: list[JudgedShard], folder: Path) -> int:
    from cmbert_retrieval.pretraining.tokenizers import make_tokenizer, open_tokenizer

    if folder.exists():
        return len(open_tokenizer(folder))
    return len(make_tokenizer(data.tokenizer, lambda: kept_texts(shards), folder))


def _lexicon_and_salience(
    data: DataRecipe,
    sources: list[OpenSource],
    shards: list[JudgedShard],
    out: Path,
    processes: int,
    progress: Notify,
) -> int:
    if not (out / LEXICON).exists():
        general = general_english() if sources else {}
        found = Lexicon.from_terms(lexicon_terms(sources, general))
        save_whole(found.save, out / LEXICON)
    terms = len(Lexicon.load(out / LEXICON))
    progress("terms", terms)
    if not (out / SALIENCE).exists():
        if data.salience:
            counts = corpus_word_counts(shards, processes, progress)
            salience = Salience.from_counts(counts, general_english())
        else:
            salience = Salience(np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.float32))
        save_whole(salience.save, out / SALIENCE)
    return terms


def _check_kept(report: Report) -> None:
    for source in report.sources:
        if not source.kept:
            logger.warning("source '%s': nothing of its %d documents is kept", source.name, source.read)
    if not report.total().kept:
        raise CorpusError(
            f"nothing is left to train on: {report.losses()}; take more sources, or exclude less"
        )


def _check_packages(data: DataRecipe) -> None:
    needed = {"preparing text for training": ["pyarrow", "tokenizers", "transformers"]}
    if data.near_duplicates is not None:
        needed["finding near-duplicates"] = ["datasketch"]
    if data.salience or data.lexicon:
        needed["weighing words against English at large"] = ["wordfreq"]
    for feature, packages in needed.items():
        for package in packages:
            if _version(package) is None:
                raise MissingExtraError.of(feature, package, "pretrain")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _pins(data: DataRecipe, sources: list[OpenSource], lexicon: list[OpenSource]) -> dict[str, Any]:
    """Return all that decides what a preparation makes, as JSON values. Reads every file once."""
    values = data.model_dump(mode="json")
    for source in values["sources"].values():
        del source["weight"]  # decides how often rows are seen, later
    excluded = {source.name: source.excluded_ids for source in sources if source.excluded_ids}
    return {
        "format": FORMAT,
        "data": values,
        "order": [source.name for source in sources],  # of equal documents the first one stays
        "files": {source.name: source_facts(source) for source in sources},
        "lexicon_files": {source.name: source_facts(source) for source in lexicon},
        "excluded_ids": {name: hash_of(ids) for name, ids in excluded.items()},
        "excluded_names": hash_of(read_lines(data.exclude_names, "")) if data.exclude_names else None,
        "versions": {
            "cmbert-retrieval": __version__,
            "unicode": unicodedata.unidata_version,
            **{package: _version(package) for package in _PACKAGES},
        },
    }


def _written(out: Path, report: Report) -> dict[str, Any]:
    """Write the report; return what a run has to know of the folder."""
    with atomic_file(out / REPORT_MARKDOWN) as file:
        file.write(report.to_markdown().encode())
    write_json(out / REPORT_JSON, report.to_json())
    total = report.total()
    return {
        "tokenizer_sha256": sha256_of(out / TOKENIZER / "tokenizer.json"),
        "vocabulary": report.vocabulary,
        "documents": total.kept,
        "tokens": total.tokens,
        "held_out_tokens": total.held_out_tokens,
        "python": platform.python_version(),
    }
