"""Pairs of texts that belong together, made of one document: what asks, and what answers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from cmbert_retrieval.corpora.note_sections import note_sections
from cmbert_retrieval.corpora.sentences import sentence_spans
from cmbert_retrieval.pretraining.code_sentences import Above, names_of
from cmbert_retrieval.types import Document

Item = TypeVar("Item")

_HEADING_CHARACTERS = 80
_PARAGRAPH_CHARACTERS = 200
"""Shorter paragraphs say too little to be found by."""
_SENTENCE_CHARACTERS = 40
_FEWEST_SENTENCES = 3
_SUMMARIES = frozenset(
    "chief complaint; reason for visit; reason for admission; impression; assessment; final diagnosis; "
    "discharge diagnosis; discharge diagnoses; principal diagnosis; diagnosis; diagnoses; summary; "
    "conclusion; indication; preoperative diagnosis; postoperative diagnosis; procedure".split("; ")
)
"""Sections of a note that say in a line what it is about."""

_ABOUT_THE_PAPER = frozenset(("caption", "table", "back"))
"""Kinds of section whose text is no paragraph."""


class Pair(NamedTuple):
    """Two texts that belong together.

    Attributes:
        anchor: what asks.
        positive: what answers.
        document: what the positive is from, as far as it is known; its other texts are no negatives.
        kind: how it was made, a ``PairKind``, or the reader that had it.
        negatives: what does not answer, where that is known.
    """

    anchor: str
    positive: str
    document: str
    kind: str
    negatives: tuple[str, ...] = ()


class Passage(NamedTuple):
    """A paragraph and the heading above it."""

    heading: str
    text: str
    is_abstract: bool


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What pairs are made with, beside the document.

    Attributes:
        each: pairs of a kind, at most.
        sentences: that a teacher is asked about, at most; None: as many as ``each``.
        characters: of a positive, at most; it is cut at a sentence.
        tree: the codes whose titles may be used as parents.
        cited: returns title and text of a cited article, where it is there, for its reference.
    """

    each: int = 8
    sentences: int | None = None
    characters: int = 2_000
    tree: Mapping[str, Above] | None = None
    cited: Callable[[Mapping[str, object]], str] | None = None


def make_pairs(document: Document, kind: str, around: Surroundings) -> Iterator[Pair]:
    """Yield the pairs of one kind that a document gives, ``around.each`` of them at most.

    - ``title-text``: the title asks for the abstract, or for what the text begins with. The questions of
      patients and their answers are such titles and texts.
    - ``section-paragraph``: title and heading ask for a paragraph below it.
    - ``sentence-context``: a sentence asks for what stood around it; in an abstract the last one, which says
      what was found.
    - ``citing-cited``: a sentence asks for the article that it cites.
    - ``names``: another name of a code or a term asks for its title.
    - ``parents``: the title of a code asks for that of the code above it.
    - ``summary-note``: the line that says what a note is about asks for the rest of it.
    """
    for anchor, positive, source in _spread(list(_MAKERS[kind](document, around)), around.each):
        yield Pair(anchor, positive, source or document.id, kind)


def texts_of(document: Document, around: Surroundings, *, names_only: bool) -> Iterator[str]:
    """Yield what a teacher is asked about: title and names, sentences, paragraphs, the beginning.

    Args:
        document: any.
        around: limits sentences and paragraphs, each by itself.
        names_only: of a code or a term, whose text repeats its names.
    """
    yield from names_of(document)
    if names_only:
        return
    passages = passages_of(document)
    whole = _spread([passage.text for passage in passages], around.each)
    yield from (cut_at_sentence(text, around.characters) for text in whole)
    sentences = [sentence for passage in passages for sentence in _sentences(passage.text)]
    long = [each for each in sentences if len(each) >= _SENTENCE_CHARACTERS]
    yield from _spread(long, around.sentences or around.each)
    if beginning := _beginning(document, around.characters):
        yield f"{document.title}\n{beginning}".strip()


def passages_of(document: Document) -> list[Passage]:
    """Return the paragraphs of a document, by its sections, or by blank lines where it has none."""
    text = document.text
    if document.sections:
        return [
            Passage(section.path[-1] if section.path else "", text[section.start : section.end].strip(),
                    section.kind == "abstract")
            for section in document.sections
            if section.kind not in _ABOUT_THE_PAPER
        ]  # fmt: skip
    passages = []
    for number, block in enumerate(text.split("\n\n")):
        lines = [line.strip() for line in block.split("\n") if line.strip()]
        heading = ""
        if len(lines) > 1 and len(lines[0]) <= _HEADING_CHARACTERS and lines[0][-1] not in ".?!:;,":
            heading = lines.pop(0)
        passages += [Passage(heading, line, number == 0) for line in lines]
    return passages


def cut_at_sentence(text: str, characters: int) -> str:
    """Return the beginning of a text up to the last sentence that ends within so many characters."""
    text = text.strip()
    if len(text) <= characters:
        return text
    ends = [end for _, end in sentence_spans(text, 0, characters)]
    whole = ends[-2] if len(ends) > 1 else 0
    return text[: whole or characters].strip()


Made = Iterator[tuple[str, str, str]]
"""Anchor, positive, and what the positive is from; "" for the document itself."""


