"""Batches without padding on a CPU: texts behind each other, each attending to itself alone.

sentence-transformers does so for FlashAttention; here it is told that the attention of pretraining can, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cmbert_retrieval.pretraining import attention

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BORDERS = frozenset(("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx"))


def register(*, compiled: bool = False) -> str:
    """Make the attention known to transformers, with no mask; return its name.

    Args:
        compiled: the layers around it are compiled.
    """
    from transformers import AttentionMaskInterface

    name = attention.register(compiled=compiled)
    AttentionMaskInterface.register(name, _no_mask)
    return name


def pack_inputs(model: SentenceTransformer) -> None:
    """Let a model that was opened with this attention take texts without padding.

    Source:
        what ``sentence_transformers.base.modules.Transformer`` sets for FlashAttention.
    """
    from transformers import DataCollatorWithFlattening

    transformer: Any = model[0]
    transformer.data_collator = DataCollatorWithFlattening(
        return_seq_idx=True, return_flash_attn_kwargs=True, return_position_ids=True
    )
    if transformer.model_forward_params is not None:
        transformer.model_forward_params |= _BORDERS
    transformer._flatten_position_offset = 0
    transformer.can_flatten_inputs = True


def _no_mask(*arguments: Any, **settings: Any) -> None:
    """Borders of texts come as lengths."""
