"""What fine-tuning runs reached, side by side: the last line of each one's ``held_out.csv``.

    python pretraining/compare.py runs/finetuning/*

A Markdown table goes to stdout: a row a run, its shape, what it has seen and what was measured at its end.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from cmbert_retrieval.pretraining.callbacks import HELD_OUT_TABLE
from cmbert_retrieval.pretraining.card import last_row
from cmbert_retrieval.wording import markdown_table


def last_measurement(run: Path) -> dict[str, str]:
    """Return the last measurement of a run; nothing where there is none."""
    tables = sorted(run.glob(f"stage-*/{HELD_OUT_TABLE}"), reverse=True)
    return next((dict(row) for table in tables if (row := last_row(table))), {})


def described(run: Path) -> dict[str, str]:
    """Return what a run is, as cells of the table."""
    recipe: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))["recipe"]
    model, stages = recipe["model"], recipe["stages"]
    shape = f"{model['hidden_size']}x{model['layers']}"
    return {
        "run": run.name,
        "model": "/".join(Path(model["checkpoint"]).parts[-3:]) if model["checkpoint"] else shape,
        "texts": f"{sum(stage['texts'] for stage in stages):,}",
        "pairs": f"{sum(stage['pairs'] for stage in stages):,}",
    }


def main() -> None:
    """Read and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders that cmbert finetune wrote")
    arguments = parser.parse_args()
    found = [
        (described(run), last_measurement(run)) for run in arguments.runs if (run / "run.json").is_file()
    ]
    if not found:
        sys.exit("none of these folders holds a run; expected those that cmbert finetune --out names")
    measured = list(dict.fromkeys(name for _, row in found for name in row if not name.startswith("pairs_")))
    headings = [*found[0][0], *measured]
    rows = [[*facts.values(), *(_rounded(row.get(name, "")) for name in measured)] for facts, row in found]
    sys.stdout.write("\n".join(markdown_table(headings, rows)) + "\n")


def _rounded(value: str) -> str:
    return f"{float(value):.4f}" if "." in value else value


if __name__ == "__main__":
    main()
