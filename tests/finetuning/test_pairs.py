"""Pairs: what of a document asks for what of it."""

from __future__ import annotations

import pytest

from cmbert_retrieval.finetuning.pairs import (
    Surroundings,
    cut_at_sentence,
    make_pairs,
    passages_of,
    texts_of,
)
from cmbert_retrieval.pretraining.code_sentences import Above
from cmbert_retrieval.types import Document, Section

LONG = "Heparin was given to every patient of the first group, and a placebo to those of the second. " * 3
ABSTRACT = "Aims are stated here in full. " + LONG + "Heparin halved the number of deaths in our study."
ARTICLE = Document(
    "PMC1",
    f"{ABSTRACT}\n\nMethods\n{LONG}\n\nShort\nToo short to be asked for.",
    title="Heparin after surgery",
)


def pairs(document: Document, kind: str, **around: object) -> list[tuple[str, str]]:
    made = make_pairs(document, kind, Surroundings(**around))  # type: ignore[arg-type]
    return [(pair.anchor, pair.positive) for pair in made]


def test_a_title_asks_for_the_abstract() -> None:
    assert pairs(ARTICLE, "title-text") == [("Heparin after surgery", ABSTRACT)]


def test_a_title_asks_for_what_sections_call_the_abstract() -> None:
    text = "Introduction words. The abstract itself."
    sections = (Section(0, 19), Section(20, len(text), kind="abstract"))
    found = pairs(Document("1", text, title="Title", sections=sections), "title-text")
    assert found == [("Title", "The abstract itself.")]


def test_a_title_that_the_text_repeats_does_not_ask_for_itself() -> None:
    found = pairs(Document("1", f"What is gout?\n{LONG}", title="What is gout?"), "title-text")
    assert found == [("What is gout?", LONG.strip())]


def test_a_heading_asks_for_its_long_paragraphs() -> None:
    assert pairs(ARTICLE, "section-paragraph") == [("Heparin after surgery: Methods", LONG.strip())]


def test_the_last_sentence_of_an_abstract_asks_for_the_rest_of_it() -> None:
    anchor, context = pairs(ARTICLE, "sentence-context")[0]
    assert anchor == "Heparin halved the number of deaths in our study."
    assert context.startswith("Heparin after surgery\nAims are stated here") and anchor not in context


def test_a_sentence_of_a_paragraph_asks_for_what_is_around_it() -> None:
    words = ("One", "Another", "None")
    text = " ".join(f"{word} of these sentences is of some length, too." for word in words)
    document = Document("1", f"Abstract.\n\nHeading\n{text}", title="Title")
    ((anchor, context),) = pairs(document, "sentence-context")
    assert anchor in text and anchor not in context
    assert sorted(f"{anchor} {context}".split()) == sorted(text.split())


def test_citing_sentences_ask_for_what_they_cite() -> None:
    text = "Aspirin prevents strokes in many patients [2]. Others disagree with all of that [1-3]. None [9]."
    references = [{"id": "B1", "title": "One"}, {"id": "B2", "title": "Two"}, {"id": "B3"}]
    document = Document("1", text, metadata={"references": references})
    found = pairs(document, "citing-cited", cited=lambda reference: f"cited {reference['id']}")
    assert found == [("Aspirin prevents strokes in many patients.", "cited B2")]


def test_other_names_ask_for_the_title_and_titles_for_those_above() -> None:
    document = Document(
        "I21", "Acute myocardial infarction", title="Acute myocardial infarction",
        metadata={"terms": ["heart attack", "ACUTE MYOCARDIAL INFARCTION"], "parent": "I20-I25"},
    )  # fmt: skip
    assert pairs(document, "names") == [("heart attack", "Acute myocardial infarction")]
    tree = {"I20-I25": Above("Ischemic heart diseases", None)}
    assert pairs(document, "parents", tree=tree) == [
        ("Acute myocardial infarction", "Ischemic heart diseases")
    ]
    assert pairs(document, "parents") == []


def test_the_line_that_sums_up_a_note_asks_for_the_rest() -> None:
    note = f"CHIEF COMPLAINT: Chest pain\n\nHISTORY OF PRESENT ILLNESS: {LONG}"
    ((anchor, rest),) = pairs(Document("n1", note), "summary-note")
    assert anchor == "Chest pain"
    assert "Chest pain" not in rest and rest.startswith("HISTORY OF PRESENT ILLNESS")


def test_pairs_of_a_kind_are_spread_over_the_document() -> None:
    paragraphs = "\n\n".join(f"Part {number}\n{number} {LONG}" for number in range(10))
    found = pairs(Document("1", paragraphs, title="T"), "section-paragraph", each=2)
    assert [positive.split()[0] for _, positive in found] == ["2", "7"]


def test_documents_that_have_nothing_of_a_kind_give_no_pairs() -> None:
    for kind in ("title-text", "section-paragraph", "sentence-context", "citing-cited", "names", "parents",
                 "summary-note"):  # fmt: skip
        assert pairs(Document("1", "", title="Title"), kind) == []
        assert pairs(Document("1", "text"), kind) in ([], [("", "text")])


def test_positives_are_cut_at_a_sentence() -> None:
    assert cut_at_sentence("One is here. Two is here. Three is here.", 30) == "One is here. Two is here."
    assert cut_at_sentence("word " * 100, 12) == "word word wo"
    assert cut_at_sentence(" short ", 12) == "short"


def test_captions_and_acknowledgements_are_no_passages() -> None:
    text = "Body. Figure. Thanks."
    sections = (Section(0, 5), Section(6, 13, kind="caption"), Section(14, 21, kind="back"))
    assert [passage.text for passage in passages_of(Document("1", text, sections=sections))] == ["Body."]


@pytest.mark.parametrize("names_only", [True, False])
def test_a_teacher_is_asked_about_names_and_passages(names_only: bool) -> None:
    found = list(texts_of(ARTICLE, Surroundings(), names_only=names_only))
    assert found[0] == "Heparin after surgery"
    assert (len(found) == 1) == names_only
    assert names_only or any(text.startswith("Heparin after surgery\nAims") for text in found)


def test_more_sentences_than_paragraphs_can_be_asked_about() -> None:
    text = "\n\n".join(
        " ".join(f"Sentence {number} of paragraph {place} is long enough." for number in range(4))
        for place in range(6)
    )

    def sentences(around: Surroundings) -> int:
        return sum(
            found.count("Sentence") == 1 for found in texts_of(Document("1", text), around, names_only=False)
        )

    assert sentences(Surroundings(each=2)) == 2
    assert sentences(Surroundings(each=2, sentences=20)) == 20
    assert sentences(Surroundings(each=2, sentences=100)) == 24
