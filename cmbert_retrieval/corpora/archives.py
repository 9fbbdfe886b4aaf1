"""Reading the members of a tar archive one after the other, in memory, without trusting it.

Nothing is ever extracted to disk. ``tarfile`` ends quietly at a damaged header; here that is an error,
because the articles behind it would be missing without a word.
"""

from __future__ import annotations

import errno
import gzip
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from cmbert_retrieval.corpora.files import GZIP_ERRORS, NOT_REGULAR, too_large
from cmbert_retrieval.errors import CorpusError

_EMPTY: type[tarfile.HeaderError] = tarfile.EmptyHeaderError  # type: ignore[attr-defined]
_DAMAGED: tuple[type[tarfile.HeaderError], ...] = (
    tarfile.TruncatedHeaderError,  # type: ignore[attr-defined]
    tarfile.InvalidHeaderError,  # type: ignore[attr-defined]
)

_ENDS = 8  # reads at the end of the data that are no sign of a wrong size
MAX_HEADER_BYTES = 2**20
"""Size above which a long name or an extended header is refused; ``tarfile`` would read it into memory."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive.

    Attributes:
        number: 1 for the first, counting every member.
        name: as it stands in the archive, with control characters replaced.
        data: its bytes, or None when there is a problem or its name was not wanted.
        problem: why its bytes are not used.
    """

    number: int
    name: str
    data: bytes | None = None
    problem: str | None = None


class _ShortReads:
    """Hands on what is unpacked so far; a full read would lose all of it where the data end too early.

    Behind the end, ``tarfile`` would go on reading nothing for as long as a member claims to be.
    """

    def __init__(self, stream: io.BufferedReader | gzip.GzipFile) -> None:
        self._stream = stream
        self._ends = 0

    def read(self, size: int) -> bytes:
        data = self._stream.read1(size)
        if not data:
            self._ends += 1
            if self._ends > _ENDS:
                raise tarfile.ReadError("unexpected end of data")
        return data


class _StrictTarInfo(tarfile.TarInfo):
    """A header that is damaged or missing is an error, not the end; extended headers are bounded."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _StrictTarInfo:
        try:
            return super().fromtarfile(tar)
        except _EMPTY:
            raise tarfile.ReadError("the end-of-archive marker is missing") from None
        except _DAMAGED:
            raise tarfile.ReadError("damaged member header") from None

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictTarInfo:
        info = super().frombuf(buf, encoding, errors)
        extended = (
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
        )
        if info.type in extended and info.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError("extended header of more than 1 MiB")
        return info


def read_members(
    path: Path, *, suffixes: tuple[str, ...], max_bytes: int, after: int = 0
) -> Iterator[Member]:
    """Yield the members of a ``.tar``, ``.tar.gz`` or ``.tgz`` in their order.

    Directories and members whose lower-case name ends with none of ``suffixes`` are passed over.

    Args:
        path: the archive.
        suffixes: endings of the names that are wanted.
        max_bytes: larger members are a problem and not read.
        after: number of the member to begin behind. The members before it are unpacked but not looked at.

    Raises:
        CorpusError: the archive is truncated or damaged; all members before that place have been yielded.
    """
    number = complete = 0
    try:
        with (
            _open(path) as stream,
            tarfile.open(
                fileobj=cast("IO[bytes]", _ShortReads(stream)),
                mode="r|",
                bufsize=2**18,
                tarinfo=_StrictTarInfo,
            ) as tar,
        ):
            for info in tar:
                number += 1
                # In stream mode tarfile would otherwise remember every header it has seen.
                cast(Any, tar).members = []
                if number > after and (member := _member(tar, info, number, suffixes, max_bytes)):
                    yield member
                complete = number
            # Reading on to the end makes gzip compare its checksum, and shows what `cat a.tar b.tar` made.
            behind = cast(Any, tar).fileobj
            while data := behind.read(2**18):
                if data.strip(b"\0"):
                    raise tarfile.ReadError(
                        "more data behind the end of the archive; are several joined into one file?"
                    )
    except (tarfile.TarError, *GZIP_ERRORS, OSError, ValueError) as error:
        if isinstance(error, ValueError):  # of an extended header; its message quotes the file
            reason = "damaged member header"
        elif isinstance(error, OSError) and not isinstance(error, GZIP_ERRORS):
            reason = error.strerror or type(error).__name__
        elif isinstance(error, tarfile.ReadError):
            reason = str(error)
        else:
            reason = "the compressed data end too early or are damaged"
        raise CorpusError(
            f"{path.name}: truncated or damaged archive after {complete} members ({reason}); fetch it again"
        ) from None


def _open(path: Path) -> io.BufferedReader | gzip.GzipFile:
    if not path.is_file():  # a pipe would wait for ever
        raise OSError(errno.EINVAL, NOT_REGULAR)
    if path.name.lower().endswith(".tar"):
        return path.open("rb")
    return gzip.GzipFile(path)


def _member(
    tar: tarfile.TarFile, info: tarfile.TarInfo, number: int, suffixes: tuple[str, ...], max_bytes: int
) -> Member | None:
    name = "".join(c if c.isprintable() else "?" for c in info.name)
    if info.isdir():
        return None
    if ".." in PurePosixPath(info.name).parts or info.name.startswith("/"):
        return Member(number, name, problem="the name points outside of the archive")
    if not info.isreg() or info.issparse():
        kind = "a link" if info.issym() or info.islnk() else "not a regular file"
        return Member(number, name, problem=f"{kind}, expected an article's XML")
    if not info.name.lower().endswith(suffixes):
        if info.name.lower().endswith(tuple(f"{suffix}.gz" for suffix in suffixes)):
            return Member(number, name, problem="gzipped within the archive, expected plain XML")
        return None
    if info.size > max_bytes:
        return Member(number, name, problem=too_large(max_bytes))
    extracted = tar.extractfile(info)
    data = extracted.read() if extracted is not None else b""
    if len(data) != info.size:
        raise tarfile.ReadError("unexpected end of data")
    return Member(number, name, data)
