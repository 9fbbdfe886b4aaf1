"""Text files in any encoding, as streams of UTF-8: what reads lines and offsets needs to know one only."""

from __future__ import annotations

import codecs
import io
from pathlib import Path
from typing import IO, Any, cast

from cmbert_retrieval.corpora.files import UnusableError, open_binary
from cmbert_retrieval.errors import ConfigError

_BLOCK_BYTES = 1 << 16
_MARK = "\ud800"  # half of a surrogate pair: no text holds it, and its bytes are no UTF-8
_BOMS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # begins as that of UTF-16 does
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_MAGIC = {
    b"\x1f\x8b": "gzip data; let its name end with .gz",
    b"PK\x03\x04": "a zip archive (a spreadsheet?); unpack it, or save it as CSV",
    b"PAR1": "a Parquet file; let its name end with .parquet",
    b"\x1f\x9d": "data of Unix compress; unpack them (gunzip does)",
}
ANOTHER_ENCODING = "name the file's encoding: --set source.options.encoding=latin-1"


def known_encoding(name: object) -> str:
    """Return Python's name of a text encoding; of UTF-8, with a byte order mark or without, always "utf-8".

    Raises:
        ConfigError: there is no such encoding.
    """
    try:
        found = codecs.lookup(str(name)).name
        "".encode(found)  # hex and the like are codecs, too, and encode no text
    except (LookupError, ValueError):
        raise ConfigError(
            f"option 'encoding': got {name!r}, expected one such as utf-8, latin-1, cp1252 or utf-16"
        ) from None
    return "utf-8" if found in ("utf-8", "utf-8-sig", "ascii") else found


def open_utf8(path: Path, encoding: str) -> IO[bytes]:
    """Open a text file as a stream of UTF-8, unpacked when its name ends with ``.gz``.

    What cannot be decoded becomes bytes that are no UTF-8, so that it is found where it is read. The stream
    of another encoding than "utf-8" can be sought forward from its beginning only.

    Raises:
        UnusableError: it cannot be opened, or is no regular file.
    """
    stream = open_binary(path)
    if encoding == "utf-8":
        return stream
    return cast("IO[bytes]", io.BufferedReader(_Utf8(stream, encoding), _BLOCK_BYTES))


def decode(data: bytes, encoding: str) -> str:
    """Return the text of a whole file, without a byte order mark. Line ends stay as they are.

    Raises:
        UnusableError: it is not in this encoding, or no text at all.
    """
    check_beginning(data, encoding)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnusableError(f"not {encoding} at byte {error.start + 1}; {ANOTHER_ENCODING}") from None
    except UnicodeError:  # UTF-16 without a byte order mark where one is needed
        raise UnusableError(f"not {encoding}; {ANOTHER_ENCODING}") from None
    if "\0" in text:
        raise UnusableError("holds NUL characters: no text, or in another encoding")
    return text.removeprefix("\ufeff")


def check_beginning(data: bytes, encoding: str) -> None:
    """Refuse what the first bytes of a file tell to be something else than text in ``encoding``.

    Raises:
        UnusableError: what it is, and what to do.
    """
    for magic, what in _MAGIC.items():
        if data.startswith(magic):
            raise UnusableError(what)
    if encoding == "utf-8":
        for mark, name in _BOMS.items():
            if data.startswith(mark):
                raise UnusableError(f"{name}, not UTF-8: --set source.options.encoding={name.lower()}")


class _Utf8(io.RawIOBase):
    """The content of another stream, decoded and encoded again in blocks."""

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        super().__init__()
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(errors=_ERRORS)
        self._ready = b""
        self._at_end = False
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._place
        if whence == io.SEEK_END or offset < self._place:
            raise io.UnsupportedOperation("this stream is read forward only")
        skipped = bytearray(_BLOCK_BYTES)
        while self._place < offset:
            with memoryview(skipped) as view:
                if not self.readinto(view[: min(offset - self._place, _BLOCK_BYTES)]):
                    break
        return self._place

    def readinto(self, buffer: Any) -> int:
        while not self._ready and not self._at_end:
            data = self._stream.read(_BLOCK_BYTES)
            self._at_end = not data
            try:
                text = self._decoder.decode(data, final=self._at_end)
            except UnicodeError:  # UTF-16 without a byte order mark where one is needed
                text, self._at_end = _MARK, True
            self._ready = text.encode("utf-8", "surrogatepass")
        part, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(part)] = part
        self._place += len(part)
        return len(part)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return _MARK, error.end


_ERRORS = "cmbert-retrieval-mark"
codecs.register_error(_ERRORS, _mark)
