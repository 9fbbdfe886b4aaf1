"""Codes from what people write: a code or the beginning of one, or a phrase."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from cmbert_retrieval.codes.ranking import RankedCode, rank_phrases, shares_words
from cmbert_retrieval.codes.tree import code_from_document, extend, full_title
from cmbert_retrieval.corpora.code_names import entry_texts, official_names
from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.types import Code, Document

if TYPE_CHECKING:
    from cmbert_retrieval.indexes.filters import Filter
    from cmbert_retrieval.retriever import Filters, Retriever

# "I21.4", "i214", "S72.001A", "E11.-", "E1*"; the mark at the end says that all below is meant.
_CODE = re.compile(r"\s*([A-Z][0-9A-Z])([0-9A-Z]?)(?:\.?([0-9A-Z]{1,4})|\.)?(-|\*)?\s*", re.IGNORECASE)
_LONGEST_CODE = 64
_LAST_OF_CATEGORY = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class CodeHit:
    """One answer of a look-up.

    Attributes:
        rank: 1 is the best.
        score: higher is better; 1.0 for what was asked for by code.
        code: the entry.
        matched: the text that matched best: a title, another name, or the code as it was typed.
        seventh: the seventh character that was typed with the code, or "".
    """

    rank: int
    score: float
    code: Code
    matched: str
    seventh: str = ""

    def __repr__(self) -> str:
        """Show one line: the code, its title, and the name that matched."""
        return (
            f"CodeHit(rank={self.rank}, score={self.score:.3f}, {self.full_code!r}, {self.title!r}, "
            f"matched={self.matched!r})"
        )

    @property
    def full_code(self) -> str:
        """The code with the seventh character that was typed."""
        return extend(self.code.code, self.seventh) if self.seventh else self.code.code

    @property
    def title(self) -> str:
        """The code's title, with what the seventh character says that was typed."""
        return full_title(self.code, self.seventh)


