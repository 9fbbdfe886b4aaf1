"""Filters on declared columns: one form for users, two for the engines, the same rows in both."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.indexes.columns import COLLECTIONS, TYPES, Value, encode_value, spellings

_COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_OPERATORS = ("eq", "ne", "in", "not_in", *_COMPARISONS, "exists")
_EXPRESSION = re.compile(r"\s*([^<>=!~]+?)\s*(>=|<=|!=|==|=|>|<)\s*(.*?)\s*", re.DOTALL)
_VALUE = re.compile(r'\s*+(?:"((?:[^"]|"")*+)"\s*|((?!")[^,]*+))(,|\Z)')
"""One of several values: as in CSV, quotes protect commas and are doubled to stand for themselves."""
_SYMBOLS = {">=": "ge", "<=": "le", "!=": "ne", "==": "eq", "=": "eq", ">": "gt", "<": "lt"}


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison: ``operator`` of column ``number`` with ``values`` in stored form.

    ``eq`` and ``ne`` may have two, which stand for the same.
    """

    number: int
    kind: str
    operator: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions that a document must meet, all of them.

    A document with several values in a column meets ``eq``, ``in`` and the comparisons when one value does,
    ``ne`` and ``not_in`` when none is among those named. A document without a value meets only ``ne``,
    ``not_in`` and ``exists: false``.
    """

    conditions: tuple[Condition, ...]

    def asked(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Yield, for each condition, the column and the texts of which a document must have one."""
        for condition in self.conditions:
            if condition.kind == "text" and condition.operator in ("eq", "in"):
                yield condition.number, tuple(str(value) for value in condition.values)

    def to_sql(self) -> tuple[str, list[Value]]:
        """Return a condition on ``documents.document`` and its bound parameters."""
        parts, parameters = ["1"], []
        for condition in self.conditions:
            positive, values = _sql(condition)
            negated = condition.operator in ("ne", "not_in") or (
                condition.operator == "exists" and not condition.values[0]
            )
            choice = "NOT IN" if negated else "IN"
            parts.append(
                f"document {choice} (SELECT document FROM attributes WHERE column = ? AND {positive})"
            )
            parameters += [condition.number, *values]
        return " AND ".join(parts), parameters


def _sql(condition: Condition) -> tuple[str, list[Value]]:
    if condition.operator == "exists":
        return "1", []
    if condition.operator in _COMPARISONS:
        return f"value {_COMPARISONS[condition.operator]} ?", list(condition.values)
    # One parameter whatever the number of values: SQLite bounds parameters, not the length of JSON.
    return "value IN (SELECT value FROM json_each(?))", [json.dumps(list(condition.values))]


def parse_filter(
    given: Mapping[str, Any] | Sequence[str] | str | None, columns: Mapping[str, str]
) -> Filter | None:
    """Turn what users write into a filter.

    Args:
        given: ``{"year": {"ge": 2020, "lt": 2024}, "journal": "BMJ", "type": ["review", "case-report"]}``, or
            expressions as typed in a shell: ``"year>=2020"`` or a list of them; ``journal=BMJ,JAMA`` means
            one of them. Quotes protect commas, and are doubled within, as in CSV:
            ``journal="Diabetes, Obesity & Metabolism",BMJ``.
        columns: the index's declared columns, name -> type.

    Returns:
        The filter, or None when nothing is asked for.

    Raises:
        ConfigError: an undeclared column (those that are declared are named), an unknown operator, or a value
            of another type.
    """
    if given is None:
        return None
    if isinstance(given, str):
        given = [given]
    items: list[tuple[str, str, Any]] = []
    if isinstance(given, Mapping):
        for name, wanted in given.items():
            if isinstance(wanted, Mapping):
                items += [(name, operator, value) for operator, value in wanted.items()]
            else:
                items.append((name, "in" if isinstance(wanted, COLLECTIONS) else "eq", wanted))
    elif isinstance(given, Sequence):
        items = [_parse_expression(text) for text in given]
    else:
        raise ConfigError(
            f"filter: got a {type(given).__name__}; expected {{'year': {{'ge': 2020}}}} or 'year>=2020'"
        )
    conditions = tuple(_condition(name, operator, value, columns) for name, operator, value in items)
    return Filter(conditions) if conditions else None


def _parse_expression(text: str) -> tuple[str, str, Any]:
    match = _EXPRESSION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ConfigError(f"filter {text!r}: expected COLUMN=VALUE, or one of != > >= < <= in place of =")
    name, symbol, value = match.groups()
    operator = _SYMBOLS[symbol]
    if symbol == "=" and value[:1] in ("<", ">", "!"):
        raise ConfigError(
            f"filter {text!r}: did you mean '{name}{value[0]}={value[1:].strip()}'? a value that begins with "
            f'{value[0]} goes in quotes: {name}="{value[:20]}"'
        )
    if symbol in ("<", ">") and value[:1] in ("<", ">"):
        raise ConfigError(f"filter {text!r}: '{symbol}{value[0]}' is no operator; there are = != > >= < <=")
    if operator not in ("eq", "ne"):
        return name, operator, value
    values = _split_values(text, value)
    if len(values) == 1:
        return name, operator, values[0]
    return name, "in" if operator == "eq" else "not_in", values


def _split_values(text: str, listed: str) -> list[str]:
    values: list[str] = []
    position, comma = 0, ","
    while comma:
        match = _VALUE.match(listed, position)
        if match is None:
            raise ConfigError(
                f"filter {text!r}: a quoted value must end with a quote, before a comma or the end; "
                'double a quote within it: "the ""Red"" Journal"'
            )
        quoted, plain, comma = match.groups()
        values.append(plain.strip() if quoted is None else quoted.replace('""', '"'))
        position = match.end()
    return values


def _condition(name: str, operator: str, value: Any, columns: Mapping[str, str]) -> Condition:
    if name not in columns:
        declared = ", ".join(columns) or "none"
        close = difflib.get_close_matches(name, columns, 1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        typed = name if name.isidentifier() else "NAME"
        raise ConfigError(
            f"filter: '{name}' is not a column of this index; {hint}declared columns: {declared}; for "
            f"another one, rebuild with --set columns.{typed}=text (or {', '.join(TYPES[1:])})"
        )
    if operator not in _OPERATORS:
        raise ConfigError(
            f"filter on '{name}': unknown operator '{operator}'; known: {', '.join(_OPERATORS)}"
        )
    kind = columns[name]
    if operator in _COMPARISONS and kind in ("text", "boolean"):
        raise ConfigError(f"filter on '{name}': '{operator}' needs a number or a date, the column is {kind}")
    if operator == "exists":
        if not isinstance(value, bool):
            raise ConfigError(f"filter on '{name}': 'exists' takes true or false")
        values: list[Any] = [int(value)]
    else:
        several = operator in ("in", "not_in")
        if several and not isinstance(value, COLLECTIONS):
            raise ConfigError(f"filter on '{name}': '{operator}' takes a list")
        try:
            values = [encode_value(kind, item) for item in (value if several else [value])]
        except ValueError as error:
            raise ConfigError(f"filter on '{name}' ({kind}): {error}") from None
        values = [spelt for value in values for spelt in spellings(name, value)]
    return Condition(list(columns).index(name), kind, operator, tuple(values))
