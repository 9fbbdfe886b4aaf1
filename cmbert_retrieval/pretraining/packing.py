"""Packing: documents are put behind each other until a row is full, and know their borders.

A document that does not fit into a row is cut into pieces between words. The plan says which piece stands
where; it is made window by window, so that it takes the memory of one window, and is read from a mapped file.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.storage import atomic_file

WINDOW = 4096
"""Pieces that are sorted into rows together: enough to fill them, few enough to stay shuffled."""

SHORTEST = 32
"""Tokens that the last piece of a cut document has at least."""

PIECE = np.dtype([("document", "<i8"), ("start", "<i4"), ("length", "<i4")])
"""One piece: the number of its document, its first token there, its tokens (without the two special ones)."""

SPECIAL = 2
"""Tokens around every piece: [CLS] and [SEP]."""

_PIECES, _FIRSTS = "pieces-{}.npy", "rows-{}.npy"


@dataclass(frozen=True, slots=True)
class Plan:
    """Which pieces stand in which row.

    Attributes:
        pieces: ``[pieces]`` of ``PIECE``, row by row.
        firsts: ``[rows + 1]``: the first piece of each row, then the number of pieces.
        context: tokens of a row.
    """

    pieces: NDArray[np.void]
    firsts: NDArray[np.int64]
    context: int

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.firsts) - 1

    def row(self, number: int) -> NDArray[np.void]:
        """Return the pieces of a row."""
        return self.pieces[self.firsts[number] : self.firsts[number + 1]]

    @property
    def used(self) -> float:
        """Share of all positions that hold a token."""
        tokens = int(self.pieces["length"].sum()) + SPECIAL * len(self.pieces)
        return tokens / max(1, len(self) * self.context)


def cut(length: int, context: int, continues: NDArray[np.bool_] | None = None) -> list[tuple[int, int]]:
    """Return (start, length) of the pieces of a document of ``length`` tokens; none for an empty one.

    All are as long as words and terms allow but the last two: the last one would else be a few words without
    their sentence.

    Args:
        length: of the document.
        context: tokens of a row.
        continues: ``[length]``, which tokens go on with the word or term of the token before: it is cut there
            only when it is longer than a row. None: nothing is.
    """
    room = context - SPECIAL
    if length == 0:
        return []
    starts = [0]
    while length - starts[-1] > room:
        starts.append(_last_begin(continues, starts[-1] + 1, starts[-1] + room))
    if len(starts) > 1 and length - starts[-1] < SHORTEST:
        lowest = max(starts[-2] + 1, length - room)
        starts[-1] = _last_begin(continues, lowest, max(lowest, length - SHORTEST))
    return [(start, end - start) for start, end in zip(starts, [*starts[1:], length], strict=True)]


def _last_begin(continues: NDArray[np.bool_] | None, lowest: int, highest: int) -> int:
    """Return the last place, of these, where a word or term begins; the highest place if none does."""
    if continues is None:
        return highest
    begins = np.flatnonzero(~continues[lowest : highest + 1])
    return lowest + int(begins[-1]) if len(begins) else highest


def pack(lengths: Sequence[int], context: int) -> list[list[int]]:
    """Return rows of indices into ``lengths``, each with a sum of at most ``context``.

    Best fit of the longest first: each goes where it leaves the least room.

    Source:
        Johnson, "Near-optimal bin packing algorithms", MIT 1973.
    """
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (what is left, row), sorted
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        length = lengths[index]
        at = bisect_left(room, (length, -1))
        if at < len(room):
            left, row = room.pop(at)
            rows[row].append(index)
        else:
            left, row = context, len(rows)
            rows.append([index])
        insort(room, (left - length, row))
    return rows


def mix(sources: NDArray[np.integer], weights: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Return the numbers of the documents of an epoch, each as often as its source's weight says.

    Args:
        sources: ``[documents]``, the number of each one's source.
        weights: of each source; of 2.25, every fourth document comes three times, the others twice.
        seed: of the choice.
    """
    numbers = np.arange(len(sources))
    wanted = np.asarray(weights, dtype=np.float64)[sources]
    drawn = _mixed(numbers.astype(np.uint64), seed) / np.float64(2**64)
    return np.repeat(numbers, np.floor(wanted + drawn).astype(np.int64))


