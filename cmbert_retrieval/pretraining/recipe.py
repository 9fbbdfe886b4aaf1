"""The recipe of a pretraining run: data, masking, model, phases, training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from cmbert_retrieval.config import FlashAttention, SourceRecipe, none_means_absent, source_path
from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.recipe_files import Section, absolute_path, overridden, read_extended, validated


class PretrainingSource(SourceRecipe):
    """One source of the mixture."""

    weight: float = Field(default=1.0, gt=0, le=100)
    """How often its documents are seen while others are seen once; 0.5 takes half of them."""

    license: str | None = None
    """The licence of documents that do not name one themselves, as reports and model cards tell it."""

    licenses: list[str] | None = None
    """Documents with another licence are left out and counted. null: all are taken."""

    exclude_ids: str | None = None
    """A file of document ids, one a line, that are left out: source articles of test queries."""

    collection: str | None = None
    """The collection of ``evaluation/splits.py`` that it holds (``medquad``, ``ontology``): what is frozen
    there as test or validation is left out. null: told by the source's name, else by its reader."""

    sentences: bool = False
    """For code systems and ontologies: sentences about each entry instead of its text."""


class DuplicatesRecipe(Section):
    """What counts as the same document twice. Equal texts always do."""

    similarity: float = Field(default=0.8, gt=0, lt=1)
    """Documents whose word 5-grams overlap as much as this (Jaccard) are near-duplicates."""

    permutations: int = Field(default=128, ge=16, le=512)
    """Length of a MinHash signature: more are more exact and take longer."""


class TokenizerRecipe(Section):
    """What cuts text into tokens."""

    model: str | None = None
    """A hub id or a folder of an existing tokenizer. null: one is trained on the prepared text."""

    vocabulary: int = Field(default=32_768, ge=300, le=256_000)
    """Entries of a tokenizer that is trained, special tokens included."""

    sample_characters: int = Field(default=1_000_000_000, ge=1000)
    """Text that it is trained on, at most: taken from all sources alike."""


class DataRecipe(Section):
    """What the model reads."""

    sources: dict[str, PretrainingSource] = Field(min_length=1)
    """The mixture: a name of yours -> what is read."""

    held_out: float = Field(default=0.005, ge=0, lt=0.5)
    """Share of every source's documents, by a hash of their ids, that are kept for measuring."""

    minimum_characters: int = Field(default=20, ge=1)
    """Shorter documents are left out and counted."""

    exclude_names: str | None = None
    """A file of names, one a line: held-out questions. Codes and terms that are called so, in any source with
    ``sentences`` and in the lexicon, are left out: other code systems have the same names for them."""

    near_duplicates: Annotated[DuplicatesRecipe | None, BeforeValidator(none_means_absent)] = (
        DuplicatesRecipe()
    )
    """How near-duplicates are found. ``none``: only equal texts are removed."""

    tokenizer: TokenizerRecipe = TokenizerRecipe()
    """What cuts text into tokens."""

    lexicon: dict[str, SourceRecipe] = Field(default_factory=dict)
    """Code systems and ontologies whose names are terms: a name of yours -> what is read."""

    salience: bool = True
    """Count the words of the text for training, so that masking can tell biomedical ones from others."""


class MaskingRecipe(Section):
    """What is predicted."""

    method: Literal["token-aware", "whole-words", "uniform"] = "token-aware"
    """``uniform``: every token by itself, with the same chance; ``whole-words``: words and terms as a whole,
    with the same chance. Both for comparison."""

    boost: float = Field(default=2.0, ge=1, le=16)
    """``token-aware``: what the weight of a term is multiplied with."""

    salience: float = Field(default=0.25, ge=0, le=1)
    """``token-aware``: the power of a word's odds, biomedical text against English at large, in its weight.
    0: all alike."""

    first_rate: float = Field(default=0.30, gt=0, lt=1)
    """Share of predicted tokens at the first step."""

    last_rate: float = Field(default=0.15, gt=0, lt=1)
    """Share of predicted tokens at the last step; it falls evenly between the two."""


