"""How many rows a document of text becomes, with the encoder that is the default."""

from __future__ import annotations

import pytest

from cmbert_retrieval.config import PassagesRecipe
from cmbert_retrieval.encoders import load_encoder
from cmbert_retrieval.indexes.rows import TOKENS_PER_PASSAGE, room, row_texts
from cmbert_retrieval.types import Document

SENTENCE = "Fever and cough were seen in most of the children. "


@pytest.mark.parametrize("given", [None, 100])
def test_what_the_encoder_reads_as_a_whole_is_one_row_unless_a_length_is_given(given: int | None) -> None:
    encoder = load_encoder()
    spans = row_texts(encoder, PassagesRecipe(max_tokens=given))
    (a_sentence,) = encoder.count_tokens([SENTENCE])
    most = room(encoder) // a_sentence

    def lengths(sentences: int) -> list[int]:
        text = (SENTENCE * sentences).strip()
        cut = [text[start:end] for start, end, _, _ in spans(Document("d", text))]
        return encoder.count_tokens(cut)

    whole, longer = lengths(most), lengths(most + 1)
    limit = given or TOKENS_PER_PASSAGE
    assert len(whole) == 1 if given is None else len(whole) > most * a_sentence // limit
    assert len(longer) > 2 and limit - a_sentence < max(longer) <= limit
