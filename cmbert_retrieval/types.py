"""The few values that every part of the library passes around. Plain, immutable, free of heavy imports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

_SHORT = 80


def short(text: str) -> str:
    """Return the beginning of a text, for one line that shows what something is."""
    return text if len(text) <= _SHORT else text[: _SHORT - 3].rstrip() + "..."


Run: TypeAlias = dict[str, dict[str, float]]
"""query id -> document id -> score, higher is better."""

Qrels: TypeAlias = dict[str, dict[str, int]]
"""query id -> document id -> relevance grade."""


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of a document's text: a paragraph, an abstract's part, a caption.

    Attributes:
        start: first character, counted in ``Document.text``.
        end: one past the last character.
        path: the headings above it, outermost first: ``("Methods", "Patients")``.
        kind: ``abstract``, ``paragraph``, ``caption``, ``table`` or ``back`` (acknowledgements, competing
            interests and the like, which are about the paper and not about its subject).
    """

    start: int
    end: int
    path: tuple[str, ...] = ()
    kind: str = "paragraph"


class _Deferred:
    """Keeps how the sections of a stored document are read once somebody asks for them."""

    __slots__ = ("_read_sections",)


@dataclass(frozen=True, slots=True)
class Document(_Deferred):
    """One thing to be found: an article, a note, a code.

    Attributes:
        id: unique within an index, without white space.
        text: the full text. Offsets everywhere are characters of this string.
        title: shown with every hit, and put in front of every passage that is indexed.
        metadata: JSON values. Those that an index declares as columns can be filtered on.
        sections: the structure of ``text``, in order and without overlap; empty when it has none.
        entries: for things that are found by several short texts (a code by its title and its terms): each
            entry becomes a row of its own, and the best one counts. Empty: the document is found by its title
            and text.
    """

    id: str
    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sections: tuple[Section, ...] = ()
    entries: tuple[str, ...] = ()

    @classmethod
    def with_deferred_sections(
        cls, read_sections: Callable[[], tuple[Section, ...]], **values: Any
    ) -> Document:
        """Return a document whose sections are read when they are first asked for.

        An article has a hundred of them, which cost more than the rest of it, and few who search look at
        them. Nothing else tells the two kinds of document apart.

        Args:
            read_sections: what returns them; an error of its own meets whoever asks.
            values: all other fields.
        """
        document = cls(**values)
        object.__delattr__(document, "sections")
        object.__setattr__(document, "_read_sections", read_sections)
        return document

    if not TYPE_CHECKING:  # to a type checker it would stand for any misspelt attribute

        def __getattr__(self, name: str) -> Any:
            """Read the sections of a stored document; called for what is not there."""
            if name != "sections":
                raise AttributeError(f"'Document' has no attribute '{name}'")
            object.__setattr__(self, "sections", self._read_sections())
            return self.sections

    def __repr__(self) -> str:
        """Show one line: a whole article would fill the screen, and a note does not belong into a log."""
        return f"Document(id={self.id!r}, title={short(self.title)!r}, text=<{len(self.text):,} characters>)"


@dataclass(frozen=True, slots=True)
class Query:
    """A question with an id, as evaluation sets have them."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer of a search.

    Attributes:
        rank: 1 is the best.
        score: higher is better; its scale depends on the mode.
        id: the document's id, or ``document#passage`` when passages were asked for.
        document: the whole document with its metadata.
        passage: the text that matched best.
        offsets: where ``passage`` stands in ``document.text``; None for an entry text of a code, which stands
            nowhere.
        citation: how one would cite it, in one line.
        signals: the parts of the score by name (``lexical``, ``dense``), as far as they found this document.
    """

    rank: int
    score: float
    id: str
    document: Document
    passage: str
    offsets: tuple[int, int] | None
    citation: str
    signals: Mapping[str, float] = field(default_factory=dict)

    @property
    def section(self) -> tuple[str, ...]:
        """The headings above the passage, outermost first; empty where it has none, or stands nowhere."""
        if self.offsets is None:
            return ()
        start = self.offsets[0]
        within = (section.path for section in self.document.sections if section.start <= start < section.end)
        return next(within, ())

    def __repr__(self) -> str:
        """Show one line of it; the whole document is in ``document``."""
        return (
            f"Hit(rank={self.rank}, score={self.score:.4f}, id={self.id!r}, "
            f"title={short(self.document.title)!r}, passage={short(self.passage)!r})"
        )


@dataclass(frozen=True, slots=True)
class Code:
    """An entry of a code system with its place in the tree.

    Attributes:
        code: as published, with the dot (``I21.4``).
        title: the official title.
        system: ``icd10cm`` and the like.
        release: the release that it was read from, as its publisher names it.
        kind: ``chapter``, ``block``, ``category``, ``subcategory`` or ``code``.
        parent: the code above; None at the top (a category of ICD-10-CM, whose block is ``block``).
        children: the codes right below, without seventh-character variants.
        chapter: the chapter's number.
        block: the block's range (``I20-I25``).
        billable: whether the code may be used on a claim; None where its source does not say, or its system
            is not for claims. A code that needs a seventh character may not.
        terms: inclusion terms and "includes" notes: other names of the same thing.
        notes: note type -> lines, in the words of the publisher (``excludes1``, ``code_first``, ...).
        seventh: seventh character -> meaning, when the code takes one; offered on the code that they extend.
        chapter_title: the chapter's title, without its range.
        block_title: the block's title, without its range.
    """

    code: str
    title: str
    system: str
    release: str
    kind: str
    parent: str | None = None
    children: tuple[str, ...] = ()
    chapter: str = ""
    block: str = ""
    billable: bool | None = None
    terms: tuple[str, ...] = ()
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seventh: Mapping[str, str] = field(default_factory=dict)
    chapter_title: str = ""
    block_title: str = ""

    def __repr__(self) -> str:
        """Show one line of it, without notes and children."""
        return f"Code({self.code!r}, {self.title!r}, system={self.system!r}, billable={self.billable})"
