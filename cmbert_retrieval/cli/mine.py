"""``cmbert mine``: negatives for pairs in a file."""

from __future__ import annotations

import json
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cmbert_retrieval.cli._output import ProgressBar


class Mode(StrEnum):
    """What searches."""

    lexical = "lexical"
    dense = "dense"


def mine(
    pairs: Annotated[
        Path,
        typer.Argument(help="Lines of JSON with the texts 'anchor' and 'positive'.", show_default=False),
    ],
    *,
    out: Annotated[Path, typer.Option(help="The file to write: with 'negative' added.", show_default=False)],
    encoder: Annotated[
        str | None,
        typer.Option(help="Searches, and decides what is too near. (default: the default encoder)"),
    ] = None,
    count: Annotated[int, typer.Option(help="Negatives of every pair, at most.", min=1, max=32)] = 3,
    mode: Annotated[
        list[Mode] | None,
        typer.Option(help="What searches; may be repeated. (default: both, in turns)"),
    ] = None,
    top: Annotated[int, typer.Option(help="Answers that are looked at.", min=1, max=1000)] = 50,
    skip: Annotated[int, typer.Option(help="First answers that are passed over.", min=0)] = 0,
    margin: Annotated[
        float,
        typer.Option(
            help="A negative's similarity is at most this share of the positive's.", min=0.01, max=1
        ),
    ] = 0.95,
    complete: Annotated[
        bool,
        typer.Option(
            "--complete", help="The pairs hold every right answer, as names of codes do: no margin is kept."
        ),
    ] = False,
) -> None:
    """Find texts that are near an anchor and do not answer it, among the positives of all pairs."""
    from cmbert_retrieval.encoders import load_encoder
    from cmbert_retrieval.finetuning.data_recipe import PairSource
    from cmbert_retrieval.finetuning.judged import PairFile
    from cmbert_retrieval.finetuning.mining import MinedPair
    from cmbert_retrieval.finetuning.mining import mine as mined
    from cmbert_retrieval.finetuning.recipe import NegativesRecipe
    from cmbert_retrieval.storage import atomic_file

    found = list(PairFile("pairs", PairSource(reader="pairs", path=str(pairs))).pairs(Counter()))
    modes: Any = [each.value for each in mode or Mode]
    kept = None if complete else margin
    recipe = NegativesRecipe(count=count, modes=modes, top=top, skip=skip, margin=kept)
    given = [MinedPair(pair.anchor, pair.positive, pair.document) for pair in found]
    with ProgressBar("negatives", total=len(given), unit="pairs") as bar:
        negatives, report = mined(given, recipe, load_encoder(encoder), notify=bar)
    with atomic_file(out) as file:
        for pair, places in zip(found, negatives.tolist(), strict=True):
            texts = [found[place].positive for place in places if place >= 0]
            row = {
                "anchor": pair.anchor,
                "positive": pair.positive,
                "negative": list(dict.fromkeys([*pair.negatives, *texts])),
                "document": pair.document,
            }
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    typer.echo(report.line(), err=True)
    typer.echo(str(out))
