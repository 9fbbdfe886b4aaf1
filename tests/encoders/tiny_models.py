"""Small models with random weights, for tests that need another one than the fixture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any


def build(
    folder: Path, tokenizer: Path, kind: str, *, head: bool = False, longest: int = 512, biases: bool = False
) -> Path:
    """Write a plain checkpoint (``bert`` or ``modernbert``) with the fixture's tokenizer."""
    import torch
    import transformers

    torch.manual_seed(5)
    sizes: dict[str, Any] = {
        "vocab_size": 420,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": longest,
        "pad_token_id": 0,
    }
    if kind == "modernbert":
        sizes |= {
            "local_attention": 16,
            "global_attn_every_n_layers": 3,
            "cls_token_id": 1,
            "sep_token_id": 2,
        }
        sizes |= {"bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2}
        sizes |= {"attention_bias": biases, "mlp_bias": biases, "norm_bias": biases}
        config = transformers.ModernBertConfig(**sizes)
        kinds = transformers.ModernBertModel, transformers.ModernBertForMaskedLM
    else:
        config = transformers.BertConfig(**sizes, initializer_range=0.2)
        kinds = transformers.BertModel, transformers.BertForMaskedLM
    kinds[head](config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder / name)
    settings = folder / "tokenizer_config.json"
    settings.write_text(
        settings.read_text().replace('"model_max_length": 64', f'"model_max_length": {longest}')
    )
    return folder


def build_pair(folder: Path, query: Path, document: Path, *, outputs: int = 16) -> Path:
    """Write a model of two encoders (a Router), each with mean pooling and a projection of its own."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Normalize, Pooling, Router, Transformer

    torch.manual_seed(6)
    rows = [[Transformer(str(path)), Pooling(32, "mean"), Dense(32, outputs)] for path in (query, document)]
    router = Router.for_query_document(query_modules=rows[0], document_modules=rows[1])
    SentenceTransformer(modules=[router, Normalize()], device="cpu").save(str(folder))
    return folder


def build_decoder(folder: Path, tokenizer: Path) -> Path:
    """Write a Llama that pools the last token; the tokenizer adds no special tokens and has no pad."""
    import torch
    import transformers

    torch.manual_seed(5)
    config = transformers.LlamaConfig(
        vocab_size=420,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
    )
    transformers.LlamaModel(config).save_pretrained(folder)
    words = json.loads((tokenizer / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**words, "post_processor": None}))
    settings = {"tokenizer_class": "TokenizersBackend", "eos_token": "[SEP]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_lasttoken": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder
