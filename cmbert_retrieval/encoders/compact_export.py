"""Writing a compact export: rounded weights, once, and a graph that refers to them. See ``compact``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.encoders.compact import WEIGHTS_FILE, GraphWeight, graph_weights, weights_file
from cmbert_retrieval.encoders.modules import module_paths, read_json
from cmbert_retrieval.encoders.weights import read_header
from cmbert_retrieval.errors import EncoderError

if TYPE_CHECKING:
    import torch
    from onnx import ModelProto
    from sentence_transformers import SentenceTransformer

TABLES = {"modernbert": "embeddings.tok_embeddings.weight"}
"""model_type -> the table of token embeddings, for models that put each row of it through a norm, at once and
by itself, and use it for nothing else: there a row may have any length."""

_LARGEST = 127
_COARSEST = 0.03
"""How far a matrix in floats of 8 bits may be from its values, as a share of their length: three bits of
fraction alone are off by 0.026; where many values are too small for the exponent, it is more."""

_SMALL = 256
"""Values of a constant that is kept as it is."""

_ELSEWHERE = "the-weights-that-cmbert.json-names"
"""What the graph says of where its weights are: no file, so that nothing else opens it with other values."""

_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".ckpt", ".h5")


def check_compact(model: SentenceTransformer, name: str | Path) -> None:
    """Raise ``EncoderError`` for a model whose token embeddings do not go through a norm by themselves."""
    kind = model[0].auto_model.config.model_type
    if kind not in TABLES:
        raise EncoderError(
            f"{name}: has the model_type {kind!r}; a compact export needs one whose token embeddings go "
            f"through a norm by themselves: {', '.join(TABLES)}. Export this one without compact"
        )


def round_weights(model: SentenceTransformer, name: str | Path) -> dict[str, torch.Tensor]:
    """Return a model's weights as a compact folder keeps them.

    The table is in int8. Other matrices are in floats of 8 bits (E4M3), unless these are too coarse for one;
    what is left is in float16.

    Args:
        model: in float32.
        name: how messages call it.

    Raises:
        EncoderError: ``check_compact``; or a weight is not finite, or does not fit in float16.
    """
    check_compact(model, name)
    import torch

    transformer = model[0].auto_model
    kind = transformer.config.model_type
    rounded: dict[str, torch.Tensor] = {}
    for tensor, value in transformer.state_dict().items():
        values = value.detach().cpu()
        largest = float(values.abs().max()) if values.numel() else 0.0
        if not largest <= float(np.finfo(np.float16).max):  # written so that NaN does not pass
            raise EncoderError(
                f"{name}: {tensor} has values up to {largest:,.0f}, expected at most 65,504, which is all "
                "that float16 keeps; export this model without compact"
            )
        if tensor == TABLES[kind]:
            rounded[tensor] = torch.from_numpy(round_rows(values.numpy()))
        else:
            rounded[tensor] = _rounded(values)
    return rounded


def replace_weights(rounded: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Put what ``round_weights`` gave in the place of all weights of the transformer in an encoder's folder.

    Weights of modules behind the pooling come to be in float16.

    What torch loads from it afterwards is another model, if only by a little, with another hash.
    """
    from safetensors.torch import load_file, save_file

    file = weights_file(folder)
    for path in sorted(file.parent.iterdir()):
        if path.is_file() and path.name.endswith(_WEIGHTS):
            path.unlink()
    save_file(dict(rounded), file, metadata={"format": "pt"})
    config = {**read_json(file.parent / "config.json"), "dtype": "float32"}  # or torch would run in float16
    config.pop("torch_dtype", None)
    text = json.dumps(config, indent=2, sort_keys=True)
    (file.parent / "config.json").write_text(text + "\n", encoding="utf-8")
    for kind, module in module_paths(folder):
        if kind == "Dense":
            parts = load_file(module / WEIGHTS_FILE)
            save_file({name: value.half() for name, value in parts.items()}, module / WEIGHTS_FILE)


def round_rows(table: NDArray[np.float32]) -> NDArray[np.int8]:
    """Return a table ``[rows, width]`` in int8, each row stretched until its largest value is 127.

    A table that has been rounded comes back as it is.
    """
    largest = np.abs(table).max(axis=1, keepdims=True, initial=0.0)
    largest[largest == 0] = 1.0
    rows: NDArray[np.int8] = np.rint(table / largest * np.float32(_LARGEST)).astype(np.int8)
    return rows


def _rounded(values: torch.Tensor) -> torch.Tensor:
    import torch

    if not values.is_floating_point():
        return values
    if values.ndim == 2:
        eighth = values.to(torch.float8_e4m3fn)
        # Not a number where a value is too large, which no comparison holds for.
        if (eighth.float() - values).norm() <= _COARSEST * values.norm():
            return eighth
    return values.half()


