"""Search biomedical literature, clinical notes and code systems by words and by meaning.

Every name below is imported when it is first used, so that importing the package costs next to nothing and
loads neither torch nor faiss nor onnxruntime.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# onnxruntime reports to its publisher, and keeps a device id in the home folder, unless it is told not to
# before it is imported; the hub's client likewise. Whoever wants that sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from cmbert_retrieval.codes import CodeSearcher
    from cmbert_retrieval.encoders import load_encoder
    from cmbert_retrieval.errors import (
        CmbertError,
        ConfigError,
        CorpusError,
        EncoderError,
        IndexCorruptError,
        IndexLockedError,
        IndexMismatchError,
        MissingExtraError,
    )
    from cmbert_retrieval.retriever import Retriever
    from cmbert_retrieval.types import Code, Document, Hit, Qrels, Query, Run, Section

__version__ = "0.1.0"

__all__ = [
    "CmbertError",
    "Code",
    "CodeSearcher",
    "ConfigError",
    "CorpusError",
    "Document",
    "EncoderError",
    "Hit",
    "IndexCorruptError",
    "IndexLockedError",
    "IndexMismatchError",
    "MissingExtraError",
    "Qrels",
    "Query",
    "Retriever",
    "Run",
    "Section",
    "load_encoder",
]

_HOMES = {
    "CodeSearcher": "codes",
    "Retriever": "retriever",
    "load_encoder": "encoders",
    **dict.fromkeys(("Code", "Document", "Hit", "Qrels", "Query", "Run", "Section"), "types"),
    **dict.fromkeys(("CmbertError", "ConfigError", "CorpusError", "EncoderError"), "errors"),
    **dict.fromkeys(("IndexCorruptError", "IndexLockedError", "IndexMismatchError"), "errors"),
    "MissingExtraError": "errors",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
