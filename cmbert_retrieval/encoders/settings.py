"""What a model folder says about itself, read without loading the model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cmbert_retrieval.encoders.modules import module_routes, optional_json
from cmbert_retrieval.encoders.names import NAME
from cmbert_retrieval.errors import EncoderError

logger = logging.getLogger(__name__)

DEFAULT_MAX_TOKENS = 512

_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


_OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "longformer"})
"""Architectures that count positions from behind the padding token's id."""


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """How token states become a vector.

    Attributes:
        pooling: ``mean``, ``cls``, ``lasttoken``, ...; several that are concatenated are joined by ``+``.
        max_tokens: longer texts are truncated to this many tokens, special tokens included.
        dim: length of a vector.
        prompts: ``query``, ``document`` and ``name`` -> text put in front.
        normalized: whether vectors get unit length.
        longest: tokens that the model has positions for; ``max_tokens`` can be raised up to it.
        trained: whether the folder has pooling settings. Without them it was hardly trained for retrieval.
        query_tokens: where queries are truncated, if they have an encoder of their own.
    """

    pooling: str
    max_tokens: int
    dim: int
    prompts: Mapping[str, str] = field(default_factory=dict)
    normalized: bool = True
    longest: int = DEFAULT_MAX_TOKENS
    trained: bool = True
    query_tokens: int | None = None


def read_prompts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the ``query``, ``document`` and ``name`` prompts of a sentence-transformers configuration.

    Raises:
        EncoderError: ``prompts`` is no JSON object.
    """
    listed = values.get("prompts") or {}
    if not isinstance(listed, dict):
        raise EncoderError(f"prompts of the model: expected a JSON object, got a {type(listed).__name__}")
    prompts = {str(name): str(text) for name, text in listed.items() if text}
    fallback = prompts.get(str(values.get("default_prompt_name")), "")
    query = prompts.get("query") or fallback
    document = prompts.get("document") or prompts.get("passage") or prompts.get("corpus") or fallback
    found = {"query": query, "document": document, NAME: prompts.get(NAME, "")}
    return {name: text for name, text in found.items() if text}


def read_settings(folder: Path) -> EncoderSettings:
    """Return the settings in a sentence-transformers folder or a plain checkpoint.

    Vectors get unit length unless the folder declares the dot product as its similarity, so that inner
    products are the similarity that the model was made for.

    Raises:
        EncoderError: no ``config.json``, or one that gives no vector length; or a length, a similarity or a
            list of modules that no search can use.
    """
    routes = module_routes(folder)
    document = _read_route(folder, routes["document"])
    if routes["query"] == routes["document"]:
        return document
    query = _read_route(folder, routes["query"])
    if query.dim != document.dim:
        raise EncoderError(
            f"{folder}: vectors of queries have length {query.dim}, those of documents {document.dim}; "
            "expected one length. Take a model whose two sides can be compared"
        )
    same = query.pooling == document.pooling
    return replace(
        document,
        pooling=document.pooling if same else f"query {query.pooling}, document {document.pooling}",
        query_tokens=query.max_tokens,
        normalized=query.normalized and document.normalized,
    )


def _read_route(folder: Path, modules: list[tuple[str, Path]]) -> EncoderSettings:
    names = [name for name, _ in modules]
    if modules and (names[0] != "Transformer" or "Pooling" not in names):
        raise EncoderError(
            f"{folder / 'modules.json'}: got the modules {', '.join(names)}; expected a Transformer, then a "
            "Pooling: without one there is no vector of a text. Fetch the whole model again"
        )
    transformer = next((path for name, path in modules if name == "Transformer"), folder)
    if not (transformer / "config.json").is_file():
        raise EncoderError(
            f"{folder}: no config.json; expected a sentence-transformers folder or a transformers checkpoint"
        )
    config = optional_json(transformer / "config.json")
    sentence = optional_json(folder / "config_sentence_transformers.json")
    hidden = config.get("hidden_size") or config.get("dim") or config.get("d_model") or config.get("n_embd")
    if not isinstance(hidden, int):
        raise EncoderError(
            f"{transformer / 'config.json'}: no hidden_size; expected a text encoder's configuration"
        )
    pooling, dim = "mean", hidden
    for name, path in modules:
        if name == "Pooling":
            pooling, dim = _read_pooling(optional_json(path / "config.json"), hidden)
        elif name == "Dense":
            features = optional_json(path / "config.json").get("out_features")
            if not isinstance(features, int) or features < 1:
                raise EncoderError(
                    f"{path / 'config.json'}: out_features is {features!r}; expected the length of the "
                    "vectors. Fetch the model again"
                )
            dim = features
    truncate = sentence.get("truncate_dim")
    if truncate is not None and (not isinstance(truncate, int) or truncate < 1):
        raise EncoderError(
            f"{folder / 'config_sentence_transformers.json'}: truncate_dim is {truncate!r}; expected a "
            "positive whole number, or none"
        )
    similarity = sentence.get("similarity_fn_name")
    if similarity not in (None, "cosine", "dot"):
        raise EncoderError(
            f"{folder / 'config_sentence_transformers.json'}: the model was made for the similarity "
            f"{similarity!r}; expected cosine or dot, by which indexes rank. Take another model"
        )
    max_tokens, longest = _read_lengths(transformer, config)
    return EncoderSettings(
        pooling=pooling,
        max_tokens=max_tokens,
        longest=longest,
        dim=min(dim, truncate) if truncate else dim,
        prompts=read_prompts(sentence),
        normalized="Normalize" in names or similarity in (None, "cosine"),
        trained=bool(modules),
    )


def _read_pooling(config: Mapping[str, Any], hidden: int) -> tuple[str, int]:
    modes = config.get("pooling_mode") or [mode for key, mode in _LEGACY_POOLING.items() if config.get(key)]
    modes = [modes] if isinstance(modes, str) else list(modes) or ["mean"]
    size = config.get("embedding_dimension") or config.get("word_embedding_dimension") or hidden
    return "+".join(modes), int(size) * len(modes)


def _read_lengths(transformer: Path, config: Mapping[str, Any]) -> tuple[int, int]:
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and config.get("model_type") in _OFFSET_POSITIONS:
        positions -= int(config.get("pad_token_id") or 0) + 1
    tokenizer = optional_json(transformer / "tokenizer_config.json").get("model_max_length")
    # Tokenizers without a limit write a huge number.
    limits = [limit for limit in (tokenizer, positions) if isinstance(limit, int) and 0 < limit < 1_000_000]
    declared = optional_json(transformer / "sentence_bert_config.json").get("max_seq_length")
    length = declared if isinstance(declared, int) else min(limits, default=DEFAULT_MAX_TOKENS)
    if length < 3:
        raise EncoderError(
            f"{transformer}: texts are cut to {length} tokens; expected 3 or more, which leave room for a "
            "word. Correct max_seq_length in sentence_bert_config.json"
        )
    if not isinstance(positions, int) or positions < 1:
        return length, length
    if length > positions:
        logger.warning(
            "%s: max_seq_length is %d, but the model has positions for %d tokens; longer texts are cut there",
            transformer,
            length,
            positions,
        )
    return min(length, positions), positions
