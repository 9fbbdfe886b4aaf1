"""How a document becomes rows: its entry texts, or passages of its text, or the whole of it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from cmbert_retrieval.config import PassagesRecipe
from cmbert_retrieval.corpora.passages import PassageSplitter
from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.indexes.build import RowTexts
from cmbert_retrieval.types import Document

TOKENS_PER_PASSAGE = 256
"""Of a document that the encoder cannot read as a whole; see ``eval/suites/lengths.yaml``."""

WORDS_PER_PASSAGE = 200  # of an index without encoder, where nothing else sets a length
SPECIAL_TOKENS = 2  # at most: one in front and one behind, as BERT and ModernBERT have them

Span = tuple[int | None, int | None, str | None, str]


def row_texts(encoder: Encoder | None, passages: PassagesRecipe | None) -> RowTexts:
    """Return the function that gives ``(start, end, entry, title)`` of each row of a document."""
    splitter = None
    if passages is not None:
        limit = room(encoder) if encoder else WORDS_PER_PASSAGE
        splitter = PassageSplitter(
            encoder.count_tokens if encoder else _count_words,
            max_tokens=min(passages.max_tokens or TOKENS_PER_PASSAGE, limit),
            stride=passages.stride,
            whole=limit if passages.max_tokens is None else 0,
        )

    def spans(document: Document) -> Sequence[Span]:
        if document.entries:
            return [(None, None, entry, "") for entry in document.entries if entry.strip()]
        if splitter is None:
            return [(0, len(document.text), None, document.title)]
        title = splitter.passage_title(document)
        # With the title in front, "We thank the nurses" would be found for whatever the article is about.
        about = _SubjectMatter(document)
        found: list[Span] = [
            (p.start, p.end, None, title if about.holds(p.start) else "") for p in splitter.split(document)
        ]
        return found or [(0, 0, None, document.title)]  # a title alone is still worth finding

    return spans


class _SubjectMatter:
    """Tells which places of a document's text are about its subject: all but the back matter."""

    def __init__(self, document: Document) -> None:
        self._sections = document.sections
        self._starts = [section.start for section in document.sections]

    def holds(self, place: int) -> bool:
        number = bisect_right(self._starts, place) - 1
        return number < 0 or self._sections[number].kind != "back" or place >= self._sections[number].end


def room(encoder: Encoder) -> int:
    """Return how many tokens of a text fit, beside the special tokens and the document prompt."""
    identity = encoder.identity
    prompt = identity.prompts.get("document", "")
    return identity.max_tokens - SPECIAL_TOKENS - (encoder.count_tokens([prompt])[0] if prompt else 0)


def _count_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]
