"""A process that searches an index without a pause, while others write to it.

    python searching.py INDEX ENCODER|none QUERIES K HELD FOLDER

Opens the index again and again and keeps each opening for HELD rounds of searches. Ends when FOLDER/stop
appears, and prints JSON: ``answers`` (commit -> the answers that it gave), ``rounds``, ``errors``.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from cmbert_retrieval.encoders import load_encoder
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.retriever import Retriever


def ask(retriever: Retriever, queries: dict[str, str], k: int) -> dict[str, Any]:
    """Return the answers in each mode, and a document that must be there with them."""
    modes = ["lexical"] if retriever.manifest.encoder is None else ["lexical", "dense", "hybrid"]
    answers = {}
    for mode in modes:
        run = retriever.run(queries, k=k, mode=mode)
        answers[mode] = {number: list(scores.items()) for number, scores in run.items()}
    for hit in retriever.search(queries["0"], k=3, mode=modes[-1]):
        assert hit.document.text or hit.document.title
        assert retriever.get(hit.document.id) == hit.document
    return answers


def main(root: Path, encoder_name: str, queries_file: Path, k: int, held: int, folder: Path) -> None:
    """Search until told to stop."""
    encoder = None if encoder_name == "none" else load_encoder(encoder_name, threads=1)
    queries = json.loads(queries_file.read_text(encoding="utf-8"))
    seen: dict[int, dict[str, Any]] = {}
    rounds, errors = 0, []
    while not errors and not (folder / "stop").exists():
        try:
            with Retriever(IndexReader(root), encoder) as retriever:
                commit = retriever.manifest.commit
                for _ in range(held):
                    answers = ask(retriever, queries, k)
                    assert seen.setdefault(commit, answers) == answers, f"commit {commit} changed its answers"
                    rounds += 1
                    time.sleep(0.02)  # leaves the writer a share of a small machine
                    if rounds == 1:
                        (folder / f"ready-{held}-{id(seen)}").touch()
        except BaseException:
            errors.append(traceback.format_exc())
    json.dump({"answers": seen, "rounds": rounds, "errors": errors}, sys.stdout)


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        sys.argv[2],
        Path(sys.argv[3]),
        int(sys.argv[4]),
        int(sys.argv[5]),
        Path(sys.argv[6]),
    )
