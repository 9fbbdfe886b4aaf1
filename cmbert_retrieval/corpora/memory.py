"""Documents that are in memory already, as a corpus."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from functools import cached_property
from typing import Any

from cmbert_retrieval.corpora.base import Corpus, Cursor, Record, Source
from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.types import Document

_LOOKED_AT = 1000
_LONGEST_FACET = 200


class MemoryCorpus(Corpus):
    """A list of documents. An iterator is read into a list once, so that it can be read again."""

    reader = "memory"

    def __init__(self, documents: Iterable[Document]) -> None:
        self._documents = list(documents)
        for number, document in enumerate(self._documents):
            _check(document, number)

    def records(self, after: Cursor | None = None) -> Iterator[Record]:
        """Yield the documents in their order."""
        start = int(after["record"]) + 1 if after else 0
        for number in range(start, len(self._documents)):
            yield Record({"record": number}, self._documents[number])

    def sources(self) -> list[Source]:
        """Return one source whose checksum covers all of every document."""
        return [self._source]

    @cached_property
    def _source(self) -> Source:
        digest = hashlib.sha256()
        size = 0
        for document in self._documents:
            facts = _facts(document)
            for part in (document.id, document.title, document.text, facts, *document.entries):
                data = part.encode("utf-8", "surrogatepass")
                digest.update(len(data).to_bytes(8, "big") + data)
                size += len(data)
        return Source("memory", f"sha256:{digest.hexdigest()}", size)

    @property
    def names(self) -> bool:  # type: ignore[override]
        """Whether the documents have names to be found by."""
        return any(document.entries for document in self._documents)

    def total(self) -> int:
        """Return the number of documents."""
        return len(self._documents)

    def guess_columns(self) -> dict[str, str]:
        """Return a column for each metadata key whose first 1,000 values are short and of one type."""
        seen: dict[str, set[str]] = {}
        for document in self._documents[:_LOOKED_AT]:
            for name, value in document.metadata.items():
                values = value if isinstance(value, list | tuple | set) else (value,)
                seen.setdefault(name, set()).update(_kind(item) for item in values if item is not None)
        columns = {}
        for name, kinds in seen.items():
            if kinds == {"integer", "number"}:
                kinds = {"number"}
            if len(kinds) == 1 and "other" not in kinds and name.strip():
                columns[name] = kinds.pop()
        return columns


def _check(document: object, number: int) -> None:
    """Refuse what is no document of texts: a mistake of the program, not of a record.

    Raises:
        ConfigError: which one, and what it is.
    """
    if not isinstance(document, Document):
        raise ConfigError(
            f"documents[{number}] is a {type(document).__name__}; expected a Document: "
            'Document(id="1", text="...", title="...", metadata={...})'
        )
    for name in ("id", "text", "title"):
        value = getattr(document, name)
        if not isinstance(value, str):
            raise ConfigError(f"documents[{number}].{name} is a {type(value).__name__}; expected a text")


def _facts(document: Document) -> str:
    """Return what a document has besides its texts, written the same way in every process."""
    sections = [[section.start, section.end, section.path, section.kind] for section in document.sections]
    try:
        metadata = json.dumps(document.metadata, default=_plain)
    except (ValueError, TypeError, RecursionError) as error:
        metadata = type(error).__name__  # a build counts such a document as skipped
    return json.dumps([len(document.entries), sections, metadata])


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "item"):  # numpy scalars
        return value.item()
    raise TypeError(type(value).__name__)


def _kind(value: Any) -> str:
    if hasattr(value, "item") and not getattr(value, "ndim", 0):
        value = value.item()  # a numpy scalar
    if isinstance(value, date):
        return "date"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str) and len(value) <= _LONGEST_FACET:
        return "text"
    return "other"
