"""The files that name what is to be fetched: an id a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cmbert_retrieval.corpora.files import UnusableError, existing, read_bounded
from cmbert_retrieval.errors import CorpusError

_MAX_BYTES = 2**30


def id_lines(path: str | Path, kind: str) -> Iterator[tuple[int, str]]:
    """Yield line numbers and what stands there, without white space around it, comments and empty lines.

    Args:
        path: the file, in UTF-8; ``#`` begins a comment.
        kind: what is expected on a line, for messages.

    Raises:
        CorpusError: the file cannot be read.
    """
    try:
        lines = read_bounded(existing(path), _MAX_BYTES).decode("utf-8-sig").splitlines()
    except UnusableError as error:
        raise CorpusError(f"{path}: {error}") from None
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path}: invalid UTF-8 at byte {error.start + 1}; expected a {kind} a line"
        ) from None
    for number, line in enumerate(lines, start=1):
        if text := line.partition("#")[0].strip():
            yield number, text
