"""Documents that are there twice: by a hash of their text where they are equal, by MinHash where nearly so.

Signatures, and how they are cut into bands, are ``datasketch``'s. The index of bands is not: its dictionary
of sets takes 4,600 bytes a document. Here the bands of all documents are columns of numbers, and only
documents that share a band with another one are looked at one by one; that finds what the dictionary finds.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.errors import MissingExtraError
from cmbert_retrieval.pretraining.texts import DIGEST_BYTES, Part, TextShard
from cmbert_retrieval.pretraining.words import word_hashes

if TYPE_CHECKING:
    from datasketch import MinHash

SHINGLE = 5
"""Words of a shingle."""

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_BATCH = 4096
_CROWD = 64
"""Documents of a band that later ones are compared with. Where more have the same, all are made after one
template (normal findings of radiology), and to compare each with each would take for ever."""
_SEED = 1
_MISSED = 0.9
"""What a missed near-duplicate weighs when bands are chosen, against one that is looked at in vain."""


class Verdict(IntEnum):
    """What becomes of a row."""

    KEPT = 0
    EXACT = 1
    NEAR = 2
    COPY = 3
    """Equal or nearly so to a document that is excluded."""
    WITHDRAWN = 4
    ABSENT = 5
    """No text was kept of it in the first place."""


def digest(text: str) -> bytes:
    """Return 16 bytes that are equal for texts that differ in case and white space only."""
    normal = " ".join(text.casefold().split())
    return hashlib.blake2b(normal.encode(), digest_size=DIGEST_BYTES).digest()


def shingles(words: list[str]) -> NDArray[np.uint32]:
    """Return the distinct hashes of a text's word 5-grams; of a shorter text, of all its words.

    Args:
        words: in lower case.
    """
    hashes = word_hashes(words)
    size = min(SHINGLE, len(hashes))
    count = len(hashes) - size + 1 if size else 0
    total = np.full(count, size, dtype=np.uint64)
    for place in range(size):
        total = (total ^ (total >> np.uint64(29))) * _FACTOR + hashes[place : place + count]
    return np.unique((total >> np.uint64(32)).astype(np.uint32))


def signature(words: list[str], permutations: int) -> NDArray[np.uint32]:
    """Return ``[permutations]``: the MinHash of a text's word 5-grams.

    Two of them agree in a share of places that estimates the Jaccard similarity of the sets of 5-grams.

    Source:
        Broder, "On the resemblance and containment of documents", 1997; by ``datasketch``.
    """
    made = _empty(permutations).copy()
    hashes = shingles(words)
    for start in range(0, len(hashes), _BATCH):  # a batch times the permutations is held in memory
        made.update_batch(hashes[start : start + _BATCH])
    return np.asarray(made.hashvalues, dtype=np.uint32)


@cache
def _empty(permutations: int) -> MinHash:
    try:
        from datasketch import MinHash
    except ImportError:
        raise MissingExtraError.of("finding near-duplicates", "datasketch", "pretrain") from None
    return MinHash(num_perm=permutations, seed=_SEED, hashfunc=_itself, scheme="affine32")


def _itself(value: np.uint32) -> np.uint32:
    return value


@cache
def bands(similarity: float, permutations: int) -> tuple[int, int]:
    """Return the number of bands and the values in each, so that few similar documents share none."""
    try:
        from datasketch import MinHashLSH
    except ImportError:
        raise MissingExtraError.of("finding near-duplicates", "datasketch", "pretrain") from None
    index = MinHashLSH(threshold=similarity, num_perm=permutations, weights=(1 - _MISSED, _MISSED))
    return index.b, index.r


def judge(shards: Sequence[Sequence[TextShard]], similarity: float | None) -> list[NDArray[np.uint8]]:
    """Return a ``Verdict`` for every row of every shard.

    Of documents that are alike, the first stays, in the order of sources, shards and rows; of those like an
    excluded one, none does.

    Memory: 280 bytes a document, measured with a million of which one in fifteen was a near-duplicate: 8 for
    each of the 14 bands, as many while they are compared, and the signature (512 bytes) of those that share
    a band with another one. The shards themselves are mapped, not read into memory.

    Args:
        shards: of each source.
        similarity: share of 5-grams in common from which documents are near-duplicates; None for equal ones
            only.
    """
    flat = [shard for of_source in shards for shard in of_source]
    if not flat:
        return []
    parts = np.concatenate([shard.parts for shard in flat])
    verdicts = np.where(parts <= Part.HELD_OUT, Verdict.KEPT, Verdict.ABSENT).astype(np.uint8)
    starts = np.cumsum([0, *map(len, flat)])
    _withdraw(shards, starts, verdicts)
    # Excluded documents come first: whatever is like one of them goes.
    candidates = np.flatnonzero((verdicts == Verdict.KEPT) | (parts == Part.EXCLUDED))
    order = candidates[np.argsort(parts[candidates] != Part.EXCLUDED, kind="stable")]
    order = _judge_equal(flat, order, parts, verdicts)
    if similarity is not None:
        _judge_near(flat, starts, order, parts, verdicts, similarity)
    return np.split(verdicts, starts[1:-1])


def _withdraw(
    shards: Sequence[Sequence[TextShard]], starts: NDArray[np.int64], verdicts: NDArray[np.uint8]
) -> None:
    """Mark the documents that their source has taken back later on."""
    first = 0
    for of_source in shards:
        firsts = starts[first : first + len(of_source)]
        first += len(of_source)
        if not any((shard.parts == Part.WITHDRAWN).any() for shard in of_source):
            continue
        gone: set[str] = set()
        for shard, start in zip(reversed(of_source), firsts[::-1].tolist(), strict=True):
            for row in range(len(shard) - 1, -1, -1):
                if shard.parts[row] == Part.WITHDRAWN:
                    gone.add(shard.id(row))
                elif shard.id(row) in gone and verdicts[start + row] == Verdict.KEPT:
                    verdicts[start + row] = Verdict.WITHDRAWN


def _judge_equal(
    flat: Sequence[TextShard], order: NDArray[np.int64], parts: NDArray[np.uint8], verdicts: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Mark the later ones of equal documents; return the others, in their order."""
    digests = np.concatenate([shard.digests for shard in flat])[order]
    by_digest = np.argsort(digests, kind="stable")
    same = np.zeros(len(order), dtype=bool)
    same[1:] = digests[by_digest][1:] == digests[by_digest][:-1]
    group = np.cumsum(~same) - 1
    firsts = order[by_digest][~same]
    later = order[by_digest][same]
    like_excluded = parts[firsts[group[same]]] == Part.EXCLUDED
    found = np.where(like_excluded, Verdict.COPY, Verdict.EXACT)
    is_text = verdicts[later] == Verdict.KEPT
    verdicts[later[is_text]] = found[is_text]
    left = np.ones(len(order), dtype=bool)
    left[by_digest[same]] = False
    return order[left]


