"""Texts a second: cmbert-mini beside MiniLM, and our int8 onnx beside ``SentenceTransformer.encode``.

Same texts, same number of threads, in one process. First cmbert-mini, the default encoder, and
all-MiniLM-L6-v2, both in int8 through this library: titles of ICD-10-CM, and articles cut to 64 and to 256
tokens. Then the same model on either side, with how far the vectors agree: MiniLM, and a model of
ModernBERT-base's shape (149 million weights, as Clinical ModernBERT has; random ones) that
``cmbert export --quantize int8`` exported.
"""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from _measure import RUNS, Results, read_jsonl, run, take_turns, versioned

from cmbert_retrieval.encoders import Encoder, load_encoder
from cmbert_retrieval.encoders.agreement import compare_vectors
from cmbert_retrieval.encoders.export import export_encoder
from cmbert_retrieval.threads import thread_budget

REPEATS = 5
SHORT, LONG, LONG_LARGE = 512, 32, 8  # texts a call


def icd_titles(count: int) -> list[str]:
    """Return titles of ICD-10-CM codes, drawn with a fixed seed."""
    from cmbert_retrieval.corpora import open_corpus

    titles = sorted({document.title for document in open_corpus("icd10cm", "")})
    return random.Random(7).sample(titles, count)


def long_texts(data: Path, encoder: Encoder, count: int) -> list[str]:
    """Return texts that fill 256 tokens."""
    articles = read_jsonl(data / "pmc_evidence_inference" / "pmc_fulltext_ccby_cc0.jsonl.gz")
    texts = (
        " ".join(p for section in article["sections"] for p in section["p"])[:3000] for article in articles
    )
    return list(itertools.islice((text for text in texts if encoder.count_tokens([text])[0] >= 254), count))


def cut_to(texts: Sequence[str], encoder: Encoder, tokens: int) -> list[str]:
    """Return the beginnings of texts: as many words as fit into so many tokens of an encoder."""
    made = []
    for text in texts:
        words = text.split()[:tokens]
        while encoder.count_tokens([" ".join(words)])[0] > tokens - 2:
            del words[-2:]
        made.append(" ".join(words))
    return made


def large_encoder() -> Path:
    """Return a folder with an encoder of ModernBERT-base's shape and random weights, made once.

    The tokenizer is that of MiniLM, as ModernBERT's own comes with no package.
    """
    folder = RUNS / "modernbert-base-shaped"
    if folder.exists():
        return folder
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import AutoTokenizer, ModernBertConfig, ModernBertModel

    torch.manual_seed(7)
    source: Any = load_encoder("minilm", backend="sentence_transformers", device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(source.folder)
    special = {"pad_token_id": tokenizer.pad_token_id}
    special |= {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
    special |= {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    work = folder.with_suffix(".new")
    shutil.rmtree(work, ignore_errors=True)
    (work / "model").mkdir(parents=True)
    ModernBertModel(ModernBertConfig(**special)).save_pretrained(work / "model")
    tokenizer.save_pretrained(work / "model")
    transformer = Transformer(str(work / "model"), max_seq_length=256)
    modules = [transformer, Pooling(transformer.get_embedding_dimension(), "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(
        str(work / "encoder"), create_model_card=False
    )
    (work / "encoder").rename(folder)
    shutil.rmtree(work)
    return folder


def large_export() -> Path:
    """Return what ``cmbert export --quantize int8`` makes of ``large_encoder``, made once."""
    folder = RUNS / "modernbert-base-shaped-int8"
    if not folder.exists():
        export_encoder(large_encoder(), folder, quantize="int8")
    return folder


def compare(
    results: Results, name: str, ours: Encoder, theirs: Any, texts: Sequence[str], *, mark: str, repeats: int
) -> None:
    """Measure one set of texts."""
    texts = list(texts)
    times = take_turns(
        {"ours": lambda: ours.encode_document(texts), "theirs": lambda: theirs.encode(texts)}, repeats
    )
    agreement = compare_vectors(theirs.encode(texts), ours.encode_document(texts))
    results.add(
        name,
        ours=len(texts) / times["ours"].p50,
        theirs=len(texts) / times["theirs"].p50,
        unit="texts/s",
        peer=versioned("sentence-transformers"),
        repeats=repeats,
        mark=mark,
        texts=len(texts),
        mean_cosine=round(agreement.mean_cosine, 4),
        min_cosine=round(agreement.min_cosine, 4),
        rank_correlation=round(agreement.rank_correlation, 4),
    )


def compare_mini(results: Results, minilm: Encoder, sets: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Measure cmbert-mini beside MiniLM."""
    mini = load_encoder()
    for name, texts in sets:
        ours, theirs = partial(mini.encode_document, texts), partial(minilm.encode_document, texts)
        times = take_turns({"ours": ours, "theirs": theirs}, 2 * REPEATS)
        results.add(
            f"cmbert-mini, {name}",
            ours=len(texts) / times["ours"].p50,
            theirs=len(texts) / times["theirs"].p50,
            unit="texts/s",
            peer="MiniLM in int8, through this library",
            repeats=2 * REPEATS,
            mark="ratio >= 3",
            texts=len(texts),
        )


def encoding(data: Path, results: Results) -> None:
    """Measure all pairs."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(thread_budget())
    ours = load_encoder("minilm", backend="onnx")
    source: Any = load_encoder("minilm", backend="sentence_transformers", device="cpu", dtype="float32")
    theirs = SentenceTransformer(str(source.folder), device="cpu")
    articles = long_texts(data, ours, 4 * LONG)
    titles, long = icd_titles(SHORT), articles[:LONG]
    short, full = cut_to(articles, ours, 64), cut_to(long, ours, 256)
    compare_mini(results, ours, [("titles of ICD-10-CM", titles), ("64 tokens", short), ("256 tokens", full)])
    sets = (("titles of ICD-10-CM", titles), ("256 tokens", long))
    for name, texts in sets:
        compare(results, f"MiniLM, {name}", ours, theirs, texts, mark="ratio >= 2", repeats=REPEATS)
    del theirs
    large = load_encoder(large_export(), backend="onnx")
    theirs = SentenceTransformer(str(large_encoder()), device="cpu")
    name = "ModernBERT-base-shaped, 256 tokens"
    compare(results, name, large, theirs, long[:LONG_LARGE], mark="ratio >= 2.5", repeats=3)


if __name__ == "__main__":
    run(encoding, __doc__)
