"""Masking: the expected rate, whole units, and the same draw for whoever asks."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cmbert_retrieval.pretraining.masking import IGNORED, Masked, mask_rows  # noqa: E402
from cmbert_retrieval.pretraining.weights import (  # noqa: E402
    CONTINUES,
    LEVEL_MASK,
    TERM,
    Weighting,
    level_weights,
    pack_marks,
    salience_levels,
)

pytestmark = pytest.mark.slow  # torch

VOCABULARY, MASK = 1000, 3


def rows_of(count: int, length: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random tokens and weights: units of one to four tokens, with special tokens between them."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(10, VOCABULARY, (count, length))
    packed = np.zeros((count, length), dtype=np.uint8)
    for row in range(count):
        sizes = generator.integers(1, 5, length)
        units = np.repeat(np.arange(length), sizes)[:length]
        levels = generator.integers(20, 50, length).astype(np.uint8)[units]
        levels[generator.integers(0, length, 5)] = 0
        # A closed token in the middle parts its unit; the parts may not differ in level.
        packed[row] = pack_marks(levels, units, generator.random(length)[units] < 0.3)
    return torch.from_numpy(ids), torch.from_numpy(packed)


def masked(
    ids: torch.Tensor, weights: torch.Tensor, *, first: int = 0, epoch: int = 0, **changes: object
) -> Masked:
    settings = {"rate": 0.3, "seed": 7, "mask_id": MASK, "vocabulary": VOCABULARY} | changes
    rows = torch.arange(first, first + len(ids))
    return mask_rows(ids, weights, rows, torch.full_like(rows, epoch), **settings)  # type: ignore[arg-type]


def chances(weights: torch.Tensor, rate: float) -> list[Fraction]:
    """Return each token's chance by an oracle: cut the largest chance, one token level at a time."""
    levels = (weights & LEVEL_MASK).tolist()
    weight = [Fraction(int(level_weights()[level])) for level in levels]
    wanted = Fraction(rate) * sum(w > 0 for w in weight)
    certain: set[int] = set()
    while True:
        rest = [i for i, w in enumerate(weight) if w and i not in certain]
        factor = (wanted - len(certain)) / sum(weight[i] for i in rest)
        over = {i for i in rest if factor * weight[i] > 1}
        if not over:
            return [Fraction(1) if i in certain else factor * w for i, w in enumerate(weight)]
        certain |= over


@pytest.mark.parametrize("rate", [0.15, 0.3, 0.8, 0.97])
def test_tokens_are_predicted_as_often_as_their_weights_say(rate: float) -> None:
    ids, weights = rows_of(1, 128)
    expected = np.array([float(chance) for chance in chances(weights[0], rate)])
    assert expected.sum() == pytest.approx(rate * ((weights & LEVEL_MASK) > 0).sum().item())
    draws = 4000
    found = masked(ids.expand(draws, -1), weights.expand(draws, -1), rate=rate)
    share = (found.labels != IGNORED).double().mean(0).numpy()
    # Five standard errors: one false alarm in a thousand such tests.
    assert np.all(np.abs(share - expected) <= 5 * np.sqrt(expected * (1 - expected) / draws) + 1e-9)
    assert found.impossible == 0


def test_units_are_predicted_as_a_whole() -> None:
    ids, weights = rows_of(300, 256)
    predicted = masked(ids, weights).labels != IGNORED
    goes_on = (weights & CONTINUES) > 0
    assert goes_on.any()
    assert torch.equal(predicted[:, 1:][goes_on[:, 1:]], predicted[:, :-1][goes_on[:, 1:]])
    assert not predicted[(weights & LEVEL_MASK) == 0].any()


