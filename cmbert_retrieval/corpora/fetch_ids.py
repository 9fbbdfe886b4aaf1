"""The files that name what is to be fetched: an id a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cmbert_retrieval.corpora.files import UnusableError, existing, read_bounded
from cmbert_retrieval.errors import ConfigError, CorpusError

T = TypeVar("T")

_MAX_BYTES = 2**30


def read_id_file(
    path: str | Path, kind: str, example: str, parse: Callable[[str], T | None], hint: Callable[[str], str]
) -> list[T]:
    """Return the ids that a file names, each once, in its order.

    Args:
        path: the file, in UTF-8; ``#`` begins a comment.
        kind: what is expected on a line, for messages.
        example: what one looks like.
        parse: returns the id that a line holds, or None.
        hint: what a line without one may be instead, as the end of a message; or "".

    Raises:
        ConfigError: a line is no such id, or there is none.
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
    found: dict[T, None] = {}
    for number, line in enumerate(lines, start=1):
        if text := line.partition("#")[0].strip():
            if (id_ := parse(text)) is None:
                raise ConfigError(
                    f"{path}:{number}: no {kind}; expected one a line, as {example}{hint(text)}"
                )
            found[id_] = None
    if not found:
        raise ConfigError(f"{path}: holds no {kind}; expected one a line, as {example}")
    return list(found)
