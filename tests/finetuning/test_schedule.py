"""How the learning rate of a fine-tuning stage changes."""

from __future__ import annotations

import pytest

from cmbert_retrieval.finetuning.training_recipe import StageRecipe
from cmbert_retrieval.pretraining.schedules import warmup_linear


def rates(stage: StageRecipe, steps: int) -> list[float]:
    return [warmup_linear(step, steps, warmup=stage.warmup, decay=stage.falling) for step in range(steps + 1)]


def test_the_learning_rate_rises_and_then_falls_evenly_to_nothing() -> None:
    found = rates(StageRecipe(texts=1, warmup=0.2), 10)
    assert found == pytest.approx([0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0])


def test_it_stays_level_where_only_a_part_of_the_steps_lets_it_fall() -> None:
    found = rates(StageRecipe(texts=1, warmup=0.2, decay=0.4), 10)
    assert found == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0])


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_stages_have_rates_between_nothing_and_the_whole(steps: int) -> None:
    found = rates(StageRecipe(texts=1), steps)
    assert all(0 < rate <= 1 for rate in found[:-1])
    assert found[-1] == 0
