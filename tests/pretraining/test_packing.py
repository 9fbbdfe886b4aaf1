"""Packing: every token of every document once, rows nearly full, the same order for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmbert_retrieval.pretraining.packing import (
    SHORTEST,
    SPECIAL,
    Plan,
    cut,
    pack,
    permuted,
    plan_rows,
    read_plan,
    write_plan,
)


def plan(lengths: np.ndarray, context: int, folder: Path, seed: int = 0) -> Plan:
    return write_plan(plan_rows(lengths, context, seed), folder, context)


def random_units(length: int, seed: int, share: float) -> np.ndarray:
    """Return which tokens go on with a word: this share of them, never the first."""
    continues = np.random.default_rng(seed).random(length) < share
    continues[:1] = False
    return continues


@given(
    st.integers(0, 5000),
    st.integers(SHORTEST + 3, 600),
    st.none() | st.tuples(st.integers(0, 99), st.floats(0, 0.999)),
)
def test_pieces_cover_a_document_once_and_fit(
    length: int, context: int, units: tuple[int, float] | None
) -> None:
    pieces = cut(length, context, units if units is None else random_units(length, *units))
    assert [token for start, size in pieces for token in range(start, start + size)] == list(range(length))
    assert all(0 < size <= context - SPECIAL for _, size in pieces)
    assert len(pieces) <= 1 or pieces[-1][1] >= SHORTEST


@given(st.integers(0, 5000), st.integers(SHORTEST + 3, 600), st.integers(0, 99), st.floats(0, 0.6))
def test_no_word_is_cut_unless_it_is_longer_than_a_row(
    length: int, context: int, seed: int, share: float
) -> None:
    continues = random_units(length, seed, share)
    begins = np.flatnonzero(~continues)
    longest = int(np.diff([*begins, length]).max(initial=0))
    pieces = cut(length, context, continues)
    if longest < context - SPECIAL - SHORTEST:
        assert not any(continues[start] for start, _ in pieces)
        assert all(size > context - SPECIAL - longest for _, size in pieces[:-2])


@given(st.lists(st.integers(1, 50), max_size=80))
def test_rows_hold_everything_once_and_are_never_too_long(lengths: list[int]) -> None:
    rows = pack(lengths, 50)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 50 for row in rows)
    # Of two rows that would fit into one, the second would never have been begun.
    sums = sorted(sum(lengths[index] for index in row) for row in rows)
    assert len(sums) < 2 or sums[0] + sums[1] > 50


@pytest.mark.parametrize("context", [512, 1024])
def test_over_98_of_100_positions_are_used(tmp_path: Path, context: int) -> None:
    generator = np.random.default_rng(0)
    # Titles of codes, abstracts, articles: by words, most of a literature corpus is in few long documents.
    lengths = np.concatenate(
        [
            generator.integers(3, 30, 3000),
            generator.integers(120, 500, 3000),
            generator.integers(2000, 12000, 500),
        ]
    )
    made = plan(lengths, context, tmp_path)
    assert made.used > 0.98
    assert int(made.pieces["length"].sum()) == lengths.sum()


def test_a_plan_is_found_again_and_depends_on_its_seed_alone(tmp_path: Path) -> None:
    lengths = np.random.default_rng(1).integers(0, 700, 9000)
    made = plan(lengths, 256, tmp_path)
    found = read_plan(tmp_path, 256)
    assert len(found) == len(made) > 0
    assert np.array_equal(found.pieces, made.pieces)
    assert np.array_equal(np.concatenate([found.row(number) for number in range(len(found))]), made.pieces)
    (tmp_path / "again").mkdir()
    assert np.array_equal(plan(lengths, 256, tmp_path / "again").pieces, made.pieces)
    (tmp_path / "other").mkdir()
    other = plan(lengths, 256, tmp_path / "other", seed=1)
    assert not np.array_equal(other.pieces, made.pieces)
    assert sorted(other.pieces.tolist()) == sorted(made.pieces.tolist())


def test_no_documents_make_no_rows(tmp_path: Path) -> None:
    made = plan(np.zeros(0, dtype=np.int64), 128, tmp_path)
    assert len(made) == 0
    assert made.used == 0


@given(st.integers(1, 3000), st.integers(0, 5))
def test_a_permutation_takes_every_number_once(count: int, seed: int) -> None:
    assert sorted(permuted(np.arange(count), count, seed).tolist()) == list(range(count))


def test_a_permutation_can_be_asked_piece_by_piece() -> None:
    whole = permuted(np.arange(1000), 1000, 3)
    assert np.array_equal(permuted(np.array([5, 999, 5]), 1000, 3), whole[[5, 999, 5]])


def test_permutations_look_random() -> None:
    count = 20_000
    here, there = (permuted(np.arange(count), count, seed) for seed in (0, 1))
    for order in (here, there, here[np.argsort(there)]):
        assert abs(np.corrcoef(np.arange(count), order)[0, 1]) < 0.04  # five standard errors
        # Neighbours do not stay neighbours, nor do those two apart.
        for step in (1, 2, 128):
            assert np.mean(np.abs(order[step:] - order[:-step]) < 10) < 0.003
