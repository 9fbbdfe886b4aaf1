"""Checkpoints written by hand: safetensors is eight bytes of length, a JSON header and the values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NAMES = {"float32": "F32", "float16": "F16", "int64": "I64", "int8": "I8", "uint8": "F8_E4M3"}
"""What numpy has no type for is written as its bytes."""


def write_safetensors(path: Path, tensors: Mapping[str, NDArray[Any]], *, bfloat16: bool = False) -> None:
    """Write ``tensors``; with ``bfloat16`` the upper halves of float32 values."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts: list[bytes] = []
    at = 0
    for name, values in tensors.items():
        kind, data = _NAMES[str(values.dtype)], values.tobytes()
        if bfloat16 and kind == "F32":
            kind, data = "BF16", (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    encoded = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + b"".join(parts))


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of a small file, in their own types."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    types = {kind: name for name, kind in _NAMES.items()}
    tensors = {}
    for name, entry in header.items():
        first, last = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = np.frombuffer(raw[first:last], types[entry["dtype"]]).reshape(entry["shape"]).copy()
    return tensors


def small_encoder(seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return the tensors of an invented encoder, whose values bfloat16 and float16 can hold."""
    generator = np.random.default_rng(seed)

    def values(*shape: int) -> NDArray[np.float32]:
        return (generator.integers(-64, 64, shape) / 64).astype(np.float32)

    return {
        "embeddings.word_embeddings.weight": values(11, 4),
        "embeddings.LayerNorm.weight": values(4),
        "layers.0.attn.weight": values(4, 4),
        "layers.1.attn.weight": values(4, 4),
        "final_norm.weight": values(4),
    }