def test_eight_of_ten_predicted_tokens_are_hidden_one_is_replaced_one_stays() -> None:
    ids, weights = rows_of(400, 256)
    found = masked(ids, weights)
    predicted = found.labels != IGNORED
    count = predicted.sum().item()
    hidden = (found.input_ids[predicted] == MASK).double().mean().item()
    kept = (found.input_ids[predicted] == ids[predicted]).double().mean().item()
    assert hidden == pytest.approx(0.8, abs=5 * (0.16 / count) ** 0.5)
    assert kept == pytest.approx(0.1 + 0.1 / VOCABULARY, abs=5 * (0.09 / count) ** 0.5)
    assert torch.equal(found.labels[predicted], ids[predicted])
    assert torch.equal(found.input_ids[~predicted], ids[~predicted])
    others = predicted & (found.input_ids != MASK) & (found.input_ids != ids)
    replaced = found.input_ids[others]
    # From the whole vocabulary, its first and last tenth included.
    tenths = torch.bincount(replaced * 10 // VOCABULARY, minlength=10).double() / len(replaced)
    assert torch.all((tenths - 0.1).abs() < 5 * (0.09 / len(replaced)) ** 0.5)


def test_a_row_is_masked_alike_in_any_batch() -> None:
    ids, weights = rows_of(32, 128)
    whole = masked(ids, weights, first=100)
    for at in (0, 7, 31):
        alone = masked(ids[at : at + 1], weights[at : at + 1], first=100 + at)
        assert torch.equal(alone.labels[0], whole.labels[at])
        assert torch.equal(alone.input_ids[0], whole.input_ids[at])


@pytest.mark.parametrize("change", [{"seed": 8}, {"epoch": 1}, {"first": 1}, {"first": 1 << 32}], ids=str)
def test_seed_epoch_and_row_change_the_draw(change: dict[str, int]) -> None:
    ids, weights = torch.full((16, 512), 50), torch.full((16, 512), 32, dtype=torch.uint8)
    one, other = masked(ids, weights), masked(ids, weights, **change)
    same = ((one.labels != IGNORED) == (other.labels != IGNORED)).double().mean().item()
    assert same == pytest.approx(0.3**2 + 0.7**2, abs=5 * (0.25 / ids.numel()) ** 0.5)


def test_units_of_a_row_are_drawn_independently() -> None:
    ids = torch.full((20_000, 2), 50)
    weights = torch.full((20_000, 2), 32, dtype=torch.uint8)
    first, second = (masked(ids, weights, rate=0.5).labels != IGNORED).unbind(1)
    assert (first & second).double().mean().item() == pytest.approx(0.25, abs=0.016)


def test_a_row_without_anything_to_predict_is_counted() -> None:
    ids, weights = rows_of(3, 64)
    weights[1] = 0
    found = masked(ids, weights)
    assert found.impossible == 1
    assert (found.labels[1] == IGNORED).all()


def test_terms_are_handed_on() -> None:
    ids, weights = rows_of(2, 64)
    assert torch.equal(masked(ids, weights).terms, (weights & TERM) > 0)


@pytest.mark.gpu
def test_a_gpu_draws_as_a_cpu_does() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    ids, weights = rows_of(64, 512)
    here = masked(ids, weights)
    there = mask_rows(
        ids.cuda(), weights.cuda(), torch.arange(64).cuda(), torch.zeros(64, dtype=torch.int64).cuda(),
        rate=0.3, seed=7, mask_id=MASK, vocabulary=VOCABULARY,
    )  # fmt: skip
    assert torch.equal(here.labels, there.labels.cpu())
    assert torch.equal(here.input_ids, there.input_ids.cpu())


def test_shapes_and_rates_that_make_no_sense_are_refused() -> None:
    ids, weights = rows_of(2, 16)
    with pytest.raises(ValueError, match=r"tokens \(2, 16\), weights \(2, 15\) and rows \(2,\)"):
        masked(ids, weights[:, :-1])
    with pytest.raises(ValueError, match=r"a masking rate lies between 0 and 1; got 1\.5"):
        masked(ids, weights, rate=1.5)


def test_marks_become_weights_as_the_recipe_says() -> None:
    odds = np.array([0, 1, -1, 4, -4, 100])
    marks = pack_marks(salience_levels(odds), np.array([0, 1, 2, 3, 4, 5]), odds == 1)
    assert (marks & LEVEL_MASK).tolist() == [32, 39, 25, 60, 4, 63]
    ids = torch.from_numpy(np.append(marks, 0))

    def log2_weights(method: str, boost: float, salience: float) -> list[float]:
        made = Weighting.of(method, boost, salience).weights(ids)
        assert torch.equal(made & TERM, ids & TERM)
        assert int(made[-1]) == 0  # what is closed stays closed
        exact = level_weights()[(made[:-1] & LEVEL_MASK).long()] / level_weights()[32]
        return [round(value, 2) for value in exact.log2().tolist()]

    assert log2_weights("token-aware", 2, 0.25) == [0, 1.25, -0.25, 1, -1, 1]
    assert log2_weights("token-aware", 1, 0.5) == [0, 0.5, -0.5, 2, -2, 2.25]
    assert log2_weights("token-aware", 4, 0) == [0, 2, 0, 0, 0, 0]
    assert log2_weights("whole-words", 2, 0.25) == log2_weights("uniform", 2, 0.25) == [0] * 6


def test_all_but_uniform_masking_keeps_words_whole() -> None:
    marks = torch.tensor([0, 63, 63 | CONTINUES, 40 | TERM, 40 | TERM | CONTINUES, TERM], dtype=torch.uint8)
    together = (marks & CONTINUES) > 0
    for method in ("token-aware", "whole-words", "uniform"):
        made = (Weighting.of(method, 2, 0.25).weights(marks) & CONTINUES) > 0
        assert torch.equal(made, together & (method != "uniform"))


def test_tokens_of_a_unit_differ_in_nothing() -> None:
    assert level_weights()[36] == 2 * level_weights()[32]
    with pytest.raises(ValueError, match="share one level"):
        pack_marks(np.array([3, 4], np.uint8), np.array([1, 1]), np.array([True, True]))
