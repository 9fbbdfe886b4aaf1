"""``cmbert eval``: measure systems on sets, compare with what is expected, measure a run from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmbert_retrieval.cli._building import BuildProgress
from cmbert_retrieval.cli._groups import falls_through_to
from cmbert_retrieval.cli._output import print_json, print_table
from cmbert_retrieval.errors import CmbertError, ConfigError

if TYPE_CHECKING:
    from cmbert_retrieval.evaluation.harness import Results
    from cmbert_retrieval.evaluation.suites import SuiteRecipe

app = typer.Typer(cls=falls_through_to("run"), no_args_is_help=True, add_completion=False)


class UnexpectedScoreError(CmbertError):
    """A score is not what it was expected to be."""


@app.callback()
def _group() -> None:
    """Measure how well searching finds what it should.

    'cmbert eval SUITE' is short for 'cmbert eval run SUITE'.
    SUITE is a .yaml file, or smoke, which needs no data.
    Its options: cmbert eval run --help
    """


@app.command()
def run(
    suite: Annotated[
        str | None, typer.Argument(help="A .yaml file, or a bundled suite: smoke.", show_default=False)
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="The folder of evaluation sets. (default: CMBERT_DATA, or the suite's)"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where runs, values and results.json go. (default: eval-results/SUITE)"),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Only this set, or this system, of the suite. May be repeated."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the suite: key=value. May be repeated.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Build the indexes anew, as after changes to this library's code.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Compare with the expected scores; end with 1 when one is missed.")
    ] = False,
    accept: Annotated[
        bool,
        typer.Option(
            "--accept",
            help="Write the scores down as those to expect from now on; with --only, the others stay.",
        ),
    ] = False,
    run_file: Annotated[
        Path | None, typer.Option("--run", help="Measure this TREC run instead of a suite.")
    ] = None,
    qrels: Annotated[Path | None, typer.Option(help="The judgements for --run: TREC's or BEIR's.")] = None,
    measures: Annotated[
        list[str] | None, typer.Option("--measure", help="For --run: nDCG@10, AP, ... May be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the systems of a suite on its sets, or a run file against judgements."""
    if run_file is not None or qrels is not None:
        if suite is not None or run_file is None or qrels is None:
            raise ConfigError("give a suite, or --run FILE with --qrels FILE")
        _measure_run(run_file, qrels, measures, as_json=as_json)
        return
    if suite is None:
        raise ConfigError("say what to measure: a suite (smoke needs no data), or --run FILE --qrels FILE")
    if measures:
        raise ConfigError(
            "--measure goes with --run; a suite has its measures: --set 'measures=[nDCG@10, AP]'"
        )
    _measure_suite(
        suite, data=data, out=out, only=only or [], settings=settings or [], fresh=fresh, check=check,
        accept=accept, as_json=as_json,
    )  # fmt: skip


@app.command()
def report(
    expected: Annotated[
        list[Path],
        typer.Argument(
            help="Files of expected scores (eval/expected/*.yaml), or folders of them.", show_default=False
        ),
    ],
    page: Annotated[
        Path | None,
        typer.Option(
            help="Put the table into this Markdown file, between its comments 'results: begin' and '... end'."
        ),
    ] = None,
) -> None:
    """Print expected scores as a Markdown table, misses included."""
    from cmbert_retrieval.evaluation.expected import load_expected
    from cmbert_retrieval.evaluation.report import table, update_page

    files = [file for path in expected for file in (sorted(path.glob("*.yaml")) if path.is_dir() else [path])]
    suites = [load_expected(file) for file in files]
    if page is None:
        typer.echo(table(suites))
    else:
        changed = update_page(page, suites)
        typer.echo(f"{page}: {'written' if changed else 'as it was'}", err=True)


def _measure_run(run_file: Path, qrels: Path, measures: list[str] | None, *, as_json: bool) -> None:
    from cmbert_retrieval.corpora.beir import read_qrels
    from cmbert_retrieval.evaluation.measures import DEFAULT_MEASURES, evaluate
    from cmbert_retrieval.evaluation.runs import read_run

    judged, ranked = read_qrels(qrels), read_run(run_file)
    if not judged.keys() & ranked.keys():
        raise ConfigError(
            f"no query of {run_file} ('{next(iter(ranked))}' is the first) is judged in {qrels} "
            f"('{next(iter(judged), '')}' is the first); they belong to different sets"
        )
    found = evaluate(judged, ranked, measures or DEFAULT_MEASURES)
    for remark in found.remarks():
        typer.echo(f"{run_file}: {remark}", err=True)
    if as_json:
        print_json({"mean": found.mean, "per_query": found.per_query, "remarks": found.remarks()})
    else:
        rows = [(name, f"{value:.4f}") for name, value in found.mean.items()]
        print_table(["measure", f"mean of {len(found.per_query):,} queries"], rows)


def _measure_suite(
    name: str,
    *,
    data: Path | None,
    out: Path | None,
    only: list[str],
    settings: list[str],
    fresh: bool,
    check: bool,
    accept: bool,
    as_json: bool,
) -> None:
    from cmbert_retrieval.evaluation import expected as expectations
    from cmbert_retrieval.evaluation.harness import run_suite
    from cmbert_retrieval.evaluation.suites import data_folder, load_suite, narrowed

    whole = load_suite(name, overrides=settings)
    suite = narrowed(whole, only)
    if accept and settings:
        raise ConfigError("--accept writes the scores of a suite as it is: leave --set out")
    file = expectations.expected_file(name)
    wanted = expectations.load_expected(file) if check else None
    target = out if out is not None else Path("eval-results") / suite.name
    encodes = any(system.mode in ("dense", "hybrid") for system in suite.systems.values())
    results = run_suite(
        suite,
        data=data_folder(name, suite, data),
        out=target,
        fresh=fresh,
        progress=lambda: BuildProgress(encodes=encodes),
        say=lambda line: typer.echo(line, err=True),
    )
    if as_json:
        print_json({**results.to_json(), "out": str(target)})
    else:
        _print_results(results, suite)
        typer.echo(f"runs and values: {target}", err=True)
    if accept:
        expectations.accept(file, whole, results, command=f"cmbert eval {name} --check")
        typer.echo(f"written down in {file}", err=True)
    if wanted is not None:
        verdicts = expectations.compare(results, expectations.narrowed(wanted, suite))
        for verdict in verdicts:
            typer.echo(verdict.line(wanted.measure), err=as_json)
        missed = sum(verdict.word == "FAIL" for verdict in verdicts)
        if missed:
            raise UnexpectedScoreError(f"{missed} of {len(verdicts)} scores are not as {file} expects them")


def _print_results(results: Results, suite: SuiteRecipe) -> None:
    columns = ["set", "system", *suite.measures, "queries", "trained on this set"]
    rows = [
        (
            score.set,
            score.system,
            *(f"{score.values[name]:.4f}" for name in suite.measures),
            f"{score.queries:,}",
            score.trained_on_set,
        )
        for score in results.scores
    ]
    print_table(columns, rows)
    for score in results.scores:
        for remark in score.remarks:
            typer.echo(f"{score.set}: {score.system}: {remark}", err=True)
