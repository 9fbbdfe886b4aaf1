"""Ontologies in the obographs JSON format, as the OBO Foundry publishes them beside OBO files."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cmbert_retrieval.corpora.code_documents import clean
from cmbert_retrieval.corpora.code_files import MAX_CODES, Problem
from cmbert_retrieval.corpora.files import GZIP_ERRORS, UnusableError, open_binary, too_large
from cmbert_retrieval.corpora.json_blocks import NestingCheck, json_blocks
from cmbert_retrieval.corpora.ontology_terms import OntologyHeader, OntologyTerm
from cmbert_retrieval.errors import CorpusError

MAX_NODE_BYTES = 4 * 2**20
"""Size above which one node is refused. The largest of published ontologies have a hundredth of it."""

_MAX_GRAPHS = 1_000
_MAX_ID_BYTES = 128 * 2**20  # of all relations together
_PART_BYTES = 2**18  # what is parsed at once; the events of it take a hundred times as much
_IRI = re.compile(r"https?://\S*[/#](?P<prefix>[A-Za-z][A-Za-z0-9.-]*)_(?P<local>[A-Za-z0-9]+)")
_SCOPES = {
    "hasExactSynonym": "exact",
    "hasNarrowSynonym": "narrow",
    "hasBroadSynonym": "broad",
    "hasRelatedSynonym": "related",
}
_NODE = "graphs.item.nodes.item"
_EDGE = "graphs.item.edges.item"
_PROPERTY = "graphs.item.meta.basicPropertyValues.item"
_PARTS = {f"{_EDGE}.{key}": key for key in ("sub", "pred", "obj")} | {
    f"{_PROPERTY}.{key}": key for key in ("pred", "val")
}
# Otherwise ijson (3.6) asks Python for an integer of any length, and where Python refuses, its C code goes on
# with none: the process ends. So, integers of more than 64 bits are no well-formed JSON here.
_NUMBERS = {"use_float": True}
_KINDS = {"start_array": "list", "string": "str", "boolean": "bool", "null": "NoneType"}
# One half of a surrogate pair, but neither a whole pair nor a backslash that is escaped itself.
_HALF = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)


@dataclass(slots=True)
class _Graph:
    """What is known of a graph when its nodes are read: its header may stand behind them."""

    header: OntologyHeader = field(default_factory=OntologyHeader)
    version: str = ""
    parents: dict[str, list[str]] = field(default_factory=dict)
    nodes: int = 0


class Obographs:
    """The classes of an obographs file, iterable any number of times, in constant memory but for the tree.

    The file is read once for the headers and the relations, and then once more for each iteration.

    Source:
        "obographs: basic and extended graph model", https://github.com/geneontology/obographs
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        """Say which file; nothing is read yet.

        Args:
            path: the file, ``.gz`` or not.
            max_bytes: a file that is larger when unpacked is refused.
        """
        self._path = path
        self._max_bytes = max_bytes

    def __iter__(self) -> Iterator[OntologyHeader | OntologyTerm | Problem]:
        """Yield the header of every graph, then its classes in the file's order.

        Raises:
            CorpusError: the file cannot be read, is too large, or is no obographs JSON.
        """
        import ijson

        graphs = self._graphs
        nodes = itertools.chain.from_iterable(
            found for found, _ in self._parsed(lambda target: ijson.items_coro(target, _NODE, **_NUMBERS))
        )
        for number, graph in enumerate(graphs):
            if graph is None:
                yield Problem(f"{self._path.name}: graph {number}", "no object")
                continue
            yield graph.header
            own = (node for node in itertools.islice(nodes, graph.nodes) if isinstance(node, dict))
            for position, node in enumerate(own):
                where = f"{self._path.name}: graph {number}, node {position}"
                if not isinstance(node.get("id"), str):
                    yield Problem(where, "a node without an id")
                elif node.get("type", "CLASS") == "CLASS":
                    yield _term(node, where, graph.parents.get(node["id"], []))

    @cached_property
    def _graphs(self) -> list[_Graph | None]:
        """Read all but the nodes, which are counted; None for a graph that is no object."""
        import ijson

        skeleton = _Skeleton(self._path)
        for events, size in self._parsed(lambda target: ijson.parse_coro(target, **_NUMBERS)):
            skeleton.add(events, size)
        if not skeleton.has_graphs:
            raise CorpusError(f"{self._path}: no list 'graphs' in it; expected obographs JSON")
        return skeleton.graphs

    def _parsed(self, parser: Callable[[Any], Any]) -> Iterator[tuple[list[Any], int]]:
        """Yield what a parser makes of every block of the file, and the size of the block."""
        import ijson

        found = ijson.sendable_list()
        feed = parser(found)
        try:
            for block in self._blocks():
                for start in range(0, len(block), _PART_BYTES):
                    feed.send(block[start : start + _PART_BYTES])
                    yield found, min(_PART_BYTES, len(block) - start)
                    found.clear()
            feed.close()
            yield found, 0
        except UnicodeDecodeError:
            raise CorpusError(f"{self._path}: invalid UTF-8") from None
        except (ijson.JSONError, ValueError, ArithmeticError):  # the last two from its parser in Python
            line = self._line_of_mistake()
            raise CorpusError(f"{self._path}:{line}: not well-formed JSON, or too long a number") from None

    def _line_of_mistake(self) -> int:
        import ijson

        line, found = 1, ijson.sendable_list()
        feed = ijson.basic_parse_coro(found, **_NUMBERS)
        for block in self._blocks():
            for part in block.splitlines(keepends=True):
                try:
                    feed.send(part)
                except (ijson.JSONError, ValueError, ArithmeticError):
                    return line
                found.clear()
                line += part.endswith(b"\n")
        return line

    def _blocks(self) -> Iterator[bytes]:
        """Yield the file in blocks that are safe to parse."""
        nesting, size = NestingCheck(), 0
        try:
            with open_binary(self._path) as stream:
                for block in json_blocks(stream, longest=MAX_NODE_BYTES):
                    if not size:
                        if block.startswith((b"\xff\xfe", b"\xfe\xff")):
                            raise UnusableError("in UTF-16; expected UTF-8: convert it")
                        block = block.removeprefix(b"\xef\xbb\xbf")
                    size += len(block)
                    if size > self._max_bytes:
                        raise UnusableError(too_large(self._max_bytes))
                    nesting.check(block)
                    if b"\\ud" in block or b"\\uD" in block:
                        block = _HALF.sub(lambda found: b"\\ufffd" if found["half"] else found[0], block)
                    yield block
        except UnusableError as error:
            raise CorpusError(f"{self._path}: {error}") from None
        except GZIP_ERRORS:
            raise CorpusError(f"{self._path}: truncated or damaged gzip data; fetch the file again") from None
        except OSError as error:
            raise CorpusError(
                f"{self._path}: cannot be read ({error.strerror or type(error).__name__})"
            ) from None


