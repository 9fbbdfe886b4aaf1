"""Writing a corpus as JSON lines, which our readers ``jsonl`` and ``beir`` and the field's tools read."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from cmbert_retrieval.corpora.base import Corpus
from cmbert_retrieval.errors import ConfigError, CorpusError
from cmbert_retrieval.storage import atomic_file, make_folder, writing
from cmbert_retrieval.types import Document

SHOWN_PROBLEMS = 5


@dataclass(slots=True)
class Converted:
    """What a conversion wrote.

    Attributes:
        path: the file.
        documents: how many are in it.
        deletions: documents that the corpus says are gone: only an index carries that out.
        unusable: records that were left out because they cannot be read.
        problems: why, for the first of them.
    """

    path: Path
    documents: int = 0
    deletions: int = 0
    unusable: int = 0
    problems: list[str] = field(default_factory=list)


def write_jsonl(
    corpus: Corpus, to: str | Path, *, strict: bool = False, progress: Callable[[int], None] | None = None
) -> Converted:
    """Write a corpus as one JSON object a line, with BEIR's keys: ``_id``, ``title``, ``text``, ``metadata``.

    What only this library knows (sections, entry texts of codes) has no place in that format and is left out.
    The same corpus gives the same bytes.

    Args:
        corpus: read once, from its beginning.
        to: a file that ends with ``.jsonl`` or ``.jsonl.gz``; any other name is a folder, made where it is
            not there, that gets a ``corpus.jsonl`` as BEIR folders have it. A file that is there is replaced.
        strict: whether the first record that cannot be used is an error.
        progress: called with 1 for each record.

    Raises:
        ConfigError: ``to`` is a file of another kind.
        CorpusError: reading cannot go on.
        StorageError: the file cannot be written; the one before is as it was.
    """
    path = Path(to).expanduser()
    if not path.name.lower().endswith((".jsonl", ".jsonl.gz")):
        if path.is_file() or path.suffix.lower() in (".json", ".csv", ".tsv", ".parquet", ".gz", ".txt"):
            raise ConfigError(f"{to}: expected a name with .jsonl or .jsonl.gz, or a folder for BEIR's files")
        path = path / "corpus.jsonl"
    done = Converted(path)
    with writing(path.parent):
        make_folder(path.parent)
    with atomic_file(path) as file:
        if path.name.lower().endswith(".gz"):
            # No name and time in it: equal documents give equal files.
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
                _write(corpus, cast("IO[bytes]", packed), done, strict, progress)
        else:
            _write(corpus, file, done, strict, progress)
    return done


def _write(
    corpus: Corpus, file: IO[bytes], done: Converted, strict: bool, progress: Callable[[int], None] | None
) -> None:
    for record in corpus.records():
        if progress is not None:
            progress(1)
        if record.deleted:
            done.deletions += 1
            continue
        if record.document is None:
            if strict:
                raise CorpusError(str(record.problem))
            done.unusable += 1
            if len(done.problems) < SHOWN_PROBLEMS:
                done.problems.append(str(record.problem))
            continue
        file.write(_line(record.document))
        done.documents += 1


def _line(document: Document) -> bytes:
    values = {
        "_id": document.id,
        "title": document.title,
        "text": document.text,
        "metadata": dict(document.metadata),
    }
    return (json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n").encode()
