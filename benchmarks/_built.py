"""Indexes that benchmarks search: built once below ``runs/``, which git ignores, and found again."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from cmbert_retrieval.config import IndexRecipe
from cmbert_retrieval.corpora import open_corpus
from cmbert_retrieval.encoders import Encoder
from cmbert_retrieval.indexes.manifest import MANIFEST
from cmbert_retrieval.indexes.writer import IndexWriter

RUNS = Path(__file__).resolve().parents[1] / "runs" / "benchmarks"


def built_index(recipe: IndexRecipe, encoder: Encoder) -> Path:
    """Return the folder of an index, after building it if it is not there; a build that was killed goes on.

    Its name holds a hash of all that decides what is in it, so that another recipe, source or encoder makes
    another index.
    """
    source = Path(recipe.source.path)
    decides = {
        "recipe": recipe.to_json(),
        "encoder": encoder.identity.to_json(),
        "source": [source.stat().st_size, source.stat().st_mtime_ns],
    }
    key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    folder = RUNS / f"{recipe.name}-{key[:12]}"
    if not (folder / MANIFEST).is_file():
        print(f"building {folder.name}, once", file=sys.stderr)
        corpus = open_corpus(recipe.source.reader, source, **recipe.source.options)
        with IndexWriter(folder) as writer:
            writer.build(corpus, recipe, encoder)
    return folder
