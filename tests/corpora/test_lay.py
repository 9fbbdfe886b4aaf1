"""What people say in clinical words, and the other way round."""

from __future__ import annotations

import pytest

from cmbert_retrieval.corpora.lay import MAX_RENDERINGS, VOCABULARY, key, lay_names, renderings


def lines() -> list[str]:
    found = VOCABULARY.read_text(encoding="utf-8").splitlines()
    return [line for line in found if line and not line.startswith("#")]


@pytest.mark.parametrize(
    ("phrase", "clinical"),
    [
        ("heart attack", "acute myocardial infarction"),
        ("Heart Attacks", "acute myocardial infarction"),
        ("old heart attack", "old myocardial infarction"),
        ("type 2 diabetes with CKD", "type 2 diabetes mellitus with chronic kidney disease"),
        ("broken left collarbone", "fracture of left clavicle"),
        ("fluid in my lungs", "acute pulmonary edema"),
        ("ATHLETE’S FOOT", "tinea pedis"),
        ("broken heart syndrome", "takotsubo syndrome"),
    ],
)
def test_the_longest_phrase_that_is_known_is_rendered_and_the_rest_stays(phrase: str, clinical: str) -> None:
    assert renderings(phrase) == [clinical]


@pytest.mark.parametrize("phrase", ["", "  ", "?!", "myocardial infarction", "heartattack", "low back pain"])
def test_a_phrase_that_needs_no_rendering_has_none(phrase: str) -> None:
    assert renderings(phrase) == []


def test_two_readings_of_a_phrase_are_both_given_in_the_order_of_the_vocabulary() -> None:
    assert renderings("hole in the heart") == ["atrial septal defect", "ventricular septal defect"]
    assert len(renderings("dog bite, cat bite, human bite and runny nose")) == MAX_RENDERINGS


def test_a_clinical_name_tells_what_people_call_it() -> None:
    assert "heart attack" in lay_names("Acute myocardial infarction")
    assert lay_names("Fracture of hip") == ["broken hip", "hip fracture"]
    assert lay_names("Fracture of hip NOS") == lay_names("") == []


def test_every_line_of_the_vocabulary_has_two_phrases_that_differ_and_stands_there_once() -> None:
    seen = set()
    for line in lines():
        lay, clinical = line.split("\t")
        assert lay == lay.strip().lower()
        assert clinical == clinical.strip().lower()
        assert key(lay), line
        assert key(clinical), line
        # "low back pain" is there so that its second half is not rendered alone.
        assert lay == clinical == "low back pain" or key(lay) != key(clinical), line
        assert (key(lay), clinical) not in seen, line
        seen.add((key(lay), clinical))
    assert len(seen) > 1000


def test_no_phrase_has_more_renderings_than_are_searched() -> None:
    for line in lines():
        lay, clinical = line.split("\t")
        found = renderings(lay)
        assert len(found) < MAX_RENDERINGS
        assert lay == clinical or key(clinical) in [key(text) for text in found]
