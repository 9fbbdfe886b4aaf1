"""Attention over packed rows on a CPU: each document by itself, as flash-attention does it on a GPU."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import pad, scaled_dot_product_attention

NAME = "cmbert_packed"

_BLOCK = 128
"""Queries that are looked up together where a layer sees a window only."""


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
    borders = cu_seq_lens_q.tolist()
    seen = []
    for start, end in pairwise(borders):
        part = (query[:, :, start:end], key[:, :, start:end], value[:, :, start:end])
        reach = end - start if sliding_window is None else sliding_window - 1
        if reach >= end - start - 1:
            seen.append(scaled_dot_product_attention(*part, dropout_p=dropout, scale=scaling))
        else:
            seen.append(_windowed(*part, reach=reach, dropout=dropout, scaling=scaling))
    return torch.cat(seen, dim=2).transpose(1, 2).contiguous(), None


def _windowed(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    reach: int,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    """Attend to ``reach`` tokens on either side: blocks of queries, each with the keys around it."""
    length = query.shape[2]
    blocks = -(-length // _BLOCK)
    behind = blocks * _BLOCK - length
    # [blocks, heads, _BLOCK, dim]: the blocks take the place of the batch.
    queries = pad(query[0], (0, 0, 0, behind)).unflatten(1, (blocks, _BLOCK)).transpose(0, 1)
    span = _BLOCK + 2 * reach
    keys, values = (
        pad(side[0], (0, 0, reach, reach + behind)).unfold(1, span, _BLOCK).permute(1, 0, 3, 2)
        for side in (key, value)
    )
    place = torch.arange(blocks, device=query.device)[:, None, None] * _BLOCK
    asking = place + torch.arange(_BLOCK, device=query.device)[:, None]
    asked = place + torch.arange(span, device=query.device) - reach
    visible = ((asked - asking).abs() <= reach) & (asked >= 0) & (asked < length)
    visible |= asking >= length  # they are cut off below, but a query without any key would give NaN
    out = scaled_dot_product_attention(
        queries, keys, values, attn_mask=visible[:, None], dropout_p=dropout, scale=scaling
    )
    return out.transpose(0, 1).flatten(1, 2)[None, :, :length]
