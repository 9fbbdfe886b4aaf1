"""Documents of random tokens, and a folder of prepared data made of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from cmbert_retrieval.pretraining.report import REPORT_JSON, Report, SourceReport
from cmbert_retrieval.pretraining.rows import SpecialTokens
from cmbert_retrieval.pretraining.shards import TokenDocument, write_shard

VOCABULARY = 128
SPECIAL = SpecialTokens(cls=1, sep=2, pad=0, mask=3)


def token_documents(lengths: list[int], *, seed: int = 0) -> list[TokenDocument]:
    """Return documents whose tokens count upwards from a random one, a third of them terms."""
    generator = np.random.default_rng(seed)
    return [
        TokenDocument(
            f"d{number}",
            number % 3,
            5 + (generator.integers(0, VOCABULARY) + np.arange(length)) % (VOCABULARY - 5),
            np.where(generator.random(length) < 0.3, 40 | 64, 32).astype(np.uint8),
        )
        for number, length in enumerate(lengths)
    ]


def prepare_folder(folder: Path, *, documents: int = 300) -> Path:
    """Write prepared data: a tokenizer whose tokens are numbers, and two parts of documents."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
    names = special + [str(number) for number in range(len(special), VOCABULARY)]
    words = Tokenizer(
        models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="[UNK]")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
        unk_token="[UNK]", model_max_length=8192,
    ).save_pretrained(folder / "tokenizer")  # fmt: skip
    for part, count, seed in (("train", documents, 0), ("held_out", documents // 10, 1)):
        lengths = np.random.default_rng(seed).integers(5, 100, count).tolist()
        (folder / part).mkdir()
        write_shard(folder / part / "00000.arrow", token_documents(lengths, seed=seed), vocabulary=VOCABULARY)
    (folder / "prepared.json").write_text("{}")
    report = Report(
        [SourceReport(name, "jsonl", kept=documents, licenses={"CC0": documents}) for name in "abc"]
    )
    (folder / REPORT_JSON).write_text(json.dumps(report.to_json()))
    return folder
