"""A torch model to an onnx graph, and to a quantised one."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cmbert_retrieval.encoders.modernbert_graph import is_plain_modernbert, modernbert_graph
from cmbert_retrieval.errors import EncoderError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

OPSET = 20
"""The first with Gelu as one operator, which onnxruntime runs as one kernel."""


def write_graph(model: SentenceTransformer, path: Path, *, dim: int, pooling: str) -> None:
    """Export a sentence-transformers model as one graph: ids and mask in, ``embeddings [batch, dim]`` out.

    All its modules go into the graph, the pooling too, so that only the vectors leave it. Batch and sequence
    are free; a ModernBERT takes one text at a time and no mask.

    Args:
        model: in float32 on the CPU, with ``eager`` attention: torch's own ``sdpa`` becomes a graph that
            tests each attention weight for NaN, a tenth of the time of long texts.
        path: the file to write.
        dim: length of the vectors; longer ones are cut (Matryoshka models).
        pooling: as the encoder's identity has it.

    Raises:
        EncoderError: torch cannot export it.
    """
    import onnx
    import torch

    if is_plain_modernbert(model, dim=dim, pooling=pooling):
        onnx.save(modernbert_graph(model, pooling=pooling, opset=OPSET), str(path))
        return

    class Graph(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.stages = torch.nn.ModuleList(list(model))

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            features = {"input_ids": input_ids, "attention_mask": attention_mask}
            for stage in self.stages:
                features = stage(features)
            return features["sentence_embedding"][:, :dim]

    # Lengths differ from each other and from every size in the model, or the exporter would take one for a
    # constant.
    mask = torch.ones(3, 17, dtype=torch.int64)
    mask[0, 5:] = 0
    ids = torch.ones(3, 17, dtype=torch.int64)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                Graph().eval(),
                (ids, mask),
                dynamo=True,
                dynamic_shapes=(free, free),
                input_names=["input_ids", "attention_mask"],
                output_names=["embeddings"],
                opset_version=OPSET,
                verbose=False,
            )
            program.save(str(path), external_data=False)
        _strip(path)
    except Exception as error:  # the exporter wraps whatever a model's code raises
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EncoderError(
            f"torch cannot export this model to onnx ({first}); use backend 'sentence_transformers'"
        ) from error


def quantize_graph(source: Path, target: Path) -> None:
    """Write ``source`` with 8-bit weights; activations are quantised as they come.

    One scale a channel: with one a matrix, cosines to float32 fall below 0.8 for MiniLM. The weights use 7 of
    their 8 bits, since processors without VNNI add pairs of products in 16 bits, where 8 times 8 bits
    saturate.
    """
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    settings = {"per_channel": True, "reduce_range": True, "weight_type": QuantType.QInt8}
    with _quiet():
        # onnx infers no types behind onnxruntime's own operators; all that is multiplied here is in floats.
        quantize_dynamic(source, target, extra_options={"DefaultTensorType": TensorProto.FLOAT}, **settings)


def _strip(path: Path) -> None:
    """Take the exporter's notes out of a graph: for each node a stack trace with this machine's paths."""
    import onnx

    graph = onnx.load(str(path))
    graph.doc_string = ""
    del graph.metadata_props[:]
    graph.graph.doc_string = ""
    del graph.graph.metadata_props[:]
    del graph.graph.value_info[:]
    for part in (*graph.graph.node, *graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    onnx.save(graph, str(path))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's prints, warnings and hints about absent packages off the user's terminal."""
    root = logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir"))]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
