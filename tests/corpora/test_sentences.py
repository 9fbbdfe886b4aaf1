from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmbert_retrieval.corpora.sentences import sentence_spans


@pytest.mark.parametrize(
    "marked",
    [
        "It fell.| It rose.",
        "Why?| Because!| So.",
        "Smith et al. (2004) found it.| We did not.",
        "Smith et al. [12] found it.",
        "As shown by Smith et al.| The rest agreed.",
        "Doses, e.g. Aspirin, i.e. ASA, vs. Placebo were given.",
        "See Fig. 2 and Figs. 3 and 4 for more.",
        "It was 0.05.| 12 patients left.",
        "Differences were significant (p < 0.05).| No harm was seen.",
        "A dose of 2.5 mg was given.",
        "Given i.v. Ceftriaxone helped.",
        "It was given i.v.| The dose was small.",
        "S. Typhimurium and E. coli grew.",
        "R. A. Fisher said so.",
        "They had hepatitis B.| Others had none.",
        "They took vitamin C.| Nobody took D.",
        "Mortality rose.[12,13]| The reason is unknown.",
        "Mortality rose. [12]| The reason is unknown.",
        "Dr. Jones and Prof. Smith of St. Mary's agreed.",
        "Sigma, St. Louis, MO, U.S.A. supplied it.",
        'He said "no."| She left.',
        "The answer was no.| Patients left.",
        "No. 5 was best.",
        "Funded by Grant No. HDSYY-17 and Contract No. DE-AC05.| Thanks.",
        "We thank C. and A. B. Jones for help.",
        "Approx. 20 of them, cf. Table 2, were old.",
        "1. Adults were asked.| 2. Children were not.",
        "First part\n\n|second part",
        "一。|二。|",
        "α-Synuclein rose.| Β-amyloid fell.",
        "Streptococcus spp. Were absent.",
    ],
)
def test_borders_stand_where_a_reader_would_put_them(marked: str) -> None:
    expected = [part.strip() for part in marked.split("|") if part.strip()]
    text = marked.replace("|", "")
    assert [text[start:end] for start, end in sentence_spans(text)] == expected


@given(
    st.text(alphabet=st.sampled_from("aA1.?! \n\t[](),。é "), max_size=200),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_everything_but_white_space_is_in_exactly_one_sentence(text: str, before: int, behind: int) -> None:
    start, end = min(before, len(text)), max(len(text) - behind, min(before, len(text)))
    place = start
    for first, last in sentence_spans(text, start, end):
        assert place <= first < last <= end
        assert not text[place:first].strip()
        assert text[first:last] == text[first:last].strip()
        place = last
    assert not text[place:end].strip()


@pytest.mark.parametrize("unit", ["a", "word ", ". ", ".", "A. ", "x\n", "\n ", "[1] ", ".[1", '."', "1.1 "])
def test_time_grows_no_faster_than_the_text(unit: str) -> None:
    began = time.process_time()
    sentence_spans(unit * (1_000_000 // len(unit)))
    assert time.process_time() - began < 10
