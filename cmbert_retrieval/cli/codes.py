"""``cmbert codes``: find codes for what people write, and show a code in its tree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmbert_retrieval.cli._building import BuildProgress
from cmbert_retrieval.cli._groups import falls_through_to
from cmbert_retrieval.cli._output import is_terminal, print_json, print_table
from cmbert_retrieval.cli.search import LocalFilesOnly, Mode, Revision, typed_query
from cmbert_retrieval.errors import ConfigError

if TYPE_CHECKING:
    from cmbert_retrieval.codes import CodeHit, CodeSearcher
    from cmbert_retrieval.types import Code

app = typer.Typer(
    cls=falls_through_to("search"),
    no_args_is_help=True,
    help="Find codes for what people write, and show codes in their tree.\n\n"
    "'cmbert codes QUERY' is short for 'cmbert codes search QUERY'.\nIts options: cmbert codes search --help",
)

SYSTEM = "icd10cm"

_WHOLE_CODE = re.compile(r"[A-Z][0-9][0-9A-Z]\.[0-9A-Z]{1,4}", re.IGNORECASE)
"""What can only be meant as a code: found or not, it is not searched as words."""

IndexName = Annotated[
    str, typer.Option("--index", help="The index of codes: a bundled recipe's name, a folder or a hub id.")
]
Encoder = Annotated[
    str | None, typer.Option(help="An encoder to build or open the index with; 'none': by words alone.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def open_searcher(
    index: str = SYSTEM,
    encoder: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> Iterator[CodeSearcher]:
    """Give a searcher over an index of codes; a bundled one is built first where it is not there yet."""
    from cmbert_retrieval.codes import CodeSearcher
    from cmbert_retrieval.opening import open_pretrained
    from cmbert_retrieval.retriever import Retriever

    with BuildProgress(encodes=encoder != "none") as progress:
        retriever = open_pretrained(
            Retriever,
            index,
            encoder=encoder,
            revision=revision,
            local_files_only=local_files_only,
            notify=progress,
        )
    with retriever:
        yield CodeSearcher(retriever)


@app.command()
def search(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="QUERY...", help="A phrase, a code, or the beginning of one.", show_default=False
        ),
    ],
    k: Annotated[int, typer.Option("-k", help="How many codes.")] = 10,
    mode: Annotated[
        Mode | None,
        typer.Option(help="By words and meaning, by meaning, by words. (default: the index's own)"),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", metavar="COLUMN=VALUE", help="chapter=9, billable=true, ... May be repeated."
        ),
    ] = None,
    index: IndexName = SYSTEM,
    encoder: Encoder = None,
    revision: Revision = None,
    local_files_only: LocalFilesOnly = False,
    as_json: Json = False,
) -> None:
    """Find codes. This is what 'cmbert codes "heart attack"' does."""
    query = typed_query(words)
    with open_searcher(index, encoder, revision, local_files_only) as searcher:
        if _WHOLE_CODE.fullmatch(query) and searcher.resolve(query) is None:
            raise _no_code(query, searcher)
        hits = searcher.search(query, k, mode=mode.value if mode else None, filter=where)
        name = searcher.retriever.manifest.recipe["name"]
        far = bool(hits) and mode is not Mode.dense and searcher.by_meaning_only(query)
    if as_json:
        print_json([hit_json(hit) for hit in hits])
    else:
        print_codes(hits)
    if far:
        typer.echo("no name of a code has a word of this: these are only the nearest by meaning", err=True)
    if as_json:
        return
    if not hits:
        typer.echo(f"nothing found in {name}", err=True)
    elif is_terminal():
        typer.echo(f"\n{_release(hits[0])}; more of a code: cmbert codes show {hits[0].full_code}")


def print_codes(hits: list[CodeHit]) -> None:
    """Print codes with what matched, where that is not the title, and what a claim still needs."""
    columns = ["code", "title", "found by", "on a claim", "score"]
    rows = []
    for hit in hits:
        found_by = "" if hit.matched == hit.code.title else hit.matched
        rows.append((hit.full_code, hit.title, found_by, _claim(hit), f"{hit.score:.3f}"))
    print_table(columns, rows)


def _no_code(text: str, searcher: CodeSearcher) -> ConfigError:
    """Return the error for what is no code, with the nearest thing that is one."""
    for end in range(len(text) - 1, 2, -1):
        found = searcher.resolve(text[:end].rstrip("."))
        if found is None:
            continue
        code = found[0]
        if code.seventh and not code.children:
            what = f"takes one of these as its seventh character: {', '.join(code.seventh)}"
        elif code.children:
            what = f"has {', '.join(code.children[:8])}{', ...' if len(code.children) > 8 else ''} below it"
        else:
            what = "has nothing below it"
        return ConfigError(f"'{text[:60]}' is no code of this release; {code.code} ({code.title}) {what}")
    return ConfigError(
        f"'{text[:60]}' is no code of this release; a code looks like I21.4; to search by words: "
        'cmbert codes "heart attack"'
    )


def _release(hit: CodeHit) -> str:
    from cmbert_retrieval.codes.tree import SYSTEM_TITLES

    return f"{SYSTEM_TITLES.get(hit.code.system, hit.code.system)}, release {hit.code.release}"


def _claim(hit: CodeHit) -> str:
    code = hit.code
    if code.billable is None:
        return ""
    if code.billable or hit.seventh:
        return "valid"
    if code.children:
        return f"choose below ({len(code.children)})"
    return f"add {'/'.join(code.seventh)}" if code.seventh else "not valid"


def hit_json(hit: CodeHit) -> dict[str, Any]:
    """Return an answer as JSON values."""
    from cmbert_retrieval.codes.tree import is_billable

    return {
        "rank": hit.rank,
        "score": round(hit.score, 6),
        "code": hit.full_code,
        "title": hit.title,
        "matched": hit.matched,
        "billable": is_billable(hit.code, seventh=hit.seventh),
        "seventh": dict(hit.code.seventh),
        "kind": hit.code.kind,
        "chapter": hit.code.chapter,
        "block": hit.code.block,
        "parent": hit.code.parent,
        "children": list(hit.code.children),
        "system": hit.code.system,
        "release": hit.code.release,
    }


@app.command()
def show(
    code: Annotated[
        str, typer.Argument(help="A code, with or without its dot: I21.4, i214.", show_default=False)
    ],
    index: IndexName = SYSTEM,
    encoder: Encoder = None,
    revision: Revision = None,
    local_files_only: LocalFilesOnly = False,
    as_json: Json = False,
) -> None:
    """Show a code in its tree: what is above and below it, its notes, and whether a claim may hold it."""
    from cmbert_retrieval.codes import code_to_json, describe_code

    with open_searcher(index, encoder, revision, local_files_only) as searcher:
        found = searcher.resolve(code)
        if found is None:
            raise _no_code(code, searcher)
        entry, seventh = found
        if as_json:
            print_json(_with_seventh(entry, seventh, code_to_json(entry)))
        else:
            typer.echo(describe_code(entry, lookup=searcher.get, seventh=seventh))


def _with_seventh(entry: Code, seventh: str, values: dict[str, Any]) -> dict[str, Any]:
    if not seventh:
        return values
    from cmbert_retrieval.codes.tree import extend, full_title, is_billable

    return {
        **values,
        "code": extend(entry.code, seventh),
        "title": full_title(entry, seventh),
        "billable": is_billable(entry, seventh=seventh),
        "base_code": entry.code,
        "seventh_character": seventh,
    }
