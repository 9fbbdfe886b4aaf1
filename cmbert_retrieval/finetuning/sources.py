"""The sources of pairs: opened and checked before any work, and what of them may be learnt from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cmbert_retrieval.finetuning.data_recipe import PAIR_FILES, PairDataRecipe, PairSource
from cmbert_retrieval.finetuning.judged import PairFile
from cmbert_retrieval.pretraining.frozen import CODE_SYSTEMS, collection_of
from cmbert_retrieval.pretraining.sources import OpenSource, excluded_names, is_in_share, source_facts
from cmbert_retrieval.types import Document

_OF_CODES = frozenset(("names", "parents"))
"""Kinds of pairs that are made of the names of codes and terms."""

_CODE_COLLECTIONS = frozenset((*CODE_SYSTEMS, "mesh", "ontology"))


class FinetuningSource:
    """A source that is known to be there.

    Attributes:
        name: in the recipe.
        recipe: of it.
        of_codes: whether it is a code system or an ontology, whose texts repeat its names.
        file: where its pairs are there already; None where they are made of documents.
    """

    def __init__(self, name: str, recipe: PairSource, data: PairDataRecipe) -> None:
        """Open a source; the first document of it is read.

        Raises:
            ConfigError, CorpusError: see ``OpenSource`` and ``PairFile``.
        """
        self.name, self.recipe, self._held_out = name, recipe, data.held_out
        collection = collection_of(name, recipe)
        self._key = collection or name
        self.of_codes = collection in _CODE_COLLECTIONS or not _OF_CODES.isdisjoint(recipe.pairs)
        self.file = PairFile(name, recipe) if recipe.reader in PAIR_FILES else None
        self._open: OpenSource | None = None
        if self.file is None:
            names = excluded_names(data.exclude_names)
            self._open = OpenSource(name, recipe, 0.0, names, has_names=self.of_codes)

    def facts(self) -> list[dict[str, Any]]:
        """Return what tells that the source has not changed."""
        return self.file.facts() if self.file is not None else source_facts(self._opened)

    @property
    def excluded_ids(self) -> frozenset[str]:
        """What the recipe excludes by id."""
        return self._opened.excluded_ids if self.file is None else self.file.excluded_ids

    @property
    def _opened(self) -> OpenSource:
        assert self._open is not None
        return self._open

    def documents(self) -> Iterator[tuple[Document | None, str]]:
        """Yield every document with "" or why nothing may be learnt from it; None for an unusable record.

        Codes come without the lines that speak of held-out codes.
        """
        opened = self._opened
        for record in opened.corpus.records():
            document = record.document
            if document is None:
                yield None, "withdrawn" if record.deleted else "unusable"
            elif not opened.is_licensed(opened.license_of(document)):
                yield document, "other_license"
            elif reason := opened.exclusion(document):
                yield document, reason
            else:
                text = opened.frozen.without_held_out_lines(document.text)
                yield (document if text == document.text else replace(document, text=text)), ""

    def free_documents(self) -> Iterator[Document]:
        """Yield the documents that are for training."""
        for document, reason in self.documents():
            if document is not None and not reason and not self.is_held_out(document.id):
                yield document

    def license_of(self, document: Document) -> str:
        """Return a document's licence in our spelling; the recipe's where it names none."""
        return self._opened.license_of(document)

    def is_held_out(self, id: str) -> bool:
        """Return whether the pairs of a document are kept for measuring, in all sources of its collection."""
        return is_in_share(self._key, id, self._held_out)
