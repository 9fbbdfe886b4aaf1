"""The model that is fine-tuned: a checkpoint, or a shape that begins with its teacher's token embeddings."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmbert_retrieval.encoders.names import NAME
from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.finetuning.new_words import Encode, rows_of_words
from cmbert_retrieval.finetuning.recipe import StudentRecipe
from cmbert_retrieval.finetuning.teacher import token_embeddings
from cmbert_retrieval.finetuning.vocabulary import MadeOf, fit_vocabulary
from cmbert_retrieval.pretraining.model import (
    checked_report,
    modernbert_config,
    padded_vocabulary,
    special_ids,
)
from cmbert_retrieval.storage import fsync_tree

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import ModernBertModel, PreTrainedTokenizerFast

_HEAD = ("head.", "decoder.", "cls.", "model.")
"""Tensors of a masked language model that an encoder has no use for."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """What a student takes of its teacher to begin with.

    Attributes:
        folder: of its weights in fp32, and of its tokenizer.
        encode: texts to its vectors.
    """

    folder: Path
    encode: Encode


def build_student(
    recipe: StudentRecipe, teacher: Teacher | None, *, seed: int, folder: Path, texts: Iterable[str] = ()
) -> None:
    """Write the model that a run begins with as a sentence-transformers folder; one that is there stays.

    Args:
        recipe: checkpoint or shape, tokenizer, prompts.
        teacher: where something of it is taken.
        seed: of random weights.
        folder: to write.
        texts: decide which entries the tokenizer has, where it is fitted to them.

    Raises:
        ConfigError: the checkpoint is not a ModernBERT, or the teacher's embeddings have another shape.
        EncoderError: tensors are missing or of another shape; every one is named.
    """
    if folder.exists():
        return
    tokenizer = _tokenizer(recipe, teacher)
    made_of, vocabulary = None, len(tokenizer)
    if recipe.vocabulary is not None:
        tokenizer, made_of = fit_vocabulary(tokenizer, texts, recipe.vocabulary, words=recipe.words)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    if recipe.checkpoint is not None:
        model = _of_checkpoint(recipe.checkpoint, vocabulary)
        _average(model, recipe.averaged_with, vocabulary)
        if made_of is not None:
            _take_entries(model, tokenizer, made_of, teacher)
    else:
        model = _of_shape(recipe, tokenizer, seed)
        if recipe.embeddings == "teacher":
            assert teacher is not None
            _take_embeddings(model, tokenizer, made_of, teacher)
    building = folder.with_name(f"{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    plain = building / "plain"
    model.save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    _with_pooling(plain, recipe).save(str(building / "model"), create_model_card=False)
    fsync_tree(building / "model")
    (building / "model").rename(folder)
    shutil.rmtree(building)


def open_student(folder: Path, *, attention: str, tokens: int, compiled: bool = False) -> SentenceTransformer:
    """Open a folder for training, in fp32.

    Args:
        folder: of sentence-transformers.
        attention: as transformers names it.
        tokens: longer texts are cut.
        compiled: whether every layer is compiled when it is first used, for any length.
    """
    from sentence_transformers import SentenceTransformer

    settings = {"attn_implementation": attention, "dtype": "float32"}
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs=settings, local_files_only=True)
    model.max_seq_length = tokens
    if compiled:
        encoder = model[0].model
        for part in (encoder.embeddings, *encoder.layers):
            part.compile(dynamic=True)
    return model


def _tokenizer(recipe: StudentRecipe, teacher: Teacher | None) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    name = recipe.tokenizer or recipe.checkpoint
    where = teacher.folder if teacher is not None and name == "teacher" else name
    try:
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(str(where), use_fast=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}: no tokenizer can be read there ({type(error).__name__})") from None
    tokenizer.model_max_length = recipe.max_tokens
    return tokenizer


def _of_checkpoint(name: str, vocabulary: int) -> ModernBertModel:
    from transformers import AutoConfig, ModernBertModel

    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}: no checkpoint can be read there ({type(error).__name__})") from None
    if config.model_type != "modernbert":
        raise ConfigError(f"{name}: got a checkpoint of '{config.model_type}', expected 'modernbert'")
    if config.vocab_size < vocabulary:
        raise ConfigError(
            f"{name}: its vocabulary has {config.vocab_size} entries, the tokenizer {vocabulary}; give the "
            "checkpoint's own, or none: model.tokenizer"
        )
    model, found = ModernBertModel.from_pretrained(
        name, dtype="float32", use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True
    )
    checked_report(name, model, found, passed_over=_HEAD)
    _as_large_as_random(model)
    return model


def _average(model: ModernBertModel, others: Sequence[str], vocabulary: int) -> None:
    """Bring a model's weights to the mean of its own and of others' of the same shape.

    Source: Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy
    without increasing inference time", ICML 2022.
    """
    import torch

    own = model.state_dict()
    for number, name in enumerate(others, start=2):
        given = _of_checkpoint(name, vocabulary).state_dict()
        if wrong := [
            key
            for key in own | given
            if key not in own or key not in given or own[key].shape != given[key].shape
        ]:
            raise ConfigError(
                f"model.averaged_with: {name} has another shape than model.checkpoint ('{wrong[0]}' is the "
                "first tensor that differs); expected checkpoints of one shape"
            )
        with torch.no_grad():
            for key, tensor in own.items():
                tensor += (given[key] - tensor) / number


def _of_shape(recipe: StudentRecipe, tokenizer: PreTrainedTokenizerFast, seed: int) -> ModernBertModel:
    import torch
    from transformers import ModernBertModel

    config = modernbert_config(recipe, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ModernBertModel._from_config(config).float()


def _take_embeddings(
    model: ModernBertModel, tokenizer: PreTrainedTokenizerFast, made_of: MadeOf | None, teacher: Teacher
) -> None:
    """Begin with the teacher's token embeddings."""
    import torch

    place = model.embeddings.tok_embeddings.weight
    there = token_embeddings(teacher.folder)
    if there is not None and made_of is not None:
        there = _rows(there.float(), tokenizer, made_of, teacher)
    if there is not None and there.shape[1] > place.shape[1]:
        there = _narrowed(there.float(), place.shape[1])
    if there is None or there.shape[1] != place.shape[1] or len(there) > len(place):
        shape = "none" if there is None else f"{list(there.shape)}"
        raise ConfigError(
            f"model.embeddings: the teacher's token embeddings are {shape}, the model's {list(place.shape)}; "
            "expected at most as wide a model and the teacher's tokenizer: model.hidden_size, model.tokenizer"
        )
    with torch.no_grad():
        # As large as random ones are: the norm behind them takes any size, the optimizer does not.
        place[: len(there)] = there * (place.std() / there.std())


