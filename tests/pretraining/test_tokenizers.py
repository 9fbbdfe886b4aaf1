"""The tokenizer: nothing is unknown to it, it is made twice the same, and its tokens keep to words."""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hub_cache import cached
from hypothesis import given
from hypothesis import strategies as st

from cmbert_retrieval.errors import ConfigError, CorpusError
from cmbert_retrieval.pretraining.recipe import TokenizerRecipe
from cmbert_retrieval.pretraining.token_marks import Marker
from cmbert_retrieval.pretraining.tokenizers import (
    SPECIAL,
    fertility,
    make_tokenizer,
    open_tokenizer,
    plain,
    sample,
    train_tokenizer,
)
from cmbert_retrieval.pretraining.weights import CONTINUES
from cmbert_retrieval.pretraining.words import find_words

TEXTS = [
    f"{drug} {dose} mg didn't lower troponin in {year}.\n\nCrohn's disease (K50.{dose}): 'deep' \u00b5g."
    for drug in ("Aspirin", "Metformin", "Na\u00efve sertraline", "Warfarin")
    for dose in range(12)
    for year in (1999, 2024)
]
RECIPE = TokenizerRecipe(vocabulary=340)


def texts() -> Iterator[str]:
    return iter(TEXTS)


def no_texts() -> NoReturn:
    raise AssertionError("an existing tokenizer needs no text")


@pytest.fixture(scope="module")
def backend() -> Any:
    return train_tokenizer(RECIPE, texts)


@pytest.fixture
def made(tmp_path: Path) -> Any:
    pytest.importorskip("transformers")
    return make_tokenizer(RECIPE, texts, tmp_path / "tokenizer")


def as_text(backend: Any, text: str) -> str:
    copy = type(backend).from_str(backend.to_str())
    copy.encode_special_tokens = True
    decoded: str = copy.decode(copy.encode(text, add_special_tokens=False).ids)
    return decoded


@given(st.text(max_size=60))
def test_every_text_comes_back(backend: Any, text: str) -> None:
    text = unicodedata.normalize("NFC", text)
    assert as_text(backend, text) == text


@pytest.mark.parametrize(
    "text",
    [
        "".join(map(chr, range(0x250))),
        " a  b \t\r\n\r\n c\n \n",
        "x\u0304 \U0001f9ec \u200b\ufeff\x00",
        "the [MASK] of [CLS] and [UNK]",
    ],
)
def test_odd_texts_come_back(backend: Any, text: str) -> None:
    assert as_text(backend, unicodedata.normalize("NFC", text)) == unicodedata.normalize("NFC", text)


def test_special_tokens_come_first_and_a_text_stands_between_two_of_them(backend: Any) -> None:
    assert [backend.token_to_id(token) for token in SPECIAL.values()] == [0, 1, 2, 3, 4]
    assert backend.get_vocab_size() == RECIPE.vocabulary
    one, two = backend.encode("Aspirin"), backend.encode("Aspirin", "Warfarin")
    assert (one.tokens[0], one.tokens[-1]) == ("[CLS]", "[SEP]")
    assert two.tokens == [*one.tokens, *backend.encode("Warfarin").tokens[1:]]


def test_the_mask_takes_the_blank_before_it_as_a_word_would(backend: Any) -> None:
    word, mask = backend.encode("disease troponin disease").ids, backend.encode("disease [MASK] disease").ids
    before, after = backend.encode("disease").ids[1:-1], backend.encode(" disease").ids[1:-1]
    assert mask == [word[0], *before, 4, *after, word[-1]]


