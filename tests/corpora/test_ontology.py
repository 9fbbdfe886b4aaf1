"""Ontologies: OBO and obographs of the same terms, real HPO, and broken files."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from code_systems import OBO, OBOGRAPHS

from cmbert_retrieval.corpora.obo import read_obo
from cmbert_retrieval.corpora.obographs import Obographs
from cmbert_retrieval.corpora.ontology import OntologyCorpus
from cmbert_retrieval.corpora.ontology_terms import OntologyHeader, OntologyTerm
from cmbert_retrieval.errors import ConfigError, CorpusError
from cmbert_retrieval.types import Document


def written(folder: Path, text: str = OBO, name: str = "gno.obo") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def by_id(path: Path, **options: Any) -> dict[str, Document]:
    return {document.id: document for document in OntologyCorpus(path, **options).strictly()}


@pytest.fixture
def gnomes(tmp_path: Path) -> dict[str, Document]:
    return by_id(written(tmp_path))


def test_escapes_quotes_modifiers_and_comments_are_read(gnomes: dict[str, Document]) -> None:
    gnome = gnomes["GNO:0000001"]
    assert gnome.title == "gnome"
    assert gnome.text.splitlines()[1] == 'A "small" figure, with a hat (red). It stands.'
    assert gnome.metadata["names"] == {
        "preferred": ["gnome"],
        "exact": ["garden dwarf", 'gnomus, "verus"'],
        "narrow": ["hat-gnome"],
        "broad": ["troll"],
        "related": ["little fellow", "without a scope"],
    }
    assert gnome.metadata["synonym_types"] == {"layperson": ["garden dwarf"]}
    assert gnome.metadata["xrefs"] == ["MESH:D900001", "UMLS:C1"]
    assert gnome.metadata["alternative_ids"] == ["GNO:0000009"]
    assert gnome.metadata["subsets"] == ["garden"]
    assert gnomes["GNO:0000003"].text.splitlines()[1] == "One line that goes on."


def test_the_header_tells_release_and_licence(gnomes: dict[str, Document]) -> None:
    metadata = gnomes["GNO:0000001"].metadata
    assert (metadata["system"], metadata["release"]) == ("gno", "2026-01-31")
    assert metadata["license"] == "https://example.org/license"


def test_only_exact_synonyms_are_entries_unless_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path)
    exact = ("gnome", "garden dwarf", 'gnomus, "verus"')
    assert by_id(path)["GNO:0000001"].entries == exact
    assert by_id(path, synonyms="exact,narrow")["GNO:0000001"].entries == (*exact, "hat-gnome")
    assert len(by_id(path, synonyms="all")["GNO:0000001"].entries) == 7
    with pytest.raises(
        ConfigError, match=r"unknown scope 'exactly' of synonyms; expected all, or some of exact"
    ):
        OntologyCorpus(path, synonyms="exactly")


def test_terms_above_each_other_or_themselves_are_read_as_they_stand(gnomes: dict[str, Document]) -> None:
    assert gnomes["GNO:0000001"].metadata["parents"] == []
    assert gnomes["GNO:0000001"].metadata["children"] == ["GNO:0000002"]
    assert gnomes["GNO:0000002"].metadata["parents"] == ["GNO:0000001", "GNO:0000003"]
    assert gnomes["GNO:0000003"].metadata["parents"] == ["GNO:0000002"]
    assert gnomes["GNO:0000003"].metadata["children"] == ["GNO:0000002"]


def test_obsolete_nameless_and_other_terms_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert list(by_id(path)) == ["GNO:0000001", "GNO:0000002", "GNO:0000003", "POND:0000001"]
    assert "left out 1 obsolete term, 1 reference without a name" in caplog.text
    everything = by_id(path, obsolete=True)
    assert everything["GNO:0000004"].metadata["replaced_by"] == ["GNO:0000001"]
    assert everything["GNO:0000004"].metadata["obsolete"] is True
    assert list(by_id(path, prefixes="POND")) == ["POND:0000001"]
    assert list(by_id(path, prefixes=["GNO:", "POND"])) == list(by_id(path))


def test_obographs_of_the_same_ontology_give_the_same_documents(
    tmp_path: Path, gnomes: dict[str, Document]
) -> None:
    path = written(tmp_path, json.dumps(OBOGRAPHS), "gno.json")
    assert by_id(path) == gnomes
    assert by_id(path, obsolete=True) == by_id(tmp_path / "gno.obo", obsolete=True)
    packed = tmp_path / "gno.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert by_id(packed) == gnomes


def test_a_malformed_tag_is_a_problem_and_the_term_is_read_without_it(tmp_path: Path) -> None:
    text = "[Term]\nid: GNO:1\nname: gnome\ndef: no quotes here\nSmith, John\nsynonym: none []\n"
    records = list(OntologyCorpus(written(tmp_path, text)).records())
    problems = [str(record.problem) for record in records if record.problem]
    assert problems == [
        "gno.obo:4: a definition without its quotes",
        "gno.obo:5: no line of an OBO file: expected a tag, a colon and a value",
        "gno.obo:6: a synonym without its quotes",
    ]
    assert [record.document.id for record in records if record.document] == ["GNO:1"]


@pytest.mark.parametrize("hostile", ["two words", "a\u202eb", "tab\there", ""])
def test_an_id_that_no_index_takes_is_a_problem(hostile: str, tmp_path: Path) -> None:
    text = f"[Term]\nid: {hostile}\nname: gnome\n\n[Term]\nid: GNO:1\nname: gnome\n"
    records = list(OntologyCorpus(written(tmp_path, text)).records())
    assert [record.document.id if record.document else "" for record in records] == ["", "GNO:1"]
    assert str(records[0].problem).startswith("gno.obo:1: the id ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"gno\.json:1: not well-formed JSON"),
        ('{"graphs": [\n{"id": "a"},\n{"id": "b\n"}]}', r"gno\.json:3: not well-formed JSON"),
        ('{"graphs": []} {}', r"gno\.json:1: not well-formed JSON"),
        ('{"graphs": [' + "9" * 5000 + "]}", r"gno\.json:1: .*too long a number"),
        (
            '{"graphs": [{"nodes": [{"id": "a", "x": [' + '"a",' * 2**20 + "1]}]}]}",
            "a node of more than 4,194,304",
        ),
        ('{"graphs": [' + "{}," * 1001 + "{}]}", "more than 1,000 graphs; expected one, or a few"),
        ('{"graphs": [{"id": "' + " " * 2**23 + '"}]}', "4,194,304 bytes without a quotation mark"),
        ("[1]", "a JSON list, expected the object of obographs"),
        ('{"graphs": 3}', "no list 'graphs' in it"),
        ('{"graphs": [{"nodes": []}]}', "no code in it; expected an ontology"),
        ('{"graphs": ' + "[" * 100_000, "nested too deeply|not well-formed"),
    ],
)
def test_json_that_is_no_obographs_is_an_error_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=message) as caught:
        list(OntologyCorpus(written(tmp_path, text, "gno.json")))
    assert "\n" not in str(caught.value)


def test_obographs_with_values_of_other_types_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    node = {
        "id": "GNO:1",
        "lbl": "gnome \ud800",
        "meta": {"synonyms": [1, {"val": 2}], "xrefs": "x", "subsets": [3]},
    }
    graphs = {
        "graphs": [1, {"nodes": [node, {"lbl": "no id"}, {"id": 5}], "edges": [{"sub": 1}, "x"], "meta": []}]
    }
    records = list(OntologyCorpus(written(tmp_path, json.dumps(graphs), "gno.json")).records())
    assert [record.document.title for record in records if record.document] == ["gnome \ufffd"]
    assert sum(record.problem is not None for record in records) == 3


def test_a_file_larger_than_allowed_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps(OBOGRAPHS), "gno.json")
    with pytest.raises(CorpusError, match=r"larger than 100 bytes when unpacked; raise the option max_bytes"):
        list(OntologyCorpus(path, max_bytes=100))


def test_a_graph_may_tell_its_name_and_relations_before_or_behind_its_nodes(tmp_path: Path) -> None:
    (graph,) = OBOGRAPHS["graphs"]
    turned = {"graphs": [dict(reversed(graph.items()))]}
    assert list(turned["graphs"][0]) != list(graph)
    expected = by_id(written(tmp_path, json.dumps(OBOGRAPHS), "gno.json"))
    assert by_id(written(tmp_path, json.dumps(turned), "turned.json")) == expected
    assert by_id(written(tmp_path, json.dumps(turned, indent=8), "wide.json")) == expected


def test_the_graphs_of_a_file_keep_their_relations_and_names_apart(tmp_path: Path) -> None:
    nodes = [{"id": "GNO:1", "lbl": "gnome"}, {"id": "GNO:2", "lbl": "dwarf"}]
    edges = [
        {"sub": "GNO:1", "pred": "is_a", "obj": "GNO:2"},
        {"sub": "GNO:2", "pred": "likes", "obj": "GNO:1"},
    ]
    first = {"nodes": nodes, "edges": edges, "id": "first"}
    second = {"meta": {"version": "2"}, "nodes": [1, *nodes, "x"], "id": "second"}
    text = json.dumps({"meta": {}, "graphs": [first, {}, second], "id": "none of them"})
    items = list(Obographs(written(tmp_path, text, "gno.json"), max_bytes=10_000))
    assert [item.name for item in items if isinstance(item, OntologyHeader)] == ["first", "", "second"]
    assert [item.release for item in items if isinstance(item, OntologyHeader)] == ["", "", "2"]
    terms = [item for item in items if isinstance(item, OntologyTerm)]
    assert [(term.id, term.parents) for term in terms] == [
        ("GNO:1", ["GNO:2"]), ("GNO:2", []), ("GNO:1", []), ("GNO:2", []),
    ]  # fmt: skip
    assert [term.where for term in terms][2:] == [f"gno.json: graph 2, node {n}" for n in (0, 1)]


@pytest.mark.parametrize(
    ("written_as", "read_as"),
    [
        (r"\ud83d\ude00", "\U0001f600"),
        (r"\uD83D x", "\ufffd x"),
        (r"\ude00\ud83d\u0041", "\ufffd\ufffdA"),
        (r"\\ud83d", r"\ud83d"),
        (r"\\\ud83d", "\\\ufffd"),
    ],
)
def test_halves_of_surrogate_pairs_are_replaced_and_pairs_are_not(
    written_as: str, read_as: str, tmp_path: Path
) -> None:
    text = f'{{"graphs": [{{"nodes": [{{"id": "GNO:1", "lbl": "{written_as}"}}]}}]}}'
    assert by_id(written(tmp_path, text, "gno.json"))["GNO:1"].title == read_as


def test_a_byte_order_mark_is_passed_over_and_utf_16_is_refused(tmp_path: Path) -> None:
    text = json.dumps(OBOGRAPHS)
    path = written(tmp_path, "\ufeff" + text, "gno.json")
    assert len(by_id(path)) == 4
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(CorpusError, match="in UTF-16; expected UTF-8: convert it"):
        by_id(path)
    path.write_bytes(text.encode().replace(b"gnome", b"gnom\xe9"))
    with pytest.raises(CorpusError, match=r"gno\.json: invalid UTF-8|gno\.json:1: not well-formed"):
        by_id(path)


def test_memory_does_not_grow_with_the_terms(tmp_path: Path) -> None:
    def peak(terms: int) -> int:
        node = {"id": "", "lbl": "gnome", "meta": {"definition": {"val": "A figure of clay. " * 50}}}
        nodes = ",".join(json.dumps({**node, "id": f"GNO:{n}"}) for n in range(terms))
        path = written(tmp_path, f'{{"graphs": [{{"nodes": [{nodes}]}}]}}', "gno.json")
        del nodes
        tracemalloc.start()
        try:
            assert sum(1 for _ in OntologyCorpus(path)) == terms
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(4_000) < 1.25 * peak(1_000)


def test_another_kind_of_file_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"gno\.owl: expected an ontology as an OBO file"):
        OntologyCorpus(written(tmp_path, "", "gno.owl"))


def test_a_stanza_without_end_is_refused(tmp_path: Path) -> None:
    text = "[Term]\nid: GNO:1\nname: gnome\n" + "xref: A:1\n" * 100_001
    with pytest.raises(CorpusError, match=r"gno\.obo:\d+: more than 100,000 lines in one stanza"):
        list(read_obo(written(tmp_path, text)))


@pytest.mark.slow
def test_the_real_hpo_has_the_synonyms_of_another_reading(shared_data: Path) -> None:
    folder = shared_data / "ontology_hpo"
    documents = by_id(folder / "hp.obo.gz")
    with gzip.open(folder / "hpo_synonyms.tsv.gz", "rt", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    got = {
        (term, scope, text.casefold())
        for term, document in documents.items()
        for scope, texts in document.metadata["names"].items()
        for text in texts
        if scope != "preferred"
    }
    wanted = {
        (row["hpo_id"], row["scope"].lower(), " ".join(row["synonym"].split()).casefold()) for row in rows
    }
    assert {row for row in wanted if row[0] in documents} <= got
    # The other reading leaves out those of a type of its own, which only say how a gene is inherited.
    more = got - wanted
    assert all(
        text in map(str.casefold, documents[term].metadata["synonym_types"]["HP:0034334"])
        for term, _, text in more
    )
    for document in documents.values():
        assert all(parent in documents for parent in document.metadata["parents"])
        assert all(
            document.id in documents[child].metadata["parents"] for child in document.metadata["children"]
        )


@pytest.mark.slow
def test_the_real_hpo_reads_the_same_from_obographs(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "ontology_hpo" / "hp.obo.gz"
    path = written(tmp_path, json.dumps(obographs(source), indent=2), "hp.json")
    for options in ({}, {"obsolete": True, "synonyms": "all"}):
        documents, expected = by_id(path, **options), by_id(source, **options)
        assert list(documents) == list(expected)
        for term, document in documents.items():
            other = expected[term]
            assert (document.title, document.text) == (other.title, other.text)
            assert document.entries == other.entries
            assert comparable(document) == comparable(other)


def comparable(document: Document) -> dict[str, Any]:
    """Return metadata without the order of synonyms of a type, which obographs list by their scope."""
    types = {kind: sorted(texts) for kind, texts in document.metadata.get("synonym_types", {}).items()}
    return {**document.metadata, "synonym_types": types}


def obographs(path: Path) -> dict[str, Any]:
    """Return the terms of an OBO file as obographs, as far as the reader looks."""
    header, nodes, edges = OntologyHeader(), [], []
    for item in read_obo(path):
        if isinstance(item, OntologyHeader):
            header = item
        elif isinstance(item, OntologyTerm):
            nodes.append(node(item))
            edges += [{"sub": iri(item.id), "pred": "is_a", "obj": iri(parent)} for parent in item.parents]
    properties = [
        {"pred": "http://www.w3.org/2002/07/owl#versionInfo", "val": header.release},
        {"pred": "http://purl.org/dc/terms/license", "val": header.license},
    ]
    meta = {"basicPropertyValues": properties}
    return {"graphs": [{"nodes": nodes, "edges": edges, "id": header.name, "meta": meta}]}


def iri(curie: str) -> str:
    prefix, colon, local = curie.partition(":")
    return f"http://purl.obolibrary.org/obo/{prefix}_{local}" if colon and local.isalnum() else curie


def node(term: OntologyTerm) -> dict[str, Any]:
    kinds = {text: kind for kind, texts in term.synonym_types.items() for text in texts}
    synonyms = [
        {
            "pred": f"has{scope.title()}Synonym",
            "val": text,
            **({"synonymType": f"http://purl.obolibrary.org/obo/hp#{kinds[text]}"} if text in kinds else {}),
        }
        for scope, texts in term.synonyms.items()
        for text in texts
    ]
    properties = [
        *({"pred": "oboInOwl#hasAlternativeId", "val": iri(other)} for other in term.alternative_ids),
        *({"pred": "http://purl.obolibrary.org/obo/IAO_0100001", "val": iri(o)} for o in term.replaced_by),
    ]
    return {
        "id": iri(term.id),
        "lbl": term.name,
        "type": "CLASS",
        "meta": {
            "definition": {"val": term.definition},
            "deprecated": term.is_obsolete,
            "synonyms": synonyms,
            "xrefs": [{"val": other} for other in term.xrefs],
            "subsets": [f"http://purl.obolibrary.org/obo/hp#{subset}" for subset in term.subsets],
            "basicPropertyValues": properties,
        },
    }
