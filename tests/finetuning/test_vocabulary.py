"""Trimming a vocabulary: texts stay what they were, in smaller pieces where a piece is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

transformers = pytest.importorskip("transformers")

from cmbert_retrieval.errors import ConfigError  # noqa: E402
from cmbert_retrieval.finetuning.vocabulary import trim_vocabulary  # noqa: E402

pytestmark = pytest.mark.slow  # transformers

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = ["heart", "attack", "##s", "kidney", "stone", "##attack", "zebra"]


@pytest.fixture
def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = [*SPECIAL, *PIECES, *LETTERS, *(f"##{letter}" for letter in LETTERS if letter != "s")]
    ids = {word: place for place, word in enumerate(words)}
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(SPECIAL)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=64, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip


def test_frequent_pieces_stay_and_rare_ones_fall_apart(tokenizer: Any) -> None:
    made, kept = trim_vocabulary(tokenizer, ["heart attacks"] * 3 + ["kidney"], len(tokenizer) - 3)
    assert len(made) == len(kept) == len(tokenizer) - 3
    assert made.tokenize("Heart attacks") == ["heart", "attack", "##s"]
    assert made.tokenize("zebra") == ["z", "##e", "##b", "##r", "##a"]
    assert made.tokenize("kidney") == ["kidney"]
    words = {place: word for word, place in tokenizer.get_vocab().items()}
    assert [words[id_] for id_ in kept] == made.convert_ids_to_tokens(range(len(kept)))


def test_special_tokens_stand_where_they_stood(tokenizer: Any) -> None:
    made, _ = trim_vocabulary(tokenizer, ["stone"], len(tokenizer) - 4)
    ids = made("kidney stone")["input_ids"]
    assert made.convert_ids_to_tokens([ids[0], ids[-1]]) == ["[CLS]", "[SEP]"]
    assert made.convert_ids_to_tokens(made.pad_token_id) == "[PAD]"
    assert "[UNK]" not in made.convert_ids_to_tokens(ids)


def test_a_kept_vocabulary_reads_as_before(tokenizer: Any) -> None:
    made, kept = trim_vocabulary(tokenizer, ["heart"], len(tokenizer) + 100)
    assert kept == list(range(len(tokenizer)))
    assert made("heart attacks of a zebra")["input_ids"] == tokenizer("heart attacks of a zebra")["input_ids"]


def test_characters_and_special_tokens_are_never_taken(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=r"special tokens and single characters alone are 57"):
        trim_vocabulary(tokenizer, [], 56)


def test_no_texts_say_nothing_of_what_to_keep(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="there are no texts"):
        trim_vocabulary(tokenizer, [], len(tokenizer))


def test_other_kinds_of_tokenizers_are_refused(tiny_encoder_path: Path) -> None:
    given = transformers.AutoTokenizer.from_pretrained(tiny_encoder_path)
    with pytest.raises(ConfigError, match="of kind BPE cannot be trimmed; expected WordPiece"):
        trim_vocabulary(given, [], 1000)