def test_no_token_reaches_across_words_numbers_or_lines(backend: Any) -> None:
    for token, number in backend.get_vocab().items():
        if token in SPECIAL.values():
            continue
        text = backend.decode([number])
        assert not (re.search(r"[^\W\d_]", text) and re.search(r"\d", text)), text
        assert len(re.findall(r"\d", text)) <= 3, text
        assert len(find_words(text).texts) <= 1, text
        assert not ("\n" in text and text.strip()), text


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("it's", ["it", "'s"]),
        ("'deoxy", ["'", "deoxy"]),
        ("E11.65", ["E", "11", ".", "65"]),
        ("in 2024", ["in", " 202", "4"]),
        ("a\n\n  b ___", ["a", "\n\n", " ", " b", " ___"]),
        ("COX-2 (p53)", ["COX", "-", "2", " (", "p", "53", ")"]),
    ],
)
def test_text_is_cut_where_no_token_may_reach_across(backend: Any, text: str, pieces: list[str]) -> None:
    cut = backend.pre_tokenizer.pre_tokenize_str(text)
    assert [text[start:end] for _, (start, end) in cut] == pieces


@pytest.mark.parametrize("characters", [10, 2_000, 10**9])
def test_a_sample_is_spread_evenly_and_never_larger_than_asked_for(characters: int) -> None:
    all_texts = ["x" * (1 + number % 7) for number in range(3_000)]
    taken = list(sample(lambda: iter(all_texts), characters))
    total = sum(map(len, all_texts))
    assert sum(map(len, taken)) <= characters
    assert sum(map(len, taken)) >= min(total, characters) - 7
    if characters >= total:
        assert taken == all_texts


def test_a_sample_takes_the_same_share_of_every_source() -> None:
    sources = ["a" * 50] * 400 + ["b" * 90] * 300 + ["c" * 9] * 1000
    taken = "".join(sample(lambda: iter(sources), 14_000))
    shares = [taken.count(letter) / "".join(sources).count(letter) for letter in "abc"]
    assert shares == pytest.approx([14_000 / 56_000] * 3, rel=0.03)


@pytest.mark.parametrize("text", ["acgt" * 5000, "a" + " " * 9_999, "-" * 1000, "\n" * 4321])
def test_a_word_without_end_is_trained_on_in_pieces(text: str) -> None:
    texts = ["one", f"{text} b", "two", text]
    pieces = list(sample(lambda: iter(texts), 10**6))
    assert "".join(pieces) == "".join(texts)
    assert max(map(len, pieces)) == 1000
    assert {"one", "two"} <= set(pieces)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([], "there is no text to train a tokenizer on"),
        (["", ""], "there is no text to train a tokenizer on"),
        (["secret"] * 3 + ["secret \ud800"], "text 3 (from 0) has a lone surrogate at character 7"),
        (["secret " * 1000], "no text has as few as 5000 characters"),
    ],
)
def test_texts_that_nothing_can_be_trained_on_are_named_and_not_shown(found: list[str], message: str) -> None:
    with pytest.raises(CorpusError) as caught:
        train_tokenizer(TokenizerRecipe(vocabulary=300, sample_characters=5000), lambda: iter(found))
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_vocabulary_that_becomes_smaller_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        small = train_tokenizer(TokenizerRecipe(vocabulary=5000), texts)
    assert f"has {small.get_vocab_size()} entries, not 5000" in caplog.text


def test_the_same_texts_give_the_same_bytes_in_any_process() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_tokenizers import *; "
        "sys.stdout.write(train_tokenizer(RECIPE, texts).to_str())"
    )
    made = set()
    for seed, parallel in (("1", "true"), ("2", "false"), ("3", "true")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": parallel}
        paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-c", program, str(Path(__file__).parent)],
            env={**environment, "PYTHONPATH": paths}, capture_output=True, check=True,
        )  # fmt: skip
        made.add(done.stdout)
    assert len(made) == 1


# --- the folder ---


