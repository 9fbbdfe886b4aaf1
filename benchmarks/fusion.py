"""How hybrid search joins words and meaning: nDCG@10 of each setting on the training claims of SciFact.

Chooses the defaults of ``search`` in recipes. The other side is the better of words alone and meaning alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import ir_measures
import numpy as np
from _built import built_index
from _measure import Results, read_jsonl, run, wanted
from ir_measures import nDCG
from numpy.typing import NDArray

from cmbert_retrieval.config import IndexRecipe
from cmbert_retrieval.corpora.beir import read_qrels
from cmbert_retrieval.encoders import Encoder, load_encoder
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.retriever import Retriever

CLAIMS = 400
WEIGHTS = (0.3, 0.4, 0.5, 0.6, 0.7)
DEPTHS = (50, 100, 200, 1000)


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
    folder = wanted(data / "scifact")
    qrels = read_qrels(folder / "qrels.train.cited.tsv")
    claims = {str(claim["_id"]): claim["text"] for claim in read_jsonl(folder / "queries.train.jsonl.gz")}
    queries = dict(itertools.islice(((id_, claims[id_]) for id_ in qrels), CLAIMS))
    qrels = {id_: qrels[id_] for id_ in queries}
    recipe = IndexRecipe.for_corpus(
        "jsonl", folder / "corpus.jsonl.gz", name="scifact", overrides=["passages=none"]
    )
    encoder = load_encoder()
    reader = IndexReader(built_index(recipe, encoder))
    with Retriever(reader, EncodedQueries(encoder, list(queries.values()))) as retriever:
        settings = retriever.manifest.recipe["search"]

        def score(mode: str, fusion: str | None = None, weight: float = 0.0, depth: int = 10) -> float:
            settings.update(dense_weight=weight, depth=depth)
            found = retriever.run(queries, k=10, mode=mode, fusion=fusion)
            return float(ir_measures.calc_aggregate([nDCG @ 10], qrels, found)[nDCG @ 10])

        alone = {mode: score(mode) for mode in ("lexical", "dense")}
        best = max(alone, key=lambda mode: alone[mode])
        tried = [("min-max", weight, depth) for weight in WEIGHTS for depth in DEPTHS]
        tried += [("rrf", 0.5, depth) for depth in DEPTHS]
        for fusion_, weight, depth in tried:
            results.add(
                f"{fusion_}, dense_weight={weight}, depth={depth}",
                ours=score("hybrid", fusion_, weight, depth),
                theirs=alone[best],
                unit="nDCG@10",
                peer=f"{best} alone",
                repeats=1,
                claims=len(queries),
                lexical=round(alone["lexical"], 4),
                dense=round(alone["dense"], 4),
            )


if __name__ == "__main__":
    run(fusion, __doc__)
