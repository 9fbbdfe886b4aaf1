"""How real text is masked: rates, the share of terms, whole words, and what stands in the place of a token.

    python pretraining/masking_statistics.py --data runs/mini/data

``--data`` is a folder that ``cmbert pretrain prepare`` made; nothing is written into it. Its training rows
are masked as the trainer masks them, and counted. A Markdown table goes to stdout.
``--json`` prints the counts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cmbert_retrieval.errors import CmbertError
from cmbert_retrieval.pretraining.masking import IGNORED, mask_rows
from cmbert_retrieval.pretraining.packing import PIECE, Plan, plan_rows
from cmbert_retrieval.pretraining.prepared import Prepared
from cmbert_retrieval.pretraining.recipe import MaskingRecipe
from cmbert_retrieval.pretraining.rows import PackedRows, collate
from cmbert_retrieval.pretraining.weights import CONTINUES, LEVEL_MASK, TERM, Weighting

METHODS = ("token-aware", "whole-words", "uniform")
RATES = (0.30, 0.15)


@dataclass(slots=True)
class Counts:
    """What was counted, all of it tokens but for the words.

    Attributes:
        possible: that may be predicted.
        predicted: of them.
        terms: of the possible ones, those in terms.
        predicted_terms: of the predicted ones, those in terms.
        words: units of two tokens and more: words in pieces, and terms.
        split: of them, those of which some tokens are predicted and some are not.
        cut: words and terms that go on in another row; each part is drawn by itself.
        forbidden: special ones, padding and placeholders.
        predicted_forbidden: of them; there must be none.
        hidden: predicted, and the mask stands there.
        kept: predicted, and the token itself stands there.
        replaced: predicted, and another token stands there.
    """

    possible: int = 0
    predicted: int = 0
    terms: int = 0
    predicted_terms: int = 0
    words: int = 0
    split: int = 0
    cut: int = 0
    forbidden: int = 0
    predicted_forbidden: int = 0
    hidden: int = 0
    kept: int = 0
    replaced: int = 0

    def add(
        self, batch: dict[str, Any], *, weighting: Weighting, rate: float, mask_id: int, vocabulary: int
    ) -> None:
        """Mask a batch and count it."""
        ids, marks = batch["input_ids"], batch["marks"]
        made = mask_rows(
            ids,
            weighting.weights(marks),
            batch["rows"],
            batch["epochs"],
            rate=rate,
            seed=0,
            mask_id=mask_id,
            vocabulary=vocabulary,
        )
        predicted = made.labels != IGNORED
        possible, term = (marks & LEVEL_MASK) > 0, (marks & TERM) > 0
        self.possible += int(possible.sum())
        self.predicted += int(predicted.sum())
        self.terms += int((possible & term).sum())
        self.predicted_terms += int((predicted & term).sum())
        self.forbidden += int((~possible).sum())
        self.predicted_forbidden += int((predicted & ~possible).sum())
        # Units are numbered over the whole batch. Of a word that the end of a row cut, the rest is a unit
        # of its own behind [CLS]: it cannot be drawn together with what stands in another row.
        goes_on = (marks & CONTINUES) > 0
        behind_border = goes_on.clone()
        behind_border[:, 1:] &= ~possible[:, :-1]
        self.cut += int(behind_border.sum())
        goes_on &= ~behind_border
        unit = (~goes_on).reshape(-1).long().cumsum(0) - 1
        sizes = torch.bincount(unit)
        chosen = torch.bincount(unit, weights=predicted.reshape(-1).double()).long()
        self.words += int((sizes > 1).sum())
        self.split += int(((chosen > 0) & (chosen < sizes)).sum())
        hidden = predicted & (made.input_ids == mask_id)
        kept = predicted & ~hidden & (made.input_ids == ids)
        self.hidden += int(hidden.sum())
        self.kept += int(kept.sum())
        self.replaced += int((predicted & ~hidden & ~kept).sum())


def rows_of(prepared: Prepared, context: int, count: int) -> Iterator[dict[str, Any]]:
    """Yield packed rows in batches of 64."""
    pieces, firsts = [np.zeros(0, dtype=PIECE)], [0]
    for row in plan_rows(prepared.train.lengths, context, 0, continues=prepared.train.continues):
        pieces.append(row)
        firsts.append(firsts[-1] + len(row))
        if len(firsts) > count:
            break
    plan = Plan(np.concatenate(pieces), np.array(firsts), context)
    rows = PackedRows(prepared.train, plan, prepared.special, rows=len(plan), seed=0)
    for start in range(0, len(rows), 64):
        yield collate([rows[place] for place in range(start, min(start + 64, len(rows)))])


def statistics(folder: Path, *, context: int, rows: int) -> dict[tuple[str, float], Counts]:
    """Return the counts of every method and rate.

    Raises:
        CorpusError: the folder holds no prepared text.
    """
    prepared = Prepared.open(folder)
    ids = {"mask_id": prepared.special.mask, "vocabulary": len(prepared.tokenizer)}
    found = {(method, rate): Counts() for rate in RATES for method in METHODS}
    usual = MaskingRecipe()
    weightings = {method: Weighting.of(method, usual.boost, usual.salience) for method in METHODS}
    for batch in rows_of(prepared, context, rows):
        for (method, rate), counts in found.items():
            counts.add(batch, weighting=weightings[method], rate=rate, **ids)
    return found


def table(found: dict[tuple[str, float], Counts]) -> Iterator[list[str]]:
    """Yield the rows of the table."""
    yield [
        "masking",
        "rate wanted",
        "measured",
        "predicted tokens in terms",
        "all tokens in terms",
        "words and terms of several tokens",
        "of them split",
        "cut by a row's end",
        "special and padding predicted",
        "mask / other / itself",
    ]
    yield ["---"] * 10
    for (method, rate), counts in found.items():
        fates = (counts.hidden, counts.replaced, counts.kept)
        yield [
            method,
            f"{rate:.2f}",
            f"{counts.predicted / counts.possible:.4f}",
            f"{counts.predicted_terms / max(1, counts.predicted):.2%}",
            f"{counts.terms / counts.possible:.2%}",
            f"{counts.words:,}",
            f"{counts.split:,}",
            f"{counts.cut:,}",
            f"{counts.predicted_forbidden:,} of {counts.forbidden:,}",
            " / ".join(f"{fate / max(1, counts.predicted):.2%}" for fate in fates),
        ]


def main() -> None:
    """Mask, count, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a folder of prepared text")
    parser.add_argument("--context", type=int, default=512, help="tokens of a row [%(default)s]")
    parser.add_argument("--rows", type=int, default=4000, help="rows that are masked, at most [%(default)s]")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    arguments = parser.parse_args()
    try:
        found = statistics(arguments.data, context=arguments.context, rows=arguments.rows)
    except CmbertError as error:
        sys.exit(str(error))
    if arguments.json:
        lines = [{"method": m, "rate": rate, **asdict(counts)} for (m, rate), counts in found.items()]
        sys.stdout.write(json.dumps(lines, indent=1) + "\n")
        return
    for row in table(found):
        sys.stdout.write(f"| {' | '.join(row)} |\n")


if __name__ == "__main__":
    main()
