"""Documents cut into windows that fit an encoder: on sentence borders, with the title in front of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from cmbert_retrieval.corpora.sentences import sentence_spans
from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.types import Document, Section

CountTokens = Callable[[Sequence[str]], list[int]]

_BATCH_TEXTS = 1024
_CHARACTERS_A_TOKEN = 6
"""English has 4 to 5; a sentence with more for each token of a window is cut before it is counted."""
_MAX_COUNTED_GAP = 8
_LAST_SPACE = re.compile(r".*\s", re.DOTALL)
_SPACE = re.compile(r"\s")
_LAST_LINE = re.compile(r".*\n", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Passage:
    """A window of a document.

    Attributes:
        start: first character, counted in ``Document.text``.
        end: one past the last character.
    """

    start: int
    end: int


@dataclass(slots=True)
class _Piece:
    """A sentence, or a part of one that is too long: never cut.

    Attributes:
        start: first character.
        end: one past the last one.
        lead: where the white space before it begins.
        tokens: its length together with the white space before it.
        gap_tokens: what of ``tokens`` is excessive white space; not there when the piece begins a window.
        paragraph: number of the section that it belongs to.
        opens: whether it is the first of its section.
        torn: whether it begins inside a word. It then begins a window too: the tokens of a word are not those
            of its parts.
    """

    start: int
    end: int
    lead: int
    group: tuple[str, str]
    paragraph: int
    tokens: int = 0
    gap_tokens: int = 0
    opens: bool = False
    torn: bool = False


class PassageSplitter:
    """Cuts documents into windows of at most ``max_tokens`` tokens, title included; short ones stay whole.

    A window holds whole sentences. It never crosses from one kind of section to another (abstract, body,
    captions, tables) nor from one top-level section to another, but small neighbouring paragraphs share one.
    A window that is at least half full ends before a paragraph that does not fit as a whole. A sentence that
    is longer than a window is cut between words, and inside a word only when the word alone is too long.

    Each sentence is counted once, with the white space before it. For tokenizers that split at white space
    first, which all of BERT, ModernBERT and RoBERTa do, the sum over the sentences is the length of the
    window.
    """

    def __init__(
        self, count_tokens: CountTokens, *, max_tokens: int, stride: int = 0, whole: int = 0
    ) -> None:
        """Make a splitter.

        Args:
            count_tokens: texts -> their lengths in tokens, special tokens not counted.
            max_tokens: the longest row text: title, space and passage, special tokens not counted.
            stride: how many sentences neighbouring windows share, as far as there is room.
            whole: a document of at most as many tokens, title included, has windows of up to that length.

        Raises:
            ConfigError: ``max_tokens < 16`` or ``stride < 0``.
        """
        if max_tokens < 16:
            raise ConfigError(f"passages.max_tokens: got {max_tokens}, expected at least 16")
        if stride < 0:
            raise ConfigError(f"passages.stride: got {stride}, expected 0 or more sentences")
        self._count_tokens = count_tokens
        self.max_tokens = max_tokens
        self.stride = stride
        self.whole = whole

    def passage_title(self, document: Document) -> str:
        """Return the title that goes in front of the document's passages.

        It is the document's own, shortened at a word border when it would take more than half of the window.
        """
        return self._title(document)[0]

    def split(self, document: Document) -> list[Passage]:
        """Return the windows of a document, in order.

        Everything but white space is in some window. A document that has a title only gives one empty
        passage, so that it can be found by it; an empty document gives none.
        """
        pieces = list(_pieces(document, self.max_tokens * _CHARACTERS_A_TOKEN))
        title, title_tokens = self._title(document)
        if not pieces:
            return [Passage(0, 0)] if title else []
        self._count(document.text, pieces)
        length = title_tokens + sum(piece.tokens for piece in pieces)
        window = self.whole if self.max_tokens < length <= self.whole else self.max_tokens
        budget = window - title_tokens
        pieces = self._cut(document.text, pieces, budget)
        passages: list[Passage] = []
        for _, group in groupby(pieces, key=lambda piece: piece.group):
            passages += _windows(list(group), budget, self.stride)
        return passages

    def _title(self, document: Document) -> tuple[str, int]:
        title, limit = passage_title(document), self.max_tokens // 2
        if not title:
            return "", 0
        # A title of a megabyte is a broken record; no more than fits is looked at.
        title = title[: limit * 4 * _CHARACTERS_A_TOKEN]
        tokens = self._count_tokens([title])[0]
        if tokens <= limit and len(title) == len(passage_title(document)):
            return title, tokens
        ends = [found.end() for found in re.finditer(r"\S+", title)]
        low, high, best = 0, len(ends), ("", 0)
        while low < high:
            middle = (low + high + 1) // 2
            text = title[: ends[middle - 1]]
            tokens = self._count_tokens([text])[0]
            if tokens <= limit:
                low, best = middle, (text, tokens)
            else:
                high = middle - 1
        return best

    def _count(self, text: str, pieces: list[_Piece]) -> None:
        """Set the lengths of the pieces, in batches: a document of any length holds few texts at a time."""
        for first in range(0, len(pieces), _BATCH_TEXTS):
            batch = pieces[first : first + _BATCH_TEXTS]
            texts = []
            for piece in batch:
                # Where nothing stands between, a space does when the piece begins a window behind a title.
                gap = text[piece.lead : piece.start] or " "
                piece.gap_tokens = max(len(gap) - _MAX_COUNTED_GAP, 0)
                texts.append(gap[:_MAX_COUNTED_GAP] + text[piece.start : piece.end])
            for piece, tokens in zip(batch, self._count_tokens(texts), strict=True):
                piece.tokens = tokens + piece.gap_tokens

    def _cut(self, text: str, pieces: list[_Piece], budget: int) -> list[_Piece]:
        """Return the pieces with those cut that are longer than the budget."""
        while any(_is_cuttable(piece, budget) for piece in pieces):
            parts: list[_Piece] = []
            for piece in pieces:
                if not _is_cuttable(piece, budget):
                    parts.append(piece)
                    continue
                new = _parts(text, piece, budget)
                self._count(text, new)
                parts += new
            pieces = parts
        return pieces


def passage_title(document: Document) -> str:
    """Return the title that goes in front of a document's rows where no window limits it."""
    return document.title.strip()


