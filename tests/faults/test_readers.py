"""Readers never notice a writer: every answer is that of a commit. What nobody reads any more is removed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness
import pytest
from harness import State

from cmbert_retrieval.config import IndexRecipe
from cmbert_retrieval.corpora.memory import MemoryCorpus
from cmbert_retrieval.encoders import load_encoder
from cmbert_retrieval.indexes.locks import commit_name
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.verify import verify
from cmbert_retrieval.indexes.writer import IndexWriter
from cmbert_retrieval.retriever import Retriever
from cmbert_retrieval.types import Document

SCRIPT = Path(__file__).with_name("searching.py")


@dataclass
class Readers:
    """Processes that search, and the answers that each commit should give them."""

    root: Path
    folder: Path
    queries: Mapping[str, str]
    encoder_name: str = "none"
    k: int = 10
    expected: dict[int, Any] = field(default_factory=dict)
    found: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._encoder = None if self.encoder_name == "none" else load_encoder(self.encoder_name, threads=1)

    def note_commit(self) -> int:
        """Remember what the present commit answers: there is one writer, and it is waiting."""
        with Retriever(IndexReader(self.root), self._encoder) as retriever:
            modes = ["lexical"] if self._encoder is None else ["lexical", "dense", "hybrid"]
            runs = {mode: retriever.run(dict(self.queries), k=self.k, mode=mode) for mode in modes}
            answers = {mode: {n: list(s.items()) for n, s in run.items()} for mode, run in runs.items()}
            # Through JSON, as the answers of the processes come.
            self.expected[retriever.manifest.commit] = json.loads(json.dumps(answers))
            return retriever.manifest.commit

    @contextmanager
    def searching(self, held: Sequence[int]) -> Iterator[None]:
        """Let one process a number search; each opens the index anew after so many rounds."""
        queries = self.folder / "queries.json"
        queries.write_text(json.dumps(dict(self.queries)), encoding="utf-8")
        arguments = [str(self.root), self.encoder_name, str(queries), str(self.k)]
        processes = [
            subprocess.Popen(
                [sys.executable, str(SCRIPT), *arguments, str(rounds), str(self.folder)],
                stdout=subprocess.PIPE,
                text=True,
                env=harness.environment(),
            )
            for rounds in held
        ]
        try:
            end = time.monotonic() + 120
            while len(list(self.folder.glob("ready-*"))) < len(processes):
                assert time.monotonic() < end and all(one.poll() is None for one in processes)
                time.sleep(0.02)
            yield
            time.sleep(0.5)  # time to see the last commit
        finally:
            (self.folder / "stop").touch()
            self.found = [json.loads(process.communicate(timeout=120)[0]) for process in processes]

    def check(self) -> None:
        """Check that every answer was that of a commit, and that the readers saw the index change."""
        commits = set()
        for found in self.found:
            assert found["errors"] == []
            assert found["rounds"] > 0
            for commit, answers in found["answers"].items():
                assert answers == self.expected[int(commit)], f"commit {commit}"
                commits.add(int(commit))
        assert len(commits) >= 3, f"the readers saw commits {sorted(commits)} only"


def assert_only_the_last_commit_is_there(root: Path) -> None:
    last = commit_name(harness.commit_of(root))
    assert [path.name for path in (root / "commits").iterdir()] == [last]
    assert [path.name for path in (root / "lexical").iterdir()] == [last]
    result = verify(root)
    assert (result.problems, result.leftovers) == ([], [])


def documents(numbers: Sequence[int], *, seed: int) -> list[Document]:
    return [
        Document(one["id"], one["text"], one["title"], {"year": one["year"]})
        for one in harness.invented(numbers, seed=seed)
    ]


def test_readers_of_words_see_commits_only_while_documents_come_and_go(tmp_path: Path) -> None:
    root = tmp_path / "index"
    recipe = IndexRecipe.for_corpus("memory", overrides=["encoder=none"])
    with IndexWriter(root) as writer:
        writer.build(MemoryCorpus(documents(range(300), seed=1)), recipe, None)
    queries = {str(number): text for number, text in enumerate(harness.QUERIES)}
    readers = Readers(root, tmp_path, queries)
    readers.note_commit()
    held = IndexReader(root)  # for the whole time: its files must outlive ten commits
    before = State.of_reader(held)
    with readers.searching([1, 7]):
        for number in range(5):
            with IndexWriter(root) as writer:
                writer.add(
                    MemoryCorpus(documents(range(number * 40, number * 40 + 80), seed=2 + number)), None
                )
            readers.note_commit()
            if number >= 2:
                with IndexWriter(root) as writer:
                    writer.delete([f"d{number}", f"d{number + 100}"])
                readers.note_commit()
        with IndexWriter(root) as writer:
            writer.optimize()
        assert readers.note_commit() == 10
        time.sleep(0.2)
    readers.check()
    assert State.of_reader(held) == before
    assert held.search_words("fever", 10)[1].size
    assert verify(root).problems == []
    held.close()
    with IndexWriter(root) as writer:
        writer.delete(["d50"])
    assert_only_the_last_commit_is_there(root)


def pmc_part(source: Path, target: Path, ids: Sequence[str]) -> Path:
    """Copy some articles, all versions of them, in the layout that they came in."""
    (target / "metadata").mkdir(parents=True)
    for id_ in ids:
        for folder in sorted(source.glob(f"{id_}.*")):
            shutil.copytree(folder, target / folder.name)
            shutil.copyfile(
                source / "metadata" / f"{folder.name}.json", target / "metadata" / f"{folder.name}.json"
            )
    return target


@pytest.mark.slow
def test_five_additions_and_three_deletions_of_articles_under_four_readers_end_as_a_fresh_build_does(
    shared_data: Path, tmp_path: Path, tiny_encoder_path: Path
) -> None:
    source = shared_data / "pmc_cloud_sample"
    if not source.is_dir():
        pytest.skip("no PMC articles among the real data")
    ids = sorted(
        {path.name.partition(".")[0] for path in source.glob("PMC*.*")}, key=lambda id_: int(id_[3:])
    )
    ids = ids[::3]  # enough to have several shards, few enough for two cores
    first, added = ids[:-20], ids[-20:]
    deleted = [first[3], first[30], added[5]]
    root, fresh = tmp_path / "index", tmp_path / "fresh"
    build = ["index", "build", "--encoder", str(tiny_encoder_path), "--json", "--set", "name=articles"]

    def run(*arguments: str) -> dict[str, Any]:
        ended = harness.run(*arguments)
        assert ended.code == 0, ended.err
        return ended.report

    run(*build, "--from", f"pmc:{pmc_part(source, tmp_path / 'first', first)}", "--out", str(root))
    texts = (
        "inflammation of the airways in children",
        "gene expression in tumour cells",
        "randomised controlled trial",
        "malaria transmission",
        "blood pressure and stroke",
        "protein structure",
        "insulin resistance",
    )
    queries = {str(number): text for number, text in enumerate(texts)}
    readers = Readers(root, tmp_path, queries, encoder_name=str(tiny_encoder_path))
    readers.note_commit()
    with readers.searching([1, 1, 5, 25]):
        for number in range(5):
            part = pmc_part(source, tmp_path / f"part-{number}", added[number * 4 : number * 4 + 4])
            run("index", "add", str(root), "--from", f"pmc:{part}", "--json")
            readers.note_commit()
        for id_ in deleted:
            run("index", "delete", str(root), id_, "--json")
            readers.note_commit()
        run("index", "optimize", str(root), "--json")
        assert readers.note_commit() == 10
    readers.check()

    kept = [id_ for id_ in ids if id_ not in deleted]
    run(*build, "--from", f"pmc:{pmc_part(source, tmp_path / 'kept', kept)}", "--out", str(fresh))
    assert State.of(root).texts() == State.of(fresh).texts()
    encoder = load_encoder(tiny_encoder_path, threads=1)
    for mode in ("lexical", "dense", "hybrid"):
        with Retriever(IndexReader(root), encoder) as old, Retriever(IndexReader(fresh), encoder) as new:
            for text in texts:
                one, other = (each.search(text, k=10, mode=mode) for each in (old, new))
                assert [hit.id for hit in one] == [hit.id for hit in other], (mode, text)
                assert [hit.score for hit in one] == pytest.approx([hit.score for hit in other], abs=1e-4)
    with IndexWriter(root) as writer:
        writer.delete([kept[0]])
    assert_only_the_last_commit_is_there(root)
