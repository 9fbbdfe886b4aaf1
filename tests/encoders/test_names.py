"""Names of codes and terms, which a model may read with a prompt of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from samples import SMALL, Wrapper, build

from cmbert_retrieval import Document, Retriever
from cmbert_retrieval.corpora.memory import MemoryCorpus
from cmbert_retrieval.encoders import load_encoder
from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.encoders.names import for_names
from cmbert_retrieval.errors import IndexMismatchError
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.writer import IndexWriter

PROMPTS = {"query": "query: ", "name": "name: "}
NAMES = {"query": "name: ", "document": "name: "}
CODES = [
    Document("I21", "", "Myocardial infarction", entries=("Myocardial infarction", "heart attack")),
    Document("N20", "", "Calculus of kidney", entries=("Calculus of kidney", "kidney stone")),
]
ARTICLES = [Document("a", "Pain behind the breastbone."), Document("b", "Stones of the kidney.")]


@pytest.fixture
def encoder(tiny_encoder_path: Path) -> Encoder:
    return load_encoder(tiny_encoder_path, prompts=PROMPTS)


def test_queries_and_documents_of_names_have_the_prompt_for_names(
    encoder: Encoder, tiny_encoder_path: Path
) -> None:
    named, plain = for_names(encoder), load_encoder(tiny_encoder_path)
    expected = plain.encode_document(["name: heart attack"])
    assert np.array_equal(named.encode_query(["heart attack"]), expected)
    assert np.array_equal(named.encode_document(["heart attack"]), expected)
    assert named.identity.prompts == NAMES
    # The encoder itself reads on as before.
    assert np.array_equal(encoder.encode_query(["heart attack"]), plain.encode_query(["query: heart attack"]))
    assert np.array_equal(encoder.encode_document(["heart attack"]), plain.encode_document(["heart attack"]))


def test_an_encoder_without_such_a_prompt_stays_as_it_is(encoder: Encoder, tiny_encoder_path: Path) -> None:
    for other in (load_encoder(tiny_encoder_path), Wrapper(encoder)):
        assert for_names(other) is other


def test_only_an_index_of_names_is_read_so(encoder: Encoder, tmp_path: Path) -> None:
    for name, documents, prompts in (("codes", CODES, NAMES), ("articles", ARTICLES, PROMPTS)):
        build(tmp_path / name, documents, encoder, *SMALL)
        for opened in (encoder, None):  # one at hand, and the one that the index opens by itself
            with Retriever(IndexReader(tmp_path / name), opened) as retriever:
                assert retriever.search("heart attack", mode="dense")
                assert retriever.encoder is not None and retriever.encoder.identity.prompts == prompts
        assert IndexReader(tmp_path / name).manifest.encoder.identity.prompts == prompts  # type: ignore[union-attr]


def test_a_name_finds_itself_with_a_score_of_one(encoder: Encoder) -> None:
    with Retriever.from_documents(CODES, encoder=encoder) as retriever:
        (first, *_) = retriever.search("kidney stone", mode="dense")
    assert (first.id, round(first.score, 3)) == ("N20", 1.0)


def test_what_is_added_to_an_index_of_names_is_read_so(encoder: Encoder, tmp_path: Path) -> None:
    build(tmp_path / "codes", CODES, encoder, *SMALL)
    more = Document("J45", "", "Asthma", entries=("Asthma", "wheezing"))
    with IndexWriter(tmp_path / "codes") as writer:
        writer.add(MemoryCorpus([more]), encoder)
    with Retriever(IndexReader(tmp_path / "codes"), encoder) as retriever:
        (first, *_) = retriever.search("wheezing", mode="dense")
    assert (first.id, round(first.score, 3)) == ("J45", 1.0)


def test_prompts_that_a_user_gave_are_not_passed_over(tiny_encoder_path: Path, tmp_path: Path) -> None:
    own = load_encoder(tiny_encoder_path, prompts={"query": "code for: "})
    build(tmp_path / "codes", CODES, own, *SMALL)
    other = load_encoder(tiny_encoder_path, prompts=PROMPTS)
    with (
        Retriever(IndexReader(tmp_path / "codes"), other) as retriever,
        pytest.raises(IndexMismatchError, match="prompts"),
    ):
        retriever.search("heart attack", mode="dense")
