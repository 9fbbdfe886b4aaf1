"""Evaluation sets from folders, files and by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from samples import write_beir

from cmbert_retrieval.errors import ConfigError, CorpusError
from cmbert_retrieval.evaluation.datasets import beir_folder, from_files, judged_texts, named_set
from cmbert_retrieval.evaluation.suites import SetRecipe, open_set


@pytest.mark.parametrize("packed", [False, True])
def test_a_beir_folder_gives_its_judged_queries(packed: bool, tmp_path: Path) -> None:
    one = beir_folder(write_beir(tmp_path / "zinc", packed=packed))
    assert one.name == "zinc"
    assert one.queries == {"q1": "does zinc help"}
    assert one.qrels == {"q1": {"d2": 1}}
    assert [document.id for document in one.corpus] == ["d1", "d2", "d3"]


def test_a_beir_folder_without_the_split_is_an_error_that_names_the_files(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"qrels: no dev\.tsv or dev\.tsv\.gz"):
        beir_folder(write_beir(tmp_path / "zinc"), split="dev")


def test_a_judged_query_without_a_text_is_an_error(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "zinc", queries={"q2": "something else"})
    with pytest.raises(CorpusError, match=r"zinc: 1 judged queries have no text \('q1' is the first\)"):
        beir_folder(folder)


def test_a_set_is_made_of_trec_files(tmp_path: Path) -> None:
    (tmp_path / "docs.trec").write_text(
        "<DOC>\n<DOCNO> d1 </DOCNO>\n<TEXT>\nZinc and colds.\n</TEXT>\n</DOC>\n"
        "<DOC>\n<DOCNO> d2 </DOCNO>\n<TEXT>\nAspirin.\n</TEXT>\n</DOC>\n"
    )
    (tmp_path / "topics.txt").write_text("<top>\n<num> Number: 7\n<title> zinc\n</top>\n")
    (tmp_path / "qrels.txt").write_text("7 0 d1 2\n")
    one = from_files("mine", str(tmp_path / "docs.trec"), tmp_path / "topics.txt", tmp_path / "qrels.txt")
    assert one.queries == {"7": "zinc"}
    assert one.qrels == {"7": {"d1": 2}}
    assert [document.id for document in one.corpus] == ["d1", "d2"]


def test_the_parts_of_topics_that_are_asked_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "docs.trec").write_text("<DOC><DOCNO>d1</DOCNO><TEXT>Zinc</TEXT></DOC>")
    (tmp_path / "topics.xml").write_text(
        '<topics><topic number="1"><query>zinc</query><question>does zinc help</question></topic></topics>'
    )
    (tmp_path / "qrels.txt").write_text("1 0 d1 2\n")
    files = (str(tmp_path / "docs.trec"), tmp_path / "topics.xml", tmp_path / "qrels.txt")
    assert from_files("mine", *files, topics=["question"]).queries == {"1": "does zinc help"}
    recipe = SetRecipe(
        name="mine", corpus="docs.trec", queries="topics.xml", qrels="qrels.txt", topics=["query", "question"]
    )
    assert open_set(recipe, tmp_path, "test").queries == {"1": "zinc does zinc help"}
    with pytest.raises(CorpusError, match=r"topics\.xml:1: a topic without title; .*: query, question"):
        from_files("mine", *files)


def test_equal_questions_are_one_query_with_all_that_answers_them() -> None:
    rows = [("1", "Kidney  stones", "a"), ("2", "gout", "b"), ("3", "kidney stones", "c")]
    queries, qrels = judged_texts(rows)
    assert queries == {"1": "Kidney  stones", "2": "gout"}
    assert qrels == {"1": {"a": 1, "c": 1}, "2": {"b": 1}}


def test_an_unknown_set_is_an_error_that_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"unknown set 'scifakt'; named sets are .*; did you mean 'scifact'\?$"
    ):
        named_set("scifakt", tmp_path)


def test_a_set_that_needs_data_says_how_to_give_them(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"scifact/corpus\.jsonl\.gz is needed: .*--data DIR or CMBERT_DATA"
    ):
        named_set("scifact", None)
    with pytest.raises(CorpusError, match=r"no scifact/corpus\.jsonl"):
        named_set("scifact", tmp_path)


def test_nothing_is_tuned_on_a_set_for_tests_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is trained or tuned on it"):
        named_set("bioasq", tmp_path, split="train")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "queries", "judgements"),
    [
        ("scifact", 300, 339),
        ("nfcorpus", 323, 12_334),
        ("med", 30, 696),
        ("bioasq", 1_979, 22_299),
        ("pmc-fulltext", 574, 798),
        ("hcpcs-short", 1_348, 1_403),
    ],
)
def test_named_sets_have_the_published_counts(
    name: str, queries: int, judgements: int, shared_data: Path
) -> None:
    one = named_set(name, shared_data)
    assert len(one.queries) == queries
    assert sum(map(len, one.qrels.values())) == judgements


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["scifact", "nfcorpus", "med", "medquad", "pmc-evidence", "pmc-fulltext", "icd9cm-titles"]
)
def test_what_is_judged_is_among_the_documents_and_ids_are_unique(name: str, shared_data: Path) -> None:
    one = named_set(name, shared_data)
    ids = [document.id for document in one.corpus]
    known = set(ids)
    assert len(known) == len(ids)
    judged = {id_ for grades in one.qrels.values() for id_, grade in grades.items() if grade > 0}
    assert judged - known == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["medquad", "pmc-evidence", "icd10cm-synonyms", "icd10cm-neoplasm"])
def test_no_question_is_in_two_splits(name: str, shared_data: Path) -> None:
    texts = [
        {
            " ".join(text.casefold().split())
            for text in named_set(name, shared_data, split=split).queries.values()
        }
        for split in ("train", "test")
    ]
    # An outcome is asked of trials in several splits; what is judged then are all of them.
    allowed = 0.25 if name == "pmc-evidence" else 0.02
    assert len(texts[0] & texts[1]) <= allowed * len(texts[1])


def test_held_out_names_are_not_in_the_index_that_they_are_looked_up_in() -> None:
    one = named_set("icd10cm-inclusion", None)
    entries = {document.id: {entry.casefold() for entry in document.entries} for document in one.corpus}
    found = sum(
        one.queries[id_].casefold() in entries[code] for id_, grades in one.qrels.items() for code in grades
    )
    # A term that says the title in other words may be one that people use: those come from elsewhere.
    assert found <= 0.02 * len(one.queries)
    assert len(one.queries) > 2_000