class ModelRecipe(Section):
    """The model: a checkpoint to go on from, or a shape to begin with."""

    checkpoint: str | None = None
    """A hub id or a folder of a ModernBERT. null: random weights of the shape below."""

    hidden_size: int = Field(default=768, ge=16)
    """Width."""

    layers: int = Field(default=22, ge=1)
    """Depth."""

    heads: int = Field(default=12, ge=1)
    """Attention heads; they divide ``hidden_size``."""

    intermediate_size: int = Field(default=1152, ge=16)
    """Width within a layer, of each of the two halves of its gated unit."""

    global_every: int = Field(default=3, ge=1)
    """Every so many layers one sees the whole text; the others see a window."""

    window: int = Field(default=128, ge=2)
    """Tokens that the other layers see, half of them to either side."""

    max_tokens: int = Field(default=8192, ge=32)
    """The longest text that the model says it reads."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ModelRecipe:
        if self.checkpoint is None and self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of heads {self.heads}")
        return self


class PhaseRecipe(Section):
    """A stretch of training with one context length."""

    tokens: int = Field(ge=1)
    """Tokens that are seen in this phase; the last step is filled up."""

    context: int = Field(default=1024, ge=32)
    """Tokens of a packed row."""

    learning_rate: float = Field(default=8e-4, gt=0)
    """Of the stable part."""

    warmup: float = Field(default=0.02, ge=0, le=1)
    """Share of the phase's steps in which it rises from 0."""

    decay: float = Field(default=0.1, ge=0, le=1)
    """Share of the phase's steps, at its end, in which it falls to 0 as 1 - sqrt."""

    global_theta: float = Field(default=160_000.0, gt=0)
    """RoPE's base in the layers that see the whole text; 10,000 for a first phase of short rows."""

    local_theta: float = Field(default=10_000.0, gt=0)
    """RoPE's base in the layers that see a window."""

    @model_validator(mode="after")
    def _parts_fit(self) -> PhaseRecipe:
        if self.warmup + self.decay > 1:
            raise ValueError(f"warmup {self.warmup} and decay {self.decay} are more than the whole phase")
        return self


class TrainingRecipe(Section):
    """How it is trained."""

    optimizer: Literal["stable-adamw", "adamw"] = "stable-adamw"
    """stable-adamw clips updates itself, so gradients need no clipping."""

    betas: tuple[float, float] = Field(default=(0.9, 0.98), strict=False)
    """Of the moving averages."""

    epsilon: float = Field(default=1e-6, gt=0)
    """Added to the denominator."""

    weight_decay: float = Field(default=1e-5, ge=0)
    """Of matrices; biases and norms have none."""

    max_gradient_norm: float = Field(default=0.0, ge=0)
    """Longer gradients are shortened to this. 0: not at all."""

    batch_tokens: int = Field(default=1_048_576, ge=32)
    """Tokens of a step, over all processes."""

    micro_batch_tokens: int = Field(default=32_768, ge=32)
    """Tokens that a process computes at once; the rest of its share is accumulated."""

    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 where the processor computes in it, else fp32. Weights and their averages stay fp32."""

    attention: Literal["auto", FlashAttention, "sdpa", "packed"] = "auto"
    """auto: flash_attention_2 on a GPU where it is installed, else sdpa; packed on a CPU."""

    compile: bool = False
    """Compile the model with torch.compile."""

    checkpoint_steps: int = Field(default=500, ge=1)
    """Steps between two checkpoints."""

    keep_checkpoints: int = Field(default=2, ge=1)
    """Checkpoints that are kept."""

    evaluate_steps: int = Field(default=500, ge=1)
    """Steps between two measurements on the held-out text."""

    evaluate_tokens: int = Field(default=200_000, ge=1)
    """Held-out tokens that are read each time, at most."""

    log_steps: int = Field(default=10, ge=1)
    """Steps between two lines of the log."""

    report_to: list[str] = Field(default_factory=list)
    """Loggers of transformers: ``wandb``, ``tensorboard``, ``trackio``, ..."""


class PretrainRecipe(Section):
    """Everything that decides what a run does."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """The run's name. Unless given: the recipe file's."""

    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of random weights, of the order and of the masks."""

    data: DataRecipe
    """What the model reads."""

    masking: MaskingRecipe = MaskingRecipe()
    """What is predicted."""

    model: ModelRecipe = ModelRecipe()
    """The model."""

    phases: list[PhaseRecipe] = Field(min_length=1)
    """One after the other, each from the weights of the one before."""

    training: TrainingRecipe = TrainingRecipe()
    """How it is trained."""

    @model_validator(mode="after")
    def _salience_is_known(self) -> PretrainRecipe:
        masking = self.masking
        if masking.method == "token-aware" and masking.salience and not self.data.salience:
            raise ValueError(
                f"masking.salience is {masking.salience}, but data.salience is false: words are not counted; "
                "set one of them"
            )
        return self


