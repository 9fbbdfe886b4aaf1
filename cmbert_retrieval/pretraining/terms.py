"""The terms of the lexicon: what codes and ontology terms are called, but for those that are held out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from cmbert_retrieval.pretraining.code_sentences import names_of
from cmbert_retrieval.pretraining.lexicon import LONGEST
from cmbert_retrieval.pretraining.sources import OpenSource
from cmbert_retrieval.pretraining.words import lower_words

COMMON = 1e-4
"""Share of English from which a single word is no term, though it is some synonym: "all", "men", "can"."""

_SHORTEST = 3


def lexicon_terms(sources: Iterable[OpenSource], general: Mapping[str, float]) -> Iterator[str]:
    """Yield the names of all codes and terms that are for training.

    Args:
        sources: code systems and ontologies.
        general: word -> its share of English at large.
    """
    for source in sources:
        for document in source.corpus_documents():
            if source.exclusion(document) is None:
                yield from (name for name in names_of(document) if is_term(name, general))


def is_term(name: str, general: Mapping[str, float]) -> bool:
    """Return whether a name tells something in a text: no number, no common word, not too long."""
    words = lower_words(name)
    if not words or len(words) > LONGEST or all(word.isdigit() for word in words):
        return False
    if len(words) > 1:
        return True
    return len(words[0]) >= _SHORTEST and general.get(words[0], 0.0) < COMMON
