"""How hybrid search joins words and meaning: nDCG@10 of each setting on the training claims of SciFact.

Chooses the defaults of ``search`` in recipes. Reads the folder ``scifact`` of ``$CMBERT_SHARED``; builds its
index once, in ``runs/fusion``. Prints one JSON line a setting.

    python benchmarks/fusion.py [--claims 400]
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path

import ir_measures
import numpy as np
from ir_measures import nDCG
from numpy.typing import NDArray

from cmbert_retrieval.config import IndexRecipe
from cmbert_retrieval.corpora import open_corpus
from cmbert_retrieval.corpora.beir import read_qrels
from cmbert_retrieval.encoders import Encoder, load_encoder
from cmbert_retrieval.indexes.manifest import MANIFEST
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.writer import IndexWriter
from cmbert_retrieval.retriever import Retriever

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


def main() -> None:
    """Build what is missing, then print one line a setting."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--claims", type=int, default=400, help="how many claims")
    arguments = parser.parse_args()
    folder = Path(os.environ.get("CMBERT_SHARED", "")) / "scifact"
    if not (folder / "corpus.jsonl.gz").is_file():
        raise SystemExit("skipped: set CMBERT_SHARED to a folder that holds scifact/corpus.jsonl.gz")
    qrels = read_qrels(folder / "qrels.train.cited.tsv")
    with gzip.open(folder / "queries.train.jsonl.gz", "rt", encoding="utf-8") as lines:
        claims = {str(claim["_id"]): claim["text"] for claim in map(json.loads, lines)}
    queries = dict(itertools.islice(((id_, claims[id_]) for id_ in qrels), arguments.claims))
    qrels = {id_: qrels[id_] for id_ in queries}

    encoder = load_encoder()
    index = Path("runs/fusion")
    if not (index / MANIFEST).is_file():
        corpus = folder / "corpus.jsonl.gz"
        recipe = IndexRecipe.for_corpus("jsonl", corpus, overrides=["passages=none"])
        with IndexWriter(index) as writer:
            writer.build(open_corpus("jsonl", corpus), recipe, encoder)
    with Retriever(IndexReader(index), EncodedQueries(encoder, list(queries.values()))) as retriever:
        settings = retriever.manifest.recipe["search"]
        tried = [("lexical", "", 0.0, 0), ("dense", "", 0.0, 0)]
        tried += [("hybrid", "min-max", weight, depth) for weight in WEIGHTS for depth in DEPTHS]
        tried += [("hybrid", "rrf", 0.5, depth) for depth in DEPTHS]
        for mode, fusion, weight, depth in tried:
            settings.update(dense_weight=weight, depth=depth or 10)
            run = retriever.run(queries, k=10, mode=mode, fusion=fusion or None)
            score = ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10]
            row = {"mode": mode, "fusion": fusion, "dense_weight": weight, "depth": depth}
            print(json.dumps({**row, "claims": len(queries), "nDCG@10": round(score, 4)}), flush=True)


if __name__ == "__main__":
    main()
