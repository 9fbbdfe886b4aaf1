"""``cmbert finetune``: pairs, a teacher's vectors, negatives, contrastive training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmbert_retrieval.cli._groups import falls_through_to
from cmbert_retrieval.cli._output import ProgressBar, print_json
from cmbert_retrieval.cli._runs import Recipe, Restart, settings_option, tell_end

app = typer.Typer(cls=falls_through_to("run"), no_args_is_help=True, add_completion=False)

Settings = Annotated[list[str] | None, settings_option("stages.0.learning_rate=5e-4")]


@app.callback()
def _group() -> None:
    """Fine-tune an encoder for search, by a teacher's vectors and by pairs.

    'cmbert finetune RECIPE' is short for 'cmbert finetune run RECIPE'. Options: cmbert finetune run --help
    """


@app.command()
def run(
    recipe: Recipe,
    *,
    out: Annotated[
        Path | None, typer.Option(help="The folder of the run. (default: runs/finetuning/NAME)")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Prepared pairs; made if absent. (default: data/ in the folder of the run)"),
    ] = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Do all that a recipe says. Stopped or killed, it goes on from its last checkpoint: run it again."""
    from cmbert_retrieval.finetuning.recipe import load_finetune_recipe
    from cmbert_retrieval.finetuning.stages import run as run_stages

    made = load_finetune_recipe(recipe, overrides=settings or ())
    folder = out if out is not None else Path("runs/finetuning") / made.name
    outcome = run_stages(made, data if data is not None else folder / "data", folder, bars=_bar)
    tell_end(folder, outcome.folder, {"measured": outcome.measured}, as_json=as_json)


@app.command()
def prepare(
    recipe: Recipe,
    *,
    out: Annotated[Path, typer.Option(help="The folder to make.", show_default=False)],
    settings: Settings = None,
    restart: Restart = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Make a recipe's pairs, ask its teacher, find negatives. Killed, the same command goes on."""
    from cmbert_retrieval.finetuning.recipe import load_finetune_recipe
    from cmbert_retrieval.finetuning.stages import prepare_all

    made = load_finetune_recipe(recipe, overrides=settings or ())
    report = prepare_all(made, out, _bar, restart=restart)
    if as_json:
        print_json(report.to_json())
    else:
        typer.echo(report.to_markdown())


def _bar(label: str, total: int | None, unit: str) -> ProgressBar:
    return ProgressBar(label, total=total, unit=unit)
