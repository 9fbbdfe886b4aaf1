"""What a step costs: matrix multiplications and memory of a ModernBERT, computed from its shape.

Flash-attention is assumed, and rows that one document fills: with shorter ones attention costs less, because
nothing is computed across their borders. Norms, activations and softmax are not counted as FLOPs, nor what an
implementation computes twice: these are the FLOPs of the model, which utilisation is measured by.

Source:
    Chowdhery et al., "PaLM", 2022, appendix B (model FLOP utilisation); Kaplan et al., "Scaling Laws for
    Neural Language Models", 2020 (6 N); Korthikanti et al., "Reducing Activation Recomputation in Large
    Transformer Models", 2022 (what is kept for the way back).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.pretraining.model import padded_vocabulary
from cmbert_retrieval.pretraining.recipe import ModelRecipe, PretrainRecipe

FORWARD_AND_BACKWARD = 3
"""Each product of the way there has two on the way back: by its input, and by its weights or other input."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a ModernBERT, in the names of its ``config.json``.

    Attributes:
        vocab_size: rows of the embedding.
        hidden_size: width.
        intermediate_size: width within a layer, of each half of its gated unit.
        num_hidden_layers: depth.
        num_attention_heads: heads.
        global_attn_every_n_layers: every so many layers, from the first on, one sees the whole text.
        local_attention: tokens that the others see, half of them to either side.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    global_attn_every_n_layers: int
    local_attention: int

    @property
    def global_layers(self) -> int:
        """Layers that see the whole text."""
        return -(-self.num_hidden_layers // self.global_attn_every_n_layers)

    @property
    def windowed_layers(self) -> int:
        """Layers that see a window."""
        return self.num_hidden_layers - self.global_layers

    @property
    def matrices(self) -> int:
        """Weights of the layers' matrices, which every token is multiplied with."""
        width = self.hidden_size
        return self.num_hidden_layers * (4 * width * width + 3 * width * self.intermediate_size)

    @property
    def head(self) -> int:
        """Weights that a predicted token is multiplied with: the head and the decoder."""
        return self.hidden_size * (self.hidden_size + self.vocab_size)


def shape_of(recipe: PretrainRecipe) -> tuple[Shape, str]:
    """Return the shape of a recipe's model, and where it was taken from.

    A checkpoint in a folder is asked; one of the hub is not fetched for this: the recipe's own fields stand
    for it then, and ``data.tokenizer.vocabulary`` for the size of its vocabulary.

    Raises:
        ConfigError: the folder's ``config.json`` cannot be read, or is of another architecture.
    """
    checkpoint = recipe.model.checkpoint
    if checkpoint is not None and (folder := Path(checkpoint).expanduser()).is_dir():
        return _shape_in(folder / "config.json"), f"the checkpoint in {checkpoint}"
    shape = _shape_from(recipe.model, padded_vocabulary(recipe.data.tokenizer.vocabulary))
    if checkpoint is None:
        return shape, "the recipe"
    return shape, f"the recipe's fields: the checkpoint '{checkpoint}' is no folder here and was not opened"


def _shape_from(model: ModelRecipe, vocabulary: int) -> Shape:
    return Shape(
        vocab_size=vocabulary,
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        global_attn_every_n_layers=model.global_every,
        local_attention=model.window,
    )


def _shape_in(path: Path) -> Shape:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.get("model_type") != "modernbert":
            raise ConfigError(f"{path}: got a '{values.get('model_type')}', expected a 'modernbert'")
        numbers = {name: values[name] for name in Shape.__dataclass_fields__}
    except KeyError as error:
        raise ConfigError(f"{path}: the key {error} is missing") from None
    except (OSError, ValueError, AttributeError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: no config.json of a model ({str(error).splitlines()[0]})") from None
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ConfigError(f"{path}: '{name}' is {number!r}; expected a whole number from 1 on")
    return Shape(**numbers)


# --- FLOPs ---


def pairs(length: int, window: int | None = None) -> int:
    """Return how many pairs of tokens see each other in a document of ``length`` tokens.

    Args:
        length: tokens of the document.
        window: tokens that are seen, half of them to either side and the token itself; None for all.
    """
    reach = length - 1 if window is None else min(window // 2, length - 1)
    return length * (2 * reach + 1) - reach * (reach + 1)  # at both ends a part of the window is missing


def training_flops(shape: Shape, *, rows: int, context: int, predicted: float) -> float:
    """Return the floating-point operations of the products of one step, there and back.

    A product of ``n`` weights with a token takes ``2 n``: so many multiplications and additions. A pair of
    tokens takes ``4 x width`` in a layer: query by key, and weight by value.

    Args:
        shape: the model's.
        rows: documents, each of ``context`` tokens.
        context: tokens of a row.
        predicted: tokens of all rows that the decoder is computed for.
    """
    attention = shape.global_layers * pairs(context) + shape.windowed_layers * pairs(
        context, shape.local_attention
    )
    there = (
        2 * shape.matrices * rows * context
        + 4 * shape.hidden_size * rows * attention
        + 2 * shape.head * predicted
    )
    return FORWARD_AND_BACKWARD * there


# --- memory ---


def layer_bytes(shape: Shape, *, bf16: bool) -> int:
    """Return the bytes a token that one layer keeps for the way back.

    The two norms keep their inputs (fp32), and their outputs are inputs of matrices. Attention keeps query,
    key and value, query and key once more after RoPE, and what it gives. The gated unit keeps both halves,
    the activated one, and their product. Four bytes each are a norm's mean and spread, and a head's sum.
    """
    size = 2 if bf16 else 4
    norms = 2 * 4 * shape.hidden_size + 2 * size * shape.hidden_size + 16
    attention = (3 + 2 + 1) * size * shape.hidden_size + 4 * shape.num_attention_heads
    return norms + attention + 4 * size * shape.intermediate_size


def logits_bytes(shape: Shape, *, bf16: bool) -> int:
    """Return the bytes a predicted token at the start of the way back.

    The logits, their logarithms of shares in fp32, and the gradients of both in fp32.
    """
    return shape.vocab_size * ((2 if bf16 else 4) + 4 + 4 + 4)
