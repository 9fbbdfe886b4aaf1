"""From a record with named values (a JSON object, a row of a table) to a document: one way for all."""

from __future__ import annotations

import datetime
import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from cmbert_retrieval.corpora.base import logger
from cmbert_retrieval.corpora.files import UnusableError
from cmbert_retrieval.errors import ConfigError, CorpusError, printable
from cmbert_retrieval.types import Document

_ID_KEYS = ("_id", "id")
LONGEST_NAME = 100
"""Characters of the name of a column: what is longer is none."""

_NAME = re.compile(r"[\w#](?:[\w.:#/()%+-]| (?! )){0,63}")
_SHOWN_COLUMNS = 30
_COMPARED_COLUMNS = 1000
_PLAIN = (str, int, float, bool)


class Fields:
    """Which of a record's values are id, text, title and metadata."""

    def __init__(
        self,
        *,
        id: str = "",
        text: str = "text",
        title: str = "title",
        metadata: str | Sequence[str] = "rest",
        noun: str = "key",
    ) -> None:
        """Say which values are taken.

        Args:
            id: name of the id; ``""`` takes ``_id`` (as BEIR has it), else ``id``.
            text: name of the text: a string, or a list of sentences.
            title: name of the title, which may be absent.
            metadata: ``rest`` takes the object under ``metadata``, and every other name that holds a value or
                a list of values; a list takes the values of these names; any other word is the name of the
                one object to take.
            noun: what the reader's users call a name: ``key`` or ``column``.

        Raises:
            ConfigError: a name is no text.
        """
        for option, value in (("id", id), ("text", text), ("title", title)):
            if not isinstance(value, str) or (option == "text" and not value):
                raise ConfigError(f"option '{option}': got {value!r}, expected the name of a {noun}")
        if not isinstance(metadata, str) and not (
            isinstance(metadata, list | tuple) and all(isinstance(name, str) for name in metadata)
        ):
            raise ConfigError(
                f"option 'metadata': got {metadata!r}, expected 'rest', a name, or a list of them"
            )
        self._ids = (id,) if id else _ID_KEYS
        self._text, self._title, self._noun = text, title, noun
        self._metadata = metadata if isinstance(metadata, str) else tuple(metadata)

    def check(self, names: Sequence[str], where: str) -> None:
        """Refuse a table in which a column is missing.

        Raises:
            CorpusError: the column, the table's columns, and the one that may have been meant.
        """
        check_unique(names, where)
        listed: Sequence[str] = self._metadata
        if isinstance(self._metadata, str):
            listed = () if self._metadata == "rest" else (self._metadata,)
        needed = [("id", self._ids), ("text", (self._text,))]
        if self._title not in ("", "title"):  # the default may be absent
            needed.append(("title", (self._title,)))
        needed += [("metadata", (name,)) for name in listed]
        for option, wanted in needed:
            if not any(name in names for name in wanted):
                raise missing_column(wanted, names, where, option)

    def wanted(self, names: Iterable[str]) -> list[str]:
        """Return which of a table's columns ``document`` looks at."""
        if self._metadata == "rest":
            return list(names)
        listed = (self._metadata,) if isinstance(self._metadata, str) else self._metadata
        used = {*self._ids, self._text, self._title, *listed}
        return [name for name in names if name in used]

    def known_id(self, values: Mapping[str, Any]) -> str:
        """Return the id of a record, or "" where it has none that can be used."""
        try:
            return valid_id(values[self._id_key(values)])
        except UnusableError:
            return ""

    def document(self, values: Mapping[str, Any], left_out: Counter[str]) -> Document:
        """Return a record as a document.

        Args:
            values: name -> value, as JSON has them.
            left_out: counts, by name, the values that are no plain values and therefore no metadata.

        Raises:
            UnusableError: the id or the text is absent or of another type.
        """
        key = self._id_key(values)
        document_id = valid_id(values[key])
        text = values.get(self._text)
        if isinstance(text, list) and all(isinstance(part, str) for part in text):
            text = " ".join(part.strip() for part in text)
        if not isinstance(text, str):
            kind = "absent" if text is None else type(text).__name__
            raise UnusableError(
                f"{self._noun} '{self._text}' is {kind}, expected a string or a list of strings"
            )
        title = values.get(self._title) if self._title else None
        if not isinstance(title, str | None):
            raise UnusableError(f"{self._noun} '{self._title}' is {type(title).__name__}, expected a string")
        metadata = self._chosen(values, {key, self._text, self._title}, left_out)
        return Document(document_id, text, title or "", metadata)

    def _id_key(self, values: Mapping[str, Any]) -> str:
        for key in self._ids:
            if values.get(key) is not None:
                return key
        names = " or ".join(repr(key) for key in self._ids)
        raise UnusableError(f"no id; expected the {self._noun} {names}")

    def _chosen(self, values: Mapping[str, Any], used: set[str], left_out: Counter[str]) -> Mapping[str, Any]:
        if not isinstance(self._metadata, str):
            return _plain_values(((name, values.get(name)) for name in self._metadata), left_out)
        if self._metadata != "rest":
            own = values.get(self._metadata)
            if own is not None and not isinstance(own, dict):
                raise UnusableError(
                    f"{self._noun} '{self._metadata}' is {type(own).__name__}, expected an object"
                )
            return own or {}
        own = values.get("metadata")
        own = own if isinstance(own, dict) else None
        rest = (
            (name, value)
            for name, value in values.items()
            if name not in used and not (name == "metadata" and own is not None)
        )
        return {**_plain_values(rest, left_out), **(own or {})}


