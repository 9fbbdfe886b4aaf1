"""Phrases by chance, of which the small model's teacher is asked what they mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmbert_retrieval.finetuning.telegrams import FUNCTION_WORDS

SCRIPTS = Path(__file__).parents[2] / "pretraining"
TEXTS = [f"Serum potassium{number} fell after the infusion of saline." for number in range(200)]


def test_they_are_the_same_each_time_and_mix_common_words_with_those_of_texts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from phrases import common_words, phrases

    common = common_words(["The garlic of a garden", "garlic and bread", "bread, and more garlic"])
    assert common == ["garlic", "bread", "garden"]  # and no function words
    pools = ((3, common), (1, ["olive oil"]), (1, []))
    made = list(phrases(TEXTS, pools, 400))
    assert made == list(phrases(TEXTS, pools, 400))
    assert len(set(made)) > 350
    assert any("potassium" in phrase for phrase in made) and any("garlic" in phrase for phrase in made)
    assert any("olive oil" in phrase for phrase in made)
    assert any(phrase.endswith("?") for phrase in made) and any(phrase.endswith(".") for phrase in made)
    single = [phrase for phrase in made if " " not in phrase]
    assert single and FUNCTION_WORDS.isdisjoint(single)
    assert not any("A" in phrase.split() for phrase in made)
