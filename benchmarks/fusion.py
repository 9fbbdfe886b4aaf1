"""How hybrid search joins words and meaning: nDCG@10 of each setting, on parts of sets that are for choosing.

Chooses the defaults of ``search`` in recipes. The other side is the better of words alone and meaning alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _built import RUNS
from _measure import Results, run, wanted
from numpy.typing import NDArray

from cmbert_retrieval.config import IndexRecipe
from cmbert_retrieval.encoders import Encoder, load_encoder
from cmbert_retrieval.encoders.names import as_index_reads
from cmbert_retrieval.evaluation.datasets import EvaluationSet, named_set
from cmbert_retrieval.evaluation.measures import evaluate
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.opening import build_cached
from cmbert_retrieval.retriever import Retriever

PARTS = {
    "scifact": "train",
    "nfcorpus": "validation",
    "medquad": "validation",
    "pmc-evidence": "validation",
    "icd10cm-synonyms": "validation",
    "icd10cm-inclusion": "validation",
    "hpo-lay": "validation",
}
WEIGHTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
DEPTHS = (100, 200, 1000)
MEASURE = "nDCG@10"


class EncodedQueries:
    """An encoder that has encoded its queries beforehand: every setting is tried with the same vectors."""

    def __init__(self, encoder: Encoder, texts: Sequence[str]) -> None:
        self.identity, self.source = encoder.identity, encoder.source
        self.count_tokens, self.encode_document = encoder.count_tokens, encoder.encode_document
        self.save_pretrained = encoder.save_pretrained
        self._encoder = encoder
        self._vectors = dict(zip(texts, encoder.encode_query(texts), strict=True))

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of known texts; others (the probes of the identity check) are encoded."""
        if all(text in self._vectors for text in texts):
            return np.stack([self._vectors[text] for text in texts])
        return self._encoder.encode_query(texts)


def fusion(data: Path, results: Results) -> None:
    """Measure every setting."""
    encoder = load_encoder()
    for name, split in PARTS.items():
        one = named_set(name, wanted(data), split=split)
        recipe = IndexRecipe.for_corpus(one.corpus.reader, name=one.name, overrides=one.index)
        reader = IndexReader(build_cached(RUNS, recipe, one.corpus, encoder))
        assert reader.manifest.encoder is not None
        reads = as_index_reads(encoder, reader.manifest.encoder.identity)
        with Retriever(reader, EncodedQueries(reads, list(one.queries.values()))) as retriever:
            compare(one, retriever, results)


def compare(one: EvaluationSet, retriever: Retriever, results: Results) -> None:
    """Measure every setting on one set."""
    settings = retriever.manifest.recipe["search"]

    def score(mode: str, fusion: str | None = None, weight: float = 0.0, depth: int = 10) -> float:
        settings.update(dense_weight=weight, depth=depth)
        found = retriever.run(one.queries, k=10, mode=mode, fusion=fusion)
        return evaluate(one.qrels, found, [MEASURE]).mean[MEASURE]

    alone = {mode: score(mode) for mode in ("lexical", "dense")}
    best = max(alone, key=lambda mode: alone[mode])
    tried = [(how, weight, depth) for how in ("bounded", "min-max") for weight in WEIGHTS for depth in DEPTHS]
    tried += [("rrf", 0.5, depth) for depth in DEPTHS]
    for fusion_, weight, depth in tried:
        results.add(
            f"{one.name}: {fusion_}, dense_weight={weight}, depth={depth}",
            ours=score("hybrid", fusion_, weight, depth),
            theirs=alone[best],
            unit=MEASURE,
            peer=f"{best} alone",
            repeats=1,
            queries=len(one.queries),
            lexical=round(alone["lexical"], 4),
            dense=round(alone["dense"], 4),
        )


if __name__ == "__main__":
    run(fusion, __doc__)
