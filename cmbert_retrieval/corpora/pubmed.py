"""PubMed: titles, abstracts and headings of its citations, from the files that NLM publishes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from cmbert_retrieval.corpora.base import Corpus, Cursor, Record, Source
from cmbert_retrieval.corpora.files import UnusableError, existing, file_source
from cmbert_retrieval.corpora.pubmed_files import file_number, list_pubmed, missing_numbers
from cmbert_retrieval.corpora.pubmed_stream import Piece, Place, PubmedStream
from cmbert_retrieval.corpora.pubmed_xml import DELETIONS, parse_record, read_deletions, read_document
from cmbert_retrieval.errors import CorpusError

logger = logging.getLogger(__name__)

MAX_RECORD_BYTES = 16 * 2**20
"""Size above which a record is not read: room for tens of thousands of authors with their affiliations."""


class PubmedCorpus(Corpus):
    """The records of PubMed's XML, one document each; what it deletes are deletions.

    Reads ``pubmed26n0001.xml.gz`` of the baseline and of the daily updates, a folder of them (in the order of
    their numbers, also below ``baseline/`` and ``updatefiles/``), and what E-utilities' efetch returns (also
    the folder that ``cmbert corpus fetch pubmed --ids`` makes): a ``PubmedArticleSet``, several of them in
    one file, or a single ``PubmedArticle``. Books and chapters (``PubmedBookArticle``) are read as well.

    The id is the PMID. A record that comes twice is yielded twice, in the order of the files: the later one
    counts. A record that is broken or too large costs only itself.
    """

    reader = "pubmed"
    knows_retractions = True
    columns = {  # noqa: RUF012 - read-only by type
        "year": "integer",
        "journal": "text",
        "journal_abbreviation": "text",
        "types": "text",
        "language": "text",
        "mesh": "text",
        "mesh_major": "text",
        "mesh_supplementary": "text",
        "keywords": "text",
        "is_retracted": "boolean",
        "doi": "text",
        "pmcid": "text",
    }

    def __init__(self, path: str | Path, *, max_bytes: int = MAX_RECORD_BYTES) -> None:
        """Open a corpus; nothing is read yet.

        Args:
            path: a file or a folder of files.
            max_bytes: records larger than this, unpacked, are a problem.

        Raises:
            CorpusError: nothing is at ``path``.
        """
        self.path = existing(path)
        self._given = str(path)
        self._max_bytes = max_bytes

    def records(self, after: Cursor | None = None) -> Iterator[Record]:
        """Yield a record or a deletion each, behind ``after``.

        Raises:
            CorpusError: there is no file at ``path``, one is not PubMed's, or ends too early or damaged.
        """
        names = self._list()
        if after is not None:
            if after["file"] not in names:
                raise CorpusError(f"{self._given}: {after['file']} is not there any more; bring it back")
            names = names[names.index(str(after["file"])) :]
        for name in names:
            place, deleted = None, 0
            if after is not None and name == after["file"]:
                place = Place(
                    int(after["record"]), int(after["offset"]), int(after["line"]), int(after.get("sets", 1))
                )
                deleted = int(after.get("deleted", 0))
            yield from self._read(name, place, deleted)

    def sources(self) -> list[Source]:
        """Return every file with its checksum: an index knows by them which updates it has."""
        if self.path.is_file():
            return [file_source(self.path, self._given)]
        return [file_source(self.path / name, str(Path(self._given, name))) for name in self._list()]

    def _list(self) -> list[str]:
        names = list_pubmed(self.path)
        if not names:
            raise CorpusError(f"{self._given}: no .xml or .xml.gz file found; expected those of PubMed")
        missing = missing_numbers([number for name in names if (number := file_number(name))])
        if missing:
            logger.warning("%s: not there: %s", self._given, ", ".join(map(str, missing)))
        return names

    def _read(self, name: str, place: Place | None, deleted: int) -> Iterator[Record]:
        path = self.path if self.path.is_file() else self.path / name
        stream = PubmedStream(path, max_bytes=self._max_bytes)
        for piece in stream.pieces(place):
            try:
                if piece.problem:
                    raise UnusableError(piece.problem)
                element = parse_record(piece.data, stream.declaration)
                if element.tag in DELETIONS:
                    yield from _deletions(name, piece, list(read_deletions(element)), deleted)
                else:
                    yield Record(_cursor(name, piece.end), read_document(element))
            except UnusableError as error:
                line = piece.line + max(getattr(error, "line", 1) - 1, 0)
                yield Record(_cursor(name, piece.end), None, f"{name}:{line}: {error}")
            deleted = 0


def _cursor(name: str, place: Place) -> dict[str, str | int]:
    cursor: dict[str, str | int] = {
        "file": name,
        "record": place.records,
        "offset": place.offset,
        "line": place.line,
    }
    return cursor if place.sets == 1 else {**cursor, "sets": place.sets}


def _deletions(name: str, piece: Piece, found: list[tuple[str, int | None]], done: int) -> Iterator[Record]:
    """Yield what a list of deletions names behind the first ``done``, each with a place of its own."""
    for number in range(done, len(found)):
        cursor = {**_cursor(name, piece.start), "deleted": number + 1}
        if number + 1 == len(found):
            cursor = _cursor(name, piece.end)
        pmid, version = found[number]
        if pmid:
            yield Record(cursor, None, id=pmid, deleted=True, version=version)
        else:
            yield Record(cursor, None, f"{name}:{piece.line}: a deletion that is no PMID")
