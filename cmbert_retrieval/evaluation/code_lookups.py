"""Sets of phrases and the codes that they stand for.

What is looked up is held out by the category of the code (``splits``), for phrases and for names alike: no
phrase is found by being in the index.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from cmbert_retrieval.corpora.code_names import entry_texts, official_names
from cmbert_retrieval.corpora.files import open_binary
from cmbert_retrieval.corpora.icd10cm import Icd10cmCorpus
from cmbert_retrieval.corpora.memory import MemoryCorpus
from cmbert_retrieval.corpora.ontology import OntologyCorpus
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.evaluation.datasets import EvaluationSet, data_file, from_parts, judged_texts
from cmbert_retrieval.evaluation.splits import split_by_hash, split_of_code
from cmbert_retrieval.types import Document

# As the bundled recipe of ICD-10-CM has it: a name is a row.
_NAMES = ("passages=none", "search.dense_weight=0.8", "search.depth=100")
_PUBLIC = "public domain"


def icd10cm_inclusion(data: Path | None, split: str) -> EvaluationSet:
    """Inclusion terms of ICD-10-CM -> their codes, which are found by their titles alone.

    Needs no data but the installed release. Codes of other splits keep all their names.
    """
    documents, asked = [], []
    for document in _icd10cm():
        if split_of_code("icd10cm", document.id) == split:
            _, *terms = official_names(document.title, document.metadata["terms"])
            asked += [(f"{document.id}-{number}", term, document.id) for number, term in enumerate(terms, 1)]
            document = replace(document, entries=tuple(entry_texts([document.title])))
        documents.append(document)
    queries, qrels = judged_texts(asked)
    return from_parts(
        "icd10cm-inclusion",
        MemoryCorpus(documents),
        queries,
        qrels,
        split=split,
        license=_PUBLIC,
        about="held-out inclusion terms -> ICD-10-CM codes, found by their titles",
        index=_NAMES,
    )


def icd10cm_external_cause(data: Path | None, split: str) -> EvaluationSet:
    """Entries of the index to external causes ("Accident, boat, ...") -> ICD-10-CM codes."""
    path = data_file(data, "icd10cm_2026/lookup_external_cause_index.tsv.gz")
    return _of_phrases("icd10cm-external-cause", path, split, "entries of the external cause index")


def icd10cm_neoplasm(data: Path | None, split: str) -> EvaluationSet:
    """Cells of the table of neoplasms ("Benign | Neoplasm, bladder") -> ICD-10-CM codes."""
    path = data_file(data, "icd10cm_2026/lookup_neoplasm_table.tsv.gz")
    return _of_phrases("icd10cm-neoplasm", path, split, "cells of the neoplasm table")


def icd10cm_synonyms(data: Path | None, split: str) -> EvaluationSet:
    """Names that ontologies have for a disease -> its ICD-10-CM code; names unlike the code's own only.

    Some of the codes are categories, or the residual code of a rare disease.
    """
    path = data_file(data, "ontology_synonym_to_icd10cm/doid_mondo_synonym_icd10cm.tsv")
    return _of_phrases(
        "icd10cm-synonyms",
        path,
        split,
        "names of diseases in DO and Mondo",
        license="CC0 (DO), CC BY 4.0 (Mondo)",
        keep=lambda row: row["code_valid_2026"] == "1" and row["lexically_new"] == "1",
    )


def icd9cm_titles(data: Path | None, split: str) -> EvaluationSet:
    """Titles of ICD-9-CM -> ICD-10-CM codes, where the equivalence map is exact and to one code."""
    path = data_file(data, "icd9cm_and_gems/icd9cm_to_icd10cm_gem.tsv.gz")
    return _of_phrases(
        "icd9cm-titles",
        path,
        split,
        "titles of ICD-9-CM",
        query="icd9_title",
        code="icd10",
        keep=lambda row: row["flags"] == "00000",
    )


def hcpcs_short(data: Path | None, split: str) -> EvaluationSet:
    """Short descriptors of HCPCS Level II, abbreviated as they are -> codes, found by long descriptors."""
    folder = data_file(data, "hcpcs_level2/hcpcs_2019.tsv.gz").parent
    rows = list(_rows(folder / "hcpcs_2019.tsv.gz"))
    queries, qrels = judged_texts(
        (row["code"], row["short"], row["code"])
        for row in rows
        if split_of_code("hcpcs", row["code"]) == split and row["short"].strip()
    )
    return from_parts(
        "hcpcs-short",
        MemoryCorpus(Document(row["code"], row["long"], entries=(row["long"],)) for row in rows),
        queries,
        qrels,
        split=split,
        license=_PUBLIC,
        about="short descriptors -> HCPCS codes, found by their long ones",
        index=_NAMES,
    )


def hpo_lay(data: Path | None, split: str) -> EvaluationSet:
    """What patients call a sign -> its term in the Human Phenotype Ontology, found by its other names.

    Source: Vasilevsky et al., "Plain-language medical vocabulary for precision diagnosis", Nature Genetics
    2018.
    """
    path = data_file(data, "ontology_hpo/hp.obo.gz")
    rows = [row for row in _rows(data_file(path.parent, "hpo_synonyms.tsv.gz")) if row["type"] == "layperson"]
    said: dict[str, set[str]] = {}
    for row in rows:
        said.setdefault(row["hpo_id"], set()).add(row["synonym"].casefold())
    documents = [
        replace(
            document,
            entries=tuple(
                entry
                for entry in document.entries
                if entry == document.title or entry.casefold() not in said.get(document.id, ())
            ),
        )
        for document in OntologyCorpus(path).strictly()
    ]
    titles = {document.id: document.title.casefold() for document in documents}
    queries, qrels = judged_texts(
        (f"{row['hpo_id']}-{number}", row["synonym"], row["hpo_id"])
        for number, row in enumerate(rows, 1)
        if split_by_hash("ontology", row["hpo_id"]) == split
        and titles.get(row["hpo_id"], row["synonym"].casefold()) != row["synonym"].casefold()
    )
    return from_parts(
        "hpo-lay",
        MemoryCorpus(documents),
        queries,
        qrels,
        split=split,
        license="HPO licence",
        about="patients' words -> terms of the Human Phenotype Ontology",
        index=_NAMES,
    )


def _of_phrases(
    name: str,
    path: Path,
    split: str,
    about: str,
    *,
    license: str = _PUBLIC,
    query: str = "query",
    code: str = "code",
    keep: Callable[[dict[str, str]], bool] = lambda row: True,
) -> EvaluationSet:
    """Return the set of a table of phrases and codes, looked up in all of ICD-10-CM."""
    documents = _icd10cm()
    known = {document.id for document in documents}
    queries, qrels = judged_texts(
        (f"{row[code]}-{number}", row[query], row[code])
        for number, row in enumerate(_rows(path), 1)
        if row[code] in known
        and split_of_code("icd10cm", row[code]) == split
        and row[query].strip()
        and keep(row)
    )
    return from_parts(
        name,
        MemoryCorpus(documents),
        queries,
        qrels,
        split=split,
        license=license,
        about=f"{about} -> ICD-10-CM codes",
        index=_NAMES,
    )


@lru_cache(maxsize=1)
def _icd10cm() -> list[Document]:
    """Return the codes of the installed release, which most of these sets look their phrases up in."""
    return list(Icd10cmCorpus("").strictly())


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a tab-separated table under a header."""
    with io.TextIOWrapper(open_binary(path), encoding="utf-8", newline="") as lines:
        table = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        for number, row in enumerate(table, start=2):
            if None in row or None in row.values():
                raise CorpusError(f"{path.name}:{number}: not as many columns as the header has")
            yield row
