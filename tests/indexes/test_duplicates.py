"""Ids that come several times in one build: the last revision is alive whole, all others are dead whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import build, delete, optimize, recipe

from cmbert_retrieval.corpora.memory import MemoryCorpus
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.report import Report
from cmbert_retrieval.indexes.shards import Notify
from cmbert_retrieval.indexes.verify import verify
from cmbert_retrieval.indexes.writer import IndexWriter
from cmbert_retrieval.types import Document

REVISIONS = st.lists(st.tuples(st.sampled_from("ABC"), st.integers(1, 6)), min_size=1, max_size=7)


def corpus(revisions: list[tuple[str, int]], word: str) -> list[Document]:
    """Return documents of so many entries; every entry text is the only one of its kind."""
    return [
        Document(id_, "", entries=tuple(f"{word}{number} entry{place}" for place in range(count)))
        for number, (id_, count) in enumerate(revisions)
    ]


def live(folder: Path) -> dict[str, list[str]]:
    """Return id -> texts of its live rows, in their order."""
    found: dict[str, list[str]] = {}
    with IndexReader(folder) as reader:
        for segment in reader.segments:
            rows = reader.live_rows(segment)
            parents, texts = reader.parents(rows), reader.texts(rows)
            for row in rows.tolist():
                found.setdefault(parents[row], []).append(texts[row])
    return found


class Interrupted(Exception):
    """The build was stopped."""


class StopAtEveryShard:
    """Takes the place of a progress bar and stops each run at the first shard that no run before stored."""

    def __init__(self) -> None:
        self.stored = 0

    def one_run(self) -> Notify:
        rows = 0

        def notify(phase: str, count: int) -> None:
            nonlocal rows
            rows += count if phase == "rows" else 0
            if rows > self.stored:
                self.stored = rows
                raise Interrupted

        return notify


def write(folder: Path, texts: list[Document], shard_rows: int, *, adding: bool, stopping: bool) -> Report:
    chosen = recipe({}, f"shard_rows={shard_rows}", encoder=False)
    stop = StopAtEveryShard()
    while True:
        try:
            with IndexWriter(folder, **({"notify": stop.one_run()} if stopping else {})) as writer:
                if adding:
                    return writer.add(MemoryCorpus(texts), None)
                return writer.build(MemoryCorpus(texts), chosen, None)
        except Interrupted:
            assert stopping


@settings(max_examples=25, deadline=None)
@given(
    before=st.one_of(st.just([]), REVISIONS),
    revisions=REVISIONS,
    shard_rows=st.integers(1, 5),
    repeated=st.booleans(),
)
def test_only_the_last_revision_is_alive_wherever_shards_end_and_runs_are_killed(
    tmp_path_factory: pytest.TempPathFactory,
    before: list[tuple[str, int]],
    revisions: list[tuple[str, int]],
    shard_rows: int,
    repeated: bool,
) -> None:
    folder = tmp_path_factory.mktemp("duplicates")
    first = corpus(before, "old")
    texts = corpus(revisions, "new") + (first if repeated else [])
    expected = {text.id: list(text.entries) for text in (*first, *texts)}
    reports = []
    for name, stopping in (("whole", False), ("broken", True)):
        if first:
            write(folder / name, first, shard_rows, adding=False, stopping=stopping)
        reports.append(write(folder / name, texts, shard_rows, adding=bool(first), stopping=stopping))
        assert live(folder / name) == expected
        assert verify(folder / name).problems == []
        with IndexReader(folder / name) as reader:
            assert (reader.manifest.rows, reader.manifest.documents) == (
                sum(len(entries) for entries in expected.values()),
                len(expected),
            )
    assert reports[0] == reports[1]


@pytest.mark.parametrize("shard_rows", [1, 2, 3, 2048])
def test_a_deleted_document_leaves_nothing_behind_whatever_it_replaced(
    tmp_path: Path, shard_rows: int
) -> None:
    texts = corpus([("A", 3), ("A", 1), ("B", 1)], "new")
    build(tmp_path, texts, None, f"shard_rows={shard_rows}", columns={})
    delete(tmp_path, ["A"])
    assert live(tmp_path) == {"B": list(texts[2].entries)}
    optimize(tmp_path)
    assert live(tmp_path) == {"B": list(texts[2].entries)}
    assert verify(tmp_path).problems == []
