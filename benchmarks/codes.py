"""How well code look-up finds what people write: ``python benchmarks/codes.py [--split test]``.

Queries that are not in the index, each with the one code that somebody else gave it:

- ``synonyms``: names and synonyms of diseases with the ICD-10-CM code that an ontology refers to;
- ``icd9``: titles of ICD-9-CM with the only ICD-10-CM code that they map to;
- ``external``: lines of the index of external causes.

Categories are split in two halves by a hash of their three characters. Settings are chosen on ``dev``, and
``test`` is for reporting. Each row is a way of searching the same index: top-1 and top-5 of the code and of
its three-character category, nDCG@10 of the code, in percent, and milliseconds a look-up, one at a time. JSON
lines, then a table.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import math
import os
import random
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from cmbert_retrieval import Retriever
from cmbert_retrieval.codes import CodeSearcher

QUERIES = {"synonyms": 700, "icd9": 400, "external": 300}
MEASURES = ("top1", "top5", "category1", "category5", "ndcg10")
Pair = tuple[str, str]


def synonyms(folder: Path) -> Iterable[Pair]:
    """Yield one name of each concept; names that stand for several codes are left out."""
    path = folder / "ontology_synonym_to_icd10cm" / "doid_mondo_synonym_icd10cm.tsv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    codes, concepts = defaultdict(set), defaultdict(list)
    for row in rows:
        codes[row["query"].casefold()].add(row["code"])
    for row in rows:
        if len(codes[row["query"].casefold()]) == 1 and row["lexically_new"] == "1" and len(row["query"]) > 5:
            concepts[row["concept"]].append((row["query"], row["code"]))
    chance = random.Random(7)
    return [chance.choice(concepts[concept]) for concept in sorted(concepts)]


def icd9(folder: Path) -> Iterable[Pair]:
    """Yield titles of ICD-9-CM that map to one code, seventh characters apart."""
    return _single(folder / "icd9cm_and_gems" / "icd9cm_to_icd10cm_gem.tsv.gz", "icd9_title", "icd10")


def external(folder: Path) -> Iterable[Pair]:
    """Yield the lines of the index of external causes that lead to one code."""
    return _single(folder / "icd10cm_2026" / "lookup_external_cause_index.tsv.gz", "query", "code")


def _single(path: Path, query: str, code: str) -> list[Pair]:
    codes = defaultdict(set)
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            codes[row[query]].add(_without_seventh(row[code]))
    return [(text, next(iter(found))) for text, found in sorted(codes.items()) if len(found) == 1]


def _without_seventh(code: str) -> str:
    flat = code.replace(".", "")
    if len(flat) == 7:
        flat = re.sub("X+$", "", flat[:6])
    return flat if len(flat) == 3 else f"{flat[:3]}.{flat[3:]}"


def chosen(pairs: Iterable[Pair], split: str, count: int, searcher: CodeSearcher) -> list[Pair]:
    """Return ``count`` pairs of a half whose code exists and has no name like the query."""
    half = [
        pair
        for pair in pairs
        if (hashlib.sha256(pair[1][:3].encode()).digest()[0] % 2 == 0) == (split == "dev")
    ]
    random.Random(7).shuffle(half)
    found: list[Pair] = []
    for query, code in half:
        document = searcher.retriever.get(code)
        if document is not None:
            names = {document.title.casefold(), *(term.casefold() for term in document.metadata["terms"])}
            if query.casefold() not in names:
                found.append((query, code))
        if len(found) == count:
            break
    return found


def score(codes: list[str], gold: str) -> list[float]:
    """Return the measures of one answer."""
    categories = [code[:3] for code in codes]
    gain = 1 / math.log2(2 + codes.index(gold)) if gold in codes else 0.0
    return [
        codes[:1] == [gold],
        gold in codes[:5],
        categories[:1] == [gold[:3]],
        gold[:3] in categories[:5],
        gain,
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", choices=["dev", "test"], default="dev")
    parser.add_argument("--index", default="icd10cm", help="a bundled recipe's name, or a folder")
    options = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("CMBERT_SHARED") or here.parent / "shared" / "data")
    if not folder.is_dir():
        sys.exit("skipped: no development data; set CMBERT_SHARED to its folder")

    with Retriever.from_pretrained(options.index) as retriever:
        searcher = CodeSearcher(retriever)
        sets = {
            name: chosen(pairs(folder), options.split, QUERIES[name], searcher)
            for name, pairs in (("synonyms", synonyms), ("icd9", icd9), ("external", external))
        }

        def generic(mode: str) -> Callable[[str], list[str]]:
            return lambda text: [hit.id for hit in retriever.search(text, 10, mode=mode)]

        def lookup(text: str) -> list[str]:
            return [hit.code.code for hit in searcher.search(text, 10)]

        systems = {f"search, {mode}": generic(mode) for mode in ("lexical", "dense", "hybrid")}
        table: list[tuple[str, ...]] = [("", "queries", *MEASURES, "ms")]
        for system, answer in {**systems, "look-up": lookup}.items():
            for name, pairs in sets.items():
                begin = time.perf_counter()
                scores = [score(answer(query), gold) for query, gold in pairs]
                milliseconds = 1000 * (time.perf_counter() - begin) / len(pairs)
                means = [100 * sum(column) / len(pairs) for column in zip(*scores, strict=True)]
                values = {measure: round(mean, 1) for measure, mean in zip(MEASURES, means, strict=True)}
                row = {"system": system, "queries": name, "split": options.split, "count": len(pairs)}
                print(json.dumps({**row, **values, "ms": round(milliseconds, 1)}), flush=True)
                table.append((system, name, *(f"{mean:.1f}" for mean in means), f"{milliseconds:.1f}"))
    for line in table:
        print(f"{line[0]:17}{line[1]:10}" + "".join(f"{cell:>11}" for cell in line[2:]))


if __name__ == "__main__":
    main()