def _is_cuttable(piece: _Piece, budget: int) -> bool:
    return piece.tokens - piece.gap_tokens > budget and piece.end - piece.start > 1


def _parts(text: str, piece: _Piece, budget: int) -> list[_Piece]:
    """Return the parts of a piece that is longer than the budget."""
    length, tokens = piece.end - piece.start, piece.tokens - piece.gap_tokens
    # Parts of an eighth of a window fill windows well; parts of a word stay alone, so they fill them
    # themselves.
    one_word = _SPACE.search(text, piece.start, piece.end) is None
    size = max(1, length * budget * 9 // (10 * tokens) if one_word else length * budget // (8 * tokens))
    parts, lead = [], piece.lead
    for start, end, torn in _chop(text, piece.start, piece.end, size, inside=one_word):
        first = start == piece.start
        opens, torn = first and piece.opens, piece.torn if first else torn
        parts.append(_Piece(start, end, lead, piece.group, piece.paragraph, opens=opens, torn=torn))
        lead = end
    return parts


def _pieces(document: Document, max_characters: int) -> Iterator[_Piece]:
    text, lead = document.text, 0
    for number, section in enumerate(_covering(document)):
        group = (section.kind, section.path[0] if section.path else "")
        opens = True
        for begin, stop in _sentences(text, section):
            for start, end, torn in _chop(text, begin, stop, max_characters, inside=True):
                yield _Piece(start, end, lead, group, number, opens=opens, torn=torn)
                opens, lead = False, end


def _covering(document: Document) -> Iterator[Section]:
    """Yield the sections and the stretches between them, so that all of the text is there."""
    place = 0
    for section in document.sections:
        if place < section.start:
            yield Section(place, section.start)
        yield Section(max(section.start, place), section.end, section.path, section.kind)
        place = max(place, section.end)
    if place < len(document.text):
        yield Section(place, len(document.text))


def _sentences(text: str, section: Section) -> Iterator[tuple[int, int]]:
    if section.kind != "table":
        yield from sentence_spans(text, section.start, section.end)
        return
    for found in re.finditer(r"[^\n]+", text[section.start : section.end]):
        line = found[0]
        if stripped := line.strip():
            start = section.start + found.start() + len(line) - len(line.lstrip())
            yield start, start + len(stripped)


def _chop(text: str, start: int, end: int, size: int, *, inside: bool) -> Iterator[tuple[int, int, bool]]:
    """Yield parts of about ``size`` characters, and whether each begins inside a word.

    They are cut at line ends, else between words; a word that is longer is cut only where ``inside`` allows
    it.
    """
    torn = False
    while start < end:
        stop, tears = min(start + size, end), False
        if stop < end and not text[stop].isspace():
            part = text[start:stop]
            found = _LAST_LINE.match(part, size // 2) or _LAST_SPACE.match(part, 1)
            if found:
                stop = start + found.end()
            elif inside:
                tears = not part[-1].isspace()
            else:
                space = _SPACE.search(text, stop, end)
                stop = space.start() if space else end
        part = text[start:stop]
        if stripped := part.strip():
            first = start + len(part) - len(part.lstrip())
            yield first, first + len(stripped), torn and first == start
        torn = tears
        start = stop


def _windows(pieces: list[_Piece], budget: int, stride: int) -> Iterator[Passage]:
    """Yield the windows of pieces that may share one."""
    paragraph_tokens: dict[int, int] = {}
    for piece in pieces:
        paragraph_tokens[piece.paragraph] = paragraph_tokens.get(piece.paragraph, 0) + piece.tokens
    first = new = 0  # where the window begins, and the first piece that no window before it had
    while True:
        last = first
        used = pieces[first].tokens - pieces[first].gap_tokens
        while last + 1 < len(pieces):
            following = pieces[last + 1]
            if used + following.tokens > budget:
                break
            if (
                last >= new
                and following.opens
                and 2 * used >= budget
                and used + paragraph_tokens[following.paragraph] > budget
            ):
                break
            last += 1
            used += following.tokens
        yield Passage(pieces[first].start, pieces[last].end)
        if last + 1 == len(pieces):
            return
        # As many sentences as the stride says are repeated, as far as the next one still fits behind them.
        new = last + 1
        following = pieces[new]
        begin, used = new, following.tokens - following.gap_tokens
        while begin > first + 1 and new - begin < stride and not pieces[begin].torn:
            earlier = pieces[begin - 1]
            used += pieces[begin].gap_tokens + earlier.tokens - earlier.gap_tokens
            if used > budget:
                break
            begin -= 1
        first = begin
