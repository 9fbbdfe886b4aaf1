"""The names of codes as texts to be found by.

An official name says twice what it means: once for the clinic and once for the tabular list ("NOS", ",
unspecified", "[flu]"). Nobody types the second part, and both words and vectors are led astray by it: "broken
hip" means more like "Fracture of hip" than "Fracture of hip NOS". What is indexed leaves it out; what is shown
does not.
"""

from __future__ import annotations

import re

_RESIDUAL = re.compile(
    r",? *\b(NOS|NEC)\b|,? *\b(not elsewhere classified|not otherwise specified|not specified)\b"
)
# What a name may leave open without saying anything else with it: ", unspecified trimester", "level unspecified".
_OPEN = (
    r"(?:sites?|side|parts?|place|cause|degree|severity|trimester|stage|type|organism|depth|level|class|stability|"
    r"location|quadrant|form|episode|control|week|intent|agent|origin|nature|number of [a-z ]+)"
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
_BRACKETS = re.compile(r"\s*\[[^\]]*\]|\s*\((?=[^)]*[a-z]{3})[^)]*\)")
_SPACES = re.compile(r"\s+")
_STRAY = re.compile(r"\s+([,;:])|([,;:])(?=[,;:])|^[,;:\s]+|[,;:\s]+$")


def spoken(name: str) -> str:
    """Return a name without what only a tabular list says; "" where nothing else is left.

    Args:
        name: an official title or term, such as "Type 2 diabetes mellitus with unspecified complications".
    """
    text = _RESIDUAL.sub("", name)
    return _tidy(_UNSPECIFIED.sub("", _UNSPECIFIED_PART.sub("", text)))


def without_brackets(name: str) -> str:
    """Return a name without its bracketed synonyms and its nonessential modifiers in words."""
    return _tidy(_BRACKETS.sub("", name))


def search_forms(name: str) -> list[str]:
    """Return the texts by which something of this official name is found, at least one, the fullest first."""
    full = spoken(name) or name
    short = without_brackets(full)
    return list({form.casefold(): form for form in (full, short) if form}.values())


def _tidy(text: str) -> str:
    text = _SPACES.sub(" ", text).strip()
    return _SPACES.sub(" ", _STRAY.sub(lambda match: match[1] or "", text)).strip()
