"""Section headings of clinical notes, found by conservative rules.

A heading that is missed costs its name only; a line that is none, taken for one, tears a passage apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cmbert_retrieval.types import Section

MAX_SECTIONS = 2000
"""Headings beyond are not looked at: no note has them, and a hostile text could be made of nothing else."""

_KNOWN = frozenset(
    " ".join(
        """
    active issues; acute issues; addendum; admission diagnoses; admission diagnosis; admission labs;
    admission medications; admission physical exam; admitting diagnosis; advance directives;
    allergies; anesthesia; assessment; assessment and plan; assessment and recommendations;
    assessment/plan; brief history; brief hospital course; chief complaint; chronic issues; clinical
    history; clinical indication; clinical information; code status; comparison; complications;
    conclusion; conclusions; consultations; course in hospital; current medications; data;
    description of procedure; diagnoses; diagnosis; diagnostic studies; discharge condition;
    discharge diagnoses; discharge diagnosis; discharge disposition; discharge exam; discharge
    followup; discharge instructions; discharge labs; discharge medications; discharge physical
    exam; disposition; drug allergies; emergency department course; estimated blood loss; exam;
    examination; family history; final diagnosis; final report; findings; follow up; follow up
    instructions; follow-up; follow-up instructions; followup; followup instructions; gross
    description; history; history and physical; history of present illness; history of the present
    illness; home medications; hospital course; hospital course by problem; hospital course by
    system; hpi; imaging; immunizations; impression; impression and plan; indication; indication for
    procedure; indications; indications for procedure; interval history; laboratory; laboratory
    data; laboratory results; labs; major surgical or invasive procedure; medical history;
    medications; medications at home; medications on admission; medications on discharge;
    medications on transfer; mental status examination; microbiology; microscopic description;
    neurologic examination; ob history; objective; operation; operation performed; operative
    findings; past history; past medical history; past medical/surgical history; past psychiatric
    history; past surgical history; pathology; patient instructions; pertinent results; physical
    exam; physical exam on admission; physical exam on discharge; physical examination; physical
    examination on admission; plan; pmh; postoperative diagnoses; postoperative diagnosis;
    preoperative diagnoses; preoperative diagnosis; present illness; principal diagnosis; procedure;
    procedure performed; procedures; procedures performed; prognosis; reason for admission; reason
    for consultation; reason for exam; reason for examination; reason for this examination; reason
    for visit; recommendation; recommendations; review of systems; risk factors; secondary
    diagnoses; secondary diagnosis; sedation; social history; specimens; studies; subjective;
    summary; summary of hospital course; surgical history; technique; transitional issues;
    treatment; vital signs; vitals; wet read
        """.split()
    ).split("; ")
)
"""Names that begin a section in any spelling, also with text behind them."""

_WITH_PARTS = re.compile(
    r"exam|vital|objective|review of systems|findings|hospital course|data|results", re.I
)
_SMALL_WORDS = frozenset("a an and as at by for from in of on or per the to upon with".split())
_LONGEST_NAME = 60
_MOST_WORDS = 8
_LINE = re.compile(rf"\n[ \t]*+(?P<name>[A-Z][^:\n]{{0,{_LONGEST_NAME - 1}}}+)(?P<colon>:?)(?P<rest>[^\n]*+)")
_NAME = re.compile(r"[A-Za-z][A-Za-z /&,()'’-]*")


def note_sections(text: str) -> tuple[Section, ...]:
    """Return the sections of a note: from the line of a heading to that of the next one, without white space.

    What stands before the first heading belongs to none. A heading is a name at the beginning of a line:

    - one that notes are known to have (``Chief Complaint``, ``IMPRESSION``), in any spelling before a colon,
      or in capitals alone on its line;
    - any other in capitals or with a capital letter a word, before a colon that ends the line;
    - any other in capitals before a colon with a sentence behind it.

    Paths have one part. They have two where a heading of the last kind, of one or two words, stands in a
    section that is made of such parts: ``("PHYSICAL EXAM", "HEENT")``; likewise vital signs in an
    examination. The text, and with it the ``___`` of deidentified notes, is only looked at.
    """
    headings: list[tuple[int, tuple[str, ...]]] = []
    above: tuple[str, ...] = ()
    for start, name, is_part in _headings(text):
        if is_part and above:
            headings.append((start, (*above, name)))
        else:
            headings.append((start, (name,)))
            above = (name,) if _WITH_PARTS.search(name) else ()
        if len(headings) == MAX_SECTIONS:
            break
    ends = [*(start for start, _ in headings), len(text)][1:]
    return tuple(
        Section(start, start + len(text[start:end].rstrip()), path)
        for (start, path), end in zip(headings, ends, strict=True)
    )


def _headings(text: str) -> Iterator[tuple[int, str, bool]]:
    """Yield start, name, and whether it may be a part of the section above it."""
    for found in _LINE.finditer("\n" + text):  # a line end is found much faster than the beginning of a line
        start = found.start("name") - 1
        name, rest = found["name"].strip(), found["rest"].strip()
        if not _NAME.fullmatch(name):
            continue
        words = name.split()
        name, in_capitals = " ".join(words), name.upper() == name
        is_known = name.lower() in _KNOWN
        if not found["colon"]:
            if is_known and in_capitals and not rest:
                yield start, name, False
        elif is_known or (not rest and _is_title(words, in_capitals)):
            yield start, name, name.lower() in ("vital signs", "vitals")
        elif rest[:1].isalpha() and in_capitals and _is_title(words, in_capitals):
            yield start, name, len(words) <= 2


def _is_title(words: list[str], in_capitals: bool) -> bool:
    """Tell whether words look like a heading: few, not an abbreviation alone, each beginning as titles do."""
    if len(words) > _MOST_WORDS or sum(map(len, words)) < 4:
        return False
    return in_capitals or all(
        word[0].isupper() or word[0] in "(/&-" or word in _SMALL_WORDS for word in words
    )
