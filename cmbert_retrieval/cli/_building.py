"""What commands that write indexes share: naming a source, progress, and the report."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmbert_retrieval.cli._output import ProgressBar, print_json, tell
from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.wording import plural

if TYPE_CHECKING:
    from cmbert_retrieval.indexes.report import Report


ReaderSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="source.options.NAME=VALUE",
        help="An option of the reader (all: cmbert corpus readers). May be repeated.",
    ),
]


class BuildProgress:
    """Shows how far a build is. The rows to come are estimated from the documents read so far."""

    def __init__(self, *, encodes: bool = True) -> None:
        """Show nothing yet; ``encodes`` is whether the index has vectors, which is what takes the time."""
        self._documents = 0
        self._read_documents = self._read_rows = 0
        self._bar = ProgressBar("encoding" if encodes else "reading", unit="rows")
        self._words = ProgressBar("words", unit="rows")
        self._drawn: ProgressBar | None = None  # nothing before there is something to tell

    def __enter__(self) -> BuildProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn is not None:
            self._drawn.__exit__(kind, error, trace)

    def _draw(self, bar: ProgressBar) -> ProgressBar:
        if self._drawn is not bar:
            if self._drawn is not None:
                self._drawn.expect(self._drawn.count)
                self._drawn.__exit__(None, None, None)
            bar.__enter__()
            self._drawn = bar
        return bar

    def __call__(self, phase: str, count: int) -> None:
        """Take what an ``IndexWriter`` tells."""
        if phase == "total":
            self._documents = count
        elif phase == "documents":
            self._read_documents += count
            if self._documents:
                left = max(self._documents / self._read_documents, 1.0)
                self._draw(self._bar).expect(round(self._read_rows * left))
        elif phase == "read":
            self._read_rows += count
        elif phase == "rows":
            self._draw(self._bar)(count)
        elif phase == "resumed":
            tell(f"going on from row {count:,} of an earlier run")
            self._draw(self._bar).resume(count)
        elif phase == "words_total":
            self._words.expect(self._words.count + count)  # several updates share a bar
        elif phase == "words":
            self._draw(self._words)(count)


def split_source(source: str) -> tuple[str, str]:
    """Return reader and path of ``READER:PATH``, or of a path whose reader can be told from the files.

    Raises:
        CorpusError: the reader cannot be told.
    """
    from cmbert_retrieval.corpora import READERS, guess_reader

    name, colon, path = source.partition(":")
    if colon and (name in READERS or not Path(source).exists()):
        return name, path
    if source in READERS and not Path(source).exists():
        return source, ""
    return guess_reader(source), source


def reader_options(settings: list[str] | None) -> dict[str, Any]:
    """Return the options of a reader that ``--set source.options.NAME=VALUE`` gives.

    Raises:
        ConfigError: a setting is about something else, or cannot be read.
    """
    from cmbert_retrieval.recipe_files import overridden

    for setting in settings or ():
        if setting.partition("=")[0].strip().split(".")[:2] != ["source", "options"]:
            raise ConfigError(
                f"--set {setting}: here only options of the reader can be set, as in --set "
                "source.options.id=COLUMN; 'cmbert corpus readers' lists them"
            )
    options = overridden({}, settings or ()).get("source", {}).get("options", {})
    if not isinstance(options, dict):
        raise ConfigError("--set source.options: expected a mapping, as in source.options={id: COLUMN}")
    return options


def print_report(report: Report, root: Path, *, as_json: bool, done: str = "added") -> None:
    """Print what a command did to an index, trouble on stderr; ``done`` is what became of the documents."""
    if as_json:
        print_json({"index": str(root), **report.to_json()})
        return
    for line in report.lines():
        tell(line)
    if done == "indexed":
        parts = _built(report, root)
    else:
        parts = [f"{plural(report.deleted if done == 'deleted' else report.documents, 'document')} {done}"]
        if report.rows:
            parts.append(plural(report.rows, "row"))
        if report.deleted and done != "deleted":
            parts.append(f"{report.deleted:,} deleted")
    if report.encoded:
        parts.append(f"{report.encoded:,} encoded")
    typer.echo(f"{root}: {', '.join(parts)} (commit {report.commit})")


def _built(report: Report, root: Path) -> list[str]:
    """Return what a new index holds, as ``cmbert index info`` says it: without what went again."""
    from cmbert_retrieval.indexes.manifest import read_manifest

    manifest = read_manifest(root)
    again = f" ({report.documents:,} read, {report.deleted:,} deleted again)" if report.deleted else ""
    return [f"{plural(manifest.documents, 'document')} indexed{again}", plural(manifest.rows, "row")]
