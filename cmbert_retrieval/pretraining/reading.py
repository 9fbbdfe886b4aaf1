"""The first stage: readers to text shards, cleaned, with what tells duplicates; then a verdict for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.pretraining.cleaning import clean_text
from cmbert_retrieval.pretraining.duplicates import Verdict, digest, judge, signature
from cmbert_retrieval.pretraining.processes import in_processes
from cmbert_retrieval.pretraining.recipe import DataRecipe
from cmbert_retrieval.pretraining.report import PROBLEMS, SourceReport
from cmbert_retrieval.pretraining.sources import Batch, OpenSource
from cmbert_retrieval.pretraining.texts import (
    SHARD_CHARACTERS,
    SHARD_DOCUMENTS,
    Part,
    TextRow,
    TextShard,
    shard_path,
    write_texts,
)
from cmbert_retrieval.pretraining.words import lower_words
from cmbert_retrieval.storage import atomic_file

Notify = Callable[[str, int], None]
"""Told a phase and how much more of it is done."""

VERDICTS = "verdicts.npy"

_COUNTED = {
    Verdict.EXACT: "exact_duplicates",
    Verdict.NEAR: "near_duplicates",
    Verdict.COPY: "copies_of_excluded",
    Verdict.WITHDRAWN: "withdrawn",
}


@dataclass(frozen=True, slots=True)
class ShardSize:
    """When a text shard is full: characters as they are read, or records."""

    characters: int = SHARD_CHARACTERS
    documents: int = SHARD_DOCUMENTS


@dataclass(frozen=True, slots=True)
class JudgedShard:
    """A text shard and what becomes of its rows.

    Attributes:
        source: number of its source in the mixture.
        path: the shard.
        verdicts: ``[rows]``, a ``Verdict`` each.
    """

    source: int
    path: Path
    verdicts: NDArray[np.uint8]

    def rows(self, part: Part) -> NDArray[np.intp]:
        """Return the rows that are kept for a part."""
        return np.flatnonzero((self.verdicts == Verdict.KEPT) & (TextShard(self.path).parts == part))


def read_texts(
    sources: Sequence[OpenSource],
    recipe: DataRecipe,
    folder: Path,
    *,
    processes: int,
    notify: Notify,
    size: ShardSize,
) -> None:
    """Write the text shards of all sources that are not there yet.

    One process reads; cleaning and hashing, which take longer than reading most formats, go to the others.
    """
    near = recipe.near_duplicates
    work = partial(_write_shard, recipe.minimum_characters, near.permutations if near else 0)
    tasks = _tasks(sources, folder, notify, size)
    for count in in_processes(work, tasks, processes):
        notify("documents", count)


def _tasks(
    sources: Sequence[OpenSource], folder: Path, notify: Notify, size: ShardSize
) -> Iterator[tuple[Path, Batch]]:
    for number, source in enumerate(sources):
        shard, cursor = 0, None
        finished = False
        while (path := shard_path(folder, number, shard)).exists():
            state = TextShard(path).state
            cursor, finished = state["cursor"], state["finished"]
            notify("resumed", state["counts"].get("read", 0))
            shard += 1
        if finished:
            continue
        for batch in source.batches(cursor, size.characters, size.documents):
            yield shard_path(folder, number, shard), batch
            shard += 1


def _write_shard(minimum: int, permutations: int, tool: None, task: tuple[Path, Batch]) -> int:
    path, batch = task
    rows, counts = [], Counter(batch.counts)
    for entry in batch.entries:
        if entry.part == Part.WITHDRAWN:
            rows.append(TextRow(entry.id, "", entry.part))
            continue
        text = clean_text(entry.text)
        if len(text) < minimum:
            counts["too_short"] += entry.part != Part.EXCLUDED
            continue
        words = lower_words(text)
        kept = text if entry.part != Part.EXCLUDED else ""
        found = {"signature": signature(words, permutations)} if permutations else {}
        rows.append(TextRow(entry.id, kept, entry.part, entry.license, len(words), digest(text), **found))
    state = {
        "cursor": batch.cursor,
        "finished": batch.finished,
        "counts": {name: count for name, count in counts.items() if count},
        "problems": batch.problems,
    }
    write_texts(path, rows, state, permutations=permutations)
    return counts["read"]


def judged(sources: int, recipe: DataRecipe, folder: Path) -> list[JudgedShard]:
    """Return all text shards with a verdict for every row, looking for duplicates unless that is done."""
    paths = [sorted(folder.glob(f"{number:03d}-*.arrow")) for number in range(sources)]
    shards = [[TextShard(path) for path in of_source] for of_source in paths]
    saved = folder / VERDICTS
    flat = [(number, shard) for number, of_source in enumerate(shards) for shard in of_source]
    if saved.exists():
        starts = np.cumsum([len(shard) for _, shard in flat])[:-1]
        verdicts = np.split(np.load(saved), starts)
    else:
        near = recipe.near_duplicates
        verdicts = judge(shards, near.similarity if near else None)
        with atomic_file(saved) as file:
            np.save(file, np.concatenate(verdicts))
    return [
        JudgedShard(number, shard.path, found) for (number, shard), found in zip(flat, verdicts, strict=True)
    ]


def count_documents(sources: Sequence[OpenSource], shards: Sequence[JudgedShard]) -> list[SourceReport]:
    """Return what became of the documents of each source."""
    reports = [SourceReport(source.name, source.recipe.reader) for source in sources]
    licenses: list[Counter[str]] = [Counter() for _ in sources]
    for judged_shard in shards:
        report, shard = reports[judged_shard.source], TextShard(judged_shard.path)
        for name, count in shard.state["counts"].items():
            setattr(report, name, getattr(report, name) + count)
        report.problems = (report.problems + shard.state["problems"])[:PROBLEMS]
        for verdict, name in _COUNTED.items():
            count = int((judged_shard.verdicts == verdict).sum())
            setattr(report, name, getattr(report, name) + count)
        train = judged_shard.rows(Part.TRAIN)
        report.kept += len(train)
        report.held_out += len(judged_shard.rows(Part.HELD_OUT))
        report.words += int(shard.words[train].sum(dtype=np.int64))
        report.characters += int(shard.characters()[train].sum())
        names = shard.licenses
        licenses[judged_shard.source].update(names[row] for row in train.tolist())
    for report, counted in zip(reports, licenses, strict=True):
        report.licenses = dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))
    return reports
