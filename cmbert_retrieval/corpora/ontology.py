"""Ontologies of the OBO family (HPO, Mondo, the Disease Ontology, ...): one document a term."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cmbert_retrieval.corpora.base import logger
from cmbert_retrieval.corpora.code_documents import code_document, distinct
from cmbert_retrieval.corpora.code_files import MAX_CODES, CodeFilesCorpus, Problem
from cmbert_retrieval.corpora.fields import valid_id
from cmbert_retrieval.corpora.files import UnusableError
from cmbert_retrieval.corpora.obo import read_obo
from cmbert_retrieval.corpora.obographs import Obographs
from cmbert_retrieval.corpora.ontology_terms import SCOPES, OntologyHeader, OntologyTerm
from cmbert_retrieval.errors import ConfigError, CorpusError
from cmbert_retrieval.types import Document
from cmbert_retrieval.wording import plural

MAX_JSON_BYTES = 512 * 2**20
"""Unpacked size above which an obographs file is refused, as one that was packed to waste time."""


class OntologyCorpus(CodeFilesCorpus):
    """The terms of an ontology, in the file's order.

    Obsolete terms and references without a name (to terms of other ontologies) are left out and counted. All
    synonyms stand in the metadata under ``names``, by scope; only exact ones are ``terms``, and entries.
    """

    reader = "ontology"
    columns: Mapping[str, str] = {"kind": "text", "system": "text"}
    expected = "an ontology as an OBO file (.obo) or as obographs JSON (.json), .gz or not"

    def __init__(
        self,
        path: str | Path,
        *,
        release: str = "",
        synonyms: str = "exact",
        prefixes: str | Iterable[str] = "",
        obsolete: bool = False,
        max_bytes: int = MAX_JSON_BYTES,
    ) -> None:
        """Find the file; nothing of it is read yet.

        Args:
            path: an ``.obo`` or ``.json`` file, ``.gz`` or not.
            release: the release as its publisher names it; "" takes it from the file.
            synonyms: the scopes that become entries, separated by commas: exact, narrow, broad, related; or
                ``all``.
            prefixes: only terms whose ids begin with one of these (``HP,MONDO``); "" takes all. Many files
                hold terms of other ontologies, too.
            obsolete: read obsolete terms, too.
            max_bytes: an obographs file that is larger when unpacked is refused.

        Raises:
            CorpusError: there is no such file, or its name ends differently.
            ConfigError: a scope is not known.
        """
        super().__init__(path, release=release)
        self._name = self.path.name.lower().removesuffix(".gz")
        if not self._name.endswith((".obo", ".json")):
            raise CorpusError(f"{path}: expected {self.expected}")
        self._scopes = SCOPES if synonyms == "all" else tuple(scope.strip() for scope in synonyms.split(","))
        if unknown := [scope for scope in self._scopes if scope not in SCOPES]:
            raise ConfigError(
                f"reader 'ontology': unknown scope {unknown[0]!r} of synonyms; "
                f"expected all, or some of {', '.join(SCOPES)}"
            )
        given = prefixes.split(",") if isinstance(prefixes, str) else prefixes
        self._prefixes = {prefix.strip().rstrip(":") for prefix in given} - {""}
        self._obsolete = obsolete
        self._max_bytes = max_bytes

    def _items(self) -> Iterator[Document | Problem]:
        # Read twice, in constant memory but for the tree: a term's children may stand behind it.
        is_flat = self._name.endswith(".obo")
        graphs = Obographs(self.path, max_bytes=self._max_bytes)
        children = self._children(read_obo(self.path) if is_flat else graphs)
        header = OntologyHeader()
        obsolete = nameless = others = 0
        for item in read_obo(self.path) if is_flat else graphs:
            if isinstance(item, Problem):
                yield item
            elif isinstance(item, OntologyHeader):
                header = item
            elif self._prefixes and item.id.partition(":")[0] not in self._prefixes:
                others += 1
            elif item.is_obsolete and not self._obsolete:
                obsolete += 1
            elif item.id and not item.name:
                nameless += 1
            else:
                yield self._document(item, header, children)
        counts = {
            ("obsolete term", "obsolete terms"): obsolete,
            ("reference without a name", "references without a name"): nameless,
            ("term of another prefix", "terms of other prefixes"): others,
        }
        if found := [plural(count, *what) for what, count in counts.items() if count]:
            logger.warning("%s: left out %s", self.path.name, ", ".join(found))

    def _children(self, items: Iterable[OntologyHeader | OntologyTerm | Problem]) -> dict[str, list[str]]:
        children: dict[str, list[str]] = {}
        edges = 0
        for item in items:
            if (
                not isinstance(item, OntologyTerm)
                or not item.name
                or (item.is_obsolete and not self._obsolete)
            ):
                continue
            for parent in item.parents:
                if parent != item.id:
                    children.setdefault(parent, []).append(item.id)
                    edges += 1
            if edges > MAX_CODES:
                raise CorpusError(f"{self.path}: more than {MAX_CODES:,} relations of kind is_a; refused")
        return children

    def _document(
        self, term: OntologyTerm, header: OntologyHeader, children: Mapping[str, list[str]]
    ) -> Document | Problem:
        try:
            term_id = valid_id(term.id)
        except UnusableError as error:
            return Problem(term.where, str(error))
        names = {scope: distinct(term.synonyms.get(scope, ())) for scope in SCOPES if scope in term.synonyms}
        parents = [parent for parent in dict.fromkeys(term.parents) if parent != term_id]
        found = distinct([term.name, *(text for scope in self._scopes for text in names.get(scope, ()))])
        facts: dict[str, Any] = {"parents": parents, "names": {"preferred": [term.name], **names}}
        for key, value in (
            ("synonym_types", {kind: distinct(texts) for kind, texts in term.synonym_types.items()}),
            ("xrefs", term.xrefs),
            ("alternative_ids", term.alternative_ids),
            ("subsets", term.subsets),
            ("replaced_by", term.replaced_by),
            ("obsolete", term.is_obsolete),
        ):
            if value:
                facts[key] = value
        return code_document(
            term_id,
            term.name,
            {
                "system": term_id.partition(":")[0].lower() if ":" in term_id else header.name,
                "license": header.license,
                "release": self._release or header.release,
            },
            kind="term",
            entries=found,
            parent=parents[0] if parents else None,
            children=dict.fromkeys(children.get(term_id, ())),
            terms=[text for text in names.get("exact", ()) if text.casefold() != term.name.casefold()],
            terms_label="Also",
            definition=term.definition,
            facts=facts,
        )
