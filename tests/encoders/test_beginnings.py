from __future__ import annotations

import pytest

from cmbert_retrieval.encoders.texts import beginning


@pytest.mark.parametrize(
    "text, characters, expected",
    [
        ("heart attack", 12, "heart attack"),
        ("heart attack", 11, "heart"),
        ("heart attack", 5, "heart attack"),  # whether a word ends there is not looked at
        ("heart  \n attack", 12, "heart"),
        ("hypercholesterolaemia", 5, "hypercholesterolaemia"),
        ("  hypercholesterolaemia", 5, "  hypercholesterolaemia"),
        ("", 5, ""),
        (" heart attack", 7, " heart"),
        ("heart\x1cattack and", 8, "heart\x1cattack and"),  # one word for some tokenizers
    ],
)
def test_whole_words_are_taken_from_the_beginning(text: str, characters: int, expected: str) -> None:
    assert beginning(text, characters) == expected
