"""One spelling for a licence, whichever source names it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from cmbert_retrieval.errors import ConfigError

_URL = re.compile(r"creativecommons\.org/(?:licenses|licences|publicdomain)/([a-z-]+)", re.IGNORECASE)
_CODE = re.compile(r"^CC[ _-]?(BY(?:[ _-](?:NC|ND|SA))*)(?:[ _-]?\d(?:\.\d)?)?$", re.IGNORECASE)
_PROSE = re.compile(
    r"creative\s*commons\s+(?:public\s+)?attribution"
    r"((?:[\s,/–-]+(?:non-?\s*commercial|no-?\s*deriv(?:ative)?s?(?:\s+works)?|share-?\s*alike))*)",
    re.IGNORECASE,
)
_CODE_IN_PROSE = re.compile(r"\bCC[ _-](BY(?:[ _-](?:NC|ND|SA))*)\b", re.IGNORECASE)
KNOWN = ("CC0", "CC-BY", "CC-BY-SA", "CC-BY-ND", "CC-BY-NC", "CC-BY-NC-SA", "CC-BY-NC-ND", "other")
"""Names of licences as one types them: a blank in place of the first hyphen means the same."""
_PARTS = ("BY", "NC", "ND", "SA")


def normalize_license(name: str) -> str:
    """Return ``CC BY``, ``CC BY-NC``, ``CC0``, ... for a code, an address or a licence statement.

    A licence that is not one of Creative Commons is returned as ``other``, nothing as ``""``. The version of
    a licence is left out: what may be done is the same for all.
    """
    name = " ".join(name.split())
    if not name:
        return ""
    if found := _URL.search(name):
        code = found[1].lower()
        return "CC0" if code in ("zero", "mark", "publicdomain") else _compose(code)
    if re.match(r"^CC[ _-]?0\b|^CC[ _-]?zero\b", name, re.IGNORECASE):
        return "CC0"
    if found := _CODE.match(name):
        return _compose(found[1])
    if found := _PROSE.search(name):
        words = re.sub(r"[^a-z]", "", found[1].lower())
        parts = ["BY"]
        parts += ["NC"] if "noncommercial" in words else []
        parts += ["ND"] if "noderiv" in words else []
        parts += ["SA"] if "sharealike" in words else []
        return "CC " + "-".join(parts)
    if found := _CODE_IN_PROSE.search(name):
        return _compose(found[1])
    if re.search(r"creative\s*commons\s+(?:cc0|(?:public\s+domain|zero))", name, re.IGNORECASE):
        return "CC0"
    return "other"


def _compose(code: str) -> str:
    found = {part.upper() for part in re.split(r"[ _-]+", code)}
    parts = [part for part in _PARTS if part in found]
    return "CC " + "-".join(parts) if parts else "other"


def license_set(licenses: Sequence[str] | str | None) -> frozenset[str] | None:
    """Return the licences that a user names, in our spelling: ``["CC BY", "CC0"]`` or ``"CC-BY,CC0"``.

    Raises:
        ConfigError: one is not known.
    """
    if licenses is None:
        return None
    names = licenses.split(",") if isinstance(licenses, str) else licenses
    found = set()
    for name in names:
        normal = normalize_license(name)
        if normal in ("", "other") and name.strip().lower() != "other":
            close = difflib.get_close_matches(name.strip().upper().replace(" ", "-"), KNOWN, 1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise ConfigError(
                f"licence '{name.strip()}' is not known; expected one of {', '.join(KNOWN)}, or several with "
                f"commas between{hint}"
            )
        found.add(normal)
    return frozenset(found)
