"""A ModernBERT with a matrix behind its pooling: its graph is ours, and exact in a batch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_models import build

from cmbert_retrieval.encoders import load_encoder
from cmbert_retrieval.encoders.weights import read_header, weights_sha256

pytest.importorskip("torch", reason="the extra 'train' is not installed")
pytestmark = pytest.mark.slow

TEXTS = ["fever", "kidney disease after surgery", "The patient was treated for a heart attack. " * 5]
VARIED = [*TEXTS, *(f"{days} days of fever, then a cough" + " and pain" * (days % 9) for days in range(100))]


def with_matrix(folder: Path, tokenizer: Path, *, outputs: int = 32, **settings: object) -> Path:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    torch.manual_seed(3)
    given = {"bias": False, "activation_function": torch.nn.Identity(), **settings}
    transformer = Transformer(str(build(folder / "plain", tokenizer, "modernbert")))
    modules = [transformer, Pooling(32, "mean"), Dense(32, outputs, **given), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"))
    return folder / "model"


@pytest.mark.parametrize("outputs", [32, 12])
def test_the_float_graph_equals_torch(tmp_path: Path, tiny_encoder_path: Path, outputs: int) -> None:
    from cmbert_retrieval.encoders.export import export_encoder

    folder = with_matrix(tmp_path, tiny_encoder_path, outputs=outputs)
    report = export_encoder(folder, tmp_path / "out", quantize=None)
    assert report.float_distance < 1e-5
    assert operators(tmp_path / "out/onnx/model.onnx") > {"RotaryEmbedding", "MultiHeadAttention"}
    assert load_encoder(tmp_path / "out").encode_document(TEXTS).shape == (3, outputs)


def test_a_matrix_with_a_curve_behind_it_is_exported_by_torch(
    tmp_path: Path, tiny_encoder_path: Path
) -> None:
    import torch

    from cmbert_retrieval.encoders.export import export_encoder

    folder = with_matrix(tmp_path, tiny_encoder_path, activation_function=torch.nn.Tanh())
    assert export_encoder(folder, tmp_path / "out", quantize=None).float_distance < 1e-5
    assert "RotaryEmbedding" not in operators(tmp_path / "out/onnx/model.onnx")


@pytest.mark.parametrize("texts", [(), VARIED], ids=["scales as they come", "fixed scales"])
def test_int8_leaves_the_matrix_in_floats(tmp_path: Path, tiny_encoder_path: Path, texts: list[str]) -> None:
    import onnx

    from cmbert_retrieval.encoders.export import export_encoder

    folder = with_matrix(tmp_path, tiny_encoder_path)
    report = export_encoder(folder, tmp_path / "out", texts=texts)
    assert report.agreement.min_cosine > 0.98
    graph = onnx.load(str(tmp_path / "out/onnx/model_int8.onnx")).graph
    assert [node.op_type for node in graph.node].count("MatMul") == 2  # the mean, and the matrix


def test_a_compact_folder_has_the_matrix_in_16_bits_and_opens_both_ways(
    tmp_path: Path, tiny_encoder_path: Path
) -> None:
    import onnx
    from sentence_transformers import SentenceTransformer

    from cmbert_retrieval.encoders.export import export_encoder

    folder = with_matrix(tmp_path, tiny_encoder_path)
    export_encoder(folder, tmp_path / "out", compact=True, texts=VARIED)
    assert json.loads((tmp_path / "out/modules.json").read_text())[2]["path"] == "2_Dense"
    stored = read_header(tmp_path / "out/2_Dense/model.safetensors")
    assert [tensor.dtype for tensor in stored.values()] == ["F16"]
    graph = onnx.load(str(tmp_path / "out/onnx/model_int8.onnx"), load_external_data=False).graph
    kinds = [part.data_type for part in graph.initializer if list(part.dims) == [32, 32]]
    assert onnx.TensorProto.FLOAT16 in kinds
    assert "Cast" in {node.op_type for node in graph.node}
    encoder, plain = load_encoder(tmp_path / "out"), SentenceTransformer(str(tmp_path / "out"), device="cpu")
    vectors = encoder.encode_document(VARIED)
    assert (vectors * plain.encode(VARIED)).sum(axis=1).min() > 0.98
    before = load_encoder(folder, backend="sentence_transformers").encode_document(VARIED)
    assert (vectors * before).sum(axis=1).min() > 0.97
    alone = np.concatenate([encoder.encode_document([text]) for text in VARIED])
    assert alone.tobytes() == vectors.tobytes()
    assert encoder.identity.weights_sha256 == weights_sha256(tmp_path / "out")


def operators(graph: Path) -> set[str]:
    import onnx

    return {node.op_type for node in onnx.load(str(graph), load_external_data=False).graph.node}
