"""``cmbert search``: ask an index."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmbert_retrieval.cli._output import clean, is_terminal, print_json
from cmbert_retrieval.errors import ConfigError

if TYPE_CHECKING:
    from cmbert_retrieval.retriever import Retriever
    from cmbert_retrieval.types import Hit

Revision = Annotated[
    str | None, typer.Option(help="Branch, tag or commit of a hub id. (default: its main branch)")
]
LocalFilesOnly = Annotated[
    bool, typer.Option("--local-files-only", help="Ask nobody: take a hub id from the hub's cache.")
]

EXCERPT = 320
"""Characters of a passage that are shown on a terminal."""


class Mode(StrEnum):
    """Ways to search."""

    hybrid = "hybrid"
    dense = "dense"
    lexical = "lexical"


def search(
    index: Annotated[str, typer.Argument(help="The index: a folder, a bundled recipe's name or a hub id.")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="QUERY...", help="What to look for.", show_default=False)
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many hits.")] = 10,
    mode: Annotated[
        Mode | None,
        typer.Option(help="By words and meaning, by meaning, by words. (default: the index's own)"),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="COLUMN>=VALUE",
            help='Only such documents: year>=2020, journal=BMJ,JAMA (one of them), journal="A, B" '
            "(quotes protect commas). May be repeated.",
        ),
    ] = None,
    passages: Annotated[bool, typer.Option(help="One hit a passage instead of one a document.")] = False,
    encoder: Annotated[str | None, typer.Option(help="Another copy of the index's encoder.")] = None,
    revision: Revision = None,
    local_files_only: LocalFilesOnly = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Search an index by words and by meaning."""
    from cmbert_retrieval.opening import may_be_index
    from cmbert_retrieval.retriever import Retriever

    if not may_be_index(index):
        raise ConfigError(
            f"'{index}': no such folder, no bundled recipe and no hub id (organisation/name); the index "
            'comes first: cmbert search my-index "heart attack"; to make one: cmbert index build '
            "--from READER:PATH --out my-index"
        )
    if not words:
        raise typer.BadParameter(f"say what to look for, behind the index: cmbert search {index} QUERY")
    query = typed_query(words)
    opened = Retriever.from_pretrained(
        index, encoder=encoder, revision=revision, local_files_only=local_files_only
    )
    with opened as retriever:
        hits = retriever.search(query, k, mode=mode.value if mode else None, filter=where, group=not passages)
        why = [] if hits else _why_nothing_passes(retriever, where)
    if as_json:
        print_json([hit_json(hit) for hit in hits])
    elif is_terminal():
        print_hits(hits)
    else:
        for hit in hits:
            mark = "[RETRACTED] " if hit.document.metadata.get("is_retracted") else ""
            title = mark + clean(hit.document.title)
            typer.echo(f"{hit.rank}\t{hit.score:.4f}\t{hit.id}\t{title}\t{clean(hit.passage)}")
    if not hits and not as_json:
        more = " and passes the filter" if where else ""
        typer.echo("; ".join([f"nothing in {index} matches{more}", *why]), err=True)


def _why_nothing_passes(retriever: Retriever, where: list[str] | None) -> list[str]:
    """Return, for the values of a filter that no document has, what may have been meant."""
    from cmbert_retrieval.indexes.filters import parse_filter

    parsed = parse_filter(where, retriever.manifest.columns)
    if parsed is None:
        return []
    return [
        f"no document has {column}={value}" + (f"; did you mean '{column}={close}'?" if close else "")
        for column, value, close in retriever.reader.absent_values(parsed)
    ]


def typed_query(words: list[str]) -> str:
    """Return a query that was typed with or without quotes.

    Raises:
        ConfigError: there is nothing to look for in it.
    """
    query = " ".join(words).strip()
    if not query:
        raise ConfigError("the query is empty; say what to look for")
    return query


def hit_json(hit: Hit) -> dict[str, Any]:
    """Return a hit as JSON values, with the metadata but not the whole text of its document."""
    return {
        "rank": hit.rank,
        "score": round(hit.score, 6),
        "id": hit.id,
        "title": hit.document.title,
        "passage": hit.passage,
        "offsets": hit.offsets,
        "section": list(hit.section),
        "citation": hit.citation,
        "signals": {name: round(value, 6) for name, value in hit.signals.items()},
        "metadata": {key: value for key, value in hit.document.metadata.items() if key != "references"},
    }


def print_hits(hits: list[Hit]) -> None:
    """Show hits on a terminal: rank, score and title; an excerpt; the citation."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console()
    for hit in hits:
        title = Text.assemble((f"{hit.rank:>2}  ", "dim"), (clean(hit.document.title) or hit.id, "bold"))
        title.append(f"  {hit.score:.3f}", style="cyan")
        if hit.document.metadata.get("is_retracted"):
            title.append("  RETRACTED", style="bold red")
        console.print(title)
        excerpt = clean(hit.passage)
        cut = excerpt if len(excerpt) <= EXCERPT else excerpt[:EXCERPT].rsplit(" ", 1)[0] + " ..."
        if cut != clean(hit.document.title):
            console.print(Padding(Text(cut), (0, 0, 0, 4)))
        console.print(Padding(Text(clean(hit.citation), style="dim"), (0, 0, 1, 4)))
