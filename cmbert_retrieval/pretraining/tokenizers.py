"""The tokenizer of a run: a byte-level BPE trained on the prepared text, or one that exists already."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmbert_retrieval.errors import ConfigError, CorpusError, MissingExtraError
from cmbert_retrieval.hub import Hub, HubError, find_repository, is_hub_id
from cmbert_retrieval.pretraining.recipe import TokenizerRecipe
from cmbert_retrieval.pretraining.words import find_words
from cmbert_retrieval.storage import fsync_folder, fsync_tree, make_folder, remove_tree, writing

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

Texts = Callable[[], Iterator[str]]
"""What gives the texts, as often as it is called: a generator would be exhausted the second time."""

LONGEST_INPUT = 8192
"""Tokens that a ModernBERT reads; what a tokenizer says of itself was meant for another model."""

INPUTS = ("input_ids", "attention_mask")
"""What a ModernBERT takes. With ``token_type_ids``, as BERT's tokenizers give them, it would raise."""

SPECIAL = {
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}
"""ModernBERT's special tokens, in the order of their ids."""

SPLIT = (
    r"'(?:[sdmt]|ll|ve|re)(?!\p{L})"  # it's; but not what begins a word in single quotes
    r"| ?\p{L}+"
    r"| ?\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)
"""What no token reaches across: words, numbers, signs, line ends, blanks.

It is GPT-2's, which ModernBERT uses, changed in three places. The figures are of 32,768 entries trained on
109 million characters and of held-out text (``python pretraining/fertility.py --ways-of-cutting``).

- Numbers go in groups of up to three digits. Digit by digit takes 5.7 % more tokens on articles (1.492 a word
  for 1.411), whole numbers 0.1 % fewer; but whole ones are learnt by heart, as far as a token of 40 digits,
  and how a number is cut depends on which others were frequent. A blank before a number belongs to it, as to
  a word: 4.0 % fewer tokens on articles than if it stood by itself.
- Line ends stay together, apart from what follows, so that notes keep their lines: 1.0 % fewer tokens there.
- ``'s`` is a contraction only where no further letter follows: ``'deoxy`` is no 'd and ``eoxy``.

Case is kept. Lower case would take 1.8 % fewer tokens on articles, 2.3 % on abstracts and 8.1 % on notes,
with their headings in capitals; but genes and abbreviations live by their capitals: MS, NO, OR and WHO are
not ms, no, or and who. NFC makes one of the two ways to write an accented letter; NFKC would change what is
meant (the square of 10 becomes 102).
"""

_FILE = "tokenizer.json"
_FILES = (_FILE, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json")
_BATCH = 32
_PIECE = 1000
_RUN = re.compile(rf"\S{{{_PIECE}}}|\s{{{_PIECE}}}")
"""Training takes the square of the length of what is not cut: a million letters would take minutes."""

_NEEDED = ("cls_token", "sep_token", "pad_token", "mask_token")


def make_tokenizer(recipe: TokenizerRecipe, texts: Texts, folder: Path) -> PreTrainedTokenizerFast:
    """Make the tokenizer of a recipe, and return it as it is read from its folder.

    The folder appears whole or not at all; ``AutoTokenizer.from_pretrained`` opens it as it is. The same
    recipe and texts give the same bytes.

    Args:
        recipe: an existing tokenizer, or how large a new one becomes.
        texts: what a new one is trained on; an existing one does not ask for them.
        folder: where it is written.

    Raises:
        ConfigError: the existing one cannot be read, is no fast one, or lacks a special token.
        CorpusError: there is no text to train on, or no such text that UTF-8 can hold.
        MissingExtraError: transformers is not there.
        StorageError: it cannot be written.
    """
    if recipe.model is None:
        backend, special = train_tokenizer(recipe, texts), SPECIAL
    else:
        backend, special = _existing(recipe.model)
    _write(folder, backend, special)
    return open_tokenizer(folder)


def open_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Return what ``make_tokenizer`` wrote.

    Raises:
        ConfigError: nothing is there that can be read.
        MissingExtraError: transformers is not there.
    """
    return _opened(folder, str(folder))


def plain(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """Return a copy for the text of documents: it cuts nothing, and a special token in a text is plain text.

    Otherwise a document that speaks of "[MASK]" would hold the mask itself.
    """
    from tokenizers import Tokenizer

    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    copy.encode_special_tokens = True
    return copy


def in_batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yield so many texts at a time, the rest last."""
    stream = iter(texts)
    while batch := list(islice(stream, size)):
        yield batch


def fertility(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> float:
    """Return the tokens a word, special ones left out. Signs and line ends are tokens, but no words.

    Raises:
        ValueError: the texts hold no word.
    """
    backend = plain(tokenizer)
    tokens = words = 0
    for batch in in_batches(texts, _BATCH):
        tokens += sum(map(len, backend.encode_batch_fast(batch, add_special_tokens=False)))
        words += sum(len(find_words(text).texts) for text in batch)
    if not words:
        raise ValueError("there is no word in the texts, so there are no tokens a word")
    return tokens / words


def _write(folder: Path, backend: Tokenizer, special: Mapping[str, str]) -> None:
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": LONGEST_INPUT,
        "model_input_names": list(INPUTS),
        "clean_up_tokenization_spaces": False,  # it would take blanks away that were in the text
        **special,
    }
    files = {
        _FILE: backend.to_str(pretty=True),
        "tokenizer_config.json": json.dumps(settings, indent=2, ensure_ascii=False) + "\n",
    }
    building = folder.with_name(folder.name + ".building")
    with writing(folder):
        remove_tree(building)
        make_folder(building)
        for name, text in files.items():
            (building / name).write_text(text, encoding="utf-8")
        fsync_tree(building)
        remove_tree(folder)
        building.rename(folder)
        fsync_folder(folder.parent)


# --- a new one ---


def train_tokenizer(recipe: TokenizerRecipe, texts: Texts) -> Tokenizer:
    """Return a new byte-level BPE. It has a token for each byte, so nothing is unknown to it.

    Raises:
        CorpusError: there is no text, or one that UTF-8 cannot hold.

    Source:
        Sennrich, Haddow & Birch, "Neural Machine Translation of Rare Words with Subword Units", ACL 2016;
        Radford et al., "Language Models are Unsupervised Multitask Learners", 2019 (of bytes).
    """
    from tokenizers import AddedToken, trainers
    from tokenizers.pre_tokenizers import ByteLevel

    tokenizer = _untrained()
    special = [
        # What stands for a word takes the blank before that word, as the word itself would.
        AddedToken(token, lstrip=name == "mask_token", normalized=False, special=True)
        for name, token in SPECIAL.items()
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        min_frequency=2,
        show_progress=False,
        special_tokens=special,
        initial_alphabet=sorted(ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(sample(texts, recipe.sample_characters), trainer)
    made = tokenizer.get_vocab_size()
    if made < recipe.vocabulary:
        logger.warning(
            "the tokenizer has %d entries, not %d: the text holds no more pairs that come twice",
            made,
            recipe.vocabulary,
        )
    tokenizer.post_processor = _around(tokenizer)
    return tokenizer


def _untrained() -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _around(tokenizer: Tokenizer) -> Any:
    from tokenizers.processors import TemplateProcessing

    cls, sep = SPECIAL["cls_token"], SPECIAL["sep_token"]
    return TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B {sep}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (cls, sep)],
    )


def sample(texts: Texts, characters: int) -> Iterator[str]:
    """Yield all texts, or as many as hold so many characters, spread evenly over them.

    A text with a word of more than a thousand letters, or as many blanks, comes in pieces.

    Raises:
        CorpusError: see ``train_tokenizer``.
    """
    total = sum(map(len, texts()))
    if not total:
        raise CorpusError("there is no text to train a tokenizer on; expected documents in data.sources")
    seen = taken = 0
    for number, text in enumerate(texts()):
        seen += len(text)
        # As soon as it fits under what an even share of the texts so far would be.
        if (taken + len(text)) * total <= seen * min(total, characters):
            taken += len(text)
            yield from _pieces(_checked(text, number))
    if not taken:
        raise CorpusError(
            f"no text has as few as {characters} characters, data.tokenizer.sample_characters; raise it"
        )


def _pieces(text: str) -> Iterator[str]:
    if _RUN.search(text) is None:
        yield text
    else:
        yield from (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))


def _checked(text: str, number: int) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise CorpusError(
                f"text {number} (from 0) has a lone surrogate at character {error.start}; expected text that "
                "UTF-8 can hold; prepare the data again"
            ) from None
    return text


# --- one that exists ---


def _existing(model: str) -> tuple[Tokenizer, dict[str, str]]:
    tokenizer = _opened(_folder_of(model), model)
    special = {name: str(getattr(tokenizer, name)) for name in SPECIAL if getattr(tokenizer, name, None)}
    missing = [name for name in _NEEDED if name not in special]
    if missing:
        raise ConfigError(
            f"{model}: a tokenizer without {' and '.join(missing)}, expected {', '.join(_NEEDED)}; take one "
            "of an encoder that was trained on masked text, or leave data.tokenizer.model out to train one"
        )
    backend = tokenizer.backend_tokenizer
    # An encoder's tokenizer may cut or pad texts for it; here this would lose text.
    backend.no_truncation()
    backend.no_padding()
    around = [tokenizer.cls_token_id, tokenizer.sep_token_id]
    if (found := backend.encode("").ids) != around:
        raise ConfigError(
            f"{model}: an empty text has the ids {found}, expected {around}: [CLS] and [SEP] around a text"
        )
    return backend, special


def _folder_of(model: str) -> Path:
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if not is_hub_id(model):
        raise ConfigError(f"data.tokenizer.model is '{model}'; expected a folder that is there, or a hub id")
    try:
        return find_repository(model, None, Hub()).fetch(_FILES, lambda found: (found / _FILE).is_file())
    except HubError as error:
        raise ConfigError(f"data.tokenizer.model: '{model}' is no folder here, and {error}") from error


def _opened(folder: Path, name: str) -> PreTrainedTokenizerFast:
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise MissingExtraError.of("pretraining", "transformers", "pretrain") from None
    if not (folder / _FILE).is_file():
        raise ConfigError(
            f"{name}: no {_FILE} there, expected the file of a fast tokenizer; transformers writes one with "
            "save_pretrained"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # tokenizers raises nothing more special
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{name}: its tokenizer cannot be read ({reason})") from None
    if not tokenizer.is_fast:
        raise ConfigError(
            f"{name}: a slow tokenizer ({type(tokenizer).__name__}), which does not tell where its tokens "
            "stand in the text; expected a fast one"
        )
    made: PreTrainedTokenizerFast = tokenizer
    return made
