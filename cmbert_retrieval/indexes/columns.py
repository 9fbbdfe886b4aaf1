"""Declared metadata columns: their types, and the values that both SQLite and tantivy keep of them."""

from __future__ import annotations

import datetime
import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from cmbert_retrieval.corpora.licenses import normalize_license
from cmbert_retrieval.errors import ConfigError

TYPES = ("text", "integer", "number", "boolean", "date")
MAX_TEXT_BYTES = 8192
_INTEGERS = range(-(2**63), 2**63)

Number = TypeVar("Number", int, float)

Value = str | int | float
CASELESS = frozenset(("doi",))
"""Columns of text whose values are the same in any case. Documents keep them as their publishers write them.

Source:
    ISO 26324; DOI Handbook, section "Case sensitivity".
"""
COLLECTIONS = (list, tuple, set, frozenset)
"""What holds several values of a document in one column, or several values of a filter."""


def check_columns(columns: Mapping[str, str]) -> dict[str, str]:
    """Return the declared columns.

    Raises:
        ConfigError: a type is not one of ``TYPES`` or a name is empty.
    """
    for name, kind in columns.items():
        if kind not in TYPES:
            raise ConfigError(f"column '{name}': type '{kind}' is not one of {', '.join(TYPES)}")
        if not name.strip():
            raise ConfigError("a column has an empty name")
    return dict(columns)


def similar_key(name: str, keys: Iterable[str]) -> str:
    """Return the key that was probably meant by ``name``; "" for none, or when ``name`` itself is one."""
    keys = set(keys)
    if name in keys:
        return ""
    folded = {key.casefold(): key for key in sorted(keys, reverse=True)}
    close = difflib.get_close_matches(name.casefold(), folded, 1)
    return folded[close[0]] if close else ""


_BOOLEANS = {"true": 1, "yes": 1, "false": 0, "no": 0}


def encode_value(kind: str, value: Any) -> Value:
    """Return a single metadata value as it is stored and compared.

    Dates become days since year 1, booleans 0 or 1, so that SQLite and tantivy order them alike.

    Raises:
        ValueError: the value is not of the column's type. The message does not repeat it: it may be private.
    """
    if hasattr(value, "item") and not getattr(value, "ndim", 0):
        value = value.item()  # a numpy scalar
    if kind == "boolean":
        if isinstance(value, str) and value.lower() in _BOOLEANS:
            return _BOOLEANS[value.lower()]
        if value is True or value is False or (type(value) is int and value in (0, 1)):
            return int(value)
        raise ValueError("not true or false")
    if isinstance(value, bool):
        raise ValueError(f"a boolean, expected {kind}")
    if kind == "text":
        if not isinstance(value, str | int | float):
            raise ValueError(f"{type(value).__name__}, expected text")
        return _text(str(value))
    if kind == "date":
        return _day(value)
    if not isinstance(value, str | int | float):
        raise ValueError(f"{type(value).__name__}, expected {kind}")
    if kind == "integer":
        if isinstance(value, float) and not value.is_integer():
            raise ValueError("a fraction, expected integer")
        number = _converted(int, value)
        if number not in _INTEGERS:
            raise ValueError("does not fit 64 bits")
        return number
    real = _converted(float, value)
    if not math.isfinite(real):
        raise ValueError("not finite")
    return real + 0.0  # -0.0 becomes 0.0: tantivy would order the two


def _text(text: str) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("not valid Unicode") from None
    if size > MAX_TEXT_BYTES:
        raise ValueError(f"longer than {MAX_TEXT_BYTES} bytes")
    if "\0" in text:
        raise ValueError("holds a NUL character")  # SQLite's JSON ends there
    return text


def _converted(convert: Callable[[Any], Number], value: str | int | float) -> Number:
    try:
        return convert(value)
    except OverflowError:
        raise ValueError("too large") from None
    except ValueError:  # its message repeats the value
        raise ValueError("text, expected a number") from None


def _day(value: Any) -> int:
    if isinstance(value, datetime.date):
        return value.toordinal()
    if isinstance(value, str):
        try:
            if value[10:11] not in ("", "T", "t", " "):
                raise ValueError
            return datetime.date.fromisoformat(value[:10]).toordinal()
        except ValueError:
            raise ValueError("not a date like 2026-01-31") from None
    raise ValueError(f"{type(value).__name__}, expected a date like 2026-01-31")


def in_one_case(name: str, value: Value) -> Value:
    """Return a stored value as it is compared: in lower case where the column ``name`` knows no case."""
    return value.lower() if name in CASELESS and isinstance(value, str) else value


def spellings(name: str, value: Value) -> tuple[Value, ...]:
    """Return how a value that a filter asks for may be stored: as it is, and as readers write it down.

    Indexes older than ``CASELESS`` hold values in the case of their publishers. A licence is typed with a
    hyphen or a blank, in any case, and stored in one way.
    """
    known = in_one_case(name, value)
    if name == "license" and isinstance(value, str) and (license_name := normalize_license(value)) != "other":
        known = license_name
    return (value,) if known == value else (value, known)


def encode_all(
    columns: Mapping[str, str], metadata: Mapping[str, Any]
) -> Iterator[tuple[int, Value | None, str]]:
    """Yield ``(column number, stored value, problem)`` for the declared values of a document.

    Lists give one item a value. A value that does not fit comes with its problem and without a value.
    """
    for number, (name, kind) in enumerate(columns.items()):
        values = metadata.get(name)
        if values is None:
            continue
        for value in values if isinstance(values, COLLECTIONS) else (values,):
            try:
                yield number, in_one_case(name, encode_value(kind, value)), ""
            except ValueError as error:
                yield number, None, f"column '{name}': {error}"
