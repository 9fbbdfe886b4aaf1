"""Opening, bounding and fingerprinting the files that readers read."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, cast

from cmbert_retrieval.corpora.base import Source
from cmbert_retrieval.errors import CorpusError

MAX_BYTES = 64 * 2**20
"""Unpacked size above which one article or line is not read. The largest articles of PMC have half of it."""

GZIP_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)
"""What Python raises for gzip data that are truncated or damaged."""


NOT_REGULAR = "not a regular file"


class UnusableError(Exception):
    """Why one file, member or line cannot be used, without its name. Readers turn it into a ``Record``."""


def open_binary(path: Path) -> IO[bytes]:
    """Open a file for reading, unpacked when its name ends with ``.gz``.

    Raises:
        UnusableError: it cannot be opened, or is no regular file (a pipe would wait for ever).
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnusableError(NOT_REGULAR)
        if path.name.lower().endswith(".gz"):
            # A buffer of our own around it would lose the last lines before a truncated end.
            return cast("IO[bytes]", gzip.GzipFile(path))
        return path.open("rb")
    except OSError as error:
        raise UnusableError(f"cannot be opened ({error.strerror or type(error).__name__})") from None


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Return the whole content of a file, unpacked when its name ends with ``.gz``.

    Raises:
        UnusableError: it cannot be read, or is larger than ``max_bytes`` when unpacked.
    """
    with open_binary(path) as stream:
        try:
            data = stream.read(max_bytes + 1)
        except GZIP_ERRORS:
            raise UnusableError("truncated or damaged gzip data; fetch the file again") from None
        except OSError as error:
            raise UnusableError(f"cannot be read ({error.strerror or type(error).__name__})") from None
    if len(data) > max_bytes:
        raise UnusableError(too_large(max_bytes))
    return data


def too_large(max_bytes: int) -> str:
    """Return the words for something that is larger than ``max_bytes``."""
    return f"larger than {max_bytes:,} bytes when unpacked; raise the option max_bytes to read it"


def file_source(path: Path, given: str, *, licenses: dict[str, int] | None = None) -> Source:
    """Return a file as a source: its SHA-256 and size.

    Raises:
        CorpusError: it cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise CorpusError(f"{given}: {NOT_REGULAR}")
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return Source(given, f"sha256:{digest}", path.stat().st_size, licenses or {})
    except OSError as error:
        raise CorpusError(f"{given}: cannot be read ({error.strerror or type(error).__name__})") from None


def listing_source(given: str, root: Path, names: Iterable[str]) -> Source:
    """Return a folder as a source: a SHA-256 over the relative names and sizes of the files in use."""
    digest, total = hashlib.sha256(), 0
    for name in names:
        try:
            size = (root / name).stat().st_size
        except OSError:
            size = -1
        digest.update(f"{name}\t{size}\n".encode("utf-8", "surrogateescape"))
        total += max(size, 0)
    return Source(given, f"listing-sha256:{digest.hexdigest()}", total)


def files_below(root: Path) -> list[str]:
    """Return the names of the files in a folder at any depth, relative to it, sorted; hidden ones left out.

    Links to files are followed, links to folders are not.

    Raises:
        CorpusError: a folder may not be listed.
    """

    def fail(error: OSError) -> None:
        reason = error.strerror or type(error).__name__
        raise CorpusError(f"{error.filename or root}: cannot be listed ({reason})") from None

    names = []
    for base, folders, files in os.walk(root, onerror=fail):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        prefix = Path(base).relative_to(root)
        names += [(prefix / name).as_posix() for name in files if not name.startswith(".")]
    return sorted(names)


def existing(path: str | Path) -> Path:
    """Return ``path`` with ``~`` resolved.

    Raises:
        CorpusError: nothing is there, or neither a file nor a folder: a pipe would wait for ever.
    """
    if not str(path):
        raise CorpusError("the path is missing; expected a file or folder, as in --from pmc:PATH")
    found = Path(path).expanduser()
    if not found.exists():
        raise CorpusError(f"{str(path)!r}: no such file or folder")
    if not found.is_file() and not found.is_dir():
        raise CorpusError(f"{path}: {NOT_REGULAR}")
    return found
