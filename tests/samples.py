"""Invented biomedical documents, and the few steps that most tests of indexes begin with."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.config import IndexRecipe
from cmbert_retrieval.corpora.memory import MemoryCorpus
from cmbert_retrieval.encoders.base import Encoder, EncoderIdentity, Progress
from cmbert_retrieval.indexes.report import Report
from cmbert_retrieval.indexes.writer import IndexWriter
from cmbert_retrieval.types import Document

WORDS = (
    "aspirin warfarin metformin insulin lisinopril heart kidney liver lung femur stroke sepsis "
    "asthma diabetes fracture infarction pneumonia anaemia migraine biopsy dialysis stent graft dose "
    "trial cohort placebo mortality relapse remission chronic acute severe mild bilateral left right "
    "proximal distal renal hepatic cardiac pulmonary cerebral patients children adults women men "
    "pregnancy screening therapy outcome risk"
).split()

JOURNALS = ("BMJ", "JAMA", "Ann Surg")

SMALL = ("passages.max_tokens=24", "shard_rows=7")
"""Short passages and small shards: a dozen documents already have several of each."""

COLUMNS = {"year": "integer", "journal": "text"}


def sentence(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(4, 12))).capitalize() + "."


def document(number: int, *, seed: int = 0, sentences: int | None = None) -> Document:
    """Return the ``number``-th document of a series; another seed is another revision of it."""
    chance = random.Random(f"{seed}/{number}")
    count = chance.randint(1, 5) if sentences is None else sentences
    return Document(
        id=f"note-{number}",
        title=" ".join(chance.choices(WORDS, k=3)),
        text=" ".join(sentence(chance) for _ in range(count)),
        metadata={
            "year": 2000 + chance.randint(0, 25),
            "journal": chance.choice(["BMJ", "JAMA", "Ann Surg"]),
        },
    )


def documents(count: int, *, seed: int = 0, first: int = 0) -> list[Document]:
    return [document(number, seed=seed) for number in range(first, first + count)]


def queries(count: int, *, seed: int = 0) -> list[str]:
    chance = random.Random(f"queries/{seed}")
    return [" ".join(chance.choices(WORDS, k=chance.randint(1, 4))) for _ in range(count)]


def recipe(columns: Mapping[str, str] = COLUMNS, *overrides: str, encoder: bool = True) -> IndexRecipe:
    settings = [*overrides] if encoder else ["encoder=none", *overrides]
    made = IndexRecipe.for_corpus("memory", overrides=settings)
    return IndexRecipe.from_json({**made.to_json(), "columns": dict(columns)})


def build(
    folder: Path,
    texts: Iterable[Document],
    encoder: Encoder | None,
    *overrides: str,
    columns: Mapping[str, str] = COLUMNS,
    strict: bool = False,
) -> Report:
    with IndexWriter(folder) as writer:
        chosen = recipe(columns, *overrides, encoder=encoder is not None)
        return writer.build(MemoryCorpus(texts), chosen, encoder, strict=strict)


def add(folder: Path, texts: Iterable[Document], encoder: Encoder | None, *, strict: bool = False) -> Report:
    with IndexWriter(folder) as writer:
        return writer.add(MemoryCorpus(texts), encoder, strict=strict)


def delete(folder: Path, ids: Iterable[str]) -> Report:
    with IndexWriter(folder) as writer:
        return writer.delete(ids)


def optimize(folder: Path) -> Report:
    with IndexWriter(folder) as writer:
        return writer.optimize()


class Wrapper:
    """A real encoder that counts what it encodes and can be made to misbehave.

    Attributes:
        texts: document texts encoded so far.
        poison: word -> what the first value of the vector of a text with that word becomes.
    """

    def __init__(self, encoder: Encoder, **changes: Any) -> None:
        self._encoder = encoder
        self._identity = replace(encoder.identity, **changes)
        self.texts: list[str] = []
        self.poison: dict[str, float] = {}

    @property
    def identity(self) -> EncoderIdentity:
        return self._identity

    @property
    def source(self) -> str:
        return self._encoder.source

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._poisoned(texts, self._encoder.encode_query(texts))

    def encode_document(
        self, texts: Sequence[str], *, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        self.texts += texts
        return self._poisoned(texts, self._encoder.encode_document(texts, progress=progress))

    def _poisoned(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        for place, text in enumerate(texts):
            for word, value in self.poison.items():
                if word in text:
                    vectors[place, 0] = value
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._encoder.count_tokens(texts)

    def save_pretrained(self, path: str) -> None:
        self._encoder.save_pretrained(path)


def write_beir(folder: Path, *, packed: bool = False, queries: Mapping[str, str] | None = None) -> Path:
    """Write three documents, two queries of which one is judged, and one judgement."""
    ending = ".gz" if packed else ""
    opened = gzip.open if packed else open
    (folder / "qrels").mkdir(parents=True)
    documents = {"d1": "Aspirin prevents strokes.", "d2": "Zinc and colds.", "d3": "Statins and cholesterol."}
    with opened(folder / f"corpus.jsonl{ending}", "wt") as file:
        file.writelines(json.dumps({"_id": i, "title": "", "text": t}) + "\n" for i, t in documents.items())
    with opened(folder / f"queries.jsonl{ending}", "wt") as file:
        asked = queries or {"q1": "does zinc help", "q2": "unjudged"}
        file.writelines(json.dumps({"_id": i, "text": t}) + "\n" for i, t in asked.items())
    with opened(folder / f"qrels/test.tsv{ending}", "wt") as file:
        file.write("query-id\tcorpus-id\tscore\nq1\td2\t1\n")
    return folder
