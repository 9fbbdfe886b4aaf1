from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_models import build
from typer import Typer
from typer.testing import CliRunner

from cmbert_retrieval.cli.export import export
from cmbert_retrieval.encoders import load_encoder
from cmbert_retrieval.errors import ConfigError, EncoderError

pytest.importorskip("torch", reason="the extra 'train' is not installed")
pytestmark = pytest.mark.slow

TEXTS = [
    "a",
    "fever",
    "kidney disease after surgery",
    "The patient was treated for a heart attack. " * 30,
    "b c",
]


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_a_float_graph_equals_torch_at_any_batch_and_length(
    tmp_path: Path, tiny_encoder_path: Path, kind: str
) -> None:
    from cmbert_retrieval.encoders.export import export_encoder

    folder = build(tmp_path / kind, tiny_encoder_path, kind)
    report = export_encoder(folder, tmp_path / "out", quantize=None)
    assert report.float_distance < 1e-5
    torch = load_encoder(folder, backend="sentence_transformers", device="cpu", dtype="float32")
    onnx = load_encoder(tmp_path / "out", backend="onnx")
    assert torch.identity.weights_sha256 == onnx.identity.weights_sha256
    lengths = torch.count_tokens(TEXTS)
    assert min(lengths) == 1 and max(lengths) > 300  # 3 and over 300 with the special tokens
    for texts in (TEXTS, TEXTS[:1], TEXTS[3:4]):
        cosines = (torch.encode_document(texts) * onnx.encode_document(texts)).sum(axis=1)
        assert cosines.min() > 1 - 1e-4


def test_an_int8_export_is_smaller_and_opens_by_itself_as_the_same_weights(
    tmp_path: Path, tiny_encoder_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    from cmbert_retrieval.encoders.export import export_encoder

    report = export_encoder(tiny_encoder_path, tmp_path / "int8", texts=TEXTS)
    assert report.dtype == "int8"
    assert report.agreement.texts == 8 + len(TEXTS)
    assert 0.9 < report.agreement.min_cosine < 0.99999
    assert report.graph_bytes < (tiny_encoder_path / "onnx" / "model.onnx").stat().st_size
    encoder = load_encoder(tmp_path / "int8")
    assert encoder.identity.weights_sha256 == load_encoder(tiny_encoder_path).identity.weights_sha256
    assert SentenceTransformer(str(tmp_path / "int8"), device="cpu").encode(TEXTS).shape == (5, 32)
    assert sorted(path.name for path in (tmp_path / "int8" / "onnx").iterdir()) == [
        "cmbert.json",
        "model_int8.onnx",
    ]


def test_an_export_into_the_folder_itself_replaces_the_earlier_one(
    tmp_path: Path, tiny_encoder_path: Path
) -> None:
    from cmbert_retrieval.encoders.export import export_encoder

    load_encoder(tiny_encoder_path).save_pretrained(str(tmp_path / "own"))
    before = {path.name for path in (tmp_path / "own").iterdir()}
    export_encoder(tmp_path / "own")
    assert {path.name for path in (tmp_path / "own").iterdir()} == before
    assert [path.name for path in (tmp_path / "own" / "onnx").glob("*.onnx")] == ["model_int8.onnx"]


def test_a_plain_checkpoint_needs_a_folder_to_be_written_to(tmp_path: Path, tiny_encoder_path: Path) -> None:
    from cmbert_retrieval.encoders.export import export_encoder

    with pytest.raises(EncoderError, match="--out DIR"):
        export_encoder(build(tmp_path / "plain", tiny_encoder_path, "bert"))


def test_a_folder_that_is_taken_is_left_alone_and_a_failure_leaves_nothing(
    tmp_path: Path, tiny_encoder_path: Path
) -> None:
    from cmbert_retrieval.encoders.export import export_encoder

    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    with pytest.raises(EncoderError, match="is there already"):
        export_encoder(tiny_encoder_path, tmp_path / "taken")
    broken = tmp_path / "broken"
    load_encoder(tiny_encoder_path).save_pretrained(str(broken))
    (broken / "tokenizer.json").write_text("{}")
    with pytest.raises(EncoderError):
        export_encoder(broken, tmp_path / "out")
    with pytest.raises(ConfigError, match="quantize is 'int3'"):
        export_encoder(tiny_encoder_path, tmp_path / "out", quantize="int3")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "taken"]
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["thesis.txt"]


def test_the_command_prints_the_agreement_and_json_on_demand(tmp_path: Path, tiny_encoder_path: Path) -> None:
    app = Typer()
    app.command()(export)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS) + "\n\n")
    arguments = [str(tiny_encoder_path), "--texts", str(texts)]
    plain = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "one"), "--quantize", "none"])
    assert plain.exit_code == 0, plain.output
    assert "agreement with float32 on 13 texts: cosine mean 1.0000, min 1.0000" in plain.output
    structured = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "two"), "--json"])
    report = json.loads(structured.stdout)
    assert report["agreement"]["texts"] == 13
    assert np.isclose(report["identity"]["dim"], 32)
