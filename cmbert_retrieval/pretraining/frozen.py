"""The frozen splits as pretraining sees them: which documents of a source are for testing and validation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cmbert_retrieval.errors import ConfigError, CorpusError
from cmbert_retrieval.evaluation.datasets import NAMED, named_set
from cmbert_retrieval.evaluation.splits import (
    BY_HASH,
    PUBLISHED,
    TEST_ONLY,
    published_split,
    split_by_hash,
    split_of_code,
)
from cmbert_retrieval.pretraining.recipe import PretrainingSource
from cmbert_retrieval.recipe_files import did_you_mean
from cmbert_retrieval.types import Document

CODE_SYSTEMS = ("icd10cm", "icd10pcs", "hcpcs", "cpt")

_OF_READER = {"icd10cm_order": "icd10cm", "icd10cm_index": "icd10cm"}
"""Readers that are called otherwise than the collection that they read."""

_KEYS = {
    "medquad": ("focus", "doc"),
    "mtsamples": ("sample_id",),
    "notes": ("subject_id",),
    "pmc": ("pmcid",),
    "pubmed": ("pmid",),
}
"""Collection -> metadata that its split is decided by; the first that is there."""

_ID_WILL_DO = frozenset({"mesh", "ontology", "notes", "pmc", "pubmed"})
"""Collections whose split is decided by a document's id where such metadata are missing."""

_QUERIES_ONLY = frozenset({"scifact", "nfcorpus"})
"""Sets whose splits divide the questions: all of them are asked of the same documents."""

_ICD10CM = re.compile(r"ICD-?10-?CM[:_ ]+([A-Z][0-9][0-9A-Z](?:\.[0-9A-Z]{1,4})?)\b", re.IGNORECASE)
_CODE_IN_LINE = re.compile(
    r"\b([A-Z][0-9][0-9A-Z])(?:\.[0-9A-Z]{1,4})?(?:-|\b)(\s*-?\s*[A-Z][0-9][0-9A-Z]\b)?"
)


def held_out_names(data: Path) -> list[str]:
    """Return what the sets of code look-ups ask for in their test and validation parts.

    Written into a file, they are what ``data.exclude_names`` of a recipe takes: ontologies, and code systems
    but the one that is looked up, have the same names for the same things, and no code to tell them by.

    Args:
        data: the folder of evaluation sets.

    Raises:
        CorpusError: one of them is not there.
    """
    names = [name for name, function in NAMED.items() if function.startswith("code_lookups:")]
    sets = [named_set(name, data, split=part) for name in names for part in ("test", "validation")]
    return sorted({" ".join(text.split()) for one in sets for text in one.queries.values()})


class FrozenSplit:
    """Tells for the documents of one source whether they are held out from everything that is trained."""

    def __init__(self, name: str, source: PretrainingSource) -> None:
        """Find the collection that a source of this name holds.

        Raises:
            ConfigError: there is no such collection, nothing is ever trained on it, or its split cannot be
                told by the documents and no ``exclude_ids`` are given.
        """
        self.collection = collection_of(name, source)
        self._name = name
        if self.collection in TEST_ONLY:
            raise ConfigError(
                f"source '{self._name}': nothing is trained on '{self.collection}', so that figures on it "
                "stay zero-shot; leave it out"
            )
        self._needs_split = self.collection in PUBLISHED and self.collection not in _QUERIES_ONLY
        if self._needs_split and source.exclude_ids is not None:
            self._needs_split = False  # documents without a split may be told by their ids

    def holds_out(self, document: Document) -> bool:
        """Return whether a document is of the test or the validation part.

        Raises:
            CorpusError: the document does not say what its split is decided by.
        """
        if any(split_of_code(system, code) != "train" for system, code in _mapped_codes(document.metadata)):
            return True
        return self.collection is not None and self._split(document) != "train"

    def without_held_out_lines(self, text: str) -> str:
        """Return the text of a code without the lines that speak of codes of other, held-out categories.

        Notes of a tabular list ("Excludes1: old myocardial infarction (I25.2)") name what they exclude; of a
        range of codes, none is known to be for training.
        """
        if self.collection != "icd10cm":
            return text
        return "\n".join(line for line in text.split("\n") if not any(_held_out_codes(line)))

    def _split(self, document: Document) -> str:
        collection = str(self.collection)
        if collection in CODE_SYSTEMS:
            has_category = len(document.id) >= 3 and document.id[:3].isalnum()
            return split_of_code(collection, document.id) if has_category else "train"  # a modifier
        if collection in PUBLISHED:
            part = document.metadata.get("split")
            if part is None and not self._needs_split:
                return "train"
            return published_split(collection, str(self._present(part, "split")))
        keys = _KEYS.get(collection, ())
        found = next((value for key in keys if (value := document.metadata.get(key)) not in (None, "")), None)
        if found is None and collection in _ID_WILL_DO:
            found = document.id
        return split_by_hash(collection, str(self._present(found, *keys)))

    def _present(self, value: Any, *keys: str) -> Any:
        if value is None or not str(value).strip():
            names = " or ".join(f"'{key}'" for key in keys)
            raise CorpusError(
                f"source '{self._name}': a document without {names}, which decides what of "
                f"'{self.collection}' is held out; let the reader's option 'metadata' take it, or name "
                "another 'collection'"
            )
        return value


def collection_of(given: str, source: PretrainingSource) -> str | None:
    """Return the collection of ``evaluation/splits.py`` that a source holds; None for one of none.

    Raises:
        ConfigError: it names one that is not known.
    """
    known = [*BY_HASH, *PUBLISHED, *sorted(TEST_ONLY)]
    if source.collection is not None:
        if source.collection not in known:
            raise ConfigError(
                f"unknown collection '{source.collection}'{did_you_mean(source.collection, known)}; "
                f"expected one of {', '.join(known)}"
            )
        return source.collection
    name = re.sub(r"[^a-z0-9]+", "_", given.casefold()).strip("_")
    reader = _OF_READER.get(source.reader, source.reader)
    return next((candidate for candidate in (name, reader) if candidate in known), None)


def _mapped_codes(metadata: Any) -> Iterator[tuple[str, str]]:
    """Yield system and code of what a document stands for elsewhere: its names are asked for there."""
    for xref in metadata.get("xrefs") or ():
        if isinstance(xref, str) and (found := _ICD10CM.match(xref)):
            yield "icd10cm", found[1]
    for mapping in metadata.get("mappings") or ():
        if isinstance(mapping, dict) and mapping.get("code") and mapping.get("system") in CODE_SYSTEMS:
            yield mapping["system"], mapping["code"]


def _held_out_codes(line: str) -> Iterator[str]:
    for found in _CODE_IN_LINE.finditer(line):
        if found[2] or split_of_code("icd10cm", found[1]) != "train":
            yield found[1]
