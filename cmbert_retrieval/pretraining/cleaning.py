"""Cleaning: what is done to a text before anything is learnt from it. Nothing else is."""

from __future__ import annotations

import html.entities
import re
import unicodedata

from cmbert_retrieval.corpora.code_documents import MISREAD

_ENTITY = re.compile(
    r"&(?:#(?P<decimal>[0-9]{1,7})|#[xX](?P<hexadecimal>[0-9A-Fa-f]{1,6})|(?P<name>[A-Za-z][A-Za-z0-9]{1,31}));"
)
_DECODINGS = 4
_LINE_END = re.compile("\r\n|[\r\v\f\x1c-\x1e\u2028\u2029]")
_GONE = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x9f"  # control characters
    "\u00ad"  # soft hyphens
    "\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # of no width
    "\U000e0001-\U000e007f"  # of no width, neither
    "\ufdd0-\ufdef\ufffe\uffff]"  # no characters at all
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_BLANKS = re.compile(r"[^\S\n]+")
_AROUND_LINE_ENDS = re.compile(r" ?\n ?")
_BLANK_LINES = re.compile(r"\n{3,}")


def clean_text(text: str) -> str:
    """Return a text as a model reads it; cleaning twice is cleaning once.

    - HTML entities that survived a reader (``&lt;``, ``&#945;``, also ``&amp;lt;``) are decoded: abstracts
      and notes are full of "p &lt; 0.05", and a model would learn the escape instead of the sign. Only whole
      ones with their semicolon are, so that "AT&T" and "R&D" stay.
    - Windows-1252 that was read as Latin-1 becomes what it was ("bird fancier\\x92s lung").
    - Unicode NFC: one spelling for each accented letter.
    - Control characters, characters of no width (also marks of direction and joiners, which English does not
      need) and soft hyphens are taken out; halves of surrogate pairs become U+FFFD.
    - Line ends of all kinds are ``\\n``, and lines stay lines: notes mean something by them. Blanks before
      and behind a line go, a run of blanks (tabs, no-break spaces) within one is one blank, and at most one
      empty line stands in a row. Nothing stands before the first line or behind the last.

    Everything else stays as it is: case, punctuation, numbers, and the ``___`` that stand in notes where
    something was taken out, which are never predicted.
    """
    text = _plain(text)
    for _ in range(_DECODINGS if "&" in text else 0):
        decoded = _ENTITY.sub(_character, text)
        if decoded == text:
            break
        text = _plain(decoded)
    return text


def _plain(text: str) -> str:
    if not text.isascii():
        text = _SURROGATE.sub("\ufffd", text.translate(MISREAD))
    text = _GONE.sub("", _LINE_END.sub("\n", text))
    text = unicodedata.normalize("NFC", text)
    text = _AROUND_LINE_ENDS.sub("\n", _BLANKS.sub(" ", text))
    return _BLANK_LINES.sub("\n\n", text).strip()


def _character(entity: re.Match[str]) -> str:
    """Return what an entity stands for; itself, where that is no character."""
    if name := entity["name"]:
        return html.entities.html5.get(f"{name};", entity[0])
    code = int(entity["decimal"]) if entity["decimal"] else int(entity["hexadecimal"], 16)
    return chr(code) if 0 < code < 0x110000 else entity[0]
