"""Texts to vectors: the encoder protocol, its backends, export and identity. Loads none of them by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cmbert_retrieval.encoders.base import Encoder, EncoderIdentity
    from cmbert_retrieval.encoders.load import load_encoder

__all__ = ["Encoder", "EncoderIdentity", "load_encoder"]


def __getattr__(name: str) -> Any:
    if name == "load_encoder":
        from cmbert_retrieval.encoders.load import load_encoder

        return load_encoder
    if name in ("Encoder", "EncoderIdentity"):
        from cmbert_retrieval.encoders import base

        return getattr(base, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
