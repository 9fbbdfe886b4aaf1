"""Milliseconds a query over the passages of 1,000 articles: by words, by meaning, by both.

Queries are claims of SciFact and questions of BioASQ, one at a time, as users ask them. Both sides search the
same passages and take turns of 25 queries. The index is built once, with the default encoder.

- words: ours against ``BM25.retrieve`` of bm25s (its defaults, with the stemmer and stop words that its guide
  shows), which gives numbers of passages and scores. Ours give the same (``IndexReader.search_words``), ids
  and scores of as many articles by their best passages (``Retriever.run``), or hits with whole articles and
  their metadata, read from the disk (``Retriever.search``, against ``retrieve`` with the passages in memory).
  And ``run`` against Pyserini, where ``.venv-pyserini`` has it (README.md).
- vectors: ``IndexReader.search_vectors`` against ``faiss.IndexFlatIP.search`` with the same vectors of
  passages and queries, the same number of threads and the same ``k``. What ours does on top, and what is
  counted as overhead (ratio - 1): scores that do not depend on the path, ties, rows that were deleted.
- both: ``Retriever.search`` as it comes, with encoding the query, against the same made of three libraries:
  ``SentenceTransformer.encode``, FAISS and bm25s, 200 results of each joined by min-max.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _built import built_index
from _measure import ROOT, RUNS, Results, SkippedError, Times, read_jsonl, run, take_turns, versioned, wanted

from cmbert_retrieval import Retriever
from cmbert_retrieval.config import IndexRecipe
from cmbert_retrieval.encoders import load_encoder
from cmbert_retrieval.fusion import min_max
from cmbert_retrieval.threads import thread_budget

QUERIES = 100  # of each of the two sets
ROUNDS = 3
PYSERINI = ROOT / ".venv-pyserini" / "bin" / "python"


def queries(data: Path) -> list[str]:
    """Return claims and questions in turns."""
    claims = read_jsonl(data / "scifact" / "queries.dev.jsonl.gz")
    questions = read_jsonl(data / "bioasq_golden" / "questions.jsonl.gz")
    pairs = itertools.islice(zip(claims, questions, strict=False), QUERIES)
    return [one["text"] for pair in pairs for one in pair]


def add(
    results: Results, name: str, times: dict[str, Times], *, peer: str = "", mark: str = "", **details: Any
) -> None:
    """Print the median milliseconds a query of ``ours`` and ``theirs``."""
    mine, other = times["ours"], times.get("theirs")
    results.add(
        name,
        ours=1000 * mine.p50,
        theirs=1000 * other.p50 if other else None,
        unit="ms p50",
        peer=peer,
        mark=mark,
        repeats=len(mine.wall),
        p95_ms=round(1000 * mine.p95, 2),
        p95_ms_theirs=round(1000 * other.p95, 2) if other else None,
        **details,
    )


class Bm25s:
    """What bm25s makes of the passages."""

    def __init__(self, texts: list[str]) -> None:
        import bm25s
        import Stemmer

        self._tokens = lambda texts: bm25s.tokenize(
            texts, stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False
        )
        self._corpus = texts
        self._model = bm25s.BM25()
        self._model.index(self._tokens(texts), show_progress=False)

    def ids(self, query: str, k: int) -> Any:
        """Return row numbers and scores."""
        return self._model.retrieve(self._tokens(query), k=k, show_progress=False)

    def texts(self, query: str, k: int) -> Any:
        """Return passages and scores."""
        return self._model.retrieve(self._tokens(query), corpus=self._corpus, k=k, show_progress=False)


class Pyserini:
    """Pyserini in a process and an environment of its own: it needs another Java and other packages."""

    def __init__(self, texts: list[str]) -> None:
        if not PYSERINI.exists():
            raise SkippedError("no .venv-pyserini (make bench-pyserini)")
        folder = RUNS / "pyserini"
        (folder / "passages").mkdir(parents=True, exist_ok=True)
        with (folder / "passages" / "passages.jsonl").open("w", encoding="utf-8") as file:
            for row, text in enumerate(texts):
                file.write(json.dumps({"id": str(row), "contents": text}) + "\n")
        worker = [str(PYSERINI), str(Path(__file__).with_name("_pyserini.py")), str(folder)]
        self._process = subprocess.Popen(
            worker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.peer = self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SkippedError(f"Pyserini's process ended with {self._process.wait()}")
        return line.strip()

    def seconds(self, query: str, k: int) -> float:
        """Return how long it takes to find ids and scores, as its own process sees it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"query": query, "k": k}) + "\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def words(results: Results, retriever: Retriever, texts: list[str], asked: list[str]) -> None:
    """Measure search by words."""
    peer = versioned("bm25s")
    model = Bm25s(texts)
    for k in (10, 100):
        sides: dict[str, Callable[[str], Any]] = {
            "ours": lambda query, k=k: retriever.reader.search_words(query, k),
            "theirs": lambda query, k=k: model.ids(query, k),
        }
        times = take_turns(sides, ROUNDS, asked)
        add(results, f"words, passages, k={k}", times, peer=peer, mark="ratio <= 1")
        sides = {
            "ours": lambda query, k=k: retriever.run({"": query}, k, mode="lexical"),
            "theirs": lambda query, k=k: model.ids(query, k),
        }
        times = take_turns(sides, ROUNDS, asked)
        add(results, f"words, documents, k={k}", times, peer=peer, mark="ratio <= 1")
        sides = {
            "ours": lambda query, k=k: retriever.search(query, k, mode="lexical"),
            "theirs": lambda query, k=k: model.texts(query, k),
        }
        times = take_turns(sides, ROUNDS, asked)
        add(results, f"words, hits with texts, k={k}", times, peer=peer)
    try:
        pyserini = Pyserini(texts)
    except SkippedError as error:
        results.skip("words, Pyserini", str(error))
        return
    other = Times()
    sides = {
        "ours": lambda query: retriever.run({"": query}, 10, mode="lexical"),
        "theirs": lambda query: other.wall.append(pyserini.seconds(query, 10)),
    }
    for _ in range(3):  # the JVM compiles what it runs often
        for query in asked:
            pyserini.seconds(query, 10)
    times = take_turns(sides, ROUNDS, asked)
    other.wall = other.wall[len(asked) :]  # without the round that does not count
    pyserini.close()
    name = "words, documents, k=10, Pyserini"
    add(results, name, {**times, "theirs": other}, peer=pyserini.peer, mark="ratio <= 1")


