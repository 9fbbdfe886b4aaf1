"""The whole release with the default encoder: what people type, and the codes that a coder would expect."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from cmbert_retrieval import Retriever
from cmbert_retrieval.codes import CodeSearcher

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def searcher() -> Iterator[CodeSearcher]:
    with Retriever.from_pretrained("icd10cm") as retriever:
        yield CodeSearcher(retriever)


def first(searcher: CodeSearcher, phrase: str, k: int) -> list[str]:
    return [hit.code.code for hit in searcher.search(phrase, k)]


@pytest.mark.parametrize(
    ("phrase", "beginning"),
    [
        ("heart attack", "I21"),
        ("type 2 diabetes with kidney disease", "E11.2"),
        ("sugar disease", "E1"),
        ("kidney stones", "N20"),
        ("pneumonia", "J18"),
        ("low blood sugar", "E16"),
        ("pink eye", "H10"),
        ("appendicitis", "K3"),
        ("chest pain", "R07"),
        ("COPD exacerbation", "J44.1"),
        ("migraine with aura", "G43.1"),
        ("high blood pressure in pregnancy", "O1"),
        ("water on the lungs", "J81"),
        ("stroke", "I63"),
    ],
)
def test_the_first_answer_is_the_one_that_is_expected(
    searcher: CodeSearcher, phrase: str, beginning: str
) -> None:
    assert first(searcher, phrase, 1)[0].startswith(beginning)


@pytest.mark.parametrize(
    ("phrase", "beginnings"),
    [
        ("broken hip", {"S72.0"}),
        ("broken wrist", {"S62.1", "S52.5"}),
        ("rash after penicillin", {"L27", "T36.0"}),
        ("dog bite hand", {"W54", "S61.4"}),
    ],
)
def test_expected_codes_are_among_the_first_five(
    searcher: CodeSearcher, phrase: str, beginnings: set[str]
) -> None:
    found = first(searcher, phrase, 5)
    assert any(code.startswith(tuple(beginnings)) for code in found), found


def test_a_search_of_the_index_itself_knows_what_people_say_too(searcher: CodeSearcher) -> None:
    hits = searcher.retriever.search("heart attack", 5)
    assert hits[0].id.startswith("I21")


def test_a_look_up_takes_no_more_than_a_moment(searcher: CodeSearcher) -> None:
    phrases = ["heart attack", "broken hip", "kidney stones", "migraine with aura", "stroke"]
    first(searcher, phrases[0], 10)
    times = []
    for phrase in phrases * 3:
        begin = time.perf_counter()
        first(searcher, phrase, 10)
        times.append(time.perf_counter() - begin)
    assert sorted(times)[len(times) // 2] < 0.25  # 0.03 s on an idle machine