class _Skeleton:
    """Collects headers and relations from the events of a parser, and counts the nodes."""

    def __init__(self, path: Path) -> None:
        self.graphs: list[_Graph | None] = []
        self.has_graphs = False
        self._path = path
        self._began = False
        self._names: dict[str, str] = {}
        self._nodes = self._relations = self._id_bytes = 0
        self._values: dict[str, str] = {}
        self._held: int | None = None  # bytes since the node began that is not yet at its end

    def add(self, events: list[tuple[str, str, Any]], size: int) -> None:
        """Take the events of the next block of ``size`` bytes.

        Raises:
            CorpusError: the file is no obographs JSON, or something in it is too large.
        """
        if events and not self._began:
            self._began = True
            kind = events[0][1]
            if kind != "start_map":
                raise CorpusError(
                    f"{self._path}: a JSON {_KINDS.get(kind, kind)}, expected the object of obographs"
                )
        for prefix, event, value in events:
            if prefix.startswith("graphs.item.nodes.item."):
                continue
            if prefix == _NODE:
                self._node(event)
            elif prefix in _PARTS:
                if event == "string":
                    self._values[_PARTS[prefix]] = value
            elif prefix == _EDGE or prefix == _PROPERTY:
                self._object(prefix, event)
            elif event == "string" and self.graphs and (graph := self.graphs[-1]):
                if prefix == "graphs.item.id":
                    graph.header.name = clean(value)
                elif prefix == "graphs.item.meta.version":
                    graph.version = clean(value)
            elif prefix == "graphs" and event == "start_array":
                self.has_graphs = True
            elif prefix == "graphs.item" and event not in ("map_key", "end_array"):
                self._graph(event)
        if self._held is not None:
            self._held += size
            if self._held > MAX_NODE_BYTES:
                raise CorpusError(f"{self._path}: a node of more than {MAX_NODE_BYTES:,} bytes; refused")

    def _graph(self, event: str) -> None:
        if event == "end_map":
            graph = self.graphs[-1]
            if graph and not graph.header.release:
                graph.header.release = graph.version
            return
        self.graphs.append(_Graph() if event == "start_map" else None)
        if len(self.graphs) > _MAX_GRAPHS:
            raise CorpusError(f"{self._path}: more than {_MAX_GRAPHS:,} graphs; expected one, or a few")

    def _node(self, event: str) -> None:
        if event in ("end_map", "end_array"):
            self._held = None
        elif event != "map_key":
            self._held = 0 if event in ("start_map", "start_array") else None
            self._nodes += 1
            if self._nodes > MAX_CODES:
                raise CorpusError(f"{self._path}: more than {MAX_CODES:,} nodes; refused")
            if self.graphs and (graph := self.graphs[-1]):
                graph.nodes += 1

    def _object(self, prefix: str, event: str) -> None:
        """Begin a relation or a property of the header, or take it in when it ends."""
        if event == "start_map":
            self._values = {}
        elif event == "end_map" and self.graphs and (graph := self.graphs[-1]):
            predicate = self._values.get("pred", "")
            if prefix == _PROPERTY:
                text = clean(self._values.get("val", ""))
                if predicate.endswith("versionInfo"):
                    graph.header.release = graph.header.release or text
                elif predicate.endswith("/license"):
                    graph.header.license = text
            elif predicate == "is_a" and "sub" in self._values and "obj" in self._values:
                self._relate(graph, self._values["sub"], curie(self._values["obj"]))

    def _relate(self, graph: _Graph, child: str, parent: str) -> None:
        self._relations += 1
        self._id_bytes += len(child) + (0 if parent in self._names else len(parent))
        if self._relations > MAX_CODES or self._id_bytes > _MAX_ID_BYTES:
            raise CorpusError(
                f"{self._path}: more than {MAX_CODES:,} relations of kind is_a, "
                f"or {_MAX_ID_BYTES:,} characters in their ids; refused"
            )
        parent = self._names.setdefault(parent, parent)  # one copy of each, as children are many
        graph.parents.setdefault(child, []).append(parent)


def curie(iri: str) -> str:
    """Return an OBO identifier in short: ``http://purl.obolibrary.org/obo/HP_0000001`` is ``HP:0000001``.

    What is not of that form is returned as it is.
    """
    found = _IRI.fullmatch(iri)
    return f"{found['prefix']}:{found['local']}" if found else iri


def _term(node: dict[str, Any], where: str, parents: list[str]) -> OntologyTerm:
    meta = _meta(node)
    term = OntologyTerm(where, id=curie(node["id"]), name=_text(node.get("lbl")), parents=parents)
    definition = meta.get("definition")
    term.definition = _text(definition.get("val")) if isinstance(definition, dict) else ""
    term.is_obsolete = meta.get("deprecated") is True
    for synonym in _objects(meta, "synonyms"):
        scope = _SCOPES.get(str(synonym.get("pred", "")), "related")
        kind = curie(_text(synonym.get("synonymType")).rpartition("#")[2])
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
