"""The frozen splits as pretraining sees them."""

from __future__ import annotations

from typing import Any

import pytest

from cmbert_retrieval.errors import CmbertError, ConfigError, CorpusError
from cmbert_retrieval.evaluation.splits import split_by_hash, split_of_code
from cmbert_retrieval.pretraining.frozen import FrozenSplit
from cmbert_retrieval.pretraining.recipe import PretrainingSource
from cmbert_retrieval.types import Document

CATEGORIES = [f"{letter}{number:02d}" for letter in "ABC" for number in range(100)]
TRAIN = next(code for code in CATEGORIES if split_of_code("icd10cm", code) == "train")
TEST = next(code for code in CATEGORIES if split_of_code("icd10cm", code) == "test")


def frozen(reader: str = "jsonl", name: str = "", **values: Any) -> FrozenSplit:
    return FrozenSplit(name or reader, PretrainingSource(reader=reader, **values))


def held_out(frozen_split: FrozenSplit, id: str, /, **metadata: Any) -> bool:
    return frozen_split.holds_out(Document(id, "text", metadata=metadata))


@pytest.mark.parametrize("reader", ["icd10cm", "icd10cm_order", "icd10cm_index"])
def test_codes_are_held_out_with_their_categories(reader: str) -> None:
    split = frozen(reader)
    for category in CATEGORIES:
        expected = split_of_code("icd10cm", category) != "train"
        assert held_out(split, f"{category}.1") == held_out(split, category) == expected


@pytest.mark.parametrize(
    ("source", "collection", "key"),
    [
        ({"reader": "mesh"}, "mesh", ""),
        ({"reader": "ontology"}, "ontology", ""),
        ({"reader": "pubmed"}, "pubmed", "pmid"),
        ({"reader": "pmc"}, "pmc", "pmcid"),
        ({"reader": "notes"}, "notes", "subject_id"),
        ({"reader": "jsonl", "name": "medquad"}, "medquad", "focus"),
        ({"reader": "jsonl", "name": "MedQuAD"}, "medquad", "doc"),
        ({"reader": "jsonl", "name": "mtsamples"}, "mtsamples", "sample_id"),
        ({"reader": "jsonl", "name": "mondo", "collection": "ontology"}, "ontology", ""),
    ],
)
def test_documents_are_held_out_by_what_decides_their_split(
    source: dict[str, Any], collection: str, key: str
) -> None:
    split = frozen(**source)
    for number in range(100):
        value = f"key {number}"
        expected = split_by_hash(collection, value) != "train"
        found = held_out(split, "id-1", **{key: value}) if key else held_out(split, value)
        assert found == expected


def test_notes_without_a_patient_are_divided_by_note() -> None:
    split = frozen("notes")
    assert {held_out(split, f"n{number}") for number in range(40)} == {True, False}
    for number in range(40):
        assert held_out(split, f"n{number}") == (split_by_hash("notes", f"n{number}") != "train")


def test_published_splits_are_kept() -> None:
    split = frozen(name="codiesp")
    parts = {"train": False, "background": False, "dev": True, "test": True}
    assert {part: held_out(split, "1", split=part) for part in parts} == parts
    assert not held_out(frozen(name="scifact"), "1")  # its splits divide claims, not abstracts


def test_modifiers_have_no_category_and_are_for_training() -> None:
    assert not any(held_out(frozen("hcpcs"), code) for code in ("G1", "LT", "25"))


def test_other_names_of_a_held_out_code_are_held_out_wherever_they_stand() -> None:
    split = frozen(name="gnomes")
    for code, expected in ((TEST, True), (TRAIN, False)):
        assert held_out(split, "1", xrefs=["OMIM:1", f"ICD10CM:{code}.1"]) == expected
        assert (
            held_out(split, "1", mappings=[{"no_map": True}, {"system": "icd10cm", "code": code}]) == expected
        )
    assert not held_out(split, "1", xrefs=[f"ICD9CM:{TEST}", 5], mappings=["x"])


def test_lines_that_speak_of_held_out_codes_are_dropped() -> None:
    dropped = f"Excludes1: flu ({TEST}.2)\n", f"\nExcludes2: all ({TRAIN}-{TRAIN})"
    text = f"Ache\nIncludes: pain\n{dropped[0]}Code first: cold ({TRAIN}){dropped[1]}"
    left = f"Ache\nIncludes: pain\nCode first: cold ({TRAIN})"
    assert frozen("icd10cm").without_held_out_lines(text) == left
    assert frozen("jsonl").without_held_out_lines(text) == text


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ({"collection": "medqaud"}, ConfigError, "did you mean 'medquad'"),
        ({"name": "bioasq"}, ConfigError, "nothing is trained on 'bioasq'"),
        ({"collection": "med"}, ConfigError, "nothing is trained on 'med'"),
        ({"name": "medquad"}, CorpusError, "without 'focus' or 'doc'"),
        ({"name": "codiesp"}, CorpusError, "without 'split'"),
        ({"name": "pmc-evidence"}, CorpusError, "without 'split'"),
    ],
)
def test_a_split_that_cannot_be_told_is_an_error(
    source: dict[str, Any], error: type[CmbertError], said: str
) -> None:
    with pytest.raises(error, match=said):
        held_out(frozen(**source), "1")


def test_ids_may_tell_what_documents_without_a_split_do_not() -> None:
    assert not held_out(frozen(name="pmc-evidence", exclude_ids="ids.txt"), "PMC1")
