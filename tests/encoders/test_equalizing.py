from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from tiny_models import build

from cmbert_retrieval.encoders.fixed_scales import activation_reach
from cmbert_retrieval.encoders.sentence_transformers import SentenceTransformersEncoder

pytest.importorskip("torch", reason="the extra 'train' is not installed")
pytestmark = pytest.mark.slow

TEXTS = ["fever", "kidney disease after surgery", "The patient was treated for a heart attack. " * 4]


@pytest.fixture
def encoder(tmp_path: Path, tiny_encoder_path: Path) -> SentenceTransformersEncoder:
    """Three layers, each with a channel of every activation that reaches a hundred times as far."""
    import torch

    folder = build(tmp_path / "model", tiny_encoder_path, "modernbert")
    options = {"device": "cpu", "dtype": "float32", "attention": "eager"}
    opened = SentenceTransformersEncoder(folder, **options)
    with torch.no_grad():
        for layer in opened.model[0].auto_model.layers:
            layer.mlp_norm.weight[3] *= 100
            layer.attn.Wqkv.weight.chunk(3)[2][5] *= 100
            layer.mlp.Wi.weight.chunk(2)[1][7] *= 100
            if hasattr(layer.attn_norm, "weight"):
                layer.attn_norm.weight[2] *= 100
    return opened


def reaches(encoder: SentenceTransformersEncoder, path: Path) -> dict[str, tuple[float, float]]:
    """Return the furthest reach of a channel by its activation's first weights, and the median of all."""
    from cmbert_retrieval.encoders.graph import write_graph

    write_graph(encoder.model, path, dim=encoder.identity.dim, pooling=encoder.identity.pooling)
    rows = encoder.model.tokenizer(TEXTS)["input_ids"]
    found = {}
    for reach in activation_reach(path, rows).values():
        far = np.maximum(-reach.low, reach.high)
        found[reach.weights[0]] = (float(far.max()), float(np.median(far)))
    return found


def test_the_vectors_stay_and_no_channel_reaches_far_beyond_the_others(
    tmp_path: Path, encoder: SentenceTransformersEncoder
) -> None:
    from cmbert_retrieval.encoders.equalizing import even_out

    expected = encoder.encode_document(TEXTS)
    before = reaches(encoder, tmp_path / "before.onnx")
    rows = encoder.model.tokenizer(TEXTS)["input_ids"]
    even_out(encoder.model, activation_reach(tmp_path / "before.onnx", rows).values())
    assert np.abs(encoder.encode_document(TEXTS) - expected).max() < 1e-5
    after = reaches(encoder, tmp_path / "after.onnx")
    assert before.keys() == after.keys() and len(after) == 12
    for name, (furthest, middle) in after.items():
        if name == "layers.0.attn.Wqkv.weight.0":
            assert (furthest, middle) == pytest.approx(before[name])
        else:
            assert furthest / middle < 0.2 * before[name][0] / before[name][1], name


def test_weights_change_by_powers_of_two_and_once_only(
    tmp_path: Path, encoder: SentenceTransformersEncoder
) -> None:
    import torch

    from cmbert_retrieval.encoders.equalizing import even_out

    states = [copy.deepcopy(encoder.model[0].auto_model.state_dict())]
    rows = encoder.model.tokenizer(TEXTS)["input_ids"]
    for time in range(2):
        graph = tmp_path / f"{time}.onnx"
        reaches(encoder, graph)
        even_out(encoder.model, activation_reach(graph, rows).values())
        states.append(copy.deepcopy(encoder.model[0].auto_model.state_dict()))
    for name, first in states[0].items():
        powers = torch.log2(states[1][name] / first)[first != 0]
        assert torch.equal(powers, powers.round()), name
        assert torch.equal(states[1][name], states[2][name]), name
    assert not torch.equal(states[0]["layers.1.mlp.Wo.weight"], states[1]["layers.1.mlp.Wo.weight"])
