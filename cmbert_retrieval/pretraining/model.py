"""The model that is pretrained: random weights of a shape, or a checkpoint and what was found in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmbert_retrieval.errors import ConfigError, EncoderError
from cmbert_retrieval.pretraining.recipe import ModelRecipe, PhaseRecipe

if TYPE_CHECKING:
    import torch
    from transformers import ModernBertConfig, ModernBertForMaskedLM, PreTrainedTokenizerFast

_LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What became of a checkpoint's tensors.

    Attributes:
        source: where it came from.
        tensors: how many the model has.
        missing: those that the checkpoint lacks.
        unexpected: those of the checkpoint that the model has no place for.
        mismatched: name -> (shape there, shape here).
    """

    source: str
    tensors: int
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether every tensor was loaded and none was left over."""
        return not (self.missing or self.unexpected or self.mismatched)

    def lines(self) -> list[str]:
        """Return a line for each thing that is wrong, with every tensor by name."""
        if self.whole:
            return [f"{self.source}: all {self.tensors} tensors loaded, none left over"]
        shapes = (
            f"{name} is {list(there)}, expected {list(here)}"
            for name, (there, here) in self.mismatched.items()
        )
        kinds = {
            "missing": over_layers(self.missing),
            "unexpected": over_layers(self.unexpected),
            "of another shape": list(shapes),
        }
        return [f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names]


def over_layers(names: Iterable[str]) -> list[str]:
    """Return names of tensors in order, those that differ by the number of a layer alone as one.

    >>> over_layers(["layers.0.Wo.weight", "layers.1.Wo.weight", "norm.weight"])
    ['layers.{0,1}.Wo.weight', 'norm.weight']
    """
    groups: dict[str, list[int]] = {}
    for name in sorted(names):
        number = _LAYER.search(name)
        numbers = groups.setdefault(_LAYER.sub(".#.", name, count=1), [])
        if number is not None:
            numbers.append(int(number[1]))
    return [
        name.replace(
            "#", str(numbers[0]) if len(numbers) == 1 else f"{{{','.join(map(str, sorted(numbers)))}}}"
        )
        for name, numbers in groups.items()
    ]


def checked_report(
    name: str, model: torch.nn.Module, found: Mapping[str, Any], *, passed_over: tuple[str, ...] = ()
) -> LoadReport:
    """Return the report of a checkpoint that was loaded whole.

    Args:
        name: where it came from.
        model: what was made of it.
        found: what transformers tells of the loading.
        passed_over: beginnings of tensors' names that the model has no use for.

    Raises:
        EncoderError: tensors are missing, left over or of another shape; every one is named.
    """
    report = LoadReport(
        source=name,
        tensors=len(model.state_dict()),
        missing=sorted(found["missing_keys"]),
        unexpected=sorted(key for key in found["unexpected_keys"] if not key.startswith(passed_over)),
        mismatched={key: (tuple(there), tuple(here)) for key, there, here in found["mismatched_keys"]},
    )
    if not report.whole:
        raise EncoderError(f"{name}: not the tensors of its config.json: {'; '.join(report.lines())}")
    return report


def build_model(
    recipe: ModelRecipe, phase: PhaseRecipe, tokenizer: PreTrainedTokenizerFast, *, seed: int, attention: str
) -> tuple[ModernBertForMaskedLM, LoadReport | None]:
    """Return the model of a recipe, and the report when it came from a checkpoint.

    Args:
        recipe: shape or checkpoint.
        phase: sets the base of RoPE.
        tokenizer: its number of tokens and special tokens are the model's.
        seed: of random weights.
        attention: the implementation, as transformers names it.

    Raises:
        ConfigError: the checkpoint is not a ModernBERT, or has another vocabulary than the tokenizer.
        EncoderError: tensors are missing, left over or of another shape.
    """
    import torch
    from transformers import ModernBertForMaskedLM

    if recipe.checkpoint is not None:
        return load_checkpoint(recipe.checkpoint, phase, tokenizer, attention=attention)
    config = modernbert_config(recipe, tokenizer)
    set_theta(config, phase)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ModernBertForMaskedLM._from_config(config, attn_implementation=attention)
    return model.float(), None


def modernbert_config(recipe: ModelRecipe, tokenizer: PreTrainedTokenizerFast) -> ModernBertConfig:
    """Return the configuration of a shape; the tokenizer has the vocabulary and the special tokens."""
    from transformers import ModernBertConfig

    return ModernBertConfig(
        vocab_size=padded_vocabulary(len(tokenizer)),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=recipe.max_tokens,
        global_attn_every_n_layers=recipe.global_every,
        local_attention=recipe.window,
        classifier_pooling="mean",
        sparse_prediction=True,
        **special_ids(tokenizer),
    )


def special_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Return what a configuration says of a tokenizer's special tokens."""
    return {
        "pad_token_id": tokenizer.pad_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }


def padded_vocabulary(tokens: int) -> int:
    """Return the rows of the embedding: a multiple of 64, which matrix units compute faster."""
    return -(-tokens // 64) * 64


def set_theta(config: Any, phase: PhaseRecipe) -> None:
    """Give a configuration the bases of RoPE of a phase."""
    config.rope_parameters["full_attention"]["rope_theta"] = phase.global_theta
    config.rope_parameters["sliding_attention"]["rope_theta"] = phase.local_theta


def load_checkpoint(
    name: str | Path, phase: PhaseRecipe, tokenizer: PreTrainedTokenizerFast, *, attention: str
) -> tuple[ModernBertForMaskedLM, LoadReport]:
    """Return a ModernBERT out of a folder or from the hub, whole.

    Raises:
        ConfigError: it is of another architecture, or has another vocabulary than the tokenizer.
        EncoderError: tensors are missing, left over or of another shape; every one is named.
    """
    from transformers import AutoConfig, ModernBertForMaskedLM

    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}: no checkpoint can be read there ({_first_line(error)})") from None
    if config.model_type != "modernbert":
        raise ConfigError(
            f"{name}: got a checkpoint of '{config.model_type}', expected 'modernbert'; its tensors have "
            "other names and meanings, and a model made of them would have random weights"
        )
    if not len(tokenizer) <= config.vocab_size < len(tokenizer) + 1024:
        raise ConfigError(
            f"{name}: its vocabulary has {config.vocab_size} entries, the tokenizer {len(tokenizer)}; "
            "give the checkpoint's own: data.tokenizer.model"
        )
    config.sparse_prediction = True
    set_theta(config, phase)
    model, found = ModernBertForMaskedLM.from_pretrained(
        name,
        config=config,
        attn_implementation=attention,
        dtype="float32",
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    return model, checked_report(str(name), model, found)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def parameters(config: Any) -> int:
    """Return the number of parameters of a ModernBERT with a configuration, without building one.

    The decoder shares the embedding; only its bias counts.
    """
    width, inner = config.hidden_size, config.intermediate_size
    norms = 2 * config.num_hidden_layers + 2  # two a layer but the first, embedding, end, head
    layer = width * 3 * width + width * width + width * 2 * inner + inner * width
    embedding = config.vocab_size * width
    count: int = (
        embedding + config.num_hidden_layers * layer + norms * width + width * width + config.vocab_size
    )
    return count
