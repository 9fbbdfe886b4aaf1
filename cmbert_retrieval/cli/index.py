"""``cmbert index``: build an index, add to it, update it, delete from it, look at it, check it, tidy it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmbert_retrieval.cli._building import (
    BuildProgress,
    ReaderSettings,
    print_report,
    reader_options,
    split_source,
)
from cmbert_retrieval.cli._output import print_json, print_table, tell
from cmbert_retrieval.errors import ConfigError, CorpusError, IndexCorruptError

if TYPE_CHECKING:
    from cmbert_retrieval.encoders.base import Encoder
    from cmbert_retrieval.indexes.manifest import Manifest

app = typer.Typer(
    no_args_is_help=True, help="Build an index, add to it, update it, delete from it, check it."
)

IndexFolder = Annotated[Path, typer.Argument(help="The index's folder.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Strict = Annotated[bool, typer.Option(help="Stop at the first record that cannot be used.")]
Restart = Annotated[bool, typer.Option(help="Throw away what an unfinished run stored, and begin again.")]
Sources = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="READER:PATH",
        help="What to read: pmc:DIR, notes:FILE, jsonl:FILE, ... (all: cmbert corpus readers)",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting: columns.year=integer (to filter on it), source.options.id=COLUMN (of the reader), "
        "source.path=PATH, passages.stride=1, ... May be repeated.",
    ),
]


@app.command()
def build(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe file, or icd10cm; or leave it out and say --from.")
    ] = None,
    *,
    source: Sources = None,
    out: Annotated[Path, typer.Option(help="The folder to make.", show_default=False)],
    encoder: Annotated[
        str | None,
        typer.Option(help="A folder or hub id; 'none' for words only. (default: cmbert-mini)"),
    ] = None,
    settings: Settings = None,
    strict: Strict = False,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """Build an index from READER:PATH or by a recipe. Killed, it goes on where it stopped: run it again."""
    from cmbert_retrieval.config import IndexRecipe, load_index_recipe
    from cmbert_retrieval.corpora import open_corpus
    from cmbert_retrieval.indexes.writer import IndexWriter

    overrides = list(settings or ())
    if encoder is not None:
        overrides.append("encoder=none" if encoder == "none" else f"encoder.model={_model(encoder)}")
    if (recipe is None) == (source is None):
        raise typer.BadParameter("give either a recipe or --from READER:PATH")
    if recipe is not None:
        chosen = load_index_recipe(recipe, overrides=overrides)
        path = chosen.source.path
        if path and chosen.source.reader != "datasets" and not Path(path).exists():
            raise CorpusError(
                f"{recipe}: what it reads is not there ('{path}'); say where it is: --set source.path=PATH"
            )
    else:
        chosen = IndexRecipe.for_corpus(*split_source(str(source)), overrides=overrides)
    corpus = open_corpus(chosen.source.reader, chosen.source.path, **chosen.source.options)
    opened = _open_encoder(chosen)
    with BuildProgress(encodes=opened is not None) as progress, IndexWriter(out, notify=progress) as writer:
        report = writer.build(corpus, chosen, opened, strict=strict, restart=restart)
    print_report(report, out, as_json=as_json, done="indexed")


def _model(encoder: str) -> str:
    """Return an encoder as a recipe names it: folders that exist become paths, all else stays an id."""
    return str(Path(encoder).resolve()) if Path(encoder).is_dir() else encoder


def _open_encoder(recipe: object) -> Encoder | None:
    from cmbert_retrieval.config import IndexRecipe
    from cmbert_retrieval.encoders import load_encoder

    assert isinstance(recipe, IndexRecipe)
    if recipe.encoder is None:
        return None
    options = {name: value for name, value in recipe.encoder.options().items() if value is not None}
    return load_encoder(recipe.encoder.model, **options)


@app.command()
def add(
    index: IndexFolder,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="READER:PATH",
            help="What to add, as for 'cmbert index build'.",
            show_default=False,
        ),
    ],
    encoder: Annotated[str | None, typer.Option(help="Another copy of the index's encoder.")] = None,
    device: Annotated[
        str | None, typer.Option(help="Where to encode: cpu, cuda, mps. (default: the recipe's)")
    ] = None,
    settings: ReaderSettings = None,
    strict: Strict = False,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """Add documents. An id that is there already is replaced; what did not change stays as it is."""
    from cmbert_retrieval.corpora import open_corpus
    from cmbert_retrieval.indexes.writer import IndexWriter

    reader, path = split_source(source)
    options = {**_source_options(index, reader), **reader_options(settings)}
    corpus = open_corpus(reader, path, **options)
    opened = _encoder_of(index, encoder, device=device, as_built=True)
    if encoder is not None and opened is None:
        raise ConfigError(f"{index} holds words only and takes no encoder; leave --encoder out")
    with (
        BuildProgress(encodes=opened is not None) as progress,
        IndexWriter(index, notify=progress) as writer,
    ):
        report = writer.add(corpus, opened, strict=strict, restart=restart, options=options)
    print_report(report, index, as_json=as_json)


def _encoder_of(
    index: Path, encoder: str | None, *, device: str | None = None, as_built: bool = False
) -> Encoder | None:
    """Open the encoder that an index was built with; ``as_built``: run it the way that its recipe says."""
    from cmbert_retrieval.indexes.manifest import read_manifest
    from cmbert_retrieval.retriever import Retriever

    recipe = read_manifest(_existing(index)).recipe.get("encoder") or {}
    running = ("backend", "device", "dtype", "attention", "batch_tokens", "threads") if as_built else ()
    options = {name: recipe[name] for name in running if recipe.get(name) is not None}
    if device is not None:
        options["device"] = device
    with Retriever.from_pretrained(index, encoder=encoder, **options) as retriever:
        return retriever.encoder


def _source_options(index: Path, reader: str) -> dict[str, Any]:
    """Return the options of a reader as the index's recipe has them; none for another reader than its own."""
    from cmbert_retrieval.indexes.manifest import read_manifest

    source = read_manifest(index).recipe.get("source") or {}
    return dict(source.get("options") or {}) if source.get("reader") == reader else {}


