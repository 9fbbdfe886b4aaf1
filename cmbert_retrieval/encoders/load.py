"""A name to an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.encoders.onnx import DEFAULT_BATCH_TOKENS, OnnxEncoder


def load_encoder(
    name: str | Path | None = None,
    *,
    threads: int | None = None,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    max_tokens: int | None = None,
    prompts: Mapping[str, str] | None = None,
) -> Encoder:
    """Open an encoder."""
    assert name is not None
    return OnnxEncoder(
        name,
        threads=threads,
        batch_tokens=batch_tokens,
        max_tokens=max_tokens,
        prompts=prompts,
        source=str(name),
    )