def store_rows(graph: Path, folder: Path) -> None:
    """Give a float graph the table in int8: a row is looked up, then turned into floats.

    Args:
        graph: changed in place.
        folder: with rounded weights, from which the graph was exported.

    Raises:
        EncoderError: the graph has no such table, or uses it for something else than looking up.
    """
    import onnx

    model = onnx.load(str(graph))
    (table,) = (tensor for tensor in read_header(weights_file(folder)).values() if tensor.dtype == "I8")
    rows = table.read()
    places = [
        place
        for place, initializer in enumerate(model.graph.initializer)
        if list(initializer.dims) == list(rows.shape)
        and np.array_equal(onnx.numpy_helper.to_array(initializer), rows)
    ]
    names = {model.graph.initializer[place].name for place in places}
    users = [node for node in model.graph.node if names.intersection(node.input)]
    if len(places) != 1 or not users or any(node.op_type != "Gather" for node in users):
        raise EncoderError(
            f"the exporter wrote the table of token embeddings {len(places)} times, for "
            f"{', '.join(node.op_type for node in users) or 'nothing'}; expected once, for Gather. Export "
            "this model without compact"
        )
    name = names.pop()
    model.graph.initializer[places[0]].CopyFrom(onnx.numpy_helper.from_array(rows, name))
    for node in users:
        found, node.output[0] = node.output[0], f"{node.output[0]}_stored"
        cast = onnx.helper.make_node(
            "Cast", [node.output[0]], [found], f"{node.name}_cast", to=onnx.TensorProto.FLOAT
        )
        model.graph.node.insert(list(model.graph.node).index(node) + 1, cast)
    onnx.save(model, str(graph))


def detach_weights(float_graph: Path, graph: Path, folder: Path) -> dict[str, GraphWeight]:
    """Take out of a quantised graph what can be computed from the folder's weights.

    Args:
        float_graph: what was quantised.
        graph: changed in place. What is no tensor of the model's file (constants, tables of positions) stays
            in it.
        folder: of the encoder.

    Returns:
        name in the graph -> where it comes from: what ``graph_weights`` makes the same bytes of.

    Raises:
        EncoderError: the graph has other weights in 8 bits than we compute.
    """
    import onnx

    file = weights_file(folder)
    possible = _origins(onnx.load(str(float_graph)), file)
    model = onnx.load(str(graph))
    found = {part.name: possible[part.name] for part in model.graph.initializer if part.name in possible}
    made = graph_weights(file, found)
    for initializer in model.graph.initializer:
        if initializer.name not in found:
            continue
        values, ours = onnx.numpy_helper.to_array(initializer), made[initializer.name]
        if (values.dtype, values.shape, values.tobytes()) != (ours.dtype, ours.shape, ours.tobytes()):
            raise EncoderError(
                f"onnxruntime quantises {found[initializer.name].tensor} otherwise than we do "
                f"({initializer.name} is {values.dtype} of shape {values.shape}, expected {ours.dtype} of "
                f"shape {ours.shape} and our values); install another version of onnxruntime, or export "
                "without compact"
            )
        for part in ("raw_data", "float_data", "int32_data"):
            initializer.ClearField(part)
        initializer.data_location = onnx.TensorProto.EXTERNAL
        initializer.external_data.add(key="location", value=_ELSEWHERE)
    _halve(model)
    onnx.save(model, str(graph))
    return found


def _halve(model: ModelProto) -> None:
    """Keep what stays in a graph in float16 where that is all that it holds: weights behind the pooling."""
    import onnx

    for initializer in model.graph.initializer:
        if initializer.data_type != onnx.TensorProto.FLOAT or initializer.external_data:
            continue
        values = onnx.numpy_helper.to_array(initializer)
        with np.errstate(over="ignore"):  # what does not fit is infinite, and not equal
            halves = values.astype(np.float16)
        if values.size < _SMALL or not np.array_equal(halves.astype(np.float32), values):
            continue
        name = initializer.name
        initializer.CopyFrom(onnx.numpy_helper.from_array(halves, f"{name}_half"))
        cast = onnx.helper.make_node(
            "Cast", [initializer.name], [name], f"{name}_cast", to=onnx.TensorProto.FLOAT
        )
        model.graph.node.insert(0, cast)


def _origins(graph: ModelProto, file: Path) -> dict[str, GraphWeight]:
    """Return what the weights of a float graph are called in it and after it is quantised, with their origin.

    Exporters rename and transpose weights; they are known by their values. Where two tensors are equal,
    either will do.
    """
    import onnx

    values = {name: tensor.read() for name, tensor in read_header(file).items() if tensor.is_weight}
    origins: dict[str, GraphWeight] = {}
    for initializer in graph.graph.initializer:
        if initializer.data_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT8):
            continue
        array, name = onnx.numpy_helper.to_array(initializer), initializer.name
        # The tensor of the same name comes first.
        for tensor in sorted(values, key=lambda tensor: not name.endswith(tensor)):
            stored = values[tensor]
            if array.dtype != stored.dtype:
                continue
            if name not in origins and np.array_equal(array, stored):
                origins[name] = GraphWeight(tensor, "rows" if array.dtype == np.int8 else "float32")
            rows = None if f"{name}_quantized" in origins else _rows_of(array, stored)
            if rows is not None:
                part = None if rows == (0, len(stored)) else rows
                origins[f"{name}_quantized"] = GraphWeight(tensor, "int8", part)
                origins[f"{name}_scale"] = GraphWeight(tensor, "scale", part)
                origins[f"{name}_zero_point"] = GraphWeight(tensor, "zero_point", part)
    return origins


def _rows_of(matrix: NDArray[Any], stored: NDArray[Any]) -> tuple[int, int] | None:
    """Return which rows of ``stored`` are the matrix, transposed: of its parts of that height, the first."""
    if matrix.ndim != 2 or stored.ndim != 2 or matrix.shape[0] != stored.shape[1]:
        return None
    height = matrix.shape[1]
    parts = ((start, start + height) for start in range(0, len(stored) - height + 1, height))
    return next((rows for rows in parts if np.array_equal(matrix, stored[slice(*rows)].T)), None)
