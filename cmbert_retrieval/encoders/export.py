"""Export."""

from __future__ import annotations

import json
from pathlib import Path

from cmbert_retrieval.encoders.base import EncoderIdentity
from cmbert_retrieval.encoders.graph import OPSET, quantize_graph, write_graph
from cmbert_retrieval.encoders.onnx import GRAPH_FILES, OnnxManifest
from cmbert_retrieval.encoders.settings import read_settings
from cmbert_retrieval.encoders.weights import weights_sha256


def export_encoder(folder, out, *, quantize="int8", name=None):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(folder), device="cpu", model_kwargs={"attn_implementation": "sdpa", "dtype": "float32"}
    )
    model.save_pretrained(str(out), create_model_card=False)
    (out / "onnx").mkdir()
    write_graph(model, out / "onnx" / "model.onnx")
    files = {"float32": "model.onnx"}
    if quantize:
        quantize_graph(out / "onnx" / "model.onnx", out / "onnx" / "model_int8.onnx")
        files["int8"] = "model_int8.onnx"
    s = read_settings(out)
    ident = EncoderIdentity(
        name or out.name, "", s.dim, s.pooling, s.prompts, s.max_tokens, s.normalized, weights_sha256(out)
    )
    OnnxManifest(ident, OPSET, model.tokenizer.pad_token_id, files).write(out / "onnx" / "cmbert.json")
