"""Products in 8 bits whose activations have fixed scales, so that texts can share a batch.

A dynamic scale is that of a whole batch: in a batch, a text's vector would depend on the others. A fixed one
is taken from texts that are run once, before; whatever lies beyond it is cut off. Behind norms, as in
ModernBERT, activations reach about as far in every text; channels do not, see ``equalizing``. A few values
reach far beyond all others where a gate multiplies: there it costs less to cut them off than to have steps
as large as they ask for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.encoders.compact import quantize_matrix
from cmbert_retrieval.encoders.modernbert_graph import CONTRIB
from cmbert_retrieval.encoders.onnx import open_session
from cmbert_retrieval.errors import EncoderError

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

_TOP = 255

_CUTS = (1.0, 0.9, 0.8, 0.7, 0.6)
"""Smaller ones help the mean of texts, and harm those of a few tokens."""

_TOKENS = 8
"""Of each text, by which a cut is chosen."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How far an activation that is multiplied by weights reaches in some texts, channel by channel.

    Attributes:
        low: the lowest value of each channel, at most 0.
        high: the highest, at least 0.
        weights: names of what it is multiplied by.
        cut: the share of the reach that has steps, at which the products are off by least.
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    weights: tuple[str, ...]
    cut: float = 1.0


def activation_reach(graph: Path, texts: Iterable[Sequence[int]]) -> dict[str, Reach]:
    """Return how far the activations reach that are multiplied by weights, by their names.

    Args:
        graph: in float32, ``input_ids`` in.
        texts: the token ids of each.

    Raises:
        EncoderError: an activation is not finite.
    """
    import onnx

    model = onnx.load(str(graph))
    matrices = {part.name: onnx.numpy_helper.to_array(part) for part in model.graph.initializer if part.dims}
    users: dict[str, list[str]] = {}
    for node in _products(model.graph):
        users.setdefault(node.input[0], []).append(node.input[1])
    for name in users:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.onnx"
        onnx.save(model, str(told))
        session = open_session(told, {})
    lows = {name: np.zeros(len(matrices[used[0]]), np.float32) for name, used in users.items()}
    highs = {name: low.copy() for name, low in lows.items()}
    seen: dict[str, list[NDArray[np.float32]]] = {name: [] for name in users}
    for ids in texts:
        found = session.run(list(users), {"input_ids": np.array([ids], np.int64)})
        for name, values in zip(users, found, strict=True):
            if not np.isfinite(values).all():
                raise EncoderError(f"the activations {name} are not finite; check the model's weights")
            np.minimum(lows[name], values.min(axis=(0, 1)), out=lows[name])
            np.maximum(highs[name], values.max(axis=(0, 1)), out=highs[name])
            seen[name].append(values[0, :: -(-values.shape[1] // _TOKENS)].copy())
    found = {name: Reach(lows[name], highs[name], tuple(used)) for name, used in users.items()}
    return {
        name: replace(reach, cut=_best_cut(reach, seen[name], [matrices[used] for used in reach.weights]))
        for name, reach in found.items()
    }


def _best_cut(
    reach: Reach, seen: Sequence[NDArray[np.float32]], matrices: Sequence[NDArray[np.float32]]
) -> float:
    """Return the cut at which the products of some tokens are off by least, as a share of their length.

    Tokens with values far beyond all others are few, and what is lost on them does not reach the rest.
    """
    if not seen:
        return 1.0
    values = np.concatenate(seen)
    weights = np.sum([np.square(matrix).sum(axis=1) for matrix in matrices], axis=0)  # of each channel
    lengths = np.maximum(np.square(values) @ weights, np.finfo(np.float32).tiny)

    def error(cut: float) -> float:
        step, zero = _steps(replace(reach, cut=cut))
        taken = np.clip(np.rint(values / step) + zero, 0, _TOP)
        return float((np.square((taken - zero) * step - values) @ weights / lengths).mean())

    return min(_CUTS, key=error)


def fix_scales(source: Path, target: Path, reach: Mapping[str, Reach]) -> None:
    """Write a float graph with its products in 8 bits, for any number of texts of equal length.

    Weights have 7 of 8 bits and a scale an output, as ``quantize_matrix`` makes them.

    Args:
        source: the float graph.
        target: the file to write.
        reach: of its activations.
    """
    import onnx
    from onnx.numpy_helper import from_array, to_array

    model = onnx.load(str(source))
    graph = model.graph
    weights = {part.name: part for part in graph.initializer}
    products = {node.output[0]: node for node in _products(graph)}
    nodes: list[NodeProto] = []
    rounded: set[str] = set()
    for node in graph.node:
        if node.output[0] not in products:
            nodes.append(node)
            continue
        side, matrix = node.input
        scale, zero, steps = f"{side}_scale", f"{side}_zero_point", f"{side}_quantized"
        if side not in rounded:
            rounded.add(side)
            step, offset = _steps(reach[side])
            graph.initializer.extend([from_array(step, scale), from_array(offset, zero)])
            nodes.append(
                onnx.helper.make_node("QuantizeLinear", [side, scale, zero], [steps], f"{side}_rounded")
            )
        made, scales, _ = quantize_matrix(to_array(weights[matrix]).T)
        graph.initializer.remove(weights[matrix])
        graph.initializer.extend(
            [from_array(made, f"{matrix}_quantized"), from_array(scales, f"{matrix}_scale")]
        )
        inputs = [steps, f"{matrix}_quantized", scale, f"{matrix}_scale", zero]
        nodes.append(
            onnx.helper.make_node("MatMulIntegerToFloat", inputs, [node.output[0]], node.name, domain=CONTRIB)
        )
    del graph.node[:]
    graph.node.extend(nodes)
    for part in (*graph.input, *graph.output):
        part.type.tensor_type.shape.dim[0].dim_param = "texts"
    onnx.save(model, str(target))


def _products(graph: GraphProto) -> list[NodeProto]:
    weights = {part.name for part in graph.initializer}
    return [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]


def _steps(reach: Reach) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return the size of a step and the step that 0 is, as arrays without dimensions."""
    low = float(reach.low.min()) * reach.cut
    step = np.float32((float(reach.high.max()) * reach.cut - low) / _TOP) or np.float32(1.0)
    return np.array(step, np.float32), np.array(np.clip(np.rint(-low / step), 0, _TOP), np.uint8)
