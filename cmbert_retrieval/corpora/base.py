"""What every reader is: a stream that can be started again, also from the middle."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from cmbert_retrieval.errors import CorpusError, printable
from cmbert_retrieval.types import Document
from cmbert_retrieval.wording import plural

logger = logging.getLogger(__name__)

Cursor: TypeAlias = Mapping[str, Any]
"""A place in a corpus, as JSON values. Only the reader that made it reads it."""


@dataclass(frozen=True, slots=True)
class Record:
    """One step of a reader.

    Attributes:
        cursor: where reading goes on after this record. Same files, same cursors.
        document: what was read, or None when the record was unusable or says that a document is gone.
        problem: why it was unusable, as one line with file and line or record (never the text itself).
        id: the id of the unusable record, as far as it is known, or of the document that is gone.
        deleted: the source has removed the document ``id``: no copy of it counts that came before.
        version: the latest version of the document that is gone, where that is said; later ones stay.
    """

    cursor: Cursor
    document: Document | None
    problem: str | None = None
    id: str = ""
    deleted: bool = False
    version: int | None = None

    def __post_init__(self) -> None:
        """Keep the problem one printable line: names of files may hold line ends."""
        if self.problem is not None and not self.problem.isprintable():
            object.__setattr__(self, "problem", printable(self.problem))


@dataclass(frozen=True, slots=True)
class Source:
    """A file or folder that a corpus is read from, as an index's manifest remembers it.

    Attributes:
        path: as the user gave it.
        checksum: ``sha256:...`` of a file; ``listing-sha256:...`` over relative names and sizes of a folder.
        bytes: size in bytes.
        licenses: licence -> number of documents, where known before reading; filled in from documents
            otherwise.
    """

    path: str
    checksum: str
    bytes: int
    licenses: Mapping[str, int] = field(default_factory=dict)


class Corpus(ABC):
    """A stream of documents that can be read any number of times, in constant memory.

    Building an index reads its corpus again when it resumes; a generator would be exhausted by then.
    """

    reader: str
    """The reader's name in recipes and in ``--from reader:path``."""

    columns: Mapping[str, str] = {}
    """Filter columns of an index of this corpus, unless a recipe declares others: name -> type."""

    knows_retractions: bool = False
    """Whether a record that tells of no retraction takes back what an earlier copy told."""

    names: bool = False
    """Whether documents are codes or terms that are found by their names."""

    @abstractmethod
    def records(self, after: Cursor | None = None) -> Iterator[Record]:
        """Yield records in a fixed order, beginning behind ``after``.

        A record that cannot be used is yielded with its ``problem`` and reading goes on. Whether that is an
        error is for the caller to say.

        Raises:
            CorpusError: nothing can be read at all, or reading cannot go on (a truncated archive).
        """

    @abstractmethod
    def sources(self) -> list[Source]:
        """Return what is read, with checksums. Reads the files once."""

    def total(self) -> int | None:
        """Return the number of records where that is known without reading them, for progress bars."""
        return None

    def __iter__(self) -> Iterator[Document]:
        """Yield the documents; unusable records are logged and left out.

        Deletions are counted and logged: only an index can carry them out.
        """
        deletions = 0
        for record in self.records():
            if record.document is not None:
                yield record.document
            elif record.deleted:
                deletions += 1
            else:
                logger.warning("%s; skipped", record.problem)
        if deletions:
            logger.warning("%s not carried out: a stream keeps no documents", plural(deletions, "deletion"))

    def strictly(self) -> Iterator[Document]:
        """Yield the documents; the first unusable record raises ``CorpusError``."""
        for record in self.records():
            if record.document is not None:
                yield record.document
            elif not record.deleted:
                raise CorpusError(str(record.problem))
