"""A WordPiece vocabulary without the pieces that hardly occur: a smaller table for the same texts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.pretraining.tokenizers import in_batches

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_BATCH = 10_000


def trim_vocabulary(
    tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], size: int
) -> tuple[PreTrainedTokenizerFast, list[int]]:
    """Return a tokenizer with the pieces that texts have most often, and their former ids in order.

    Special tokens and single characters always stay, so that nothing becomes unknown that was not: a word
    whose piece is gone falls into smaller ones.

    Args:
        tokenizer: a WordPiece one.
        texts: whose pieces are counted; read once, not held in memory.
        size: entries that are kept, at most.

    Raises:
        ConfigError: the tokenizer is of another kind, special tokens and characters alone are more, or there
            are no texts.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    backend = tokenizer.backend_tokenizer
    described: dict[str, Any] = json.loads(backend.to_str())
    if described["model"]["type"] != "WordPiece":
        raise ConfigError(
            f"model.vocabulary: a tokenizer of kind {described['model']['type']} cannot be trimmed; expected "
            "WordPiece, or leave it out"
        )
    vocabulary: dict[str, int] = described["model"]["vocab"]
    prefix = described["model"]["continuing_subword_prefix"]
    always = {id_ for piece, id_ in vocabulary.items() if len(piece.removeprefix(prefix)) == 1} | {
        added["id"] for added in described["added_tokens"]
    }
    if len(always) > size:
        raise ConfigError(
            f"model.vocabulary is {size}; special tokens and single characters alone are {len(always)}"
        )
    counts = _counts(tokenizer, texts)
    if not counts:
        raise ConfigError("model.vocabulary: there are no texts whose entries could be kept; leave it out")
    ranked = sorted(set(vocabulary.values()) - always, key=lambda id_: (-counts[id_], id_))
    kept = sorted({*always, *ranked[: size - len(always)]})
    renumbered = {old: new for new, old in enumerate(kept)}
    described["model"]["vocab"] = {
        piece: renumbered[id_] for piece, id_ in vocabulary.items() if id_ in renumbered
    }
    for added in described["added_tokens"]:
        added["id"] = renumbered[added["id"]]
    described["post_processor"] = _with_ids(described["post_processor"], renumbered)
    described["truncation"] = described["padding"] = None
    names = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)),
        model_max_length=tokenizer.model_max_length,
        **{name: getattr(tokenizer, name) for name in names},
    )
    return made, kept


def _counts(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for batch in in_batches(texts, _BATCH):
        for ids in tokenizer(batch, add_special_tokens=False, truncation=False)["input_ids"]:
            counts.update(ids)
    return counts


def _with_ids(value: Any, renumbered: dict[int, int]) -> Any:
    """Return what puts special tokens around a text with their new ids."""
    if isinstance(value, dict):
        return {
            key: [renumbered[id_] for id_ in inner] if key == "ids" else _with_ids(inner, renumbered)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int):
            return [value[0], renumbered[value[1]]]  # BertProcessing: token and id
        return [_with_ids(inner, renumbered) for inner in value]
    return value
