"""Codes as sentences: everything that is known is said, the same way every time."""

from __future__ import annotations

from collections import Counter

from cmbert_retrieval.corpora.icd10cm import Icd10cmCorpus
from cmbert_retrieval.pretraining.code_sentences import Above, code_sentences, names_of, terms_of, tree_of
from cmbert_retrieval.types import Document

TREE = {"B": Above("gnome illness", "A"), "A": Above("illness", None)}


def code(id: str = "C.1", title: str = "Hat ache", text: str = "", **metadata: object) -> Document:
    return Document(id, text or title, title, {"system": "icd10cm", "parent": "B", **metadata})


def test_names_parents_ranges_and_chapters_are_said() -> None:
    document = code(
        terms=["Cap pain", "Bonnet pain"],
        block="C00-C99",
        block_title="Things on heads",
        chapter_title="Heads",
    )
    text = code_sentences(document, TREE)
    for said in ("Hat ache", "C.1", "ICD-10-CM", "gnome illness", "illness", "Cap pain", "Bonnet pain"):
        assert said.lower() in text.lower()
    for said in ("C00-C99", "Things on heads", "Heads"):
        assert said in text
    lines = text.split("\n")
    assert len(lines) == 6
    assert all(line[0].isupper() and line.endswith(".") for line in lines[1:])


def test_templates_differ_between_codes_and_never_for_one() -> None:
    texts = [code_sentences(code(f"C.{number}"), TREE) for number in range(200)]
    assert texts == [code_sentences(code(f"C.{number}"), TREE) for number in range(200)]
    shapes = Counter(text.replace(f"C.{number}", "C") for number, text in enumerate(texts))
    assert len(shapes) > 20
    assert shapes.most_common(1)[0][1] < 20


def test_what_is_not_in_the_tree_is_not_spoken_of() -> None:
    assert code_sentences(code(), {"B": TREE["B"]}) != code_sentences(code(), TREE)
    assert "illness" not in code_sentences(code(), {})
    assert "illness" not in code_sentences(
        code(), {"A": TREE["A"]}
    )  # only by way of a code that is not there


def test_a_circle_of_parents_ends() -> None:
    circle = {"B": Above("one", "A"), "A": Above("two", "B"), "C.1": Above("Hat ache", "B")}
    assert code_sentences(code(), circle).count("two") >= 1


def test_a_definition_is_said_and_notes_are_not() -> None:
    document = code(text="Hat ache\nAn ache of hats.\nAlso: Cap pain", system="doid")
    assert code_sentences(document, {}).endswith("\nAn ache of hats.")
    noted = code(text="Hat ache\nExcludes1: boot ache (D25.2)")
    assert "boot" not in code_sentences(noted, {})


def test_directions_are_no_names_and_headings_are_put_before_names() -> None:
    document = code(
        terms=["Ache of:", "cap", "the following codes", "conditions in D25.-"], synonyms=["Bonnet pain"]
    )
    assert terms_of(document) == ["Ache of cap", "Bonnet pain"]
    assert terms_of(code(synonyms=["hat ACHE", "", 7, "Cap pain"])) == ["Cap pain"]
    assert names_of(code(synonyms=["Cap pain"])) == ["Hat ache", "Cap pain"]


def test_a_document_without_a_title_has_no_sentences() -> None:
    assert code_sentences(Document("1", "text"), TREE) == ""


def test_every_code_of_the_installed_release_has_sentences_with_its_title() -> None:
    corpus = Icd10cmCorpus("")
    tree = tree_of(corpus)
    for number, document in enumerate(corpus):
        if number % 50 == 0:
            text = code_sentences(document, tree)
            assert document.title.lower() in text.lower()
            assert document.id in text
            assert "{" not in text
