"""Citations, exponents, footnote marks and labels of a JATS text: what a plain line would spoil."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cmbert_retrieval.corpora.jats_blocks import clean, join_sentences

if TYPE_CHECKING:
    from lxml import etree

_CITATION = re.compile(r"[\d\s,;.–—‑−-]+[a-z]?$")
_MINUS = frozenset("-−–‑")
_HREF = "{http://www.w3.org/1999/xlink}href"
_NEAR = 40  # pieces of text: a bracket opened earlier is not that of a list of numbers
_YEAR = re.compile(r"\d{4}[a-z]?$")


def is_citation(text: str) -> bool:
    """Tell whether the text of a reference is made of numbers: ``1``, ``3-5``, ``12a``."""
    return _CITATION.match(text) is not None


def bracketed(text: str, before: str) -> str:
    """Return a citation in brackets, apart from the character before it."""
    text = text.strip(" ,;.") or text
    return f" [{text}]" if before and not before.isspace() else f"[{text}]"


def may_cite(xref: etree._Element, before: str, pieces: list[str]) -> bool:
    """Tell whether a reference without brackets is a citation where it stands, if it is made of numbers.

    Args:
        xref: the reference.
        before: the character before it.
        pieces: the text before it.
    """
    if not before or before in "[(":
        return False
    if before.isalpha() or before in ".)":
        return True
    if len(xref) == 1 and xref[0].tag == "sup" and not (xref.text or "").strip():
        return True
    if before != "," or _is_in_brackets(pieces):
        return False
    # "outcome,3,11 likely", but not "Smith 2001,2003", nor what is raised as a whole.
    parent = xref.getparent()
    whole = parent is not None and parent.tag == "sup"
    return not whole and _YEAR.match("".join(map(str, xref.itertext())).strip()) is None


def _is_in_brackets(pieces: list[str]) -> bool:
    """Tell whether a bracket is open at the end of a text, as in "[1,": its second number needs none."""
    for piece in reversed(pieces[-_NEAR:]):
        opened, closed = max(map(piece.rfind, "[(")), max(map(piece.rfind, "])"))
        if opened != closed:
            return opened > closed
    return False


def touches_another(xref: etree._Element) -> bool:
    """Tell whether nothing stands between a reference and the one before it: "6" and "10" are not "610"."""
    previous = xref.getprevious()
    return previous is not None and previous.tag == "xref" and not previous.tail


def shown_address(link: etree._Element) -> str:
    """Return the address of a link without words, which readers see in their place."""
    if len(link) or (link.text and not link.text.isspace()):
        return ""
    address = str(link.get(_HREF, ""))
    return address if address.startswith(("http://", "https://", "ftp://")) else ""


def raised_behind(sup: etree._Element) -> str:
    """Return the text of a superscript right behind a superscript."""
    following = sup.getnext() if not (sup.tail or "").strip() else None
    if following is None or following.tag != "sup":
        return ""
    return "".join(map(str, following.itertext()))


def is_raised_citation(sup: etree._Element, before: str) -> bool:
    """Tell whether a superscript holds references only; behind a full stop, those to footnotes count too."""
    kinds = ("bibr", "fn", "table-fn") if before == "." else ("bibr",)
    return len(sup) > 0 and all(kid.tag == "xref" and kid.get("ref-type") in kinds for kid in sup)


def raised(text: str, before: str, following: str = "") -> str:
    """Return the text of a superscript on a line: behind a digit, a number or its sign gets a caret.

    Args:
        text: what is raised.
        before: the character before it.
        following: the text of a superscript right behind it, which goes on with the number.
    """
    whole = (text + following).strip()
    if before.isdigit() and whole[-1:].isdigit() and (text.strip()[-1:].isdigit() or text.strip() in _MINUS):
        return "^" + text.lstrip()
    return text


_ABOUT_THE_PAPER = re.compile(
    r"(?:list of )?(?:abbreviations?|acknowledge?ments?|funding|financial (?:support|disclosures?)|"
    r"pre-?publication history|(?:author|authors)['’]*s?['’]* (?:contributions?|information|details)|"
    r"(?:declarations? of |statement of )?(?:competing|conflicts?(?: of)?|financial) interests?|"
    r"conflicts? of interests? statement|"
    r"(?:data|code) availability(?: statement)?|availability of data(?: and materials?)?)\W*",
    re.IGNORECASE,
)


def is_about_the_paper(heading: str) -> bool:
    """Tell whether a section of the body is back matter by its heading, as older articles have it there."""
    return _ABOUT_THE_PAPER.fullmatch(heading.strip(" :.")) is not None


def remove_notes(title: etree._Element) -> None:
    """Take the footnotes and the marks of footnotes out of a title."""
    for mark in list(title.iter("xref", "fn")):
        if mark.tag == "fn" or mark.get("ref-type") in ("fn", "author-notes", "corresp"):
            parent, previous = mark.getparent(), mark.getprevious()
            if parent is None or mark is title:
                continue
            if previous is None:
                parent.text = (parent.text or "") + (mark.tail or "")
            else:
                previous.tail = (previous.tail or "") + (mark.tail or "")
            mark.tail = None
            parent.remove(mark)


def with_label(title: str, heading: etree._Element, label: etree._Element | None) -> str:
    """Return "Box 1. Shoes" for a title whose label is a word that texts refer to; not "2.2 Methods"."""
    if label is None or label is heading or len(label):
        return title
    text = clean(label.text or "")
    named = re.match(r"[^\W\d_]{3,}\b", text) is not None and text.casefold() not in title.casefold()
    return join_sentences([text, title]) if named else title
