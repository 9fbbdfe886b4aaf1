"""``cmbert pretrain``: prepare text, plan a run, run it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from cmbert_retrieval.cli._groups import falls_through_to
from cmbert_retrieval.cli._output import ProgressBar, print_json
from cmbert_retrieval.cli._runs import Recipe, Restart, settings_option, tell_end

if TYPE_CHECKING:
    from cmbert_retrieval.pretraining.recipe import PretrainRecipe
    from cmbert_retrieval.pretraining.report import Report

app = typer.Typer(cls=falls_through_to("run"), no_args_is_help=True, add_completion=False)

Settings = Annotated[list[str] | None, settings_option("training.batch_tokens=65536")]
Processes = Annotated[
    int | None, typer.Option(help="Processes that prepare text. (default: one a core)", min=1)
]


@app.callback()
def _group() -> None:
    """Pretrain a ModernBERT with token-aware masking.

    'cmbert pretrain RECIPE' is short for 'cmbert pretrain run RECIPE'. Options: cmbert pretrain run --help
    """


@app.command()
def run(
    recipe: Recipe,
    *,
    out: Annotated[
        Path | None, typer.Option(help="The folder of the run. (default: runs/pretraining/NAME)")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Prepared text. (default: data/ in the folder of the run, made if absent)"),
    ] = None,
    settings: Settings = None,
    processes: Processes = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Do nothing: say what the run needs and costs, with the arithmetic."),
    ] = False,
    gpu: Annotated[str, typer.Option(help="For --plan: the kind of GPU.")] = "H100",
    gpus: Annotated[int, typer.Option(help="For --plan: how many of them.", min=1)] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train what a recipe says. Stopped or killed, it goes on from its last checkpoint: run it again."""
    from cmbert_retrieval.pretraining.recipe import load_pretrain_recipe

    made = load_pretrain_recipe(recipe, overrides=settings or ())
    if plan:
        _print_plan(made, gpu, gpus, as_json=as_json)
        return
    folder = out if out is not None else Path("runs/pretraining") / made.name
    prepared = data if data is not None else folder / "data"
    if data is None:
        _prepare(made, prepared, processes)
    from cmbert_retrieval.pretraining.training import pretrain

    outcome = pretrain(
        made, prepared, folder, bar=lambda label, tokens: ProgressBar(label, total=tokens, unit="tokens")
    )
    tell_end(folder, outcome.folder, {"held_out": outcome.held_out}, as_json=as_json)


@app.command()
def prepare(
    recipe: Recipe,
    *,
    out: Annotated[Path, typer.Option(help="The folder to make.", show_default=False)],
    settings: Settings = None,
    processes: Processes = None,
    restart: Restart = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Read, clean, deduplicate, split and tokenise a recipe's text. Killed, the same command goes on."""
    from cmbert_retrieval.pretraining.recipe import load_pretrain_recipe

    made = load_pretrain_recipe(recipe, overrides=settings or ())
    report = _prepare(made, out, processes, restart=restart)
    if as_json:
        print_json(report.to_json())
    else:
        typer.echo(report.to_markdown())


@app.command("exclude-names")
def exclude_names(
    data: Annotated[Path, typer.Argument(help="The folder of evaluation sets.", show_default=False)],
) -> None:
    """Print what the sets of code look-ups ask for, one a line: for data.exclude_names of a recipe."""
    from cmbert_retrieval.pretraining.frozen import held_out_names

    for name in held_out_names(data):
        typer.echo(name)


def _print_plan(recipe: PretrainRecipe, gpu: str, gpus: int, *, as_json: bool) -> None:
    from dataclasses import asdict

    from cmbert_retrieval.pretraining.planning import plan_run

    made = plan_run(recipe, gpu=gpu, gpus=gpus)
    if as_json:
        print_json(asdict(made))
    else:
        for line in made.lines():
            typer.echo(line)


def _prepare(recipe: PretrainRecipe, out: Path, processes: int | None, *, restart: bool = False) -> Report:
    from cmbert_retrieval.pretraining.prepare import prepare as prepared

    with _PrepareProgress() as progress:
        return prepared(recipe, out, processes=processes, progress=progress, restart=restart)


class _PrepareProgress:
    """Shows the stages of preparing, one bar after the other."""

    _STAGES: ClassVar[dict[str, tuple[str, str]]] = {
        "documents": ("reading", "documents"),
        "resumed": ("reading", "documents"),
        "judging": ("finding duplicates", "documents"),
        "words": ("counting words", "words"),
        "tokens": ("tokenising", "tokens"),
        "resumed_tokens": ("tokenising", "tokens"),
    }
    """What ``prepare`` tells -> label and unit. ``resumed`` is what an earlier run did of the same."""

    def __init__(self) -> None:
        self._bar: ProgressBar | None = None
        self._stage = ""
        self._total: int | None = None

    def __enter__(self) -> _PrepareProgress:
        return self

    def __call__(self, phase: str, count: int) -> None:
        """Take what ``prepare`` tells."""
        if phase == "total":
            self._total = count
        if phase not in self._STAGES:
            return
        label, unit = self._STAGES[phase]
        if label != self._stage or self._bar is None:
            self._end()
            self._stage = label
            self._bar = ProgressBar(label, total=self._total if unit == "documents" else None, unit=unit)
            self._bar.__enter__()
        if phase.startswith("resumed"):
            self._bar.resume(count)
        else:
            self._bar(count)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None
