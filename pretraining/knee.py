"""Quality against speed and size of fine-tuned shapes: a table, and a plot to choose from.

    pip install matplotlib
    python pretraining/knee.py RUN ... --data runs/mini/pairs --out pretraining/results

Each run's model is exported as it would be shipped (compact, int8) and encodes the same texts as MiniLM in
int8, in turns, on one thread: titles of ICD-10-CM, and passages of 256 tokens. Its scores are the last ones
that it was measured with. It writes ``OUT/shapes.csv`` and ``OUT/shapes.png``, and a table to stdout.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from compare import described, last_measurement

from cmbert_retrieval.corpora import open_corpus
from cmbert_retrieval.encoders import load_encoder
from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.encoders.export import export_encoder
from cmbert_retrieval.finetuning.prepare import TEXTS
from cmbert_retrieval.finetuning.tables import Table
from cmbert_retrieval.pretraining.training import FINISHED
from cmbert_retrieval.wording import markdown_table

TOKENS = 256
ROUNDS = 9
SCORES = ("scifact", "nfcorpus", "icd10cm-inclusion", "hpo-lay")


def titles(count: int) -> list[str]:
    """Return titles of codes, 12 tokens on average."""
    found = sorted({document.title for document in open_corpus("icd10cm", "")})
    return random.Random(7).sample(found, count)


def passages(data: Path, encoder: Encoder, count: int) -> list[str]:
    """Return passages that fill ``TOKENS`` tokens: articles' texts, one behind the other."""
    words = " ".join(Table(data / TEXTS / "articles.arrow").take("text", range(count * 6))).split()
    made: list[str] = []
    at = 0
    while len(made) < count:
        size = TOKENS
        while encoder.count_tokens([" ".join(words[at : at + size])])[0] > TOKENS - 2:
            size -= 4
        made.append(" ".join(words[at : at + size]))
        at += size
    return made


def texts_a_second(encoders: Sequence[Encoder], texts: list[str]) -> list[float]:
    """Return texts a second of each, the median of some rounds in turns."""
    taken: list[list[float]] = [[] for _ in encoders]
    for _ in range(ROUNDS):
        for seconds, encoder in zip(taken, encoders, strict=True):
            began = time.perf_counter()
            encoder.encode_document(texts)
            seconds.append(time.perf_counter() - began)
    return [len(texts) / median(seconds) for seconds in taken]


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw quality against speed; a circle's area is the size of the folder."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, sides = pyplot.subplots(1, 2, figsize=(11, 5), sharey=True)
    for axes, column, label in zip(
        sides, ("short", "long"), ("titles of 12 tokens", f"passages of {TOKENS} tokens"), strict=True
    ):
        for number, row in enumerate(rows):
            axes.scatter(row[column], row["mean"], s=12 * row["MB"], alpha=0.45, edgecolors="black")
            text = f"{row['model']}, {row['MB']:.0f} MB"
            offset = (0, 14 if number % 2 else -24)  # neighbours in the table are neighbours in the plot
            axes.annotate(
                text, (row[column], row["mean"]), xytext=offset, textcoords="offset points", ha="center"
            )
        axes.axvline(3, color="grey", linestyle=":", linewidth=1)
        axes.set_xlabel(f"times as fast as MiniLM: {label}")
        axes.margins(0.18)
    sides[0].set_ylabel("nDCG@10, mean of\n" + ", ".join(SCORES))
    figure.suptitle("Shapes after equal short runs, int8, one thread")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Export, time, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="finished runs of cmbert finetune")
    parser.add_argument("--data", type=Path, required=True, help="the prepared pairs that they learnt from")
    parser.add_argument("--out", type=Path, required=True, help="folder for shapes.csv and shapes.png")
    arguments = parser.parse_args()
    minilm = load_encoder("minilm", threads=1, max_tokens=TOKENS)
    texts = {"short": titles(512), "long": passages(arguments.data, minilm, 24)}
    rows: list[dict[str, Any]] = []
    for run in arguments.runs:
        scores = last_measurement(run)
        models = sorted(run.glob(f"stage-*/{FINISHED}"))
        if not models or any(name not in scores for name in SCORES):
            sys.exit(f"{run}: no finished run that was measured on {', '.join(SCORES)}")
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "model"
            export_encoder(models[-1], out, compact=True, texts=[*texts["short"], *texts["long"]])
            size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
            encoder = load_encoder(out, threads=1, max_tokens=TOKENS)
            speeds = {name: texts_a_second([encoder, minilm], some) for name, some in texts.items()}
        row: dict[str, Any] = {"model": described(run)["model"], "MB": round(size, 1)}
        row |= {name: round(own / other, 2) for name, (own, other) in speeds.items()}
        row |= {name: round(float(scores[name]), 4) for name in SCORES}
        row["mean"] = round(sum(row[name] for name in SCORES) / len(SCORES), 4)
        rows.append(row)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / "shapes.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    plot(rows, arguments.out / "shapes.png")
    table = markdown_table(list(rows[0]), [[str(value) for value in row.values()] for row in rows])
    sys.stdout.write("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