def _plain_values(pairs: Iterable[tuple[str, Any]], left_out: Counter[str]) -> dict[str, Any]:
    plain = {}
    for name, value in pairs:
        if isinstance(value, _PLAIN) or (isinstance(value, list) and all(map(_is_plain, value))):
            plain[name] = value
        elif value is not None:
            left_out[name] += 1
    return plain


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, _PLAIN)


def report_left_out(name: str, left_out: Mapping[str, int], noun: str = "key") -> None:
    """Log what ``Fields.document`` left out of the records of the file ``name``."""
    for key, count in sorted(left_out.items()):
        logger.warning("%s: %s '%s' holds no plain values; left out of %d records", name, noun, key, count)


def check_unique(names: Sequence[str], where: str) -> None:
    """Refuse a table in which two columns have the same name; none is named by "".

    Raises:
        CorpusError: the name.
    """
    for name, count in Counter(names).items():
        if name and count > 1:
            raise CorpusError(
                f"{where}: two columns are named '{printable(name[:LONGEST_NAME])}'; rename one of them"
            )


def missing_column(
    wanted: Sequence[str], names: Sequence[str], where: str, option: str, *, guess: bool = True
) -> CorpusError:
    """Return the error for a table without any of the ``wanted`` columns.

    Args:
        wanted: the names that were looked for.
        names: the table's columns.
        where: the file.
        option: the reader's option that names the column.
        guess: whether the most similar name is offered; not for names that nobody typed.
    """
    advice = f"name it: --set source.options.{option}=COLUMN"
    given = [name for name in names[:_SHOWN_COLUMNS] if name]
    shown = ", ".join(given) or "none"
    if not all(_NAME.fullmatch(name) for name in given):
        # In a file without names, the first row is a record: nothing of it belongs into a message.
        shown = "some that look like no names; is the first row one of names?"
        return CorpusError(f"{where}: no column {' or '.join(map(repr, wanted))}; there are {shown} {advice}")
    more = f" and {len(names) - _SHOWN_COLUMNS} more" if len(names) > _SHOWN_COLUMNS else ""
    lower = {name.lower(): name for name in reversed(names[:_COMPARED_COLUMNS])}
    close = difflib.get_close_matches(wanted[0].lower(), lower, n=1) if guess else []
    hint = f"did you mean '{lower[close[0]]}'? " if close else ""
    return CorpusError(
        f"{where}: no column {' or '.join(map(repr, wanted))}; there are: {shown}{more}; {hint}{advice}"
    )


def json_value(value: Any) -> Any:
    """Return a value of a table as JSON has it; what JSON has no form for (bytes) is returned as it is.

    Dates and times become ISO 8601, decimals become numbers, and NaN, which is what pandas writes for a
    missing value, becomes None.

    Raises:
        UnusableError: an infinite number.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isinf(value):
            raise UnusableError("a number that is not finite")
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {str(name): json_value(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value


def valid_id(value: object) -> str:
    """Return an id as a string.

    Raises:
        UnusableError: it is no string or whole number, or empty, or holds white space or control characters.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UnusableError(f"the id is {type(value).__name__}, expected a string")
    if not value:
        raise UnusableError("the id is empty")
    if " " in value or not value.isprintable():  # of all white space only the blank is printable
        raise UnusableError("the id holds white space or control characters; replace them")
    return value
