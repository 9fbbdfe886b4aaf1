"""The weights of a compact export, which lie once: in the model's own ``model.safetensors``.

The graph beside it holds none. When a session is made, each of its weights is computed from a tensor of that
file, in one of a few forms, with nothing but numpy. In the file the table of token embeddings has int8 rows
without scales, since the model's first norm takes the length of a row away; other matrices are in floats of
8 bits, or of 16 where those are too coarse, as is all else. Loading the folder with torch gives the same
values as float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.encoders.modules import module_paths
from cmbert_retrieval.encoders.weights import Tensor, read_header
from cmbert_retrieval.errors import EncoderError

WEIGHTS_FILE = "model.safetensors"

FORMS = ("rows", "float32", "int8", "scale", "zero_point")
"""How a weight of the graph is made from a tensor: ``rows`` is int8 as it is stored, ``float32`` the values
of one in floats; the last three are those of ``quantize_matrix``."""

LEVELS = 64
"""Steps from 0 to the largest weight of an output: 7 of 8 bits, for processors without VNNI."""


@dataclass(frozen=True, slots=True)
class GraphWeight:
    """Where a weight of a graph comes from.

    Attributes:
        tensor: name in the safetensors file.
        form: one of ``FORMS``.
        rows: the first of its rows that the weight has, and the one behind the last; None for all.
    """

    tensor: str
    form: str
    rows: tuple[int, int] | None = None


def parse_weights(values: Any) -> dict[str, GraphWeight]:
    """Return the weights that a manifest lists, by their names in the graph.

    Raises:
        ValueError: a form is none of ``FORMS``.
        KeyError, TypeError, AttributeError: they are not listed as a manifest does it.
    """
    weights = {
        str(name): GraphWeight(str(entry["tensor"]), str(entry["form"]), _parse_rows(entry.get("rows")))
        for name, entry in values.items()
    }
    for name, weight in weights.items():
        if weight.form not in FORMS:
            raise ValueError(f"{name} has the form {weight.form!r}, expected one of {', '.join(FORMS)}")
    return weights


def _parse_rows(values: Any) -> tuple[int, int] | None:
    if values is None:
        return None
    first, stop = map(int, values)
    if not 0 <= first < stop:
        raise ValueError(f"rows from {first} to {stop}, expected some")
    return first, stop


def weights_file(folder: Path) -> Path:
    """Return the file of the transformer's weights in a compact folder."""
    modules = module_paths(folder)
    return next((path for kind, path in modules if kind == "Transformer"), folder) / WEIGHTS_FILE


def graph_weights(file: Path, wanted: Mapping[str, GraphWeight]) -> dict[str, NDArray[Any]]:
    """Return the weights of a graph, computed from a safetensors file.

    Args:
        file: of the model.
        wanted: name in the graph -> where it comes from.

    Returns:
        name in the graph -> values, in memory.

    Raises:
        EncoderError: the file is absent or broken, lacks a tensor, or has it in a type or a shape that does
            not go with its form; or a value is not finite.
    """
    if not file.is_file():
        raise EncoderError(
            f"{file}: absent, and the graph in onnx/ has its weights there; fetch or export the model again"
        )
    tensors = read_header(file)
    quantized: dict[str, dict[str, NDArray[Any]]] = {}
    made: dict[str, NDArray[Any]] = {}
    for name, weight in wanted.items():
        tensor = tensors.get(weight.tensor)
        if tensor is None:
            raise EncoderError(
                f"{file}: no tensor {weight.tensor!r}, which the graph in onnx/ needs; export the model again"
            )
        _check_form(tensor, weight)
        if weight.form in ("rows", "float32"):
            made[name] = _finite(tensor.read(), tensor)
            continue
        if weight.tensor not in quantized:
            parts = quantize_matrix(_finite(tensor.read(), tensor))
            quantized[weight.tensor] = dict(zip(("int8", "scale", "zero_point"), parts, strict=True))
        whole = quantized[weight.tensor][weight.form]  # its rows are the last axis of each form
        part = whole if weight.rows is None else whole[..., slice(*weight.rows)]
        made[name] = np.ascontiguousarray(part)
    return made


def quantize_matrix(
    matrix: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.int8]]:
    """Return the weights of a linear layer in 8 bits, as onnxruntime's ``quantize_dynamic`` makes them.

    Args:
        matrix: ``[outputs, inputs]``, as torch keeps it.

    Returns:
        the int8 weights ``[inputs, outputs]``, as onnx multiplies by them; one scale for each output; and the
        zero points ``[outputs]``, all 0.
    """
    wide = np.abs(matrix).max(axis=1, initial=0.0).astype(np.float64) / LEVELS
    wide[wide < np.finfo(np.float32).tiny] = 1.0
    scales = wide.astype(np.float32)
    steps = matrix / scales[:, None]
    np.rint(steps, out=steps)
    return np.ascontiguousarray(steps.astype(np.int8).T), scales, np.zeros(len(scales), np.int8)


def _check_form(tensor: Tensor, weight: GraphWeight) -> None:
    form, in_int8 = weight.form, tensor.dtype == "I8"
    wrong = not tensor.is_weight or in_int8 != (form == "rows")
    if wrong or (form != "float32" and len(tensor.shape) != 2):
        expected = {"rows": "I8 in two dimensions", "float32": "floats"}.get(form, "floats in two dimensions")
        raise EncoderError(
            f"{tensor.file}: tensor {tensor.name!r} is {tensor.dtype} of shape {tensor.shape}, the graph in "
            f"onnx/ needs {expected}; export the model again"
        )
    if weight.rows is not None and weight.rows[1] > tensor.shape[0]:
        raise EncoderError(
            f"{tensor.file}: tensor {tensor.name!r} has {tensor.shape[0]} rows, the graph in onnx/ needs "
            f"{weight.rows[1]}; export the model again"
        )


def _finite(values: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    if values.dtype != np.int8 and not np.isfinite(values).all():
        raise EncoderError(
            f"{tensor.file}: tensor {tensor.name!r} holds NaN or infinity, expected finite values; fetch or "
            "export the model again"
        )
    return values
