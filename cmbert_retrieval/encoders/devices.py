"""What of torch's devices, precisions and attentions is there, and whether what was asked for by name is."""

from __future__ import annotations

import contextlib
import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

from cmbert_retrieval.errors import ConfigError, EncoderError

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "bfloat16", "float16")
FLASH_PACKAGES = {
    "flash_attention_2": "flash-attn",
    "flash_attention_3": "flash-attn-3",
    "flash_attention_4": "flash-attn-4",
}
"""FlashAttention by the name that transformers gives it -> the package that it needs."""

ATTENTIONS = ("auto", "eager", "sdpa", *FLASH_PACKAGES)


def choose_device(device: str | None) -> torch.device:
    """Return the device by that name, or the best when None.

    Raises:
        EncoderError: there is no such device.
    """
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise EncoderError(
            f"device {device!r} is not known to torch; expected cpu, cuda, cuda:N or mps"
        ) from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise EncoderError(
            f"device {device!r} was asked for, torch {torch.__version__} sees {torch.cuda.device_count()} "
            "CUDA devices; "
            "take another device, or leave it out"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise EncoderError(
            "device 'mps' was asked for, torch sees none; take another device, or leave it out"
        )
    return chosen


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 in hardware; elsewhere it is slower than float32."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
        return "amx_bf16" in flags or "avx512_bf16" in flags
    return False


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Return torch's type for a name.

    Raises:
        ConfigError: an unknown name.
        EncoderError: bfloat16 by name where the processor has none, or float16 on the CPU.
    """
    import torch

    if dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    if dtype == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    if (dtype == "bfloat16" and not has_bfloat16(device)) or (dtype == "float16" and device.type == "cpu"):
        raise EncoderError(
            f"dtype {dtype!r} was asked for, which {device} does not compute in; take 'float32' or 'auto'"
        )
    chosen: torch.dtype = getattr(torch, dtype)
    return chosen


def choose_attention(attention: str, device: torch.device) -> str | None:
    """Return the attention to ask transformers for; None leaves it the choice.

    Raises:
        ConfigError: an unknown name.
        EncoderError: FlashAttention by name, without its package or without CUDA.
    """
    if attention not in ATTENTIONS:
        raise ConfigError(f"attention is {attention!r}; expected one of {', '.join(ATTENTIONS)}")
    package = FLASH_PACKAGES.get(attention)
    if package:
        try:  # by distribution: two of them share a module's name
            importlib.metadata.distribution(package)
        except importlib.metadata.PackageNotFoundError:
            raise EncoderError(
                f"attention '{attention}' needs the package '{package}': "
                f"pip install {package} --no-build-isolation, or take 'sdpa'"
            ) from None
        if device.type != "cuda":
            raise EncoderError(f"attention '{attention}' needs a CUDA device, this is {device}; take 'sdpa'")
    return None if attention == "auto" else attention
