"""Overlap: nothing that a model is measured on is trained on, also where words were taken out of it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from cmbert_retrieval.errors import ConfigError, CorpusError
from cmbert_retrieval.finetuning.data_recipe import OverlapRecipe
from cmbert_retrieval.finetuning.overlap import Overlaps, content_words

DOCUMENT = (
    "In 1973 the crystalline lens of vertebrates, including that of humans, was examined by electrophoresis, "
    "chromatography and immunodiffusion in order to compare soluble proteins across species."
)
OTHER = (
    "Electron microscopy of lung specimens showed alveolar macrophages with numerous lamellar inclusions "
    "beneath proliferating epithelium surrounding terminal bronchioles."
)
QUESTION = "How do crystallins differ among young and old lenses?"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "med_medline1033"
    folder.mkdir()
    rows = [{"_id": "1", "text": DOCUMENT}, {"_id": "2", "text": OTHER}]
    with gzip.open(folder / "corpus.jsonl.gz", "wt") as file:
        file.write("".join(f"{json.dumps(row)}\n" for row in rows))
    queries = [{"_id": "q1", "text": QUESTION}, {"_id": "q2", "text": "Lung tumours"}]
    (folder / "queries.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in queries))
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\t1\t1\nq2\t1\t1\n")
    return tmp_path


def overlaps(data: Path, name: str = "med", words: int = 10) -> Overlaps:
    return Overlaps.of(OverlapRecipe(data=str(data), sets=[name], words=words))


def test_a_run_of_a_documents_words_is_found_wherever_it_stands(data: Path) -> None:
    found = overlaps(data)
    assert found.of_text(f"Something before. {DOCUMENT} Something behind.") == "med"
    assert found.of_text("Lenses of vertebrates were examined by immunodiffusion.") is None
    assert found.found == {"med": 1}
    sizes = found.sizes["med"]
    assert (sizes.documents, sizes.questions, sizes.short) == (2, 2, 1)  # "Lung tumours" is too short


def test_function_words_numbers_and_case_make_no_difference(data: Path) -> None:
    bare = " ".join(content_words(DOCUMENT))
    assert "the" not in bare.split() and "1973" not in bare
    assert overlaps(data).of_text(bare.upper()) == "med"
    assert overlaps(data).of_text(f"num {bare.replace(' ', ' the num ')}") == "med"


def test_a_whole_question_is_found_and_a_part_of_it_is_not(data: Path) -> None:
    found = overlaps(data)
    assert found.of_text(f"We asked: {QUESTION}") == "med"
    assert found.of_text("Crystallins differ among young lenses.") is None
    assert found.of_text("Lung tumours") is None  # two words are in many texts


def test_documents_that_nothing_asks_for_may_be_left_to_training(data: Path) -> None:
    assert overlaps(data, "med").of_text(OTHER) == "med"
    judged = overlaps(data, "med:judged")
    assert judged.of_text(OTHER) is None and judged.of_text(DOCUMENT) == "med:judged"
    questions = overlaps(data, "med:questions")
    assert questions.of_text(DOCUMENT) is None and questions.of_text(QUESTION) == "med:questions"


def test_a_short_document_and_a_title_are_found_as_a_whole(data: Path) -> None:
    folder = data / "med_medline1033"
    with gzip.open(folder / "corpus.jsonl.gz", "wt") as file:
        row = {
            "_id": "1",
            "title": "Lens proteins of rabbits",
            "text": "Aspirin inhibits platelet aggregation.",
        }
        file.write(json.dumps(row) + "\n")
    found = overlaps(data)
    assert found.of_text("We know that aspirin inhibits platelet aggregation in man.") == "med"
    assert found.of_text("See: Lens proteins of rabbits. 1971.") is None  # three words that say something
    assert found.of_text("Aspirin inhibits platelets.") is None


def test_a_document_of_a_set_is_known_by_its_title_or_by_much_of_its_text(data: Path) -> None:
    found = overlaps(data, words=6)
    words = content_words(DOCUMENT)
    assert found.of_document("Another title", f"Introduction. {DOCUMENT} More.") == "med"
    assert found.of_document("Another title", " ".join(words[:11])) is None  # a sentence may be said again
    assert found.of_document("Another title", " ".join(words[:12])) == "med"
    assert found.copies == {"med": 2}
    folder = data / "med_medline1033"
    with gzip.open(folder / "corpus.jsonl.gz", "wt") as file:
        file.write(json.dumps({"_id": "1", "title": "Soluble lens proteins of rabbits", "text": "A"}) + "\n")
    assert overlaps(data).of_document("SOLUBLE LENS PROTEINS OF RABBITS.", "Other words.") == "med"


def test_longer_runs_find_less(data: Path) -> None:
    run = " ".join(content_words(DOCUMENT)[:8])
    assert overlaps(data, words=8).of_text(run) == "med"
    assert overlaps(data, words=9).of_text(run) is None


def test_sets_that_are_not_there_are_errors(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown set 'mde'"):
        overlaps(data, "mde")
    with pytest.raises(ConfigError, match="'med:test': expected med or med:judged or :questions"):
        overlaps(data, "med:test")
    with pytest.raises(ConfigError, match="say where they are"):
        Overlaps.of(OverlapRecipe(sets=["med"]))
    with pytest.raises(CorpusError):
        overlaps(data, "scifact")


def test_nothing_to_look_for_finds_nothing() -> None:
    assert Overlaps.of(OverlapRecipe()).of_text(DOCUMENT) is None
