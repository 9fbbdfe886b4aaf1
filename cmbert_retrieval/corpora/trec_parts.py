"""Cutting files of TREC and SMART into their documents, in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO, NamedTuple

_BLOCK_BYTES = 1 << 18
_OVERLAP = 64  # longer than any mark that may lie across two blocks

END_OF_TREC = re.compile(rb"</DOC\s{0,8}>", re.IGNORECASE)
END_OF_SMART = re.compile(rb"\n(?=\.I[ \t]{1,16}\S)")
_BEGINNING_OF_TREC = re.compile(rb"\s*<")
_BEGINNING_OF_SMART = re.compile(rb"\s*\.I[ \t]+\S")


class Part(NamedTuple):
    """What lies between the ends of two documents.

    Attributes:
        line: the line that it begins in, counted from 1.
        next_line: the number of line ends up to its end.
        offset: the byte behind it.
        data: its bytes; None when they are too many.
        is_last: whether the file ends here.
    """

    line: int
    next_line: int
    offset: int
    data: bytes | None
    is_last: bool


def format_of(beginning: bytes) -> str:
    """Return ``trec`` or ``smart`` by the first bytes of a file, or "" for neither."""
    beginning = beginning.removeprefix(b"\xef\xbb\xbf")
    if _BEGINNING_OF_SMART.match(beginning):
        return "smart"
    return "trec" if _BEGINNING_OF_TREC.match(beginning) else ""


def parts(
    stream: IO[bytes], end: re.Pattern[bytes], max_bytes: int, place: tuple[int, int]
) -> Iterator[Part]:
    """Yield the parts of a file behind ``place``: (``next_line``, ``offset``) of a part.

    Args:
        stream: the file, which is sought to the place.
        end: what ends a document.
        max_bytes: longer ones are passed over and yielded without their bytes.
        place: where to begin.
    """
    line, offset = place
    stream.seek(offset)
    held, looked_at, begun, is_long = bytearray(), 0, line, False
    while block := stream.read(_BLOCK_BYTES):
        held += block
        taken = 0
        while found := end.search(held, max(taken, looked_at - _OVERLAP)):
            data = bytes(held[taken : found.end()])
            offset += len(data)
            line += data.count(b"\n")
            fits = not is_long and len(data) <= max_bytes
            yield Part(begun + 1, line, offset, data if fits else None, False)
            taken = looked_at = found.end()
            begun, is_long = line, False
        if len(held) - taken > max_bytes:
            is_long = True
            passed = held[taken : len(held) - _OVERLAP]
            offset += len(passed)
            line += passed.count(b"\n")
            taken = len(held) - _OVERLAP
        del held[:taken]
        looked_at = len(held)
    data = bytes(held)
    yield Part(begun + 1, line + data.count(b"\n"), offset + len(data), None if is_long else data, True)
