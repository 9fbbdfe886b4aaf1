"""Measure: ``python eval/run.py eval/suites/smoke.yaml``, or ``--run run.trec --qrels qrels.tsv``.

The same as ``cmbert eval``, with ``results/`` beside this file as the place for runs and values.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cmbert_retrieval.cli import main

RESULTS = Path(__file__).parent / "results"

if __name__ == "__main__":
    options = sys.argv[1:] or ["--help"]
    suite = [] if options[0].startswith("-") else [Path(options[0]).stem]
    out = ["--out", str(RESULTS / suite[0])] if suite and "--out" not in options else []
    sys.exit(main(["eval", "run", *options, *out]))