def plan_rows(
    lengths: NDArray[np.integer],
    context: int,
    seed: int,
    *,
    documents: NDArray[np.int64] | None = None,
    continues: Callable[[int], NDArray[np.bool_]] | None = None,
) -> Iterator[NDArray[np.void]]:
    """Yield the pieces of one row after the other.

    Documents are taken in an order that depends on ``seed`` alone, and sorted into rows window by window.

    Args:
        lengths: ``[documents]``, tokens of each; may be a mapped file.
        context: tokens of a row, special ones included.
        seed: of the order.
        documents: the numbers of those that are taken, as often as they stand there; None for each once.
        continues: which tokens of a document go on with a word or term, as ``cut`` takes it.
    """
    window: list[tuple[int, int, int]] = []
    for place in _shuffled(len(lengths) if documents is None else len(documents), seed):
        document = place if documents is None else int(documents[place])
        length = int(lengths[document])
        inner = continues(document) if continues and length > context - SPECIAL else None
        window += [(document, *piece) for piece in cut(length, context, inner)]
        if len(window) >= WINDOW:
            yield from _rows(window, context)
            window = []
    yield from _rows(window, context)


def _rows(window: list[tuple[int, int, int]], context: int) -> Iterator[NDArray[np.void]]:
    for row in pack([piece[2] + SPECIAL for piece in window], context):
        yield np.array([window[index] for index in row], dtype=PIECE)


def write_plan(rows: Iterable[NDArray[np.void]], folder: Path, context: int) -> Plan:
    """Write a plan into a folder, and return it mapped.

    Raises:
        StorageError: it cannot be written.
    """
    firsts = [0]
    with atomic_file(folder / _PIECES.format(context)) as file:
        _write_header(file, 0)
        for row in rows:
            file.write(row.tobytes())
            firsts.append(firsts[-1] + len(row))
        file.seek(0)
        _write_header(file, firsts[-1])
    with atomic_file(folder / _FIRSTS.format(context)) as file:
        np.save(file, np.array(firsts, dtype=np.int64))
    return read_plan(folder, context)


def read_plan(folder: Path, context: int) -> Plan:
    """Return a plan that was written, mapped."""
    pieces = np.load(folder / _PIECES.format(context), mmap_mode="r")
    return Plan(pieces, np.load(folder / _FIRSTS.format(context), mmap_mode="r"), context)


def _write_header(file: IO[bytes], count: int) -> None:
    # NumPy leaves room for the first number of the shape to grow, so that this one can be written twice.
    np.lib.format.write_array_header_1_0(
        file, {"descr": PIECE.descr, "fortran_order": False, "shape": (count,)}
    )


def _shuffled(count: int, seed: int) -> Iterator[int]:
    for start in range(0, count, WINDOW):
        yield from permuted(np.arange(start, min(start + WINDOW, count)), count, seed).tolist()


def permuted(places: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return what stands at these places of a shuffled ``range(count)``, without a table of all.

    A Feistel network permutes the next power of four; what it puts outside is sent through again.

    Source:
        Black & Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002 (cycle walking).
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    low, shift = np.uint64((1 << half) - 1), np.uint64(half)
    values = np.asarray(places).astype(np.uint64)
    outside = np.ones(values.shape, dtype=bool)
    while outside.any():
        left, right = values[outside] >> shift, values[outside] & low
        for turn in range(4):
            left, right = right, left ^ (_mixed(right, seed * 4 + turn) & low)
        values[outside] = (left << shift) | right
        outside = values >= count
    return values.astype(np.int64)


def _mixed(values: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    """Return 64 bits that depend on a value and a key: the finaliser of SplitMix64."""
    with np.errstate(over="ignore"):
        bits = values + np.uint64((key + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return bits ^ (bits >> np.uint64(31))
