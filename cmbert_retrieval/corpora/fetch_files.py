"""One file, from a server to its place: continued where it was cut, checked, there at once or not at all."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cmbert_retrieval.corpora.fetch_address import FetchError, TransientError
from cmbert_retrieval.corpora.fetch_http import Client, Reply
from cmbert_retrieval.storage import atomic_file, fsync_file, remove_tree, writing

WORK = ".fetch"
"""The folder, below the one that is filled, where unfinished files and what is known of them lie."""

MIN_PROGRESS_BYTES = 2**16
"""What an attempt has to add to a file for the attempts to be counted anew."""

_PLAIN_MD5 = re.compile(r'"?([0-9a-f]{32})"?', re.IGNORECASE)
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to fetch.

    Attributes:
        path: where it is, below the client's base address.
        target: where it goes.
        max_bytes: a larger one is refused.
        md5: its published MD5 as hex, or "".
        etag_is_md5: whether the server's ETag is the MD5 where it looks like one, as S3's is.
    """

    path: str
    target: Path
    max_bytes: int
    md5: str = ""
    etag_is_md5: bool = False


@dataclass(frozen=True, slots=True)
class _Begun:
    """What is known of an unfinished file: enough to tell whether the server still has the same one."""

    path: str
    length: int
    etag: str
    modified: str
    md5: str

    @property
    def validator(self) -> str:
        """What ``If-Range`` may hold: a strong ETag, else the date; "" when the file cannot be continued."""
        return self.etag if self.etag.startswith('"') else self.modified


