"""Cleaning: what is stated, nothing else, and the same when it is done twice."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmbert_retrieval.pretraining.cleaning import clean_text


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("p &lt; 0.05 &amp;lt; &#945; &#x3B1;", "p < 0.05 < α α"),
        ("AT&T, R&D; &unheardof; &#0; &#x110000;", "AT&T, R&D; &unheardof; &#0; &#x110000;"),
        ("a&nbsp;&nbsp;b &shy;c", "a b c"),
        ("bird fancier\x92s lung", "bird fancier\u2019s lung"),
        ("cafe\u0301 and e\u200b\u0301", "caf\u00e9 and \u00e9"),
        ("zero\u200bwidth \ufeffmark, hy\u00adphen, bell\x07", "zerowidth mark, hyphen, bell"),
        ("half \ud800 pair", "half \ufffd pair"),
        ("a \t\u00a0\u2003 b", "a b"),
        ("one\r\ntwo\rthree\u2028four\x0cfive", "one\ntwo\nthree\nfour\nfive"),
        (
            "\n\n  Name: ___  \n   Unit No: ____\n \n\t\n\nHistory:  \n- cough\n",
            "Name: ___\nUnit No: ____\n\nHistory:\n- cough",
        ),
        ("", ""),
        (" \n\x00\n ", ""),
        ("Case, Punctuation; and 1,000.5 mg/dL -- stay", "Case, Punctuation; and 1,000.5 mg/dL -- stay"),
    ],
)
def test_a_text_is_cleaned_as_stated(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


PIECES = st.one_of(
    st.characters(),
    st.sampled_from(
        ["&", "&amp;", "lt;", "&#38;", "#x26;", "\n", "\r", "\t", " ", "\u200b", "\u0301", "\u00a0", "\x85"]
    ),
)


@given(st.lists(PIECES, max_size=40).map("".join))
def test_a_cleaned_text_is_clean(text: str) -> None:
    cleaned = clean_text(text)
    assert clean_text(cleaned) == cleaned
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not {unicodedata.category(letter) for letter in cleaned if letter != "\n"} & {
        "Cc",
        "Cs",
        "Zl",
        "Zp",
    }
    assert "  " not in cleaned
    assert "\n\n\n" not in cleaned
    assert cleaned == cleaned.strip()
    cleaned.encode()
