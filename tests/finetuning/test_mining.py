"""Mining: near texts that do not answer, and none that may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cmbert_retrieval.encoders import load_encoder
from cmbert_retrieval.finetuning.mining import MinedPair, mine
from cmbert_retrieval.finetuning.recipe import NegativesRecipe

TOPICS = ("heart attack", "kidney stone", "lung cancer", "skin rash", "knee pain")


def pairs() -> list[MinedPair]:
    return [
        MinedPair(f"question {number} about {topic}", f"answer {number} about {topic} and its treatment",
                  f"d{number % 7}-{topic}")
        for topic in TOPICS for number in range(8)
    ]  # fmt: skip


def texts(given: list[MinedPair], found: Any) -> list[list[str]]:
    return [[given[place].positive for place in row if place >= 0] for row in found.tolist()]


def test_no_negative_is_right_or_from_the_positives_document(tiny_encoder_path: Path) -> None:
    given = pairs()
    found, report = mine(given, NegativesRecipe(count=4, margin=1.0), load_encoder(tiny_encoder_path))
    documents = {pair.positive: pair.document for pair in given}
    assert found.shape == (len(given), 4)
    for pair, negatives in zip(given, texts(given, found), strict=True):
        assert pair.positive not in negatives
        assert all(documents[text] != pair.document for text in negatives)
        assert len(set(negatives)) == len(negatives) <= 4
    assert report.kept == (found >= 0).sum() > 0
    assert report.looked_at == report.own + report.too_near + report.kept


def test_an_anchor_with_two_right_answers_has_neither_for_a_negative(tiny_encoder_path: Path) -> None:
    given = [*pairs(), MinedPair("question 0 about knee pain", "another answer about knee pain", "other")]
    found, _ = mine(given, NegativesRecipe(count=8, margin=1.0), load_encoder(tiny_encoder_path))
    right = {pair.positive for pair in given if pair.anchor == "question 0 about knee pain"}
    assert len(right) == 2
    for pair, negatives in zip(given, texts(given, found), strict=True):
        if pair.anchor == "question 0 about knee pain":
            assert not right & set(negatives)


def test_negatives_keep_the_margin(tiny_encoder_path: Path) -> None:
    encoder, given = load_encoder(tiny_encoder_path), pairs()
    found, report = mine(given, NegativesRecipe(count=4, margin=0.9), encoder)
    assert report.too_near > 0
    for pair, negatives in zip(given, texts(given, found), strict=True):
        if not negatives:
            continue
        asked = encoder.encode_query([pair.anchor])[0]
        scores = encoder.encode_document([pair.positive, *negatives]) @ asked
        assert np.all(scores[1:] <= 0.9 * scores[0] + 1e-5)


def test_without_a_margin_the_nearest_is_a_negative_unless_it_is_what_asks(tiny_encoder_path: Path) -> None:
    encoder = load_encoder(tiny_encoder_path)
    given = [
        MinedPair("lung cancer", "cancer", "above"),  # its own title answers others
        *(MinedPair(f"cancer of the lung, {number}", "lung cancer", "code") for number in range(3)),
        *(MinedPair(f"{topic}, other name", topic, topic) for topic in TOPICS if topic != "lung cancer"),
    ]
    strict, _ = mine(given, NegativesRecipe(count=3, margin=0.5), encoder)
    found, report = mine(given, NegativesRecipe(count=3, margin=None), encoder)
    assert report.too_near == 0
    assert (found >= 0).sum() > (strict >= 0).sum()
    assert "lung cancer" not in texts(given, found)[0]
    assert all("lung cancer" not in negatives for negatives in texts(given, found)[1:4])


def test_words_and_vectors_take_turns(tiny_encoder_path: Path) -> None:
    encoder, given = load_encoder(tiny_encoder_path), pairs()
    alone = []
    for mode in ("lexical", "dense"):
        recipe = NegativesRecipe(count=1, margin=1.0, modes=[mode])  # type: ignore[list-item]
        alone.append(texts(given, mine(given, recipe, encoder)[0]))
    both = texts(given, mine(given, NegativesRecipe(count=2, margin=1.0), encoder)[0])
    first = [{*lexical, *dense} for lexical, dense in zip(*alone, strict=True)]
    differing = [place for place, texts in enumerate(first) if len(texts) == 2]
    assert len(differing) > len(given) / 2
    for place in differing:
        assert first[place] & set(both[place])
    assert sum(first[place] == set(both[place]) for place in differing) > len(differing) / 2
