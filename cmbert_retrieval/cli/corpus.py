"""``cmbert corpus``: fetch a corpus from its publisher, tell what is in one, write it in another format."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmbert_retrieval.cli._building import ReaderSettings, reader_options, split_source
from cmbert_retrieval.cli._output import ProgressBar, print_json, print_table, tell
from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.wording import plural

if TYPE_CHECKING:
    from cmbert_retrieval.corpora.fetch import FetchReport

app = typer.Typer(
    no_args_is_help=True,
    help="Fetch a corpus, tell what is in one, convert it; list the readers.",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CorpusAt = Annotated[
    str,
    typer.Argument(
        metavar="READER:PATH",
        help="What to read: pmc:DIR, jsonl:FILE, ... (all: cmbert corpus readers)",
        show_default=False,
    ),
]


class Publisher(StrEnum):
    """Whose corpora can be fetched."""

    pmc = "pmc"
    pubmed = "pubmed"


class _FetchProgress:
    """Shows how far a fetch is: reading the list of what there is, then the files."""

    def __init__(self, unit: str) -> None:
        self._listing = ProgressBar("listing", unit=unit)
        self._fetching = ProgressBar("fetching", unit=unit)
        self._drawn: ProgressBar | None = None

    def __enter__(self) -> _FetchProgress:
        return self

    def __exit__(self, *details: object) -> None:
        if self._drawn is not None:
            self._drawn.__exit__(*details)  # type: ignore[arg-type]

    def __call__(self, phase: str, count: int) -> None:
        """Take what a fetch tells."""
        bar = self._listing if phase == "listed" else self._fetching
        if self._drawn is not bar:
            if self._drawn is not None:
                self._drawn.__exit__(None, None, None)
            self._drawn = bar.__enter__()
        if phase == "total":
            bar.expect(count)
        elif phase != "failed":  # not done: the report says how many, and why
            bar(count)


@app.command()
def fetch(
    publisher: Annotated[Publisher, typer.Argument(help="Whose corpus to fetch.", show_default=False)],
    *,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where to put it.", show_default=False)],
    ids: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What a file names, one a line: of pmc, PMC123 (newest version) or PMC123.1; "
            "of pubmed, PMIDs (NCBI_API_KEY: a key of yours, which makes it faster).",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="DATE",
            help="What came or changed on a day (2026-01-31) or later; of pubmed, its update files.",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All there is: hundreds of gigabytes of pmc, tens of pubmed.")
    ] = False,
    licenses: Annotated[
        str | None,
        typer.Option(
            "--license",
            metavar="NAMES",
            help="Of pmc, only articles under these: CC0,CC-BY. (default: under any)",
        ),
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="A mirror, over https, instead of the publisher.")
    ] = None,
    connections: Annotated[int, typer.Option(help="How many files at a time.")] = 4,
    timeout: Annotated[
        float, typer.Option(help="Seconds to wait for an answer, and for each of its parts.")
    ] = 60.0,
    as_json: Json = False,
) -> None:
    """Fetch articles of PMC or records of PubMed from their publisher: those of --ids, --since or --all.

    Stopped or killed, it goes on where it was when it is run again.
    What is there already and has not changed is not fetched again; of pubmed --ids, what is there.
    """
    if sum((ids is not None, since is not None, everything)) != 1:
        raise typer.BadParameter("say what to fetch: exactly one of --ids FILE, --since DATE and --all")
    unit = "article" if publisher is Publisher.pmc else "record" if ids is not None else "file"
    with _FetchProgress(f"{unit}s") as progress:
        if publisher is Publisher.pmc:
            from cmbert_retrieval.corpora.fetch_pmc import PMC_URL, fetch_pmc

            report = fetch_pmc(
                to,
                ids=ids,
                since=since,
                everything=everything,
                licenses=licenses,
                base_url=base_url or PMC_URL,
                connections=connections,
                timeout_s=timeout,
                notify=progress,
            )
        elif licenses is not None:
            raise ConfigError("pubmed's records name no licence, so --license cannot choose among them")
        elif ids is not None:
            from cmbert_retrieval.corpora.fetch_efetch import EUTILS_URL, fetch_pubmed_ids

            report = fetch_pubmed_ids(
                to,
                ids,
                base_url=base_url or EUTILS_URL,
                connections=connections,
                timeout_s=timeout,
                notify=progress,
            )
        else:
            from cmbert_retrieval.corpora.fetch_pubmed import PUBMED_URL, fetch_pubmed

            report = fetch_pubmed(
                to,
                since=since,
                everything=everything,
                base_url=base_url or PUBMED_URL,
                connections=connections,
                timeout_s=timeout,
                notify=progress,
            )
    _print_fetch(report, unit, as_json=as_json)
    if report.failed:
        raise typer.Exit(1)


def _print_fetch(report: FetchReport, unit: str, *, as_json: bool) -> None:
    if as_json:
        print_json(report.to_json())
    for failure in report.failures:
        typer.echo(failure, err=True)
    if report.failed:
        typer.echo(f"all {report.failed:,} that failed: {report.failed_file}", err=True)
    if as_json:
        return
    parts = [f"{plural(report.fetched, unit)} fetched ({report.bytes / 1e6:,.1f} MB)"]
    parts += [f"{report.already_there:,} already there"]
    parts += [f"{count:,} left out {reason}" for reason, count in sorted(report.left_out.items())]
    parts += [f"{report.failed:,} failed"] if report.failed else []
    typer.echo(f"{report.folder}: {', '.join(parts)} (by {report.listing})")
    if report.fetched or report.already_there:
        typer.echo(f"next: {report.next_command}", err=True)


@app.command()
def readers(
    reader: Annotated[str | None, typer.Argument(help="Explain the options of this one.")] = None,
    as_json: Json = False,
) -> None:
    """List what can be read (READER:PATH), and the options of each reader with their defaults."""
    from cmbert_retrieval.corpora.describe import describe_reader, describe_readers

    if reader is None:
        found = describe_readers()
        if as_json:
            print_json(found)
            return
        shown = [", ".join(f"{it.name}={_typed(it.default)}" for it in one.options) for one in found]
        rows = [(one.name, one.reads, options) for one, options in zip(found, shown, strict=True)]
        print_table(["reader", "reads", "options"], rows)
        typer.echo("what they mean: cmbert corpus readers READER", err=True)
        return
    one = describe_reader(reader)
    if as_json:
        print_json(one)
        return
    typer.echo(f"{one.name}: {one.reads} PATH: {one.path}", err=True)
    print_table(
        ["option", "default", "meaning"],
        [(option.name, _typed(option.default), option.meaning) for option in one.options],
    )
    if one.options:
        typer.echo("to set one: --set source.options.NAME=VALUE", err=True)


def _typed(default: object) -> str:
    """Return the default of an option as it would be typed behind ``--set NAME=``."""
    if isinstance(default, list | tuple):
        return ",".join(map(str, default))
    return str(default) if isinstance(default, str) and default else json.dumps(default)


@app.command()
def stats(source: CorpusAt, *, settings: ReaderSettings = None, as_json: Json = False) -> None:
    """Tell what is in a corpus: documents, words, sections, licences, years, and what cannot be read."""
    from cmbert_retrieval.corpora import open_corpus
    from cmbert_retrieval.corpora.stats import describe

    corpus = open_corpus(*split_source(source), **reader_options(settings))
    with ProgressBar("reading", total=corpus.total(), unit="documents") as progress:
        found = describe(corpus, progress=progress)
    if as_json:
        print_json(found.to_json())
        return
    print_table(["", ""], found.rows())
    for problem in found.problems:
        typer.echo(problem, err=True)


@app.command()
def convert(
    source: CorpusAt,
    to: Annotated[
        Path,
        typer.Option(
            "--to",
            metavar="FILE|DIR",
            help="A .jsonl or .jsonl.gz file, or a folder, which becomes one of BEIR.",
            show_default=False,
        ),
    ],
    settings: ReaderSettings = None,
    strict: Annotated[bool, typer.Option(help="Stop at the first record that cannot be used.")] = False,
    as_json: Json = False,
) -> None:
    """Write a corpus as JSON lines, or as a BEIR folder. The file appears whole or not at all."""
    from cmbert_retrieval.corpora import open_corpus
    from cmbert_retrieval.corpora.convert import write_jsonl

    corpus = open_corpus(*split_source(source), **reader_options(settings))
    with ProgressBar("writing", total=corpus.total(), unit="documents") as progress:
        done = write_jsonl(corpus, to, strict=strict, progress=progress)
    if as_json:
        print_json(done)
        return
    for problem in done.problems:
        tell(f"{problem}; skipped")
    if done.unusable > len(done.problems):
        tell(f"... and {done.unusable - len(done.problems):,} more that cannot be used")
    if done.deletions:
        what = plural(done.deletions, "deletion")
        tell(f"{what} not carried out: what came before stays in the file (an index drops it)")
    typer.echo(f"{done.path}: {plural(done.documents, 'document')} written")
