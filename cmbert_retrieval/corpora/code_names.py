"""The names of codes as texts to be found by.

An official name says what is meant, and what only a tabular list needs to say ("NOS", ", unspecified").
Nobody types the second part, and both words and vectors are led astray by it: "broken hip" is nearer to
"Fracture of hip" than to "Fracture of hip NOS". What is indexed leaves it out; what is shown does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from cmbert_retrieval.corpora.lay import lay_names

# Lines among the terms that name nothing: directions for use, and mere references to other codes.
_DIRECTION = re.compile(
    r"(this|these) (code|codes|category) |the (following|selection|listed) |for .*, code to "
    r"|codes? also |use two ",
    re.I,
)
_REFERENCE = re.compile(r"[A-Z][0-9A-Z][0-9A-Z](\.[0-9A-Z]*)?-?")
_MERE_REFERENCE = re.compile(
    r"(any )?conditions?( classifiable| listed)? (to|in|under)( |,|;|-|and|or|except)*", re.I
)
_RESIDUAL = re.compile(
    r",? *\b(NOS|NEC)\b|,? *\b(not elsewhere classified|not otherwise specified|not specified)\b"
)
# Nearly all names are spared the costly expressions by this one.
_SAYS_LITTLE = re.compile(r"specified|classified|\bN(?:OS|EC)\b", re.IGNORECASE)
# What a name may leave open without saying anything by it: ", unspecified trimester", "level unspecified".
_OPEN = (
    r"(?:sites?|side|parts?|place|cause|degree|severity|trimester|stage|type|organism|depth|level|class|"
    r"stability|location|quadrant|form|episode|control|week|intent|agent|origin|nature|number of [a-z ]+)"
)
_UNSPECIFIED_PART = re.compile(
    rf",? unspecified (?:whether|as to) [^,]*"
    rf"|,? (?:of|at|in|to|on|by|from|with) unspecified {_OPEN}(?= of\b| and\b|,|$)"
    rf"|, unspecified {_OPEN}(?=,|$| \()"
    rf"|, {_OPEN} unspecified(?=,|$)"
    rf"|\bunspecified {_OPEN} of (?=\w)"
    rf"|\b(?:other )?(?:and|or) unspecified\b|\bother and unspecified (?=\w)",
    re.IGNORECASE,
)
_UNSPECIFIED = re.compile(r"\bunspecified (?=\w)|,? *\bunspecified\b(?! \w)", re.IGNORECASE)
_BRACKETS = re.compile(r"\s*\[[^\]]*\]|\s*\((?=[^)]*[A-Za-z]{3})[^)]*\)")
_SPACES = re.compile(r"\s+")
_STRAY = re.compile(r"\s+([,;:])|([,;:])(?=[,;:])|^[,;:\s]+|[,;:\s]+$")


def official_names(title: str, terms: Iterable[str]) -> list[str]:
    """Return the title and the terms that name a code, each understandable without the others.

    Args:
        title: the code's title, which comes first.
        terms: inclusion terms as published: names, headings that end in a colon, and directions for use.
    """
    names = {title.casefold(): title}
    heading = ""
    for term in terms:
        if term.endswith(":"):
            heading = term[:-1]
        elif not (_DIRECTION.match(term) or _MERE_REFERENCE.fullmatch(_REFERENCE.sub("", term))):
            name = f"{heading} {term}".strip()
            names.setdefault(name.casefold(), name)
    return list(names.values())


def entry_texts(names: Iterable[str]) -> dict[str, str]:
    """Return the texts by which something of these names is found, each with the name that it stands for.

    What people call it is among them; that stands for itself.
    """
    entries: dict[str, tuple[str, str]] = {}
    names = list(names)
    for name in names:
        for form in search_forms(name):
            entries.setdefault(form.casefold(), (form, name))
    for form, _ in list(entries.values()):
        for lay_name in lay_names(form):
            entries.setdefault(lay_name.casefold(), (lay_name, lay_name))
    return dict(entries.values())


def spoken(name: str) -> str:
    """Return a name without what only a tabular list says; "" where nothing else is left.

    Args:
        name: an official title or term, such as "Type 2 diabetes mellitus with unspecified complications".
    """
    if not _SAYS_LITTLE.search(name):
        return name.strip()
    text = _RESIDUAL.sub("", name)
    return _tidy(_UNSPECIFIED.sub("", _UNSPECIFIED_PART.sub("", text)))


def without_brackets(name: str) -> str:
    """Return a name without its bracketed synonyms and its nonessential modifiers in words."""
    return _tidy(_BRACKETS.sub("", name)) if "(" in name or "[" in name else name


def search_forms(name: str) -> list[str]:
    """Return the texts by which something of this official name is found, at least one, the fullest first."""
    full = spoken(name) or name
    short = without_brackets(full)
    return list({form.casefold(): form for form in (full, short) if form}.values())


def _tidy(text: str) -> str:
    text = _SPACES.sub(" ", text).strip()
    return _SPACES.sub(" ", _STRAY.sub(lambda match: match[1] or "", text)).strip()