def _take_entries(
    model: ModernBertModel, tokenizer: PreTrainedTokenizerFast, made_of: MadeOf, teacher: Teacher | None
) -> None:
    """Give a model the entries that its tokenizer has now, instead of those that it had."""
    import torch

    rows = _rows(model.embeddings.tok_embeddings.weight.detach(), tokenizer, made_of, teacher)
    model.resize_token_embeddings(padded_vocabulary(len(rows)), mean_resizing=False)
    with torch.no_grad():
        model.embeddings.tok_embeddings.weight[: len(rows)] = rows
    model.config.update(special_ids(tokenizer))


def _rows(
    table: torch.Tensor, tokenizer: PreTrainedTokenizerFast, made_of: MadeOf, teacher: Teacher | None
) -> torch.Tensor:
    import torch

    entries = tokenizer.convert_ids_to_tokens(range(len(made_of)))
    encode = None if teacher is None else teacher.encode
    return torch.from_numpy(rows_of_words(table.numpy(), entries, made_of, encode)).to(table.dtype)


def _as_large_as_random(model: ModernBertModel) -> None:
    """Bring a table of whole numbers, as compact folders have it, to the size that an optimizer expects."""
    import torch

    table = model.embeddings.tok_embeddings.weight
    if table.std() > 1:  # the norm behind it takes any size
        with torch.no_grad():
            table *= model.config.initializer_range / table.std()


def _narrowed(table: torch.Tensor, width: int) -> torch.Tensor:
    """Return the part of a table ``[rows, wider]`` that says most: its principal components."""
    import torch

    centred = table - table.mean(dim=0)
    _, _, directions = torch.linalg.svd(centred.T @ centred)
    return centred @ directions[:width].T


def _with_pooling(folder: Path, recipe: StudentRecipe) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(str(folder), max_seq_length=recipe.length)
    width = transformer.model.config.hidden_size
    prompts: dict[str, Any] = {"query": recipe.query_prompt, "document": recipe.document_prompt}
    if recipe.name_prompt:
        prompts[NAME] = recipe.name_prompt
    return SentenceTransformer(
        modules=[transformer, Pooling(width, pooling_mode="mean"), Normalize()],
        device="cpu",
        prompts=prompts,
        similarity_fn_name="cosine",
    )
