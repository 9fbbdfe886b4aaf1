"""The plan of a run: numbers that a reader can follow, and the recipes of the paper's scale."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.pretraining.division import divide
from cmbert_retrieval.pretraining.planning import (
    GPUS,
    Plan,
    find_gpu,
    gpu_of_device,
    mean_rate,
    plan_run,
)
from cmbert_retrieval.pretraining.recipe import (
    MaskingRecipe,
    PhaseRecipe,
    PretrainRecipe,
    TrainingRecipe,
    load_pretrain_recipe,
)
from cmbert_retrieval.pretraining.schedules import falling_rate

RECIPES = Path(__file__).parents[2] / "pretraining" / "recipes"


def load(name: str, *overrides: str) -> PretrainRecipe:
    return load_pretrain_recipe(RECIPES / f"{name}.yaml", overrides=overrides)


def value(plan: Plan, part: str, name: str) -> float:
    """Return a number of the part that begins so."""
    (title,) = (title for title in plan.parts if title.startswith(part))
    return plan.value(title, name)


# --- recipes ---


def test_the_recipes_of_the_papers_scale_differ_in_their_masking_alone() -> None:
    aware, uniform = load("base-8gpu").model_dump(), load("base-uniform").model_dump()
    assert (aware.pop("name"), uniform.pop("name")) == ("base-8gpu", "base-uniform")
    assert aware["masking"].pop("method") == "token-aware"
    assert uniform["masking"].pop("method") == "uniform"
    assert aware == uniform


def test_the_base_recipe_is_what_the_paper_says() -> None:
    recipe = load("base-8gpu")
    assert recipe.model.checkpoint == "answerdotai/ModernBERT-base"
    assert sum(phase.tokens for phase in recipe.phases) == 13_000_000_000
    assert [phase.context for phase in recipe.phases] == [1024, 8192]
    assert (recipe.masking.first_rate, recipe.masking.last_rate) == (0.30, 0.15)


def test_readers_of_the_recipes_are_known() -> None:
    from cmbert_retrieval.corpora import READERS

    names = [path.stem for path in RECIPES.glob("*.yaml") if "stages:" not in path.read_text()]
    assert len(names) >= 5
    for name in names:
        data = load(name).data
        assert {source.reader for source in (*data.sources.values(), *data.lexicon.values())} <= set(READERS)


def test_one_phase_of_the_list_is_changed_by_its_number() -> None:
    before = load("base-8gpu").phases
    after = load("base-8gpu", "phases.1.tokens=7", "phases.1.learning_rate=3e-4").phases
    assert (after[1].tokens, after[1].learning_rate, after[1].context) == (7, 0.0003, before[1].context)
    assert after[0] == before[0]


@pytest.mark.parametrize("place", ["9", "-1", "first", "\u0663"])
def test_a_phase_that_is_not_in_the_list_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match="'phases' is a list of 2; expected the number of an item, from 0"):
        load("base-8gpu", f"phases.{place}.tokens=1")


# --- the plan ---


def test_the_plan_of_the_base_model_counts_its_parameters_and_tokens() -> None:
    plan = plan_run(load("base-8gpu"))
    assert value(plan, "model", "parameters") == 149_655_232
    assert value(plan, "phase 1", "steps") == 10_491
    assert value(plan, "phase 2", "steps") == 1_908
    assert value(plan, "all phases", "steps") == 12_399
    assert value(plan, "phase 1", "tokens a step") == value(plan, "phase 2", "tokens a step") == 2**20
    assert "'answerdotai/ModernBERT-base' is no folder here and was not opened" in next(plan.lines())


@pytest.mark.slow
def test_the_parameters_are_those_of_transformers_own_model() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        model = transformers.ModernBertForMaskedLM(transformers.ModernBertConfig())
    count = sum(weight.numel() for weight in model.parameters())
    assert count == value(plan_run(load("base-8gpu")), "model", "parameters") == 149_655_232


def computed(arithmetic: str) -> float | None:
    """Return what a line of arithmetic comes to, words left out; None for one in words alone."""
    formula = arithmetic.removesuffix(", then up")
    bare = re.sub(r"(?<![\w.])(?!e[+-])[A-Za-z][\w' -]*", " ", formula.replace(" x ", " * "))
    bare = re.sub(r",(?=\d{3})", "", bare).rstrip(" ,")
    if not re.search(r"\d +[*/+]", bare):
        return None
    found: float = eval(bare)
    return math.ceil(found) if arithmetic.endswith(", then up") else found


def test_every_number_is_what_its_arithmetic_says() -> None:
    checked = 0
    for lines in plan_run(load("base-8gpu"), gpus=16, gpu="H100", utilisation=0.4).parts.values():
        for line in lines:
            if (found := computed(line.arithmetic)) is not None:
                checked += 1
                assert line.value == pytest.approx(found, rel=2e-3), line
    assert checked == 31


def test_the_sums_are_sums() -> None:
    plan = plan_run(load("base-8gpu"), gpu="L40S", gpus=4)
    memory = next(lines for title, lines in plan.parts.items() if title.startswith("memory"))
    assert memory[-1].value == sum(line.value for line in memory[:-1])
    model = next(lines for title, lines in plan.parts.items() if title.startswith("model"))
    assert model[-1].value == sum(line.value for line in model[:-1])
    for phase in ("phase 1", "phase 2"):
        parts = ("matrices", "global attention", "windowed attention", "head and decoder")
        total = sum(value(plan, phase, f"{part}, a token") for part in parts)
        assert value(plan, phase, "FLOPs a token") == pytest.approx(total, rel=1e-12)
    for name in ("FLOPs", "hours", "steps"):
        both = value(plan, "phase 1", name) + value(plan, "phase 2", name)
        assert value(plan, "all phases", name) == pytest.approx(both, rel=1e-12)


def test_twice_the_gpus_or_the_utilisation_take_half_the_time() -> None:
    recipe = load("base-8gpu")
    hours = value(plan_run(recipe), "all phases", "hours")
    assert value(plan_run(recipe, gpus=16), "all phases", "hours") == pytest.approx(hours / 2)
    assert value(plan_run(recipe, utilisation=0.7), "all phases", "hours") == pytest.approx(hours / 2)
    assert value(plan_run(recipe, gpus=16), "all phases", "GPU hours") == pytest.approx(8 * hours)


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("tokens", [8192, 65_536, 1_048_576])
def test_the_micro_batch_that_a_plan_proposes_fits(gpu: str, tokens: int) -> None:
    too_large = f"training.micro_batch_tokens={tokens}"
    plan = plan_run(load("base-8gpu", too_large), gpu=gpu, gpus=1)
    proposed = re.search(r"training\.micro_batch_tokens=(\d+) would", plan.notes[-1])
    assert plan.fits == (proposed is None)
    if proposed:
        again = load("base-8gpu", f"training.micro_batch_tokens={proposed[1]}")
        assert plan_run(again, gpu=gpu, gpus=1).fits
        more = load("base-8gpu", f"training.micro_batch_tokens={2 * int(proposed[1])}")
        assert not plan_run(more, gpu=gpu, gpus=1).fits


def test_fp32_takes_more_memory_and_hours_that_are_not_known() -> None:
    bf16, fp32 = plan_run(load("base-8gpu")), plan_run(load("base-8gpu", "training.precision=fp32"))
    assert value(fp32, "memory", "activations") > 1.4 * value(bf16, "memory", "activations")
    assert any("it will take more hours than these" in note for note in fp32.notes)
    assert not any("more hours" in note for note in bf16.notes)


def test_a_row_that_is_too_long_for_a_gpu_is_told() -> None:
    plan = plan_run(load("base-8gpu", "phases=[{tokens: 1000, context: 131072}]"), gpu="RTX 4090")
    assert not plan.fits
    assert "neither does a single row of 131,072 tokens" in plan.notes[-1]


@pytest.mark.parametrize("processes", [1, 3, 8, 64])
@pytest.mark.parametrize(("context", "micro"), [(1024, 32_768), (8192, 1024), (1000, 7777)])
def test_a_step_holds_what_was_asked_for_and_the_last_step_is_begun(
    processes: int, context: int, micro: int
) -> None:
    phase = PhaseRecipe(tokens=10_000_001, context=context)
    training = TrainingRecipe(batch_tokens=192 * context, micro_batch_tokens=micro)
    made = divide(phase, training, processes)
    assert made.step_tokens == 192 * context == processes * made.accumulation * made.micro_batch_tokens
    assert made.micro_batch_tokens <= max(micro, context)
    assert (made.steps - 1) * made.step_tokens < phase.tokens <= made.steps * made.step_tokens


def test_the_mean_rate_of_a_phase_is_that_of_its_steps() -> None:
    masking = MaskingRecipe(first_rate=0.3, last_rate=0.15)
    rates = [falling_rate(step, 50, 0.3, 0.15) for step in range(50)]
    assert mean_rate(masking, 0, 30, 50) == pytest.approx(sum(rates[:30]) / 30)
    assert mean_rate(masking, 30, 20, 50) == pytest.approx(sum(rates[30:]) / 20)
    assert mean_rate(masking, 0, 1, 1) == 0.3


def test_gpus_are_found_by_the_names_that_people_write() -> None:
    assert find_gpu("a100 80gb") is GPUS["A100-80GB"]
    assert find_gpu("rtx 4090") is GPUS["RTX-4090"]


@pytest.mark.parametrize(
    ("device", "gpu"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100-40GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("NVIDIA RTX A6000", None),
    ],
)
def test_gpus_are_found_by_the_names_that_drivers_give(device: str, gpu: str | None) -> None:
    assert gpu_of_device(device) == (GPUS[gpu] if gpu else None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpu": "H1000"}, "unknown GPU 'H1000'; expected one of A100-40GB, "),
        ({"gpus": 0}, "a run takes at least one GPU; got 0"),
        ({"utilisation": 0.0}, "a utilisation lies between 0 and 1; got 0.0"),
        ({"utilisation": 35}, "a utilisation lies between 0 and 1; got 35"),
    ],
)
def test_what_cannot_be_planned_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_run(load("base-8gpu"), **options)
    assert str(caught.value).startswith(message)
