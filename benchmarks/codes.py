"""How well code look-up finds what people write, beside plain search of the same index.

Queries that are not in the index, each with the one code that somebody else gave it:

- ``synonyms``: names and synonyms of diseases with the ICD-10-CM code that an ontology refers to;
- ``icd9``: titles of ICD-9-CM with the only ICD-10-CM code that they map to;
- ``external``: lines of the index of external causes.

Categories are split in two halves by a hash of their three characters. Settings are chosen on ``dev``, and
``test`` (``--split test``) is for reporting. Each line compares look-up with the best mode of
``Retriever.search`` in one measure, in percent: top-1 and top-5 of the code and of its three-character
category, nDCG@10 of the code; and in milliseconds a look-up, one at a time.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import math
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from _measure import Results, run, take_turns, wanted

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


def codes(data: Path, results: Results, *, split: str) -> None:
    """Measure look-up and plain search."""
    for folder in ("ontology_synonym_to_icd10cm", "icd9cm_and_gems", "icd10cm_2026"):
        wanted(data / folder)
    with Retriever.from_pretrained("icd10cm") as retriever:
        searcher = CodeSearcher(retriever)

        def search(mode: str) -> Callable[[str], list[str]]:
            return lambda text: [hit.id for hit in retriever.search(text, 10, mode=mode)]

        def look_up(text: str) -> list[str]:
            return [hit.code.code for hit in searcher.search(text, 10)]

        modes = {f"search, {mode}": search(mode) for mode in ("lexical", "dense", "hybrid")}
        for name, pairs_of in (("synonyms", synonyms), ("icd9", icd9), ("external", external)):
            pairs = chosen(pairs_of(data), split, QUERIES[name], searcher)
            means: dict[str, list[float]] = {}
            for system, answer in {"look-up": look_up, **modes}.items():
                scores = [score(answer(query), gold) for query, gold in pairs]
                means[system] = [100 * sum(column) / len(pairs) for column in zip(*scores, strict=True)]
            for place, measure in enumerate(MEASURES):
                best = max(modes, key=lambda mode: means[mode][place])
                results.add(
                    f"{name}, {measure}",
                    ours=means["look-up"][place],
                    theirs=means[best][place],
                    unit="%",
                    peer=best,
                    repeats=1,
                    split=split,
                    queries=len(pairs),
                    all={system: round(values[place], 1) for system, values in means.items()},
                )
            sides = {"ours": look_up, "theirs": modes["search, hybrid"]}
            times = take_turns(sides, 1, [query for query, _ in pairs])
            results.add(
                f"{name}, time",
                ours=1000 * times["ours"].p50,
                theirs=1000 * times["theirs"].p50,
                unit="ms p50",
                peer="search, hybrid",
                repeats=len(pairs),
            )


if __name__ == "__main__":
    run(codes, __doc__, split=("dev", "test"))
