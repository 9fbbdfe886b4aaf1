"""Packed rows as a dataset, and how a batch of them reaches the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cmbert_retrieval.encoders.devices import FLASH_PACKAGES
from cmbert_retrieval.pretraining.attention import NAME as PACKED
from cmbert_retrieval.pretraining.packing import Plan, permuted
from cmbert_retrieval.pretraining.shards import TokenShards

FLATTENED = (PACKED, *FLASH_PACKAGES)
"""Attention that takes a batch as one long row with borders."""


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The ids that rows are made with."""

    cls: int
    sep: int
    pad: int
    mask: int


class PackedRows(torch.utils.data.Dataset[dict[str, Any]]):  # type: ignore[misc]
    """The rows of a training run in the order in which they are seen, epoch after epoch.

    Place *i* is the same row whatever the number of processes and the size of a micro-batch; within an epoch
    every row comes once.
    """

    def __init__(
        self, shards: TokenShards, plan: Plan, special: SpecialTokens, *, rows: int, seed: int
    ) -> None:
        """Lay out a run.

        Args:
            shards: the tokens.
            plan: which of them stand in which row.
            special: the ids around and behind them.
            rows: of the whole run.
            seed: of the order.
        """
        self._shards, self._plan, self._special = shards, plan, special
        self._rows, self._seed = rows, seed

    def __len__(self) -> int:
        """Return the rows of the whole run."""
        return self._rows

    def __getitem__(self, place: int) -> dict[str, Any]:
        """Return the row that is seen at this place.

        Returns:
            ``input_ids`` and ``marks`` ``[context]``, ``lengths`` of its documents (the last one may be
            padding), its ``row`` number and its ``epoch``.
        """
        if not 0 <= place < self._rows:
            raise IndexError(f"row {place} of {self._rows}")
        epoch, within = divmod(place, len(self._plan))
        row = int(permuted(np.array([within]), len(self._plan), self._seed + 1 + epoch)[0])
        return {**self._filled(row), "row": row, "epoch": epoch}

    def _filled(self, row: int) -> dict[str, Any]:
        context, special = self._plan.context, self._special
        ids = np.full(context, special.pad, dtype=np.int64)
        marks = np.zeros(context, dtype=np.uint8)
        lengths, at = [], 0
        for document, start, length in self._plan.row(row).tolist():
            tokens, their_marks = self._shards.document(document)
            end = at + 1 + length
            ids[at], ids[end] = special.cls, special.sep
            ids[at + 1 : end] = tokens[start : start + length]
            marks[at + 1 : end] = their_marks[start : start + length]
            lengths.append(length + 2)
            at = end + 1
        if at < context:
            lengths.append(context - at)
        return {"input_ids": ids, "marks": marks, "lengths": np.array(lengths)}


def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return rows as tensors: ``[rows, context]``, ``[rows]``, and the lengths of all documents in a row."""
    return {
        "input_ids": torch.from_numpy(np.stack([row["input_ids"] for row in rows])),
        "marks": torch.from_numpy(np.stack([row["marks"] for row in rows])),
        "rows": torch.tensor([row["row"] for row in rows]),
        "epochs": torch.tensor([row["epoch"] for row in rows]),
        "lengths": torch.from_numpy(np.concatenate([row["lengths"] for row in rows])),
    }


def model_inputs(
    input_ids: torch.Tensor, lengths: torch.Tensor, *, attention: str, window: int
) -> dict[str, Any]:
    """Return the keyword arguments that keep a ModernBERT from looking across the borders of documents.

    Args:
        input_ids: ``[rows, context]``.
        lengths: of all documents, row after row; they fill the rows.
        attention: the implementation's name.
        window: tokens that a layer with a window sees, half of them to either side.
    """
    starts = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    document = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    places = torch.arange(len(document), device=lengths.device) - starts[document]
    if attention in FLATTENED:
        longest = int(lengths.max())
        borders = starts.to(torch.int32)
        return {
            "input_ids": input_ids.reshape(1, -1),
            "position_ids": places[None],
            "attention_mask": {"full_attention": None, "sliding_attention": None},
            "cu_seq_lens_q": borders,
            "cu_seq_lens_k": borders,
            "max_length_q": longest,
            "max_length_k": longest,
        }
    document, places = document.view_as(input_ids), places.view_as(input_ids)
    same = document[:, None, :, None] == document[:, None, None, :]
    near = (places[:, None, :, None] - places[:, None, None, :]).abs() <= window // 2
    return {
        "input_ids": input_ids,
        "position_ids": places,
        "attention_mask": {"full_attention": same, "sliding_attention": same & near},
    }