@pytest.mark.slow
def test_transformers_opens_the_folder_as_it_is(made: Any, tmp_path: Path, backend: Any) -> None:
    from transformers import AutoTokenizer

    opened = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert opened.is_fast
    assert opened.model_max_length == 8192
    assert {name: getattr(opened, name) for name in SPECIAL} == SPECIAL
    for text in [*TEXTS[:5], "a [MASK] b", " . , n't"]:
        assert dict(opened(text)) == {
            "input_ids": backend.encode(text).ids, "attention_mask": [1] * len(backend.encode(text)),
        }  # fmt: skip
        assert opened(text)["input_ids"] == made(text)["input_ids"]
    assert opened.decode(opened(" . , n't", add_special_tokens=False)["input_ids"]) == " . , n't"
    assert sorted(path.name for path in (tmp_path / "tokenizer").iterdir()) == [
        "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


@pytest.mark.slow
def test_what_a_kill_left_is_made_again(made: Any, tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "tokenizer.building").mkdir()
    (tmp_path / "tokenizer.building" / "tokenizer.json").write_text("{")
    (folder / "tokenizer.json").write_text("{")
    make_tokenizer(RECIPE, texts, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not (tmp_path / "tokenizer.building").exists()


@pytest.mark.slow
def test_a_special_token_in_a_document_is_text(made: Any) -> None:
    ids = plain(made).encode("the [MASK] of Zorro", add_special_tokens=False).ids
    assert made.mask_token_id not in ids
    assert made.decode(ids) == "the [MASK] of Zorro"
    assert made.mask_token_id in made("the [MASK]")["input_ids"]


@pytest.mark.slow
def test_fertility_is_tokens_by_words(made: Any) -> None:
    tokens = sum(len(made(text, add_special_tokens=False)["input_ids"]) for text in TEXTS)
    words = sum(len(re.findall(r"[^\W_]+", text)) for text in TEXTS)
    assert fertility(made, iter(TEXTS)) == pytest.approx(tokens / words, abs=0)
    with pytest.raises(ValueError, match="no word"):
        fertility(made, ["...", ""])


# --- existing ones ---


@pytest.mark.slow
def test_an_existing_tokenizer_is_taken_whole_and_cuts_nothing(
    tmp_path: Path, tiny_encoder_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    cutting = transformers.AutoTokenizer.from_pretrained(tiny_encoder_path)
    cutting.backend_tokenizer.enable_truncation(8)
    cutting.backend_tokenizer.enable_padding(length=8, pad_id=0)
    cutting.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    cutting.save_pretrained(tmp_path / "given")
    original = transformers.AutoTokenizer.from_pretrained(tiny_encoder_path)
    made = make_tokenizer(TokenizerRecipe(model=str(tmp_path / "given")), no_texts, tmp_path / "tokenizer")
    for text in ("heart", "acute myocardial infarction " * 50):
        assert made(text)["input_ids"] == original(text)["input_ids"]
    assert list(made("heart")) == ["input_ids", "attention_mask"]
    assert made.model_max_length == 8192
    assert made.mask_token_id == original.mask_token_id


@pytest.mark.slow
def test_a_hub_id_is_fetched(
    tmp_path: Path, tiny_encoder_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    from huggingface_hub import constants

    cached(tmp_path / "cache", "owner/tiny", tiny_encoder_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    made = make_tokenizer(TokenizerRecipe(model="owner/tiny"), no_texts, tmp_path / "tokenizer")
    assert len(made) == 420
    with pytest.raises(ConfigError, match=r"data.tokenizer.model: 'owner/absent' is no folder here, and "):
        make_tokenizer(TokenizerRecipe(model="owner/absent"), no_texts, tmp_path / "tokenizer")


def spoil(folder: Path, how: str) -> None:
    """Make a folder with a tokenizer one that cannot be used."""
    file, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    if how == "absent":
        file.unlink()
    elif how == "broken":
        file.write_text("{")
    elif how == "no mask":
        values = json.loads(settings.read_text())
        del values["mask_token"]
        settings.write_text(json.dumps(values))
    elif how == "nothing around":
        values = json.loads(file.read_text())
        values["post_processor"] = None
        file.write_text(json.dumps(values))
    elif how == "code":
        values = json.loads(settings.read_text())
        settings.write_text(
            json.dumps({**values, "tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}})
        )
        (folder / "own.py").write_text("raise SystemExit('code of a tokenizer was run')")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("absent", "no tokenizer.json there, expected the file of a fast tokenizer"),
        ("broken", "its tokenizer cannot be read ("),
        ("no mask", "a tokenizer without mask_token, expected cls_token, sep_token, pad_token, mask_token"),
        ("nothing around", "an empty text has the ids [], expected [1, 2]"),
    ],
)
def test_a_tokenizer_that_will_not_do_is_refused(made: Any, tmp_path: Path, how: str, message: str) -> None:
    spoil(tmp_path / "tokenizer", how)
    with pytest.raises(ConfigError) as caught:
        make_tokenizer(TokenizerRecipe(model=str(tmp_path / "tokenizer")), no_texts, tmp_path / "new")
    assert str(caught.value).startswith(f"{tmp_path / 'tokenizer'}: {message}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_code_that_comes_with_a_tokenizer_is_never_run(made: Any, tmp_path: Path) -> None:
    spoil(tmp_path / "tokenizer", "code")
    with pytest.raises(ConfigError, match="its tokenizer cannot be read"):
        open_tokenizer(tmp_path / "tokenizer")


@pytest.mark.slow
def test_neither_a_folder_nor_a_hub_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a folder that is there, or a hub id"):
        make_tokenizer(TokenizerRecipe(model=str(tmp_path / "absent")), no_texts, tmp_path / "new")


# --- with weights ---


def units(text: str, backend: Any) -> list[str]:
    """Return the texts of what the marker lets be drawn together."""
    offsets = np.array(backend.encode(text, add_special_tokens=False).offsets).reshape(-1, 2)
    spans: list[list[int]] = []
    for (start, end), byte in zip(offsets.tolist(), Marker().mark(text, offsets).tolist(), strict=True):
        if byte & CONTINUES:
            spans[-1] = [min(start, spans[-1][0]), max(end, spans[-1][1])]
        else:
            spans.append([start, end])
    return [text[start:end] for start, end in spans]


def words_among(units: list[str]) -> list[str]:
    bare = [unit.strip(" '\u00a0") for unit in units]
    return [unit for unit in bare if re.search(r"[^\W_]", unit)]


def test_the_units_of_masking_are_the_words(backend: Any) -> None:
    odd = (
        "  Na\u00efve \u03b1-synuclein,\n\n  5'-d(\u00b5)TTP's x\u00b2 \u4e2d\u6587 p53; 12345 \U0001d6fc __ "
    )
    for text in [*TEXTS, odd, ""]:
        assert words_among(units(text, backend)) == re.findall(r"[^\W_]+", text)


@pytest.mark.slow
def test_the_units_of_masking_are_the_words_of_real_text(backend: Any, shared_data: Path) -> None:
    from cmbert_retrieval.corpora import open_corpus

    archive = shared_data / "pmc_oa_bulk_sample" / "oa_comm_xml.sample.baseline.tar.gz"
    real = [document.text for document in islice(open_corpus("pmc", archive), 40)]
    with gzip.open(shared_data / "mtsamples" / "mtsamples.jsonl.gz", "rt", encoding="utf-8") as lines:
        real += [json.loads(line)["text"] for line in islice(lines, 200)]
    with gzip.open(shared_data / "codiesp" / "codiesp.jsonl.gz", "rt", encoding="utf-8") as lines:
        real += [json.loads(line)["text_en"] for line in islice(lines, 200)]
    assert sum(not text.isascii() for text in real) > 50
    for text in real:
        text = unicodedata.normalize("NFC", text)
        assert words_among(units(text, backend)) == re.findall(r"[^\W_]+", text)
        assert as_text(backend, text) == text
