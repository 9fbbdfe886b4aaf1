"""The text of an element is one clean line, whatever white space and invisible characters stand in it."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from cmbert_retrieval.corpora.jats_blocks import clean

INVISIBLE = "\u00ad\u200b\ufeff\u2060"


def oracle(text: str) -> str:
    return " ".join("".join(character for character in text if character not in INVISIBLE).split())


SEPARATE = " \t\n\r\u00a0\u2009\u3000ab"


@given(st.text(alphabet=st.one_of(st.sampled_from(SEPARATE + INVISIBLE), st.characters())))
def test_a_clean_text_has_single_spaces_and_nothing_invisible(text: str) -> None:
    assert clean(text) == oracle(text)


def test_every_single_character_is_cleaned_as_the_oracle_says() -> None:
    for number in range(sys.maxunicode + 1):
        text = f"a{chr(number)}b"
        assert clean(text) == oracle(text), hex(number)
