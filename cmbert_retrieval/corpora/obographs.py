"""Ontologies in the obographs JSON format, as the OBO Foundry publishes them beside OBO files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cmbert_retrieval.corpora.code_documents import clean
from cmbert_retrieval.corpora.code_files import Problem
from cmbert_retrieval.corpora.files import UnusableError, read_bounded
from cmbert_retrieval.corpora.ontology_terms import OntologyHeader, OntologyTerm
from cmbert_retrieval.errors import CorpusError

_IRI = re.compile(r"https?://\S*[/#](?P<prefix>[A-Za-z][A-Za-z0-9.-]*)_(?P<local>[A-Za-z0-9]+)")
_SCOPES = {
    "hasExactSynonym": "exact",
    "hasNarrowSynonym": "narrow",
    "hasBroadSynonym": "broad",
    "hasRelatedSynonym": "related",
}


def read_obographs(path: Path, *, max_bytes: int) -> Iterator[OntologyHeader | OntologyTerm | Problem]:
    """Yield the header, then the classes in the file's order. The file is held in memory.

    Raises:
        CorpusError: the file cannot be read, is too large, or is no obographs JSON.

    Source:
        "obographs: basic and extended graph model", https://github.com/geneontology/obographs
    """
    graphs = _load(path, max_bytes).get("graphs")
    if not isinstance(graphs, list):
        raise CorpusError(f"{path}: no list 'graphs' in it; expected obographs JSON")
    for number, graph in enumerate(graphs):
        if not isinstance(graph, dict):
            yield Problem(f"{path.name}: graph {number}", "no object")
            continue
        yield _header(graph)
        parents: dict[str, list[str]] = {}
        for edge in _objects(graph, "edges"):
            child, parent = edge.get("sub"), edge.get("obj")
            if edge.get("pred") == "is_a" and isinstance(child, str) and isinstance(parent, str):
                parents.setdefault(child, []).append(curie(parent))
        for position, node in enumerate(_objects(graph, "nodes")):
            where = f"{path.name}: graph {number}, node {position}"
            if not isinstance(node.get("id"), str):
                yield Problem(where, "a node without an id")
            elif node.get("type", "CLASS") == "CLASS":
                yield _term(node, where, parents.get(node["id"], []))


def curie(iri: str) -> str:
    """Return an OBO identifier in short: ``http://purl.obolibrary.org/obo/HP_0000001`` is ``HP:0000001``.

    What is not of that form is returned as it is.
    """
    found = _IRI.fullmatch(iri)
    return f"{found['prefix']}:{found['local']}" if found else iri


def _load(path: Path, max_bytes: int) -> dict[str, Any]:
    try:
        values = json.loads(read_bounded(path, max_bytes))
    except UnusableError as error:
        raise CorpusError(f"{path}: {error}") from None
    except json.JSONDecodeError as error:
        raise CorpusError(f"{path}:{error.lineno}: not well-formed JSON (column {error.colno})") from None
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: invalid UTF-8 at byte {error.start + 1}") from None
    except (RecursionError, ValueError):
        raise CorpusError(f"{path}: JSON that is nested too deeply, or has too long a number") from None
    if not isinstance(values, dict):
        raise CorpusError(f"{path}: a JSON {type(values).__name__}, expected the object of obographs")
    return values


def _header(graph: dict[str, Any]) -> OntologyHeader:
    header = OntologyHeader(name=clean(str(graph.get("id", ""))))
    for value in _objects(_meta(graph), "basicPropertyValues"):
        predicate, text = str(value.get("pred", "")), clean(str(value.get("val", "")))
        if predicate.endswith("versionInfo"):
            header.release = header.release or text
        elif predicate.endswith("/license"):
            header.license = header.license or text
    version = _meta(graph).get("version")
    header.release = header.release or (clean(version) if isinstance(version, str) else "")
    return header


def _term(node: dict[str, Any], where: str, parents: list[str]) -> OntologyTerm:
    meta = _meta(node)
    term = OntologyTerm(where, id=curie(node["id"]), name=_text(node.get("lbl")), parents=parents)
    definition = meta.get("definition")
    term.definition = _text(definition.get("val")) if isinstance(definition, dict) else ""
    term.is_obsolete = meta.get("deprecated") is True
    for synonym in _objects(meta, "synonyms"):
        scope = _SCOPES.get(str(synonym.get("pred", "")), "related")
        kind = curie(_text(synonym.get("synonymType"))).rpartition("#")[2]
        term.add_synonym(_text(synonym.get("val")), scope, kind)
    term.xrefs = [text for xref in _objects(meta, "xrefs") if (text := _text(xref.get("val")))]
    subsets = meta.get("subsets")
    term.subsets = [
        clean(subset).rpartition("#")[2]
        for subset in (subsets if isinstance(subsets, list) else [])
        if isinstance(subset, str)
    ]
    for value in _objects(meta, "basicPropertyValues"):
        predicate, text = str(value.get("pred", "")), _text(value.get("val"))
        if predicate.endswith("hasAlternativeId"):
            term.alternative_ids.append(curie(text))
        elif predicate.endswith("IAO_0100001"):
            term.replaced_by.append(curie(text))
    return term


def _meta(value: dict[str, Any]) -> dict[str, Any]:
    meta = value.get("meta")
    return meta if isinstance(meta, dict) else {}


def _objects(value: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = value.get(key)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _text(value: Any) -> str:
    return clean(value) if isinstance(value, str) else ""
