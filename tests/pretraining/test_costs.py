"""What a step costs: the formulas beside what torch counts on a tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.pretraining.costs import (
    FORWARD_AND_BACKWARD,
    Shape,
    layer_bytes,
    pairs,
    shape_of,
    training_flops,
)
from cmbert_retrieval.pretraining.recipe import PretrainRecipe

LENGTHS = (1, 2, 7, 16, 31)
WINDOWS = (2, 5, 8, 64)


def seen(length: int, window: int | None) -> int:
    """Count the pairs one by one."""
    places = np.arange(length)
    distance = np.abs(places[:, None] - places)
    return int((distance <= (length if window is None else window // 2)).sum())


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("window", [None, *WINDOWS])
def test_pairs_in_sight_are_counted_right(length: int, window: int | None) -> None:
    assert pairs(length, window) == seen(length, window)


@pytest.mark.slow
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("window", WINDOWS)
def test_a_window_is_what_the_model_is_given(length: int, window: int) -> None:
    torch = pytest.importorskip("torch")
    from cmbert_retrieval.pretraining.rows import model_inputs

    row = torch.zeros(1, length, dtype=torch.int64)
    masks = model_inputs(row, torch.tensor([length]), attention="sdpa", window=window)["attention_mask"]
    assert pairs(length, window) == int(masks["sliding_attention"].sum())
    assert pairs(length) == int(masks["full_attention"].sum())


# --- beside torch ---


def shape(**changes: int) -> Shape:
    values: dict[str, int] = {
        "vocab_size": 192, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 5,
        "num_attention_heads": 2, "global_attn_every_n_layers": 3, "local_attention": 8,
    }  # fmt: skip
    return Shape(**{**values, **changes})


def model_of(made: Shape, attention: str) -> Any:
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    config = ModernBertConfig(
        **{name: getattr(made, name) for name in Shape.__dataclass_fields__},
        sparse_prediction=True, pad_token_id=0, cls_token_id=1, sep_token_id=2, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    assert config.layer_types.count("full_attention") == made.global_layers
    assert config.layer_types.count("sliding_attention") == made.windowed_layers
    return ModernBertForMaskedLM._from_config(config, attn_implementation=attention).train()


def batch(rows: int, context: int, predicted: int) -> dict[str, Any]:
    import torch

    labels = torch.full((rows, context), -100)
    labels.view(-1)[:predicted] = 7
    return {"input_ids": torch.full((rows, context), 9), "labels": labels}


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "context", "predicted"), [(1, 64, 1), (3, 64, 57), (2, 33, 66)])
def test_flops_are_those_that_torch_counts(rows: int, context: int, predicted: int) -> None:
    pytest.importorskip("transformers")
    from torch.utils.flop_counter import FlopCounterMode

    # Torch multiplies whole matrices and masks them afterwards: to it, a windowed layer sees everything.
    made = shape(local_attention=4 * context)
    model = model_of(made, "eager")
    with FlopCounterMode(display=False) as there:
        loss = model(**batch(rows, context, predicted)).loss
    with FlopCounterMode(display=False) as back:
        loss.backward()
    expected = training_flops(made, rows=rows, context=context, predicted=predicted)
    assert there.get_total_flops() + back.get_total_flops() == expected
    assert there.get_total_flops() * FORWARD_AND_BACKWARD == expected


def test_a_window_takes_away_the_pairs_out_of_sight_and_nothing_else() -> None:
    narrow, wide = (
        training_flops(shape(local_attention=window), rows=2, context=64, predicted=5) for window in (8, 128)
    )
    out_of_sight = seen(64, None) - seen(64, 8)
    assert wide - narrow == 3 * 4 * 32 * 3 * 2 * out_of_sight  # passes, FLOPs, width, layers, rows


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes", [{}, {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 80}]
)
def test_a_layer_keeps_as_many_bytes_as_torch_does(sizes: dict[str, int]) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    context = 256

    def kept(layers: int) -> int:
        """Return the bytes that are kept for the way back, each tensor once, weights left out."""
        model = model_of(shape(num_hidden_layers=layers, global_attn_every_n_layers=1, **sizes), "sdpa")
        weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        found: dict[int, Any] = {}

        def keep(tensor: Any) -> Any:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(**batch(1, context, 3))
        return sum(storage.nbytes() for place, storage in found.items() if place not in weights)

    assert kept(5) - kept(3) == 2 * context * layer_bytes(shape(**sizes), bf16=False)


# --- where a shape comes from ---


def recipe(**model: Any) -> PretrainRecipe:
    return PretrainRecipe.model_validate(
        {
            "name": "x",
            "data": {"sources": {"codes": {"reader": "icd10cm"}}, "tokenizer": {"vocabulary": 1000}},
            "model": model,
            "phases": [{"tokens": 1000}],
        }
    )


def test_a_shape_is_taken_from_the_recipe_with_the_vocabulary_filled_up() -> None:
    made, origin = shape_of(recipe(hidden_size=64, layers=4, heads=4, intermediate_size=96, window=32))
    assert made == Shape(1024, 64, 96, 4, 4, 3, 32)
    assert origin == "the recipe"


def test_a_checkpoint_of_the_hub_is_not_opened_and_that_is_told() -> None:
    made, origin = shape_of(recipe(checkpoint="owner/name", layers=4))
    assert made.num_hidden_layers == 4
    assert "'owner/name'" in origin
    assert "not opened" in origin


def test_a_checkpoint_in_a_folder_is_asked(tiny_encoder_path: Path) -> None:
    made, origin = shape_of(recipe(checkpoint=str(tiny_encoder_path)))
    assert made == Shape(420, 32, 48, 2, 4, 2, 16)
    assert origin == f"the checkpoint in {tiny_encoder_path}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "got a 'bert', expected a 'modernbert'"),
        ({"hidden_size": "32"}, "'hidden_size' is '32'; expected a whole number from 1 on"),
        ({"hidden_size": None}, "the key 'hidden_size' is missing"),
        (None, "no config.json of a model ("),
    ],
)
def test_a_config_that_will_not_do_is_refused(
    tmp_path: Path, tiny_encoder_path: Path, changes: dict[str, Any] | None, message: str
) -> None:
    shutil.copytree(tiny_encoder_path, tmp_path / "checkpoint")
    path = tmp_path / "checkpoint" / "config.json"
    values = {**json.loads(path.read_text()), **(changes or {})}
    values = {name: value for name, value in values.items() if value is not None}
    path.write_text(json.dumps(values) if changes is not None else "{")
    with pytest.raises(ConfigError) as caught:
        shape_of(recipe(checkpoint=str(tmp_path / "checkpoint")))
    assert str(caught.value).startswith(f"{path}: {message}")