def _existing(index: Path) -> Path:
    from cmbert_retrieval.indexes.manifest import read_manifest

    read_manifest(index)  # an error that speaks of indexes, where a name would be looked up on the hub
    return index


@app.command()
def update(
    index: IndexFolder,
    files: Annotated[
        list[str],
        typer.Argument(help="Update files of PubMed, or folders of them, in any order.", show_default=False),
    ],
    encoder: Annotated[str | None, typer.Option(help="Another copy of the index's encoder.")] = None,
    device: Annotated[
        str | None, typer.Option(help="Where to encode: cpu, cuda, mps. (default: the recipe's)")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Apply files behind a gap, older ones, or ones without a number.")
    ] = False,
    strict: Strict = False,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """Apply PubMed's update files, which add, replace and delete records; each file once, in its order."""
    from cmbert_retrieval.indexes.manifest import read_manifest
    from cmbert_retrieval.indexes.updates import plan_updates, update_index

    done = plan_updates(index, read_manifest(index), files, force=force)
    if any(not update.applied for update in done):
        opened = _encoder_of(index, encoder, device=device, as_built=True)
        with BuildProgress(encodes=opened is not None) as progress:
            done = update_index(
                index, files, opened, force=force, strict=strict, restart=restart, notify=progress
            )
    if as_json:
        parts = [
            {"file": str(one.path), "applied": one.report is not None}
            | (one.report.to_json() if one.report else {})
            for one in done
        ]
        print_json({"index": str(index), "commit": read_manifest(index).commit, "files": parts})
        return
    for one in done:
        if one.report is None:
            typer.echo(f"{one.path}: was applied already; nothing changed")
        else:
            print_report(one.report, one.path, as_json=False)


@app.command()
def delete(
    index: IndexFolder,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of the documents.", show_default=False)] = None,
    ids_file: Annotated[Path | None, typer.Option("--ids", help="A file with one id a line.")] = None,
    missing_ok: Annotated[
        bool, typer.Option(help="Count ids that are not there instead of refusing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Delete documents by id. Their texts leave the disk with the next 'cmbert index optimize'."""
    from cmbert_retrieval.indexes.writer import IndexWriter

    wanted = list(ids or ())
    if ids_file is not None:
        wanted += [line.strip() for line in ids_file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not wanted:
        raise typer.BadParameter("name the ids to delete, or a file of them with --ids")
    _existing(index)
    with IndexWriter(index) as writer:
        report = writer.delete(wanted, missing_ok=missing_ok)
    print_report(report, index, as_json=as_json, done="deleted")


@app.command()
def optimize(index: IndexFolder, as_json: Json = False) -> None:
    """Merge the segments, drop what was deleted, and write the words anew, as a fresh build would."""
    from cmbert_retrieval.indexes.writer import IndexWriter

    _existing(index)
    with BuildProgress() as progress, IndexWriter(index, notify=progress) as writer:
        report = writer.optimize()
    print_report(report, index, as_json=as_json, done="kept")


@app.command()
def info(index: IndexFolder, as_json: Json = False) -> None:
    """Show what an index holds and how it was made."""
    from cmbert_retrieval.indexes.manifest import read_manifest

    manifest = read_manifest(index)
    values = describe(manifest)
    unfinished = sorted(path.name for path in index.glob("segments/*.building"))
    if unfinished:
        values["unfinished"] = unfinished
    if as_json:
        print_json(values)
        return
    print_table(["", ""], [(key, _short(value)) for key, value in values.items()])


def describe(manifest: Manifest) -> dict[str, object]:
    """Return what ``cmbert index info --json`` prints."""
    encoder = manifest.encoder
    return {
        "name": manifest.recipe["name"],
        "documents": manifest.documents,
        "rows": manifest.rows,
        "dead_rows": manifest.dead_rows,
        "commit": manifest.commit,
        "created": manifest.created,
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        "segments": [
            {"name": entry.name, "rows": entry.rows, "documents": entry.documents, "factory": entry.factory}
            for entry in manifest.segments
        ],
        "encoder": encoder.identity.name if encoder else None,
        "dim": encoder.identity.dim if encoder else None,
        "max_tokens": encoder.identity.max_tokens if encoder else None,
        "weights_sha256": encoder.identity.weights_sha256 if encoder else None,
        "analyser": manifest.analyser,
        "columns": dict(manifest.columns),
        "search": dict(manifest.recipe["search"]),
        "sources": [dict(source) for source in manifest.sources],
        "versions": dict(manifest.versions),
        "schema": manifest.schema,
    }


def _short(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {item}" for key, item in value.items())
    if isinstance(value, list):
        return "\n".join(_short(item) for item in value)
    return "" if value is None else str(value)


@app.command()
def verify(
    index: IndexFolder,
    deep: Annotated[bool, typer.Option(help="Also encode 1,000 random rows again and compare.")] = False,
    as_json: Json = False,
) -> None:
    """Check every file against its hash, and documents, words and vectors against each other."""
    from cmbert_retrieval.indexes.verify import verify as check

    encoder = _encoder_of(index, None) if deep else None
    if deep and encoder is None:
        raise ConfigError("--deep compares vectors, this index holds words only")
    result = check(index, encoder=encoder)
    if as_json:
        print_json(result)
    for leftover in result.leftovers if not as_json else ():
        tell(f"{leftover}: not part of the index; the next change removes it")
    if result.problems:
        more = f" (and {len(result.problems) - 1} more)" if len(result.problems) > 1 else ""
        for problem in result.problems if not as_json else ():
            typer.echo(problem)
        raise IndexCorruptError(
            f"{index}: {result.problems[0]}{more}; rebuild it, or restore the file from a copy"
        )
    if not as_json:
        typer.echo(
            f"{index}: {result.files:,} files and {result.rows:,} rows are as commit "
            f"{result.commit} left them"
        )