def load_pretrain_recipe(path: str | Path, *, overrides: Sequence[str] = ()) -> PretrainRecipe:
    """Read the recipe of a pretraining run.

    Args:
        path: a YAML file; paths in it are relative to it. It may name another one that it ``extends``: what
            it does not say is taken from there.
        overrides: ``section.key=value`` each, in this order, as ``data.sources.pmc.path=PATH``; paths in them
            are relative to the working folder.

    Raises:
        ConfigError: there is no such file, it is not YAML, or a key or value in it or in the overrides is
            wrong. The message names the file and the key, and the key that may have been meant.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(f"{path}: no such recipe file; there are some in pretraining/recipes")
    values = read_extended(file, _named)
    prepare = partial(_with_absolute_paths, folder=Path.cwd(), known=values)
    return validated(PretrainRecipe, overridden(values, overrides, prepare=prepare), str(path))


def _named(values: dict[str, Any], file: Path, below: dict[str, Any]) -> dict[str, Any]:
    return {"name": file.stem, **_with_absolute_paths(values, file.parent, below)}


def _with_absolute_paths(
    values: Mapping[str, Any], folder: Path, known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return values with their paths made absolute; ``known`` tells the readers of sources that they lack."""
    made = dict(values)
    data = made.get("data")
    if isinstance(data, Mapping):
        made["data"] = data = dict(data)
        for section in ("sources", "lexicon"):
            if isinstance(data.get(section), Mapping):
                readers = part_of(known, "data", section)
                data[section] = {
                    name: with_absolute_source(source, folder, part_of(readers, str(name)).get("reader", ""))
                    for name, source in data[section].items()
                }
        data |= with_absolute_model(data, "tokenizer", "model", folder)
        if isinstance(data.get("exclude_names"), str):
            data["exclude_names"] = absolute_path(data["exclude_names"], folder)
    return made | with_absolute_model(made, "model", "checkpoint", folder)


def part_of(values: Mapping[str, Any] | None, *names: str) -> Mapping[str, Any]:
    """Return the mapping below some keys of a recipe; an empty one where there is none."""
    for name in names:
        found = (values or {}).get(name)
        values = found if isinstance(found, Mapping) else {}
    return values or {}


def with_absolute_source(source: Any, folder: Path, reader: str) -> Any:
    """Return what a recipe says of a source with its paths made absolute; ``reader`` where it names none."""
    if not isinstance(source, Mapping):
        return source
    made = dict(source)
    if isinstance(made.get("path"), str):
        made["path"] = source_path(made["path"], folder, str(made.get("reader", reader)))
    if isinstance(made.get("exclude_ids"), str):
        made["exclude_ids"] = absolute_path(made["exclude_ids"], folder)
    return made


def with_absolute_model(values: Mapping[str, Any], section: str, key: str, folder: Path) -> dict[str, Any]:
    """Return the section with a folder, written with a leading dot, tilde or slash, made absolute."""
    part = values.get(section)
    if not isinstance(part, Mapping) or not isinstance(part.get(key), str):
        return {}
    return {section: {**part, key: absolute_model(part[key], folder)}}


def absolute_model(name: Any, folder: Path) -> Any:
    """Return the name of a model, a folder written with a leading dot, tilde or slash made absolute."""
    is_folder = isinstance(name, str) and name.startswith((".", "~", "/"))
    return absolute_path(name, folder) if is_folder else name  # else a hub id
