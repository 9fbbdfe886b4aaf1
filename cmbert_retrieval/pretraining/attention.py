"""Attention over packed rows on a CPU: each document by itself, as flash-attention does it on a GPU."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import dropout as dropped
from torch.nn.functional import pad, scaled_dot_product_attention

NAME = "cmbert_packed"

_SHORT = 512
"""Documents up to this length are computed with plain products in bf16: on a CPU they beat the fused kernel,
whose memory does not grow with the square of the length."""


def register() -> str:
    """Make the attention known to transformers; return its name, for ``attn_implementation``."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)
    return NAME


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *,
    cu_seq_lens_q: torch.Tensor | None = None,
    sliding_window: int | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Return what every token sees of its own document.

    A block-diagonal mask over the whole row gives the same, at the price of a row's length squared.

    Args:
        module: the attention layer; not used.
        query: ``[1, heads, tokens, dim]``, all documents of a batch behind each other.
        key: of the same shape.
        value: of the same shape.
        attention_mask: None: borders come as lengths.
        cu_seq_lens_q: ``[documents + 1]``, where each document begins, then where the last one ends.
        sliding_window: tokens further away than this many minus one are not seen; None for all.
        scaling: of the products; None for ``dim ** -0.5``.
        dropout: share of attention weights that is set to zero.
        unused: what transformers passes to every attention.

    Returns:
        ``[1, tokens, heads, dim]``, and None for the attention weights.
    """
    if attention_mask is not None or query.shape[0] != 1 or cu_seq_lens_q is None:
        raise ValueError("packed attention takes one long row, no mask, and the documents' borders")
    query = query * (scaling or query.shape[-1] ** -0.5)
    seen = []
    for start, end in pairwise(cu_seq_lens_q.tolist()):
        part = (query[:, :, start:end], key[:, :, start:end], value[:, :, start:end])
        reach = end - start if sliding_window is None else sliding_window - 1
        seen.append(_document(*part, reach=reach, dropout=dropout))
    return torch.cat(seen, dim=2).transpose(1, 2).contiguous(), None


def _document(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, reach: int, dropout: float
) -> torch.Tensor:
    """Return what a document's tokens see of those at most ``reach`` away: ``[1, heads, tokens, dim]``.

    The queries have been scaled.
    """
    length = query.shape[2]
    if 0 < 4 * reach < length:
        return _in_blocks(query, key, value, reach=reach, dropout=dropout)
    if reach < length - 1:
        place = torch.arange(length, device=query.device)
        visible = (place[:, None] - place).abs() <= reach
        return _products(query, key, value, _bias(visible, query.dtype), dropout)
    if query.dtype == torch.bfloat16 and length <= _SHORT:
        return _products(query, key, value, None, dropout)
    return scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=1.0)


def _in_blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, reach: int, dropout: float
) -> torch.Tensor:
    """Look up blocks of ``reach`` queries together, each with its own block of keys and the two beside it."""
    length = query.shape[2]
    blocks = -(-length // reach)
    behind = blocks * reach - length
    # [heads, blocks, reach, dim] and [heads, blocks, 3 * reach, dim]
    queries = pad(query[0], (0, 0, 0, behind)).unflatten(1, (blocks, reach))

    def around(side: torch.Tensor) -> torch.Tensor:
        wide = pad(side[0], (0, 0, reach, behind + reach)).unflatten(1, (blocks + 2, reach))
        return torch.cat([wide[:, shift : shift + blocks] for shift in range(3)], dim=2)

    begins = torch.arange(blocks, device=query.device)[:, None, None] * reach
    asking = begins + torch.arange(reach, device=query.device)[:, None]
    asked = begins + torch.arange(-reach, 2 * reach, device=query.device)
    visible = ((asked - asking).abs() <= reach) & (asked >= 0) & (asked < length)
    visible |= asking >= length  # they are cut off below, but a query without any key would give NaN
    out = _products(queries, around(key), around(value), _bias(visible, query.dtype), dropout)
    return out.flatten(1, 2)[None, :, :length]


def _bias(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, -torch.inf)


def _products(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    dropout: float,
) -> torch.Tensor:
    scores = query @ key.transpose(-1, -2)
    shares = (scores if bias is None else scores + bias).softmax(-1)
    return dropped(shares, dropout) @ value
