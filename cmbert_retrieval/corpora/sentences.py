"""Sentence borders in biomedical English: one pattern for candidates, a few rules against false ones.

When in doubt there is no border: a sentence too long costs nothing, one torn apart loses its meaning.
"""

from __future__ import annotations

import re

# Possessive quantifiers, and no start in the middle of a run of stops: linear time on any text.
_CANDIDATE = re.compile(
    r"""(?P<paragraph>\n[^\S\n]*+\n)\s*+                # a blank line always ends a sentence
      | (?P<stop>(?<![.!?…])[.!?…]++)["'”’»)\]]*+        # a full stop, what closes behind it,
        (?:[ ]?\[[\d,;\s–-]++\])*+                      # a citation,
        \s++(?=["'“‘«(\[¿¡]*+[A-Z0-9À-ÖØ-ÞΑ-Ω≥≤<>±])    # white space, and something that may begin a sentence
      | (?P<wide>[。！？])""",
    re.VERBOSE,
)
_STARTER = re.compile(
    r"(?:The|This|These|Those|We|Our|In|However|It|There|They|All|Although|After|Both|For|Patients|Then|Thus|Therefore|"
    r"When|While|Furthermore|Moreover|To|On|As|At|No|Two|Three|One)\s"
)
_NEVER_LAST = frozenset(
    "e.g i.e eg ie vs cf viz fig figs figure ref refs eq eqs eqn sect sec chap dr drs mr mrs ms prof st mt "
    "no nos nr vol pp approx ca resp incl al.e tab suppl appx".split()
)
"""Abbreviations that something always follows."""
_OFTEN_INSIDE = frozenset(
    "al etc sp spp subsp ssp var cv gen nov inc ltd co corp jr sr ph.d m.d b.sc m.sc u.s u.k u.s.a e.u dept "
    "univ dist max min avg temp conc wt vol hr hrs mins secs wk wks mo yr yrs mg ml kg cm mm p.o i.v i.m i.p "
    "s.c b.i.d t.i.d q.i.d q.d p.r.n h.s jan feb mar apr jun jul aug sep sept oct nov dec".split()
)
"""Abbreviations that may end a sentence: they do before a word that begins sentences."""
_SINGLE_LETTER_AFTER = frozenset(
    "vitamin vitamins hepatitis group groups type types grade stage class influenza arm panel factor phase "
    "cohort site virus part appendix table complex protein category subtype serotype "
    "strain model plan option case step".split()
)
"""Words before a capital letter that is a name, not an initial: "vitamin C."."""
_WINDOW = 40


def sentence_spans(text: str, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """Return the sentences of ``text[start:end]`` as offsets into ``text``, without white space around.

    Every character that is not white space is in exactly one of them, in order.
    """
    end = len(text) if end is None else end
    spans = []
    begin = start
    for found in _CANDIDATE.finditer(text, start, end):
        if found.lastgroup == "stop" and not _is_border(text, begin, found):
            continue
        if span := _trim(text, begin, found.end()):
            spans.append(span)
        begin = found.end()
    if span := _trim(text, begin, end):
        spans.append(span)
    return spans


def _trim(text: str, start: int, end: int) -> tuple[int, int] | None:
    piece = text[start:end]
    stripped = piece.strip()
    if not stripped:
        return None
    start += len(piece) - len(piece.lstrip())
    return start, start + len(stripped)


def _is_border(text: str, begin: int, found: re.Match[str]) -> bool:
    stop = found.start()
    if found["stop"] != ".":
        return True
    word = text[max(begin, stop - _WINDOW) : stop].rpartition(" ")[2].lstrip("([{\"'“‘")
    lower = word.lower().strip(".'’-&")
    if lower in _NEVER_LAST and not word.isupper():
        # "Grant No. A-17" but also "The answer was no. Patients ...": what follows decides for the word "no".
        following = text[found.end() : found.end() + _WINDOW].split()
        return lower == "no" and not any(c.isdigit() for c in "".join(following[:1]))
    if word.isdigit() and stop - len(word) == begin and len(word) <= 2:
        return False  # the number of a list item
    starts = _STARTER.match(text, found.end()) is not None
    if lower in _OFTEN_INSIDE or ("." in word.strip(".") and not any(c.isdigit() for c in word)):
        return starts
    if len(word) == 1 and word.isalpha() and word.isupper():
        before = text[max(begin, stop - _WINDOW) : stop - 1].split()
        return starts or bool(before and before[-1].lower().strip("(,") in _SINGLE_LETTER_AFTER)
    return True
