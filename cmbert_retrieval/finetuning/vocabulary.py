"""A WordPiece vocabulary for given texts: without rare pieces, with the words that it cuts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.pretraining.tokenizers import in_batches

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MadeOf = list[list[int]]
"""Entries of a new vocabulary -> the former ones that each is made of: one for what stays."""

_BATCH = 10_000


def fit_vocabulary(
    tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], size: int, *, words: int = 0
) -> tuple[PreTrainedTokenizerFast, MadeOf]:
    """Return a tokenizer for what texts have most often, and of which former ids each of its entries is made.

    Special tokens and single characters always stay, so that nothing becomes unknown that was not: a word
    whose piece is gone falls into smaller ones. A word that comes new had been cut into several.

    Args:
        tokenizer: a WordPiece one.
        texts: whose pieces and words are counted; read once, not held in memory.
        size: entries, at most.
        words: of them, whole words that the tokenizer had cut; fewer where texts have fewer.

    Raises:
        ConfigError: the tokenizer is of another kind, special tokens, characters and words alone are more, or
            there are no texts.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    described: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    if described["model"]["type"] != "WordPiece":
        raise ConfigError(
            f"model.vocabulary: a tokenizer of kind {described['model']['type']} cannot be fitted to "
            "texts; expected WordPiece, or leave it out"
        )
    vocabulary: dict[str, int] = described["model"]["vocab"]
    prefix = described["model"]["continuing_subword_prefix"]
    always = {id_ for piece, id_ in vocabulary.items() if len(piece.removeprefix(prefix)) == 1} | {
        added["id"] for added in described["added_tokens"]
    }
    if len(always) + words > size:
        more = f" and model.words is {words}" if words else ""
        raise ConfigError(
            f"model.vocabulary is {size}; special tokens and single characters alone are {len(always)}{more}"
        )
    found = _word_counts(tokenizer, texts, prefix)
    if not found:
        raise ConfigError("model.vocabulary: there are no texts whose entries could be kept; leave it out")
    spelt = {id_: piece for piece, id_ in vocabulary.items()}
    cut = [word for word in found if len(word) > 1 and any(map(str.isalpha, _joined(word, spelt, prefix)))]
    whole = sorted(cut, key=lambda word: (-found[word], word))[:words]
    counts: Counter[int] = Counter()
    for word in found.keys() - set(whole):
        for id_ in word:
            counts[id_] += found[word]
    ranked = sorted(set(vocabulary.values()) - always, key=lambda id_: (-counts[id_], id_))
    kept = sorted({*always, *ranked[: size - len(always) - len(whole)]})
    renumbered = {old: new for new, old in enumerate(kept)}
    entries = {piece: renumbered[id_] for piece, id_ in vocabulary.items() if id_ in renumbered}
    for word in whole:
        entries[_joined(word, spelt, prefix)] = len(entries)
    described["model"]["vocab"] = entries
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
    return made, [[id_] for id_ in kept] + [list(word) for word in whole]


def _word_counts(
    tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], prefix: str
) -> Counter[tuple[int, ...]]:
    """Return how often texts have each word, as the ids of its pieces."""
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    goes_on = np.array([piece.startswith(prefix) for piece in pieces])
    counts: Counter[tuple[int, ...]] = Counter()
    for batch in in_batches(texts, _BATCH):
        encoded = tokenizer(batch, add_special_tokens=False, truncation=False)["input_ids"]
        ids = np.fromiter(chain.from_iterable(encoded), np.int64)
        starts = np.flatnonzero(~goes_on[ids])
        lengths = np.diff(starts, append=len(ids))
        for length in np.unique(lengths):
            words = ids[starts[lengths == length][:, None] + np.arange(length)]
            distinct, times = np.unique(words, axis=0, return_counts=True)
            for word, count in zip(distinct.tolist(), times.tolist(), strict=True):
                counts[tuple(word)] += count
    return counts


def _joined(word: tuple[int, ...], spelt: dict[int, str], prefix: str) -> str:
    return "".join(spelt[id_].removeprefix(prefix) for id_ in word)


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
