"""Looking codes up, over a real index (words only) of four blocks of the installed release."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cmbert_retrieval import Document, Retriever
from cmbert_retrieval.codes import CodeSearcher
from cmbert_retrieval.corpora.code_documents import CODE_COLUMNS, code_document
from cmbert_retrieval.corpora.icd10cm import Icd10cmCorpus
from cmbert_retrieval.errors import ConfigError, IndexMismatchError

BLOCKS = {"E08-E13", "I20-I25", "S70-S79", "T07"}


@pytest.fixture(scope="module")
def searcher() -> Iterator[CodeSearcher]:
    documents = [document for document in Icd10cmCorpus() if document.metadata["block"] in BLOCKS]
    columns = Icd10cmCorpus.columns
    with Retriever.from_documents(documents, encoder="none", columns=columns) as retriever:
        yield CodeSearcher(retriever)


def codes(searcher: CodeSearcher, query: str, k: int = 10, **options: Any) -> list[str]:
    return [hit.code.code for hit in searcher.search(query, k, **options)]


@pytest.mark.parametrize("written", ["I21.4", "i21.4", "I214", "i214", " I21.4 "])
def test_a_code_is_found_as_people_write_it(searcher: CodeSearcher, written: str) -> None:
    (hit,) = searcher.search(written)
    assert (hit.rank, hit.score, hit.code.code, hit.full_code) == (1, 1.0, "I21.4", "I21.4")
    assert hit.matched == written.strip()
    found = searcher.get(written)
    assert found is not None
    assert found.title == "Non-ST elevation (NSTEMI) myocardial infarction"


@pytest.mark.parametrize(
    ("written", "full", "meaning"),
    [
        ("S72.001A", "S72.001A", "initial encounter for closed fracture"),
        ("s72001s", "S72.001S", "sequela"),
        ("T07.XXXA", "T07.XXXA", "initial encounter"),
        ("t07xxxd", "T07.XXXD", "subsequent encounter"),
    ],
)
def test_a_seventh_character_gives_the_code_that_it_extends(
    searcher: CodeSearcher, written: str, full: str, meaning: str
) -> None:
    (hit,) = searcher.search(written)
    assert hit.full_code == full
    assert hit.code.seventh[hit.seventh] == meaning


@pytest.mark.parametrize(
    "written", ["S72.001Z", "S72.00XA", "T07.XXYA", "T07A", "I21.4XXA", "I99.9", "Z99", "NSTEMI", "I2", ""]
)
def test_what_names_no_code_resolves_to_none(searcher: CodeSearcher, written: str) -> None:
    assert searcher.resolve(written) is None
    assert searcher.get(written) is None


def test_a_category_comes_first_then_what_is_below_it_level_by_level(searcher: CodeSearcher) -> None:
    found = codes(searcher, "E11", 500)
    assert found[:4] == ["E11", "E11.0", "E11.1", "E11.2"]
    category = searcher.get("E11")
    assert category is not None
    assert found[1 : 1 + len(category.children)] == list(category.children)
    assert all(code.startswith("E11") for code in found)
    assert len(found) == len(set(found)) > 60
    assert {len(code) for code in found} == {3, 5, 6, 7}
    assert [len(code) for code in found] == sorted(len(code) for code in found)
    assert codes(searcher, "E11.2") == ["E11.2", "E11.21", "E11.22", "E11.29"]
    assert codes(searcher, "e11.2-") == codes(searcher, "E11.2*") == codes(searcher, "E112")
    assert codes(searcher, "E11.-", 3) == ["E11", "E11.0", "E11.1"]


def test_two_characters_with_a_star_are_all_categories_that_begin_so(searcher: CodeSearcher) -> None:
    assert codes(searcher, "I2*", 6) == ["I20", "I21", "I22", "I23", "I24", "I25"]
    assert codes(searcher, "Q8*") == []


def test_phrases_are_searched_and_say_which_text_matched(searcher: CodeSearcher) -> None:
    hits = searcher.search("non-Q wave infarction", 3)
    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert hits[0].code.code == "I21.4"
    assert hits[0].matched == "Non-Q wave myocardial infarction NOS"
    assert hits[0].seventh == ""


def test_several_texts_are_answered_in_their_order(searcher: CodeSearcher) -> None:
    queries = ["femur fracture", "I21.4", "angina", ""]
    answers = searcher.search(queries, 4)
    assert answers == [searcher.search(query, 4) for query in queries]
    assert answers[1][0].code.code == "I21.4"
    assert answers[3] == []
    assert searcher.search([], 4) == []


@pytest.mark.parametrize(
    "condition",
    [
        {"billable": True},
        {"billable": False, "kind": "code"},
        {"kind": ["category", "subcategory"]},
        {"kind": {"ne": "code"}},
        {"kind": {"not_in": ["category", "code"]}},
        {"block": "E08-E13"},
        {"block": {"exists": False}},
        {"chapter": {"exists": True}},
        "kind=code",
    ],
)
def test_a_named_code_passes_a_filter_just_when_the_index_lets_it_pass(
    searcher: CodeSearcher, condition: Any
) -> None:
    everything = codes(searcher, "I2*", 1000) + codes(searcher, "S7*", 1000)
    named = set(
        codes(searcher, "I2*", 1000, filter=condition) + codes(searcher, "S7*", 1000, filter=condition)
    )
    words = "infarction angina heart coronary fracture femur hip disease injury artery ischemic"
    by_words = {hit.id for hit in searcher.retriever.search(words, 1000)} & set(everything)
    filtered = {hit.id for hit in searcher.retriever.search(words, 1000, filter=condition)}
    assert by_words
    assert named & by_words == filtered & by_words


def test_an_undeclared_column_and_k_of_0_are_errors_for_codes_as_for_phrases(searcher: CodeSearcher) -> None:
    for query in ("E11", "diabetes"):
        with pytest.raises(ConfigError, match="not a column"):
            searcher.search(query, filter={"colour": "red"})
        with pytest.raises(ConfigError, match="k is 0"):
            searcher.search(query, 0)


def test_an_index_of_something_else_is_refused() -> None:
    document = Document("I21", "about the heart", title="An article")
    with Retriever.from_documents([document], encoder="none") as retriever:
        for query in ("I21", "heart"):
            with pytest.raises(IndexMismatchError, match="document 'I21' is no code"):
                CodeSearcher(retriever).search(query)


@pytest.mark.parametrize(
    ("system", "code", "written"),
    [
        ("hcpcs", "A0021", ["A0021", "a0021"]),
        ("icd9cm", "001.0", ["001.0", " 001.0 "]),
        ("icd10pcs", "0016070", ["0016070"]),
        ("doid", "DOID:4", ["DOID:4", "doid:4"]),
    ],
)
def test_codes_of_other_systems_are_found_as_they_are_published(
    system: str, code: str, written: list[str]
) -> None:
    place = {"system": system, "release": "2031"}
    documents = [
        code_document(code, "Gnome transport", place, kind="code", entries=["Gnome transport"]),
        code_document("X99", "Gnome", place, kind="code", entries=["Gnome"]),
    ]
    with Retriever.from_documents(documents, encoder="none", columns=CODE_COLUMNS) as retriever:
        for text in written:
            assert codes(CodeSearcher(retriever), text) == [code]
            found = CodeSearcher(retriever).get(text)
            assert found is not None and found.code == code
