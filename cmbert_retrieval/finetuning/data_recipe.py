"""What a fine-tuning recipe learns from: sources of pairs and texts, and what may not be in them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cmbert_retrieval.pretraining.recipe import PretrainingSource
from cmbert_retrieval.recipe_files import Section

PairKind = Literal[
    "title-text", "section-paragraph", "sentence-context", "citing-cited", "names", "parents", "summary-note"
]
"""What of a document asks for what of it; ``pairs.py`` says how each is made."""

PAIR_FILES = ("pairs", "judged")
"""Readers of pairs that are there already: columns of a file, and a BEIR folder with judgements."""


class PairSource(PretrainingSource):
    """One source of pairs."""

    pairs: list[PairKind] = Field(default_factory=list)
    """The pairs that are made of its documents. Empty for readers of pairs: ``pairs``, ``judged``."""

    texts: bool = False
    """Give its titles, sentences and passages to the teacher's lessons, whether or not they are in pairs."""

    each: int = Field(default=8, ge=1)
    """Pairs of one kind that a document gives, at most: chosen evenly over its length."""

    text_sentences: int | None = Field(default=None, ge=1)
    """Sentences of a document that the teacher is asked about, at most. null: as many as ``each``."""

    @model_validator(mode="after")
    def _something_is_taken(self) -> PairSource:
        if self.reader in PAIR_FILES and self.pairs:
            raise ValueError(f"reader '{self.reader}' has its pairs already; leave 'pairs' out")
        if self.reader not in PAIR_FILES and not self.pairs and not self.texts:
            raise ValueError("a source gives neither 'pairs' nor 'texts'; say which")
        return self


class OverlapRecipe(Section):
    """What the model is going to be measured on, so that none of it is trained on."""

    data: str = ""
    """The folder of evaluation sets. "": nothing is looked for, and the report says so."""

    sets: list[str] = Field(default_factory=list)
    """Named sets. ``scifact``: its documents and its questions; ``medquad:judged``: its questions and what
    answers them, where the other documents may be trained on; ``hcpcs-short:questions``: its questions."""

    words: int = Field(default=10, ge=5, le=50)
    """A text that has as many words in a row in common with a document or a question of a set is left out; so
    is one that has a whole question of at least four. Function words and numbers do not count as words."""


SourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
"""A name that files can have."""


class PairDataRecipe(Section):
    """What is learnt from."""

    sources: dict[SourceName, PairSource] = Field(min_length=1)
    """A name of yours -> what is read and which pairs are made of it."""

    exclude_names: str | None = None
    """A file of names, one a line: codes and terms that are called so are left out."""

    overlap: OverlapRecipe = OverlapRecipe()
    """What is looked for in pairs and texts, and taken out."""

    anchor_characters: int = Field(default=400, ge=20)
    """Longer anchors are left out: nobody asks so."""

    text_characters: int = Field(default=2_000, ge=50)
    """A text is cut there, at a sentence; the model's own limit is ``model.max_tokens``."""

    telegrams: float = Field(default=0.0, ge=0, le=1)
    """Share of the longer texts, by a hash of them, that the teacher is also asked about without function
    words, punctuation and capitals: as keywords and hasty notes are."""

    held_out: float = Field(default=0.005, ge=0, lt=0.5)
    """Share of every source's documents, by a hash of their ids, whose pairs are kept for measuring."""
