"""JSON read in blocks that are looked over before a parser sees them.

Parsers of JSON hold a whole text or line, and some call themselves for every bracket: with enough brackets,
the stack ends and the process with it. What is too long or too deep is found here without parsing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.corpora.files import UnusableError

MAX_NESTING = 128
"""Brackets within brackets above which JSON is refused. Records of the field have less than ten."""

_BLOCK_BYTES = 2**18
_KEPT = b'"[]{}\n\r'
_OTHERS = bytes(set(range(256)) - set(_KEPT))
_STEPS = np.zeros(256, np.int32)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1


def json_blocks(stream: IO[bytes], *, longest: int) -> Iterator[bytes]:
    """Yield a stream in blocks that end right behind a quotation mark, so in the middle of no escape.

    Args:
        stream: JSON, or JSON lines.
        longest: bytes without a quotation mark above which it is refused. No text is longer than that.

    Raises:
        UnusableError: there are that many. Only this much is held, and one block.
    """
    held: list[bytes] = []
    size = 0
    while block := stream.read(_BLOCK_BYTES):
        end = block.rfind(b'"') + 1
        if end:
            yield b"".join([*held, block[:end]])
            held, size = [], 0
        held.append(block[end:])
        size += len(block) - end
        if size > longest:
            raise UnusableError(f"more than {longest:,} bytes without a quotation mark; expected JSON")
    if size:
        yield b"".join(held)


class NestingCheck:
    """Counts brackets outside of texts, over the blocks of ``json_blocks``.

    A text ends with its line at the latest, and a bracket too many that closes counts for nothing. So no
    parser can be deeper than the count, wherever it begins to read: JSON lines are parsed in parallel, each
    from its own beginning.

    Attributes:
        goes_over_lines: whether a value has gone on in another line, as in no JSON lines.
    """

    def __init__(self) -> None:
        """Begin before the first block."""
        self._depth = 0
        self._in_text = False
        self.goes_over_lines = False

    def check(self, block: bytes) -> None:
        """Look over the next block.

        Raises:
            UnusableError: a value is nested too deeply.
        """
        if b"\\" in block:
            block = block.replace(b"\\\\", b"").replace(b'\\"', b"")
        marks = np.frombuffer(block.translate(None, _OTHERS), np.uint8)
        if not len(marks):
            return
        is_break = (marks == ord("\n")) | (marks == ord("\r"))
        in_text = self._texts(marks, is_break)
        steps: NDArray[np.int32] = _STEPS[marks]
        steps[in_text] = 0
        levels = self._depth + np.cumsum(steps)
        levels -= np.minimum.accumulate(np.minimum(levels, 0))
        if levels.max() > MAX_NESTING:
            raise UnusableError(f"JSON nested too deeply: more than {MAX_NESTING} brackets within each other")
        self.goes_over_lines = self.goes_over_lines or bool(levels[is_break].any())
        self._depth, self._in_text = int(levels[-1]), bool(in_text[-1])

    def _texts(self, marks: NDArray[np.uint8], is_break: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return for each mark whether it opens a text or stands in one."""
        quotes = np.cumsum(marks == ord('"')) + self._in_text
        before: NDArray[np.int64] = np.maximum.accumulate(np.where(is_break, quotes, 0))
        in_text: NDArray[np.bool_] = (quotes - before) % 2 == 1
        return in_text