def _title_text(document: Document, around: Surroundings) -> Made:
    beginning = _beginning(document, around.characters)
    if beginning and document.title:
        yield document.title, beginning, ""


def _section_paragraph(document: Document, around: Surroundings) -> Made:
    for passage in passages_of(document) if document.title else ():
        if passage.heading and len(passage.text) >= _PARAGRAPH_CHARACTERS:
            yield f"{document.title}: {passage.heading}", cut_at_sentence(passage.text, around.characters), ""


def _sentence_context(document: Document, around: Surroundings) -> Made:
    passages = passages_of(document)
    abstract = " ".join(passage.text for passage in passages if passage.is_abstract)
    others = [(passage.text, "") for passage in passages if not passage.is_abstract]
    for number, (text, title) in enumerate([(abstract, document.title), *others]):
        sentences = _sentences(cut_at_sentence(text, around.characters))
        if len(sentences) < _FEWEST_SENTENCES:
            continue
        chosen = len(sentences) - 1 if title else _number(document.id, number) % len(sentences)
        anchor = _without_marks(sentences[chosen])
        if len(anchor) >= _SENTENCE_CHARACTERS:
            rest = " ".join(sentences[:chosen] + sentences[chosen + 1 :])
            yield anchor, f"{title}\n{rest}".strip(), ""


_MARK = re.compile(r"\s?\[(\d+(?:\s?[,;–-]\s?\d+)*)\]")
_MOST_CITED = 2


def _citing_cited(document: Document, around: Surroundings) -> Made:
    references = _numbered(document.metadata.get("references"))
    for passage in passages_of(document):
        for sentence in _sentences(passage.text):
            marks = _MARK.findall(sentence)
            numbers = [int(number) for mark in marks for number in re.findall(r"\d+", mark)]
            is_range = any("-" in mark or "–" in mark for mark in marks)
            if not numbers or is_range or len(numbers) > _MOST_CITED:
                continue
            anchor = _without_marks(sentence)
            for number in numbers:
                reference = references[number - 1] if 0 < number <= len(references) else None
                if reference is None or around.cited is None or len(anchor) < _SENTENCE_CHARACTERS:
                    continue
                if cited := around.cited(reference):
                    key = next((f"{kind}:{reference[kind]}" for kind in _KEYS if reference.get(kind)), cited)
                    yield anchor, cut_at_sentence(cited, around.characters), str(key)


_KEYS = ("pmid", "doi")


def _numbered(given: object) -> list[Mapping[str, Any] | None]:
    """Return references by their number in the list; None for a number with several works."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for place, reference in enumerate(given if isinstance(given, list | tuple) else ()):
        if isinstance(reference, Mapping):
            found.setdefault(str(reference.get("id") or place), []).append(reference)
    return [works[0] if len(works) == 1 else None for works in found.values()]


def _names(document: Document, around: Surroundings) -> Made:
    title = document.title.strip()
    for name in names_of(document):
        if title and name.casefold() != title.casefold():
            yield name, title, ""


def _parents(document: Document, around: Surroundings) -> Made:
    parent = str(document.metadata.get("parent"))
    above = (around.tree or {}).get(parent)
    if above and document.title and above.title.casefold() != document.title.casefold():
        yield document.title, above.title, parent


def _summary_note(document: Document, around: Surroundings) -> Made:
    text = document.text
    sections = document.sections or note_sections(text)
    for section in sections:
        if not section.path or section.path[-1].casefold() not in _SUMMARIES:
            continue
        heading, content = section.path[-1], text[section.start : section.end].strip()
        if content.casefold().startswith(heading.casefold()):
            content = content[len(heading) :].lstrip(" :\n")
        rest = f"{text[: section.start].rstrip()}\n{text[section.end :].lstrip()}".strip()
        if content and len(rest) >= _PARAGRAPH_CHARACTERS:
            yield " ".join(content.split()), cut_at_sentence(rest, around.characters), ""


_MAKERS: dict[str, Callable[[Document, Surroundings], Made]] = {
    "title-text": _title_text,
    "section-paragraph": _section_paragraph,
    "sentence-context": _sentence_context,
    "citing-cited": _citing_cited,
    "names": _names,
    "parents": _parents,
    "summary-note": _summary_note,
}


def _beginning(document: Document, characters: int) -> str:
    """Return the abstract, or what the text begins with, without the title where that is repeated."""
    title, text = document.title.strip(), document.text.strip()
    abstract = "\n".join(
        document.text[section.start : section.end].strip()
        for section in document.sections
        if section.kind == "abstract"
    )
    if not abstract:
        abstract = text[len(title) :].lstrip() if title and text.startswith(title) else text
        first = abstract.split("\n\n", 1)[0]
        abstract = first if len(first) >= _PARAGRAPH_CHARACTERS else abstract
    return cut_at_sentence(abstract, characters)


def _sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


def _without_marks(sentence: str) -> str:
    return _MARK.sub("", sentence).strip()


def _number(id: str, place: int) -> int:
    data = f"{id}\0{place}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=4).digest(), "big")


def _spread(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most so many items, evenly over all of them."""
    if len(items) <= most:
        return list(items)
    return [items[(2 * place + 1) * len(items) // (2 * most)] for place in range(most)]
