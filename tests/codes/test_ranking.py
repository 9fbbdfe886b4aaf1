"""Codes ranked for phrases: some real blocks by words, and a few categories by words and meaning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from samples import Wrapper

from cmbert_retrieval import Document, Retriever, load_encoder
from cmbert_retrieval.codes import CodeSearcher
from cmbert_retrieval.codes.ranking import rank_phrases
from cmbert_retrieval.corpora.icd10cm import Icd10cmCorpus
from cmbert_retrieval.errors import ConfigError, EncoderError, IndexMismatchError
from cmbert_retrieval.indexes.filters import parse_filter

BLOCKS = {"E08-E13", "I10-I1A", "I20-I25", "I60-I69", "N17-N19", "N20-N23", "S60-S69", "S70-S79", "J09-J18"}


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return [document for document in Icd10cmCorpus() if document.metadata["block"] in BLOCKS]


@pytest.fixture(scope="module")
def by_words(documents: list[Document]) -> Iterator[CodeSearcher]:
    columns = Icd10cmCorpus.columns
    with Retriever.from_documents(documents, encoder="none", columns=columns) as retriever:
        yield CodeSearcher(retriever)


@pytest.fixture(scope="module")
def by_both(documents: list[Document], tiny_encoder_path: Path) -> Iterator[CodeSearcher]:
    some = [document for document in documents if document.id[:3] in ("I21", "I25", "S72", "N20")]
    with Retriever.from_documents(
        some, encoder=tiny_encoder_path, columns=Icd10cmCorpus.columns
    ) as retriever:
        yield CodeSearcher(retriever)


def codes(searcher: CodeSearcher, phrase: str, k: int = 5, *, mode: str | None = None) -> list[str]:
    return [hit.code.code for hit in searcher.search(phrase, k, mode=mode)]


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("heart attack", {"I21", "I21.9"}),
        ("old heart attack", {"I25.2"}),
        ("broken hip", {"S72.00"}),
        ("kidney stones", {"N20.0"}),
        ("High Blood Pressure", {"I10"}),
        ("stroke", {"I63", "I63.9"}),
        ("flu", {"J11", "J10"}),
        ("CKD", {"N18", "N18.9"}),
        ("pneumonia", {"J18", "J18.9"}),
    ],
)
def test_what_people_say_comes_first_by_words_alone(
    by_words: CodeSearcher, phrase: str, expected: set[str]
) -> None:
    assert codes(by_words, phrase, 1)[0] in expected


def test_every_official_name_finds_its_code_first(by_words: CodeSearcher, documents: list[Document]) -> None:
    sample = documents[::40]
    for document, hits in zip(sample, by_words.search([d.title for d in sample], 3), strict=True):
        best = [hit for hit in hits if hit.score >= hits[0].score - 0.011]
        assert document.id in [hit.code.code for hit in best], document.id
        assert hits[0].score > 0.97


def test_a_name_that_adds_less_to_the_phrase_comes_first(by_words: CodeSearcher) -> None:
    found = codes(by_words, "fracture of neck of femur", 50)
    assert found.index("S72.00") < found.index("S72.04") < found.index("S72.041")


def test_the_official_name_is_shown_for_what_was_found_in_other_words(by_words: CodeSearcher) -> None:
    (hit,) = by_words.search("fracture of hip", 1)
    assert (hit.code.code, hit.matched) == ("S72.00", "Fracture of hip NOS")
    (hit,) = by_words.search("broken hip", 1)
    assert hit.code.code == "S72.00"
    assert hit.matched == "broken hip"


def test_a_phrase_that_leaves_something_open_prefers_the_code_that_does(by_words: CodeSearcher) -> None:
    assert codes(by_words, "acute myocardial infarction", 1) == ["I21"]
    assert codes(by_words, "acute myocardial infarction, unspecified", 1) == ["I21.9"]


def test_codes_for_the_rest_come_first_only_when_asked_for(by_words: CodeSearcher) -> None:
    assert codes(by_words, "other fracture of femur", 1) == ["S72.8"]
    assert codes(by_words, "fracture of femur", 1) != ["S72.8"]


def test_equal_names_reach_one_in_every_mode(by_both: CodeSearcher) -> None:
    for mode in ("lexical", "dense", "hybrid"):
        (first, *_) = by_both.search("Calculus of kidney", 3, mode=mode)
        assert first.code.code == "N20.0"
        assert first.score == pytest.approx(1, abs=0.01)


def test_scores_decrease_and_lie_between_nought_and_one(by_both: CodeSearcher) -> None:
    for phrase in ("heart attack", "broken bones", "zzz", "stone in the kidney, left"):
        scores = [hit.score for hit in by_both.search(phrase, 30)]
        assert scores == sorted(scores, reverse=True)
        assert all(-0.02 <= score <= 1.02 for score in scores)


def test_many_phrases_at_once_are_answered_as_one_by_one(by_both: CodeSearcher) -> None:
    phrases = ["heart attack", "", "broken hip", "N20.0", "  ", "angina"]
    together = by_both.search(phrases, 7)
    for phrase, hits in zip(phrases, together, strict=True):
        alone = by_both.search(phrase, 7)
        assert [hit.code.code for hit in hits] == [hit.code.code for hit in alone]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone], abs=1e-4)
    assert together[1] == together[4] == []


def test_no_more_are_found_than_pass_the_filter_and_no_fewer(by_both: CodeSearcher) -> None:
    retriever = by_both.retriever
    where = parse_filter("kind=category", retriever.manifest.columns)
    (found,) = rank_phrases(retriever, ["fracture"], 50, where=where)
    assert {code.id for code in found} == {"I21", "I25", "S72", "N20"}
    everything = codes(by_both, "fracture", 10_000)
    assert len(everything) == len(set(everything)) == len(retriever)


def test_wrong_arguments_are_errors(by_words: CodeSearcher) -> None:
    with pytest.raises(ConfigError, match="unknown mode 'fuzzy'"):
        by_words.search("femur", mode="fuzzy")
    with pytest.raises(ConfigError, match="k is 10001"):
        by_words.search("femur", 10_001)
    with pytest.raises(IndexMismatchError, match="words only"):
        by_words.search("femur", mode="hybrid")


def test_asking_for_more_codes_changes_nothing_about_the_first_ones(
    by_words: CodeSearcher, by_both: CodeSearcher
) -> None:
    for searcher in (by_words, by_both):
        for phrase in ("heart attack", "fracture of femur NOS", "other diabetes", "stone", "right hand"):
            many = rank_phrases(searcher.retriever, [phrase], 1000)[0]
            scores = [code.score for code in many]
            assert scores == sorted(scores, reverse=True)
            assert len({code.id for code in many}) == len(many)
            for k in (1, 3, 10, 40, 150, 400):
                assert rank_phrases(searcher.retriever, [phrase], k)[0] == many[:k]


@pytest.mark.parametrize("query", [None, 3, ["heart attack", None], "hip \ud800 fracture", ["x", "\ud800"]])
def test_what_is_no_valid_text_is_refused_without_quoting_it(by_words: CodeSearcher, query: Any) -> None:
    with pytest.raises(ConfigError, match="a query") as caught:
        by_words.search(query)
    assert "hip" not in str(caught.value)


def test_vectors_of_phrases_are_checked_as_those_of_queries(
    documents: list[Document], tiny_encoder_path: Path
) -> None:
    broken = Wrapper(load_encoder(tiny_encoder_path))
    some = [document for document in documents if document.id[:3] == "I21"]
    with Retriever.from_documents(some, encoder=broken, columns=Icd10cmCorpus.columns) as retriever:
        searcher = CodeSearcher(retriever)
        assert searcher.search("infarction")
        broken.poison["infarction"] = float("nan")
        with pytest.raises(EncoderError, match="NaN"):
            searcher.search("infarction")
