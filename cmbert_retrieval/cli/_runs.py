"""What the commands that train have in common: a recipe, its settings, and how a run ends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cmbert_retrieval.cli._output import print_json

Recipe = Annotated[Path, typer.Argument(help="A recipe file, as in pretraining/recipes.", show_default=False)]
Restart = Annotated[
    bool, typer.Option("--restart", help="Throw away what was prepared there of another recipe.")
]


def settings_option(example: str) -> Any:
    """Return the option ``--set`` of a recipe, with an example of its own."""
    return typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help=f"A setting: data.sources.pmc.path=PATH, {example}, ... May be repeated.",
    )


def tell_end(folder: Path, model: Path | None, measured: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what came out of a run.

    Args:
        folder: of the run.
        model: the finished model, or None when a signal stopped the run behind a checkpoint.
        measured: what is said of the model in JSON.
        as_json: whether JSON is wanted.

    Raises:
        typer.Exit: it was stopped; with the status that asks for another start.
    """
    from cmbert_retrieval.pretraining.callbacks import STOPPED_EXIT_CODE

    if model is None:
        typer.echo(f"stopped by a signal behind a checkpoint; the same command goes on in {folder}", err=True)
        raise typer.Exit(STOPPED_EXIT_CODE)
    if as_json:
        print_json({"model": str(model), **measured})
    else:
        typer.echo(str(model))
