"""Words, terms and salience: which tokens are drawn together, and how often."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from cmbert_retrieval.pretraining.lexicon import Lexicon
from cmbert_retrieval.pretraining.salience import LIMIT, Salience
from cmbert_retrieval.pretraining.token_marks import Marker
from cmbert_retrieval.pretraining.weights import CONTINUES, LEVEL_MASK, TERM
from cmbert_retrieval.pretraining.words import find_words

TERMS = ["Myocardial infarction", "Non-small cell lung cancer", "lung cancer", "Crohn's disease", "p53"]
LEXICON = Lexicon.from_terms(TERMS)


def found(text: str) -> list[str]:
    words = find_words(text)
    return [text[words.starts[start] : words.ends[end - 1]] for start, end in LEXICON.spans(words)]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Two myocardial infarctions.", ["myocardial infarctions"]),
        ("non small-cell lung cancer", ["non small-cell lung cancer"]),
        ("lung cancer cell", ["lung cancer"]),
        ("small cell lung\ncancer", ["lung\ncancer"]),
        ("lung, cancer; lung  cancer", []),
        ("CROHN\u2019S DISEASE and p53-null", ["CROHN\u2019S DISEASE", "p53"]),
        ("p 53", []),
        ("", []),
        ("...", []),
    ],
)
def test_terms_are_found_in_any_case_plural_and_hyphenation(text: str, terms: list[str]) -> None:
    assert found(text) == terms


def test_a_lexicon_counts_spellings_once_and_leaves_out_what_is_no_term() -> None:
    lexicon = Lexicon.from_terms(["A-B", "a b", "A  b", "", "--", " ".join("abcdefghi")])
    assert len(lexicon) == 1
    assert "a b" in lexicon
    assert "a c" not in lexicon
    assert "" not in Lexicon.from_terms([])


def test_a_lexicon_is_found_again(tmp_path: Path) -> None:
    LEXICON.save(tmp_path / "lexicon.npy")
    again = Lexicon.load(tmp_path / "lexicon.npy")
    assert all(term in again for term in TERMS)


def test_words_have_their_places_even_where_lower_case_is_longer() -> None:
    text = "\u0130stanbul x_y Na\u00efve"
    words = find_words(text)
    assert [text[a:b] for a, b in zip(words.starts, words.ends, strict=True)] == [
        "\u0130stanbul", "x", "y", "Na\u00efve",
    ]  # fmt: skip
    assert words.texts[1:] == ["x", "y", "na\u00efve"]


def test_salience_is_the_clipped_logarithm_of_a_ratio(tmp_path: Path) -> None:
    counts = {"the": 500, "troponin": 300, "london": 1, "2020": 199}
    made = Salience.from_counts(counts, {"the": 0.5, "london": 0.9})
    made.save(tmp_path / "salience.npy")
    for salience in (made, Salience.load(tmp_path / "salience.npy")):
        the, troponin, london, year, unknown = salience.log_odds(["the", "troponin", "london", "2020", "qx"])
        assert the == 0
        assert troponin == LIMIT  # 310 / 10, and more than 2 ** 4
        assert london == -LIMIT
        assert year == unknown == 0


def pieces(text: str) -> np.ndarray:
    """Return the offsets of tokens of at most three letters, each with the blank before it; signs alone."""
    return np.array([match.span() for match in re.finditer(r" ?\w{1,3}|[^\w\s]+|\s", text)]).reshape(-1, 2)


def units(text: str, marker: Marker) -> list[tuple[str, bool, int]]:
    """Return (text, whether it is a term, level) of each unit."""
    offsets = pieces(text)
    made: list[tuple[str, bool, int]] = []
    for (start, end), byte in zip(offsets, marker.mark(text, offsets).tolist(), strict=True):
        token = text[start:end]
        if byte & CONTINUES:
            token, made[-1:] = made[-1][0] + token, []
        made.append((token, bool(byte & TERM), byte & LEVEL_MASK))
    return made


def test_words_and_terms_are_units_and_terms_are_marked() -> None:
    text = "No non-small cell lung cancer, but cancerous."
    assert units(text, Marker(LEXICON)) == [
        ("No", False, 32),
        (" non-small cell lung cancer", True, 32),
        (",", False, 32),
        (" but", False, 32),
        (" cancerous", False, 32),
        (".", False, 32),
    ]


def test_without_a_lexicon_every_word_is_a_unit() -> None:
    made = [unit for unit, _, _ in units("lung cancer (p53)", Marker())]
    assert made == ["lung", " cancer", " ", "(", "p53", ")"]


def test_salience_moves_words_and_is_averaged_over_a_term() -> None:
    salience = Salience.from_counts({"troponin": 10_000, "lung": 10_000, "filler": 10**8}, {"filler": 1.0})
    made = units("Troponin of lung cancer", Marker(LEXICON, salience))
    assert made == [
        ("Troponin", False, 32 + 7 * 4),  # log-odds of 4, the most that there are
        (" of", False, 32),
        (" lung cancer", True, 32 + 7 * 2),  # the mean of 4 and 0
    ]


def test_what_was_taken_out_of_a_note_is_never_predicted() -> None:
    made = units("Mr. ___ seen on ____.", Marker(LEXICON))
    assert [unit for unit in made if "_" in unit[0]] == [
        (" ___", False, 0),
        (" ___", False, 0),
        ("_", False, 0),
    ]
    assert all(level > 0 for text, _, level in made if "_" not in text)


def test_an_empty_text_has_no_tokens() -> None:
    assert Marker(LEXICON).mark("", np.zeros((0, 2), dtype=np.int64)).tolist() == []
    assert Marker(LEXICON).mark("--", np.array([[0, 1], [1, 2]])).tolist() == [32, 32]
