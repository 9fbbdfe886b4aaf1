"""Runs and judgements as files: TREC's formats, which every tool of the field reads."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

from cmbert_retrieval.corpora.files import existing
from cmbert_retrieval.corpora.jsonl import read_lines
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.storage import atomic_file
from cmbert_retrieval.types import Qrels, Run
from cmbert_retrieval.wording import plural

_LONGEST_LINE = 2**16


def read_run(path: str | Path) -> Run:
    """Return a run: query id -> document id -> score.

    Reads TREC's six columns, separated by white space: query, ``Q0``, document, rank, score, tag (the tag may
    be absent); also gzipped. What counts is the score; the rank is not read, as trec_eval does not read it.

    Raises:
        CorpusError: the file is absent, a line has other columns, a score is no finite number, or a document
            comes twice for a query; the message names file and line.
    """
    file = existing(path)
    if file.is_dir():
        raise CorpusError(f"{path}: a folder, expected a run file (query Q0 document rank score tag)")
    run: Run = {}
    for number, _, line in read_lines(file, max_bytes=_LONGEST_LINE):
        place = f"{file.name}:{number}"
        if line is None:
            raise CorpusError(f"{place}: longer than a line of a run can be")
        try:
            parts = line.decode("utf-8-sig" if number == 1 else "utf-8").split()
        except UnicodeDecodeError:
            raise CorpusError(f"{place}: invalid UTF-8") from None
        if not parts:
            continue
        if len(parts) not in (5, 6):
            raise CorpusError(
                f"{place}: {plural(len(parts), 'column')}, expected query, Q0, document, rank, score and tag"
            )
        query, document = parts[0], parts[2]
        try:
            score = float(parts[4])
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise CorpusError(f"{place}: the fifth column is no finite number; expected the score")
        scores = run.setdefault(query, {})
        if document in scores:
            raise CorpusError(
                f"{place}: this document was ranked for this query before; keep one of the lines"
            )
        scores[document] = score
    if not run:
        raise CorpusError(f"{path}: empty; expected lines of query, Q0, document, rank, score and tag")
    return run


def write_run(path: Path, run: Run, *, tag: str) -> None:
    """Write a run, best first within each query; gzipped when the name ends with ``.gz``.

    Args:
        path: the file, which appears whole or not at all.
        run: as ``Retriever.run`` returns it.
        tag: the system's name in the last column, without white space.
    """
    lines = (
        f"{query} Q0 {document} {rank} {score!r} {tag}\n"
        for query, scores in run.items()
        for rank, (document, score) in enumerate(sorted(scores.items(), key=lambda item: -item[1]), start=1)
    )
    _write(path, "".join(lines))


def write_qrels(path: Path, qrels: Qrels) -> None:
    """Write judgements in TREC's four columns; gzipped when the name ends with ``.gz``."""
    lines = (
        f"{query} 0 {document} {grade}\n"
        for query, grades in qrels.items()
        for document, grade in grades.items()
    )
    _write(path, "".join(lines))


def _write(path: Path, text: str) -> None:
    data = text.encode()
    with atomic_file(path) as file:
        file.write(gzip.compress(data, mtime=0) if path.name.endswith(".gz") else data)
