"""Fitting a vocabulary: texts stay what they were, in smaller pieces or in larger ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

transformers = pytest.importorskip("transformers")

from cmbert_retrieval.errors import ConfigError  # noqa: E402
from cmbert_retrieval.finetuning.vocabulary import fit_vocabulary  # noqa: E402

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
    made, kept = fit_vocabulary(tokenizer, ["heart attacks"] * 3 + ["kidney"], len(tokenizer) - 3)
    assert len(made) == len(kept) == len(tokenizer) - 3
    assert made.tokenize("Heart attacks") == ["heart", "attack", "##s"]
    assert made.tokenize("zebra") == ["z", "##e", "##b", "##r", "##a"]
    assert made.tokenize("kidney") == ["kidney"]
    words = {place: word for word, place in tokenizer.get_vocab().items()}
    assert [words[id_] for (id_,) in kept] == made.convert_ids_to_tokens(range(len(kept)))


def test_special_tokens_stand_where_they_stood(tokenizer: Any) -> None:
    made, _ = fit_vocabulary(tokenizer, ["stone"], len(tokenizer) - 4)
    ids = made("kidney stone")["input_ids"]
    assert made.convert_ids_to_tokens([ids[0], ids[-1]]) == ["[CLS]", "[SEP]"]
    assert made.convert_ids_to_tokens(made.pad_token_id) == "[PAD]"
    assert "[UNK]" not in made.convert_ids_to_tokens(ids)


def test_words_that_were_cut_and_come_often_are_whole(tokenizer: Any) -> None:
    texts = ["heart attacks"] * 3 + ["attacks of zebras"] * 2 + ["kidneys", "2024"]
    made, made_of = fit_vocabulary(tokenizer, texts, len(tokenizer) - 2, words=2)
    assert made.tokenize("Attacks of zebras") == ["attacks", "o", "##f", "zebras"]
    assert made.tokenize("kidneys") == ["kidney", "##s"]
    pieces = {place: piece for piece, place in tokenizer.get_vocab().items()}
    assert [[pieces[id_] for id_ in entry] for entry in made_of[-2:]] == [["attack", "##s"], ["zebra", "##s"]]
    assert made.convert_ids_to_tokens(range(len(made)))[-2:] == ["attacks", "zebras"]
    # Nothing asks for these pieces any more, now that their words are whole.
    assert not {"attack", "zebra"} & set(made.get_vocab())


def test_fewer_words_than_asked_for_leave_room_for_pieces(tokenizer: Any) -> None:
    made, made_of = fit_vocabulary(tokenizer, ["zebras", "stone"], len(tokenizer), words=3)
    assert [len(entry) for entry in made_of].count(2) == 1
    assert len(made) == len(made_of) == len(tokenizer)
    assert made.tokenize("zebras stone") == ["zebras", "stone"]


def test_a_kept_vocabulary_reads_as_before(tokenizer: Any) -> None:
    made, kept = fit_vocabulary(tokenizer, ["heart"], len(tokenizer) + 100)
    assert kept == [[id_] for id_ in range(len(tokenizer))]
    assert made("heart attacks of a zebra")["input_ids"] == tokenizer("heart attacks of a zebra")["input_ids"]


def test_a_checkpoint_goes_on_with_the_entries_that_stay(tokenizer: Any, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    from cmbert_retrieval.finetuning.recipe import StudentRecipe
    from cmbert_retrieval.finetuning.students import build_student
    from cmbert_retrieval.pretraining.model import modernbert_config

    shape = StudentRecipe(hidden_size=32, layers=2, heads=2, intermediate_size=48, window=16, max_tokens=128)
    given = transformers.ModernBertModel(modernbert_config(shape, tokenizer))
    for part in (given, tokenizer):
        part.save_pretrained(tmp_path / "given")
    recipe = StudentRecipe(checkpoint=str(tmp_path / "given"), vocabulary=300, words=1)
    texts = ["heart attacks"] * 3 + ["kidney stone"]
    build_student(recipe, None, seed=0, folder=tmp_path / "start", texts=texts)
    made = SentenceTransformer(str(tmp_path / "start"), device="cpu")
    before, after = given.embeddings.tok_embeddings.weight, made[0].model.embeddings.tok_embeddings.weight
    old, new = tokenizer.get_vocab(), made.tokenizer.get_vocab()
    assert new.keys() - old.keys() == {"attacks"}
    for entry in ("[CLS]", "heart", "##z"):
        assert after[new[entry]].equal(before[old[entry]])
    pieces = before[[old["attack"], old["##s"]]].mean(dim=0)
    assert (after[new["attacks"]] - pieces).abs().max() < 1e-7
    assert made[0].model.config.cls_token_id == new["[CLS]"]
    same = given.eval()(**tokenizer("heart", return_tensors="pt")).last_hidden_state.mean(dim=1)[0]
    vector = made.encode(["heart"])[0]
    assert vector @ (same / same.norm()).detach().numpy() > 0.9999


def test_characters_and_special_tokens_are_never_taken(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=r"special tokens and single characters alone are 57"):
        fit_vocabulary(tokenizer, [], 56)


def test_no_texts_say_nothing_of_what_to_keep(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="there are no texts"):
        fit_vocabulary(tokenizer, [], len(tokenizer))


def test_other_kinds_of_tokenizers_are_refused(tiny_encoder_path: Path) -> None:
    given = transformers.AutoTokenizer.from_pretrained(tiny_encoder_path)
    with pytest.raises(ConfigError, match="of kind BPE cannot be fitted to texts; expected WordPiece"):
        fit_vocabulary(given, [], 1000)
