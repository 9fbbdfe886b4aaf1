"""What of a checkpoint went into the model, and what did not.

Loading by name is forgiving: a checkpoint of another architecture leaves every weight at random, and says so
in a warning that scrolls by. Here it is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cmbert_retrieval.encoders.weights import Tensor, canonical_names, checkpoint_tensors
from cmbert_retrieval.errors import EncoderError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_SHOWN = 8
_COMPARED = 64
"""Values of each tensor that are compared. Random ones differ in the first."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The outcome of loading a checkpoint.

    Attributes:
        loaded: tensors that are in the model as they are in the checkpoint.
        heads: tensors of heads that an encoder has no use for (MLM, pooler, next sentence).
    """

    loaded: int
    heads: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the report as one line."""
        heads = f"; heads not used: {abbreviate(self.heads)}" if self.heads else ""
        return f"{self.loaded} tensors loaded, none missing{heads}"


def abbreviate(names: Iterable[str]) -> str:
    """Return names as a list for a message; after eight only how many more there are."""
    listed = sorted(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


def check_loaded(folder: Path, model: PreTrainedModel) -> LoadReport:
    """Compare a transformers model with the safetensors that it was loaded from, by names, shapes and values.

    Args:
        folder: where ``config.json`` and the weights are.
        model: the model without a head, as it was loaded.

    Raises:
        EncoderError: an embedding or layer tensor is missing, left over, of another shape, or not what was
        loaded.
    """
    tensors = {name: tensor for name, tensor in checkpoint_tensors(folder).items() if tensor.is_weight}
    in_file, heads = canonical_names(tensors)
    state = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    in_model, _ = canonical_names(state)

    ignorable = [
        re.compile(pattern) for pattern in getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    ]
    left_over = [original for name, original in in_file.items() if name not in in_model]
    declared = [name for name in left_over if any(pattern.search(name) for pattern in ignorable)]
    left_over = [name for name in left_over if name not in declared]
    missing = _without_tied([name for name in in_model if name not in in_file], in_model, state)
    if missing or left_over:
        parts = [f"missing in the checkpoint: {abbreviate(missing)}"] if missing else []
        parts += [f"left over in the checkpoint: {abbreviate(left_over)}"] if left_over else []
        raise EncoderError(
            f"{folder}: the weights do not fit the configuration (model_type {model.config.model_type!r}): "
            f"{'; '.join(parts)}. Expected every embedding and layer to be loaded; take the config.json "
            "that belongs to them"
        )
    shared = [name for name in in_file if name in in_model]
    shapes = [name for name in shared if tuple(state[in_model[name]].shape) != tensors[in_file[name]].shape]
    if shapes:
        name = sorted(shapes)[0]
        raise EncoderError(
            f"{folder}: {in_file[name]} has shape {tensors[in_file[name]].shape} in the checkpoint, the "
            "configuration "
            f"expects {tuple(state[in_model[name]].shape)} ({len(shapes)} such tensors); take the "
            "config.json that belongs to it"
        )
    changed = [name for name in shared if not _equal(tensors[in_file[name]], state[in_model[name]])]
    if changed:
        raise EncoderError(
            f"{folder}: in the model, but not with the checkpoint's values: {abbreviate(changed)}; "
            "this version of transformers does not load the architecture rightly"
        )
    return LoadReport(loaded=len(shared), heads=tuple(sorted([*heads, *declared])))


def _without_tied(missing: list[str], in_model: dict[str, str], state: dict[str, torch.Tensor]) -> list[str]:
    """Return the missing names that share no memory with a loaded tensor: a tied weight is saved once."""
    loaded = {state[original].data_ptr() for name, original in in_model.items() if name not in missing}
    return [name for name in missing if state[in_model[name]].data_ptr() not in loaded]


def _equal(tensor: Tensor, value: torch.Tensor) -> bool:
    import torch

    stored = next(tensor.values(limit=_COMPARED), np.empty(0, np.float32))
    # Through the model's own precision: a checkpoint in float32 may run in bfloat16.
    expected = torch.from_numpy(np.array(stored)).to(value.dtype).float()
    return bool(torch.equal(expected, value.detach().flatten()[: len(stored)].cpu().float()))
