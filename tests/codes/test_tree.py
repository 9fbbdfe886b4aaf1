"""An entry of a code system, out of its document and as text."""

from __future__ import annotations

import json

import pytest

from cmbert_retrieval.codes import billing_status, code_from_document, code_to_json, describe_code, extend
from cmbert_retrieval.corpora.icd10cm import Icd10cmCorpus
from cmbert_retrieval.errors import IndexMismatchError
from cmbert_retrieval.types import Code, Document


@pytest.fixture(scope="module")
def release() -> dict[str, Code]:
    """The installed release by code."""
    return {document.id: code_from_document(document) for document in Icd10cmCorpus()}


def test_json_of_a_code_makes_the_same_code_again(release: dict[str, Code]) -> None:
    for code in list(release.values())[::211]:
        values = json.loads(json.dumps(code_to_json(code)))
        id_, title = values.pop("code"), values.pop("title")
        assert code_from_document(Document(id_, "", title, values)) == code


def test_a_document_of_something_else_is_refused_by_name() -> None:
    with pytest.raises(IndexMismatchError, match=r"document 'PMC1' is no code: its metadata has no 'system'"):
        code_from_document(Document("PMC1", "text", metadata={"year": 2020}))


def test_a_seventh_character_stands_in_the_seventh_place() -> None:
    assert extend("S72.001", "A") == "S72.001A"
    assert extend("S72.9", "D") == "S72.9XXD"
    assert extend("T07", "S") == "T07.XXXS"


def test_the_billing_status_says_what_a_code_lacks(release: dict[str, Code]) -> None:
    assert billing_status(release["I21.4"]) == "valid for billing"
    assert billing_status(release["E11"]).startswith("not valid for billing: choose a code below it")
    assert billing_status(release["T07"]) == "not valid for billing: needs a seventh character (A, D, S)"
    assert billing_status(release["T07"], seventh="A") == "valid for billing"
    assert billing_status(release["T07"], seventh="Z") == billing_status(release["T07"])
    assert billing_status(release["S72"], seventh="A") == billing_status(release["S72"])


def test_a_description_shows_the_place_other_names_and_notes_from_above(release: dict[str, Code]) -> None:
    text = describe_code(release["E11.22"], lookup=release.get)
    lines = text.splitlines()
    assert lines[0] == "E11.22  Type 2 diabetes mellitus with diabetic chronic kidney disease"
    assert lines[1].endswith(": valid for billing")
    places = [
        "  Chapter 4  Endocrine, nutritional and metabolic diseases",
        "  E08-E13    Diabetes mellitus",
        "  E11        Type 2 diabetes mellitus",
        "  E11.2      Type 2 diabetes mellitus with kidney complications",
        "  E11.22     Type 2 diabetes mellitus with diabetic chronic kidney disease",
    ]
    start = lines.index(places[0])
    assert lines[start : start + 5] == places
    assert "(from E11, for all below it):" in text
    assert "  - type 1 diabetes mellitus (E10.-)" in lines


def test_a_description_lists_seventh_characters_with_the_whole_code(release: dict[str, Code]) -> None:
    text = describe_code(release["T07"], lookup=release.get)
    assert "With a seventh character:\n  T07.XXXA  initial encounter\n  T07.XXXD  subsequent" in text
    asked = describe_code(release["T07"], lookup=release.get, seventh="A")
    assert asked.startswith("T07.XXXA  Unspecified multiple injuries, initial encounter\n")
    assert asked.splitlines()[1].endswith(": valid for billing")


def test_a_description_of_a_category_lists_what_is_below_it(release: dict[str, Code]) -> None:
    text = describe_code(release["I21"], lookup=release.get)
    assert "  I21.4  Non-ST elevation (NSTEMI) myocardial infarction" in text.splitlines()
    assert "Below it:" in text
    assert "Also:" in text


def test_a_description_without_look_up_names_the_codes_around_it(release: dict[str, Code]) -> None:
    lines = describe_code(release["E11.2"]).splitlines()
    assert "  E11        ".rstrip() in lines
    assert "  E11.21" in lines


def test_every_entry_can_be_described(release: dict[str, Code]) -> None:
    for code in list(release.values())[::53]:
        text = describe_code(code, lookup=release.get)
        assert text.startswith(f"{code.code}  {code.title}")
        assert all(len(line) <= 100 for line in text.splitlines()[2:])
        assert not any(line != line.rstrip() for line in text.splitlines())


def test_a_tree_with_a_loop_does_not_hang() -> None:
    loop = {
        "A": Code("A", "first", "x", "1", "category", parent="B"),
        "B": Code("B", "second", "x", "1", "category", parent="A"),
    }
    assert "second" in describe_code(loop["A"], lookup=loop.get)
