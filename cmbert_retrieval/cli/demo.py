"""``cmbert demo``: the main jobs on real data, in the order in which a newcomer would try them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated

import typer

from cmbert_retrieval.cli._building import BuildProgress, print_report
from cmbert_retrieval.cli.codes import open_searcher, print_codes
from cmbert_retrieval.cli.search import print_hits
from cmbert_retrieval.wording import plural

QUESTIONS = (
    "heart attack",
    "type 2 diabetes with kidney disease",
    "broken hip",
    "high blood pressure in pregnancy",
    "second degree burn of the left hand",
)
PMC_QUESTIONS = ("randomized trial of blood pressure treatment", "side effects in children")


def demo(
    pmc: Annotated[
        Path | None, typer.Option(help="PMC articles to index as well: a folder, a tar.gz or an .xml file.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Another encoder than the default one; 'none' for words alone.")
    ] = None,
) -> None:
    """Build the ICD-10-CM index and answer five questions; with --pmc, index and search articles too."""
    if pmc is not None:
        from cmbert_retrieval.corpora import open_corpus

        open_corpus("pmc", pmc)  # what is not there is said before minutes of work
    with open_searcher(encoder=encoder) as searcher:
        manifest = searcher.retriever.manifest
        release = next(iter(searcher.search("A00"))).code.release
        typer.echo(
            f"ICD-10-CM, release {release}: {manifest.documents:,} codes, found by {manifest.rows:,} names\n"
        )
        for question in QUESTIONS:
            typer.secho(question, bold=True)
            print_codes(searcher.search(question, 5))
            typer.echo()
    articles = None
    if pmc is not None:
        articles = _articles(pmc, encoder)
    typer.echo("What to type next (first: . .venv/bin/activate):\n")
    typer.echo('  cmbert codes "sugar disease"           any phrase; codes work too: cmbert codes E11.2')
    typer.echo("  cmbert codes show S72.0                a code in its tree, with its notes")
    if articles is None:
        typer.echo("  make demo PMC=path                     the same with PMC articles of your own")
        typer.echo("  cmbert index build --from pmc:PATH --out my-index")
    else:
        typer.echo(f'  cmbert search {articles} "your question" --filter "year>=2010"')
    typer.echo("  cmbert --help                          everything else")


def _articles(pmc: Path, encoder: str | None) -> Path:
    """Index the articles once, search them, and return where their index is."""
    from cmbert_retrieval.config import IndexRecipe
    from cmbert_retrieval.corpora import open_corpus
    from cmbert_retrieval.encoders import load_encoder
    from cmbert_retrieval.indexes.manifest import MANIFEST
    from cmbert_retrieval.indexes.writer import IndexWriter
    from cmbert_retrieval.paths import cache_folder
    from cmbert_retrieval.retriever import Retriever

    corpus = open_corpus("pmc", pmc)
    opened = None if encoder == "none" else load_encoder(encoder)
    settings = ["encoder=none"] if opened is None else []
    # Other articles or another encoder are another folder: no answer comes from what was there before.
    key = [[source.checksum for source in corpus.sources()], opened.identity.to_json() if opened else None]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    out = cache_folder() / "indexes" / f"demo-{digest}"
    if not (out / MANIFEST).is_file():
        encodes = opened is not None
        with BuildProgress(encodes=encodes) as progress, IndexWriter(out, notify=progress) as writer:
            report = writer.build(corpus, IndexRecipe.for_corpus("pmc", pmc, overrides=settings), opened)
        print_report(report, out, as_json=False, done="indexed")
    with Retriever.from_pretrained(out) as retriever:
        counts = f"{plural(len(retriever), 'article')}, {plural(retriever.manifest.rows, 'passage')}"
        typer.echo(f"{pmc}: {counts}\n")
        for question in PMC_QUESTIONS:
            typer.secho(question, bold=True)
            print_hits(retriever.search(question, 3))
    return out
