"""Names of codes as texts to be found by."""

from __future__ import annotations

import pytest

from cmbert_retrieval.corpora.code_names import entry_texts, official_names, search_forms, spoken


@pytest.mark.parametrize(
    ("official", "said"),
    [
        ("Fracture of hip NOS", "Fracture of hip"),
        ("Heart failure, unspecified", "Heart failure"),
        ("Unspecified asthma", "asthma"),
        ("Pneumonia, unspecified organism", "Pneumonia"),
        ("Pain in unspecified hip", "Pain in hip"),
        ("Unilateral primary osteoarthritis, unspecified knee", "Unilateral primary osteoarthritis, knee"),
        ("Gestational edema, unspecified trimester", "Gestational edema"),
        ("Unspecified type of carcinoma in situ of unspecified breast", "carcinoma in situ of breast"),
        ("Other and unspecified injuries of thoracic spinal cord", "injuries of thoracic spinal cord"),
        ("Hypomagnesemia", "Hypomagnesemia"),
        ("Pyrexia during labor, not elsewhere classified", "Pyrexia during labor"),
        (
            "Diverticulitis of intestine, part unspecified, with abscess",
            "Diverticulitis of intestine, with abscess",
        ),
        ("Nosocomial infection", "Nosocomial infection"),
        ("unspecified", ""),
        ("NOS", ""),
        ("", ""),
    ],
)
def test_what_only_a_tabular_list_says_is_left_out(official: str, said: str) -> None:
    assert spoken(official) == said


@pytest.mark.parametrize(
    ("official", "forms"),
    [
        ("Essential (primary) hypertension", ["Essential (primary) hypertension", "Essential hypertension"]),
        (
            "Panic disorder [episodic paroxysmal anxiety]",
            ["Panic disorder [episodic paroxysmal anxiety]", "Panic disorder"],
        ),
        ("inv(16)", ["inv(16)"]),
        ("Cholera", ["Cholera"]),
        ("Unspecified", ["Unspecified"]),
    ],
)
def test_a_name_is_found_with_and_without_its_brackets(official: str, forms: list[str]) -> None:
    assert search_forms(official) == forms


def test_terms_are_completed_by_their_heading_and_directions_are_no_names() -> None:
    terms = ["Crack of:", "hat", "This category is for hats", "Conditions classifiable to C50.-", "HAT"]
    assert official_names("Hat", terms) == ["Hat", "Crack of hat"]


def test_every_entry_text_knows_the_name_that_it_stands_for() -> None:
    entries = entry_texts(["Fracture of hip NOS", "Fracture of hip", "Fracture (closed) of hip"])
    assert entries["Fracture of hip"] == "Fracture of hip NOS"
    assert entries["Fracture (closed) of hip"] == "Fracture (closed) of hip"
    assert entries["broken hip"] == "broken hip"
    assert len({text.casefold() for text in entries}) == len(entries)