def _judge_near(
    flat: Sequence[TextShard],
    starts: NDArray[np.int64],
    order: NDArray[np.int64],
    parts: NDArray[np.uint8],
    verdicts: NDArray[np.uint8],
    similarity: float,
) -> None:
    signatures = flat[0].signatures
    count, width = bands(similarity, signatures.shape[1])
    keys = np.empty((count, starts[-1]), dtype=np.uint64)
    for shard, start in zip(flat, starts.tolist(), strict=False):
        keys[:, start : start + len(shard)] = _band_keys(shard.signatures, count, width)
    shared = np.zeros((count, len(order)), dtype=bool)
    for band in range(count):
        shared[band] = _is_shared(keys[band, order])
    flagged = np.flatnonzero(shared.any(axis=0))
    known = (
        np.stack([_signature_of(flat, starts, row) for row in order[flagged].tolist()])
        if len(flagged)
        else None
    )
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, place in enumerate(flagged.tolist()):
        row = int(order[place])
        mine = [(band, int(keys[band, row])) for band in np.flatnonzero(shared[:, place]).tolist()]
        others = np.fromiter({other for key in mine for other in buckets.get(key, ())}, dtype=np.int64)
        if len(others) and known is not None:
            alike = others[(known[others] == known[number]).mean(axis=1) >= similarity]
            if len(alike) and verdicts[row] == Verdict.KEPT:
                excluded = (parts[order[flagged[alike]]] == Part.EXCLUDED).any()
                verdicts[row] = Verdict.COPY if excluded else Verdict.NEAR
                continue
        for key in mine:
            if len(buckets[key]) < _CROWD:
                buckets[key].append(number)


def _band_keys(signatures: NDArray[np.uint32], count: int, width: int) -> NDArray[np.uint64]:
    """Return ``[bands, rows]``: a number for the values of each band."""
    keys = np.zeros((count, len(signatures)), dtype=np.uint64)
    for band in range(count):
        for value in signatures[:, band * width : (band + 1) * width].T:
            keys[band] = (keys[band] ^ (keys[band] >> np.uint64(29))) * _FACTOR + value
    return keys


def _is_shared(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    by_key = np.argsort(keys)
    same = keys[by_key][1:] == keys[by_key][:-1]
    found = np.zeros(len(keys), dtype=bool)
    found[by_key[1:][same]] = True
    found[by_key[:-1][same]] = True
    return found


def _signature_of(flat: Sequence[TextShard], starts: NDArray[np.int64], row: int) -> NDArray[np.uint32]:
    shard = int(np.searchsorted(starts, row, side="right")) - 1
    found: NDArray[np.uint32] = flat[shard].signatures[row - starts[shard]]
    return found