def vectors_given(results: Results, retriever: Retriever, asked: list[str]) -> None:
    """Measure search by vectors that are given."""
    import faiss

    reader = retriever.reader
    vectors = dict(zip(asked, retriever.encode_queries(asked), strict=True))
    passages = reader.vectors(np.arange(reader.manifest.rows)).astype(np.float32)
    index = faiss.IndexFlatIP(passages.shape[1])
    index.add(passages)
    faiss.omp_set_num_threads(thread_budget())
    for k in (10, 100):
        sides = {
            "ours": lambda query, k=k: reader.search_vectors(vectors[query], k),
            "theirs": lambda query, k=k: index.search(vectors[query][None], k),
        }
        times = take_turns(sides, ROUNDS, asked)
        add(results, f"vectors, k={k}", times, peer=versioned("faiss-cpu"), mark="ratio <= 1.15")


def both(results: Results, retriever: Retriever, texts: list[str], asked: list[str]) -> None:
    """Measure hybrid search with everything that belongs to it."""
    import faiss
    from sentence_transformers import SentenceTransformer

    reader = retriever.reader
    encoder: Any = load_encoder(backend="sentence_transformers", device="cpu")
    passages = reader.vectors(np.arange(reader.manifest.rows)).astype(np.float32)
    index = faiss.IndexFlatIP(passages.shape[1])
    index.add(passages)
    model, words_side = SentenceTransformer(str(encoder.folder), device="cpu"), Bm25s(texts)

    def glued(query: str) -> list[str]:
        near, rows = index.search(model.encode([query]), 200)
        found, scores = words_side.ids(query, 200)
        rankings = [dict(zip(found[0].tolist(), scores[0].tolist(), strict=True))]
        rankings.append(dict(zip(rows[0].tolist(), near[0].tolist(), strict=True)))
        return [texts[row] for row in list(min_max(rankings))[:10]]

    times = take_turns({"ours": lambda query: retriever.search(query, 10), "theirs": glued}, ROUNDS, asked)
    parts = take_turns(
        {
            "encode": lambda query: retriever.encode_queries([query]),
            "words": lambda query: reader.search_words(query, 200),
            "vectors": lambda query: retriever.run({"": query}, 10, mode="dense"),
        },
        1,
        asked,
    )
    peer = f"{versioned('sentence-transformers')} + faiss + bm25s"
    add(
        results,
        "hybrid with encoding the query, k=10",
        times,
        peer=peer,
        mark="ours <= 25",
        parts_ms={name: round(1000 * part.p50, 2) for name, part in parts.items()},
    )


def search(data: Path, results: Results) -> None:
    """Measure all ways to search."""
    archive = wanted(data / "pmc_oa_bulk_sample" / "oa_comm_xml.sample.baseline.tar.gz")
    asked = queries(data)
    encoder = load_encoder()
    folder = built_index(IndexRecipe.for_corpus("pmc", archive, name="pmc"), encoder)
    with Retriever.from_pretrained(folder) as retriever:
        rows = np.arange(retriever.manifest.rows)
        by_row = retriever.reader.texts(rows)
        texts = [by_row[row] for row in rows.tolist()]
        print(f"{len(texts):,} passages of {len(retriever):,} articles", file=sys.stderr)
        words(results, retriever, texts, asked)
        vectors_given(results, retriever, asked)
        both(results, retriever, texts, asked)


if __name__ == "__main__":
    run(search, __doc__)
