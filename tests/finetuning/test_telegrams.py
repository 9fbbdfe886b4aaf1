from __future__ import annotations

import pytest

pytest.importorskip("pyarrow")

from cmbert_retrieval.finetuning.telegrams import telegram

pytestmark = pytest.mark.slow  # pyarrow


@pytest.mark.parametrize(
    "text, expected",
    [
        ("The patient was NOT seen by us, since the clinic had closed.", "patient seen clinic closed"),
        ("Non-small-cell (NSCLC) 5 mg/dl; β-blockers", "non small cell nsclc 5 mg dl β blockers"),
        ("What is it?", ""),
        ("", ""),
    ],
)
def test_words_that_say_something_stay_in_their_order(text: str, expected: str) -> None:
    assert telegram(text) == expected