def md5_of(path: Path) -> str | None:
    """Return the file's MD5 as hex, or None when it is not there."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, _md5).hexdigest()
    except FileNotFoundError:
        return None


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)  # it finds damage; against forgery there is HTTPS


def plain_md5(etag: str) -> str:
    """Return the MD5 that an ETag of S3 is, or "" when it is something else (an upload in parts)."""
    found = _PLAIN_MD5.fullmatch(etag.strip())
    return found[1].lower() if found else ""


def published_md5(reply: Reply) -> str:
    """Return the MD5 that S3 gives as the ETag of an object, or ""."""
    if reply.headers.get("x-amz-server-side-encryption", "AES256") != "AES256":
        return ""  # encrypted with a key of its own: the ETag is of something else
    return plain_md5(reply.headers.get("ETag", ""))


def download(client: Client, file: RemoteFile, folder: Path) -> int:
    """Fetch a file, going on where an earlier attempt or an earlier process was cut.

    Args:
        client: the server.
        file: what to fetch and where to put it.
        folder: the folder for unfinished files, on the same file system as ``file.target``. One process and
            one thread at a time for each target name.

    Returns:
        The bytes that came over the network.

    Raises:
        FetchError: it is not there, too large, or not what its checksum says.
        UnreachableError: the server did not answer in any of the attempts.
        StorageError: it cannot be written.
    """
    one = _Download(client, file, folder)
    client.patiently(file.path, one.attempt)
    with writing(file.target):
        _put(one.part, file.target)
        one.note.unlink(missing_ok=True)
    return one.received


class _Download:
    def __init__(self, client: Client, file: RemoteFile, folder: Path) -> None:
        self.part = folder / f"{file.target.name}.part"
        self.note = folder / f"{file.target.name}.part.json"
        self.received = 0
        self._client, self._file = client, file
        self._most = self._size()
        self._wrong = 0

    def attempt(self) -> None:
        """Fetch what is missing and check the whole; once."""
        begun = self._begun()
        # The last byte is always asked for again: so the server tells whether the file is still the same.
        offset = min(self._size(), begun.length - 1) if begun else 0
        headers = {"Range": f"bytes={offset}-", "If-Range": begun.validator} if begun and offset > 0 else {}
        try:
            with self._client.open(self._file.path, headers=headers) as reply:
                if headers and begun and reply.status == 206 and _goes_on(reply, offset, begun):
                    self._write(reply, offset, begun.length)
                elif reply.status == 200:
                    offset, begun = 0, self._begin(reply)
                    self._write(reply, 0, begun.length)
                else:
                    self._forget()
                    raise TransientError("the file changed meanwhile, or the server miscounts")
        except TransientError as error:
            grown = self._size() - self._most
            error.progressed = error.progressed or grown >= MIN_PROGRESS_BYTES
            self._most = max(self._most, self._size())
            raise
        assert begun is not None
        self._check(begun, continued=offset > 0)

    def _begin(self, reply: Reply) -> _Begun:
        path, limit = self._file.path, self._file.max_bytes
        if reply.length is None:
            # Without a length, nothing tells a file that was cut from a whole one.
            raise FetchError(f"{path}: the server does not say how long it is")
        if reply.length > limit:
            raise FetchError(f"{path}: {reply.length:,} bytes, expected at most {limit:,}")
        etag = published_md5(reply) if self._file.etag_is_md5 else ""
        begun = _Begun(
            path,
            reply.length,
            reply.headers.get("ETag", "")[:200],
            reply.headers.get("Last-Modified", "")[:100],
            self._file.md5 or etag,
        )
        with writing(self.part):
            self.part.write_bytes(b"")  # before the note, so that no note speaks of another file's bytes
        with atomic_file(self.note) as file:
            file.write(json.dumps(asdict(begun)).encode())
        return begun

    def _begun(self) -> _Begun | None:
        """Return what an unfinished file is part of, where it can be continued."""
        try:
            begun = _Begun(**json.loads(self.note.read_bytes()))
            usable = begun.path == self._file.path and 0 < begun.length <= self._file.max_bytes
            if usable and begun.validator and self._file.md5 in ("", begun.md5) and self.part.is_file():
                return begun
        except (OSError, ValueError, TypeError, RecursionError):
            pass  # no note, or one that a power cut damaged: begin anew
        return None

    def _write(self, reply: Reply, offset: int, length: int) -> None:
        left = length - offset
        with writing(self.part), self.part.open("r+b") as part:
            part.truncate(offset)
            part.seek(offset)
            for chunk in reply.chunks():
                left -= len(chunk)
                if left < 0:
                    raise TransientError("more bytes than the server announced")
                part.write(chunk)
                self.received += len(chunk)

    def _check(self, begun: _Begun, *, continued: bool) -> None:
        size = self._size()
        found = md5_of(self.part) if begun.md5 else ""
        if size == begun.length and found == begun.md5:
            with writing(self.part):
                fsync_file(self.part)
            return
        self._forget()
        self._wrong += not continued
        wrong = "the checksum does not agree" if size == begun.length else f"{size:,} bytes arrived"
        if self._wrong > 1:
            raise FetchError(
                f"{self._file.path}: {wrong}, twice; expected {begun.length:,} bytes"
                + (f" with the MD5 {begun.md5}" if begun.md5 else "")
            )
        raise TransientError(wrong)

    def _forget(self) -> None:
        self.note.unlink(missing_ok=True)
        self.part.unlink(missing_ok=True)

    def _size(self) -> int:
        try:
            return self.part.stat().st_size
        except FileNotFoundError:
            return 0


def _goes_on(reply: Reply, offset: int, begun: _Begun) -> bool:
    """Return whether a partial answer is what was asked for, of the file that was begun."""
    found = _RANGE.fullmatch(reply.headers.get("Content-Range", "").strip())
    last = begun.length - 1
    if not found or [int(number) for number in found.groups()] != [offset, last, begun.length]:
        return False
    if reply.length is not None and reply.length != begun.length - offset:
        return False
    # Not every server heeds If-Range: whatever both answers tell of the file has to agree.
    told = (
        (reply.headers.get("ETag", ""), begun.etag),
        (reply.headers.get("Last-Modified", ""), begun.modified),
    )
    return all(now == before for now, before in told if now and before)


def _put(part: Path, target: Path) -> None:
    """Move a finished file to its place; a folder of its own appears together with it, never empty."""
    if target.parent.is_dir():
        part.replace(target)
        return
    made = part.with_name(target.parent.name)
    remove_tree(made)
    made.mkdir()
    part.rename(made / target.name)
    made.rename(target.parent)
