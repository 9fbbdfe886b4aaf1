"""Attention over packed rows on a CPU: each document by itself, as flash-attention does it on a GPU.

Documents of about one length are padded to the same one and computed together, in a bag: a batch takes
few products, and the libraries below meet few shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import dropout as dropped
from torch.nn.functional import pad, scaled_dot_product_attention

NAME = "cmbert_packed"

_SIZES = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""What documents are padded to. Longer ones keep their length: up to here plain products in bf16 beat the
fused kernel, whose memory does not grow with the square of the length."""


def register(*, compiled: bool = False) -> str:
    """Make the attention known to transformers; return its name, for ``attn_implementation``.

    Args:
        compiled: torch.compile is used on the model. It leaves this function out: its shapes are those of the
            documents, and every new one would be compiled.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(
        NAME, torch.compiler.disable(packed_attention) if compiled else packed_attention
    )
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
    heads, dim = query.shape[1], query.shape[3]
    layout = _lay_out(cu_seq_lens_q.diff(), heads)
    scaled = query * (scaling or dim**-0.5)
    sides = [_Taken.apply(layout, side[0].transpose(0, 1).reshape(-1, dim)) for side in (scaled, key, value)]
    seen = []
    for bag, *parts in zip(layout.bags, *sides, strict=True):
        reach = bag.size if sliding_window is None else sliding_window - 1
        seen.append(_looked_up(bag, *parts, reach=reach, dropout=dropout))
    return _PutBack.apply(layout, *seen).view(1, -1, heads, dim), None


@dataclass(frozen=True, slots=True, eq=False)
class _Bag:
    """Documents that are computed together.

    Attributes:
        rows: ``[documents, heads, size]``, where in ``[tokens * heads, dim]`` a token's head stands; behind
            its end, a document repeats its last token.
        inside: ``[documents, size]``, which places hold a token.
    """

    rows: torch.Tensor
    inside: torch.Tensor

    @property
    def size(self) -> int:
        """What the documents are padded to."""
        return int(self.rows.shape[2])


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """The bags of a batch.

    Attributes:
        bags: every document is in one of them.
        back: ``[tokens * heads]``, where in all bags' rows behind each other a token's head stands.
    """

    bags: list[_Bag]
    back: torch.Tensor


def _lay_out(lengths: torch.Tensor, heads: int) -> _Layout:
    starts = lengths.cumsum(0) - lengths
    known = torch.tensor(_SIZES, device=lengths.device)
    fitting = torch.searchsorted(known, lengths)
    sizes = torch.where(fitting < len(known), known[fitting.clamp(max=len(known) - 1)], lengths)
    bags = []
    for size in sizes.unique().tolist():
        chosen = sizes == size
        places = torch.arange(size, device=lengths.device)
        last = lengths[chosen, None] - 1
        tokens = starts[chosen, None] + places.minimum(last)
        rows = tokens[:, None] * heads + torch.arange(heads, device=lengths.device)[:, None]
        bags.append(_Bag(rows, places <= last))
    rows = torch.cat([bag.rows.flatten() for bag in bags])
    inside = torch.cat([bag.inside[:, None].expand_as(bag.rows).flatten() for bag in bags]).nonzero()[:, 0]
    back = torch.empty(len(inside), dtype=torch.long, device=lengths.device)
    back[rows[inside]] = inside
    return _Layout(bags, back)


class _Taken(torch.autograd.Function):  # type: ignore[misc]
    """``[tokens * heads, dim]`` -> ``[documents, heads, size, dim]`` of each bag.

    Every token stands in one place, so that its gradient is looked up instead of being summed.
    """

    @staticmethod
    def forward(ctx: Any, layout: _Layout, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.layout = layout
        return tuple(
            tokens.index_select(0, bag.rows.flatten()).view(*bag.rows.shape, -1) for bag in layout.bags
        )

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, _put_back(ctx.layout, gradients)


class _PutBack(torch.autograd.Function):  # type: ignore[misc]
    """``[documents, heads, size, dim]`` of each bag -> ``[tokens * heads, dim]``."""

    @staticmethod
    def forward(ctx: Any, layout: _Layout, *parts: torch.Tensor) -> torch.Tensor:
        ctx.layout = layout
        return _put_back(layout, parts)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        taken = []
        for bag in ctx.layout.bags:
            rows = gradient.index_select(0, bag.rows.flatten()).view(*bag.rows.shape, -1)
            taken.append(rows.masked_fill_(~bag.inside[:, None, :, None], 0))
        return None, *taken


def _put_back(layout: _Layout, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    rows = torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])
    return rows.index_select(0, layout.back)


def _looked_up(
    bag: _Bag, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, reach: int, dropout: float
) -> torch.Tensor:
    """Return what a bag's tokens see of those at most ``reach`` away: ``[documents, heads, size, dim]``.

    The queries have been scaled.
    """
    if 0 < 4 * reach < bag.size:
        return _in_blocks(bag, query, key, value, reach=reach, dropout=dropout)
    visible = bag.inside[:, None, None, :]
    if reach < bag.size - 1:
        place = torch.arange(bag.size, device=query.device)
        visible = visible & ((place[:, None] - place).abs() <= reach)
        visible = visible | ~bag.inside[:, None, :, None]  # a query without any key would give NaN
    bias = None if bool(visible.all()) else _bias(visible, query.dtype)
    if query.dtype == torch.bfloat16 and bag.size <= _SIZES[-1]:
        return _products(query, key, value, bias, dropout)
    return scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout, scale=1.0)


def _in_blocks(
    bag: _Bag, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, reach: int, dropout: float
) -> torch.Tensor:
    """Look up blocks of ``reach`` queries together, each with its own block of keys and the two beside it."""
    blocks = -(-bag.size // reach)
    behind = blocks * reach - bag.size
    # [documents, heads, blocks, reach, dim] and [documents, heads, blocks, 3 * reach, dim]
    queries = pad(query, (0, 0, 0, behind)).unflatten(2, (blocks, reach))

    def around(side: torch.Tensor) -> torch.Tensor:
        wide = pad(side, (0, 0, reach, behind + reach)).unflatten(2, (blocks + 2, reach))
        return torch.cat([wide[:, :, shift : shift + blocks] for shift in range(3)], dim=3)

    begins = torch.arange(blocks, device=query.device)[:, None, None] * reach
    asking = begins + torch.arange(reach, device=query.device)[:, None]
    asked = begins + torch.arange(-reach, 2 * reach, device=query.device)
    ends = bag.inside.sum(1)[:, None, None, None]
    visible = ((asked - asking).abs() <= reach) & (asked >= 0) & (asked < ends)
    visible |= asking >= ends  # they are cut off, but a query without any key would give NaN
    bias = _bias(visible[:, None], query.dtype)
    return _products(queries, around(key), around(value), bias, dropout).flatten(2, 3)[:, :, : bag.size]


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