class CodeSearcher:
    """Looks codes up in an index of codes. One searcher serves any number of threads."""

    def __init__(self, retriever: Retriever) -> None:
        """Wrap an open index of codes, which the caller closes.

        Raises:
            ConfigError: ``retriever`` is none.
        """
        if not hasattr(retriever, "manifest"):
            raise ConfigError(
                f"a CodeSearcher was made of a {type(retriever).__name__}; expected an open retriever: "
                'CodeSearcher(Retriever.from_pretrained("icd10cm"))'
            )
        self.retriever = retriever

    def __repr__(self) -> str:
        """Show what is searched."""
        return f"CodeSearcher({self.retriever!r})"

    def get(self, code: str) -> Code | None:
        """Return a code as it is written in any of the usual ways (``I21.4``, ``i214``), or None.

        A code with its seventh character (``S72.001A``) gives the code that it extends.
        """
        found = self.resolve(code)
        return found[0] if found else None

    def resolve(self, text: str) -> tuple[Code, str] | None:
        """Return the code that ``text`` names, with its seventh character or ""; None if it names none.

        Codes of any system are found as published (``A0021``, ``001.0``, ``DOID:4``) and in capitals;
        those of ICD-10-CM also without their dot, and with a seventh character.
        """
        typed = text.strip()
        if typed and len(typed) <= _LONGEST_CODE and not any(map(str.isspace, typed)):
            for name in dict.fromkeys((typed, typed.upper())):
                if (document := self.retriever.get(name)) is not None:
                    return code_from_document(document), ""
        match = _CODE.fullmatch(text)
        if match is None or not match[2]:
            return None
        category, rest = (match[1] + match[2]).upper(), (match[3] or "").upper()
        document = self.retriever.get(f"{category}.{rest}" if rest else category)
        if document is not None:
            return code_from_document(document), ""
        if len(rest) != 4:
            return None
        # Seventh characters extend shorter codes too, with X in the places between.
        character, shorter = rest[-1], rest[:-1]
        while True:
            document = self.retriever.get(f"{category}.{shorter}" if shorter else category)
            if document is not None:
                code = code_from_document(document)
                return (code, character) if character in code.seventh and not code.children else None
            if not shorter.endswith("X"):
                return None
            shorter = shorter[:-1]

    @overload
    def search(  # type: ignore[overload-overlap]  # a text is a sequence of texts, too
        self, query: str, k: int = 10, *, mode: str | None = None, filter: Filters | None = None
    ) -> list[CodeHit]: ...

    @overload
    def search(
        self, query: Sequence[str], k: int = 10, *, mode: str | None = None, filter: Filters | None = None
    ) -> list[list[CodeHit]]: ...

    def search(
        self,
        query: str | Sequence[str],
        k: int = 10,
        *,
        mode: str | None = None,
        filter: Filters | None = None,
    ) -> list[CodeHit] | list[list[CodeHit]]:
        """Return the codes for a phrase, or for a code the code itself and what is below it.

        Args:
            query: what was written, or several such texts.
            k: hits per text.
            mode: how phrases are searched: ``hybrid``, ``dense`` or ``lexical``; None for the index's own.
            filter: conditions on declared columns, as ``Retriever.search`` takes them.

        Raises:
            ConfigError: an unknown mode, an undeclared column, or ``k`` out of bounds.
            IndexMismatchError: the index is none of codes.
        """
        from cmbert_retrieval.indexes.filters import parse_filter
        from cmbert_retrieval.indexes.queries import as_texts

        if k < 1:
            raise ConfigError(f"k is {k}; expected at least 1")
        texts = as_texts(query)
        where = parse_filter(filter, self.retriever.manifest.columns)
        answers = [self._named(text, k, where) for text in texts]
        phrases = [number for number, named in enumerate(answers) if named is None]
        if phrases:
            chosen = [texts[number] for number in phrases]
            ranked = rank_phrases(self.retriever, chosen, k, mode=mode, where=where)
            for number, found in zip(phrases, ranked, strict=True):
                answers[number] = [self._hit(rank, entry) for rank, entry in enumerate(found, start=1)]
        complete = [hits or [] for hits in answers]
        return complete[0] if isinstance(query, str) else complete

    def by_meaning_only(self, query: str) -> bool:
        """Tell whether no name has a word of a phrase: what is found is then the nearest, however far off."""
        return self._named(query, 1, None) is None and not shares_words(self.retriever, query)

    def _named(self, text: str, k: int, where: Filter | None) -> list[CodeHit] | None:
        """Return what ``text`` names as a code and what is below it, level by level; None for a phrase."""
        match, found = _CODE.fullmatch(text), self.resolve(text)
        if found is not None:
            tops, seventh = [found[0].code], found[1]
        elif match is not None and match[4] and not match[2]:
            tops, seventh = [match[1].upper() + last for last in _LAST_OF_CATEGORY], ""
        else:
            return None
        documents = self._walk(tops)
        if where is not None:
            every = list(documents)
            passing = self.retriever.reader.matching([document.id for document in every], where)
            documents = (document for document in every if document.id in passing)
        return [
            CodeHit(rank, 1.0, code_from_document(document), text.strip(), seventh)
            for rank, document in enumerate(itertools.islice(documents, k), start=1)
        ]

    def _hit(self, rank: int, found: RankedCode) -> CodeHit:
        row, document = self.retriever.reader.row(found.row)
        code = code_from_document(document)
        # What matched is a name as one would say it; what is shown is the name as it was published.
        names = entry_texts(official_names(code.title, code.terms))
        return CodeHit(rank, found.score, code, names.get(row.text, row.text))

    def _walk(self, codes: list[str]) -> Iterator[Document]:
        """Yield codes and all below them, the higher levels first."""
        while codes:
            level = [document for code in codes if (document := self.retriever.get(code)) is not None]
            yield from level
            codes = [child for document in level for child in code_from_document(document).children]
