from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from checkpoints import read_safetensors, write_safetensors
from tiny_models import build
from typer import Typer
from typer.testing import CliRunner

from cmbert_retrieval.cli.export import export
from cmbert_retrieval.encoders import load_encoder
from cmbert_retrieval.encoders.compact import graph_weights
from cmbert_retrieval.encoders.manifest import OnnxManifest
from cmbert_retrieval.encoders.weights import read_header, weights_sha256
from cmbert_retrieval.errors import ConfigError, EncoderError

pytest.importorskip("torch", reason="the extra 'train' is not installed")
pytestmark = pytest.mark.slow

TEXTS = ["", "fever", "kidney disease after surgery", "The patient was treated for a heart attack. " * 30]
VARIED = [*TEXTS, *(f"{days} days of fever, then a cough" + " and pain" * (days % 9) for days in range(100))]
SAFETENSORS = "model.safetensors"


@pytest.fixture(scope="module")
def compact(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path) -> Path:
    from cmbert_retrieval.encoders.export import export_encoder

    out = tmp_path_factory.mktemp("compact") / "out"
    report = export_encoder(tiny_encoder_path, out, compact=True, texts=VARIED)
    assert (report.dtype, report.weights_bytes) == ("int8", (out / SAFETENSORS).stat().st_size)
    assert report.graph_bytes < 30_000
    assert report.float_distance < 1e-5
    assert 0.99 < report.agreement.min_cosine < 0.999999
    return out


@pytest.fixture(scope="module")
def quantized(compact: Path) -> Path:
    """The usual int8 export of the same weights."""
    from cmbert_retrieval.encoders.export import export_encoder

    export_encoder(compact, compact.parent / "quantized", texts=VARIED)
    return compact.parent / "quantized"


def test_plain_sentence_transformers_opens_it_and_agrees_with_the_graph(compact: Path) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(compact), device="cpu")
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    onnx = load_encoder(compact)
    texts = [text[:200] for text in TEXTS[1:]]
    cosines = (model.encode(texts) * onnx.encode_document(texts)).sum(axis=1)
    assert 0.98 < cosines.min()
    stored = read_header(compact / SAFETENSORS)
    for name, value in model[0].auto_model.state_dict().items():
        assert np.array_equal(value.numpy(), stored[name].read().astype(np.float32))
    assert {tensor.dtype for tensor in stored.values()} == {"I8", "F8_E4M3", "F16"}


def test_floats_of_8_bits_are_read_as_torch_reads_them(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    save_file({"every": every}, tmp_path / SAFETENSORS)
    values = read_header(tmp_path / SAFETENSORS)["every"].read()
    assert np.array_equal(values, every.float().numpy(), equal_nan=True)


def test_a_matrix_of_values_too_small_for_8_bits_is_kept_in_16(tiny_encoder_path: Path) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    from cmbert_retrieval.encoders.compact_export import round_weights

    model = SentenceTransformer(str(tiny_encoder_path), device="cpu")
    matrices = [layer.mlp.Wi.weight for layer in model[0].auto_model.layers[:2]]
    matrices[0].data *= 1e-3
    rounded = round_weights(model, "tiny")
    kept = [rounded[f"layers.{number}.mlp.Wi.weight"] for number in range(2)]
    assert [values.dtype for values in kept] == [torch.float16, torch.float8_e4m3fn]
    for values, matrix in zip(kept, matrices, strict=True):
        assert (values.float() - matrix).norm() < 0.03 * matrix.norm()


def test_both_backends_have_one_identity(compact: Path, tiny_encoder_path: Path) -> None:
    torch = load_encoder(compact, backend="sentence_transformers", device="cpu", dtype="float32")
    onnx = load_encoder(compact, backend="onnx")
    assert onnx.identity.weights_sha256 == torch.identity.weights_sha256 == weights_sha256(compact)
    assert onnx.identity.weights_sha256 != weights_sha256(tiny_encoder_path)
    assert onnx.identity.name == "tiny-encoder"


def test_rounding_the_rows_hardly_moves_the_vectors(compact: Path, tiny_encoder_path: Path) -> None:
    before, after = (
        load_encoder(path, backend="sentence_transformers", device="cpu", dtype="float32")
        for path in (tiny_encoder_path, compact)
    )
    cosines = (before.encode_document(TEXTS) * after.encode_document(TEXTS)).sum(axis=1)
    assert cosines.min() > 0.999


def test_the_weights_in_8_bits_are_those_of_the_usual_export_bit_by_bit(
    compact: Path, quantized: Path
) -> None:
    import onnx

    weights = OnnxManifest.read(compact / "onnx" / "cmbert.json").weights
    made = graph_weights(compact / SAFETENSORS, weights)
    graph = onnx.load(str(quantized / "onnx" / "model_int8.onnx"))
    theirs = {part.name: onnx.numpy_helper.to_array(part) for part in graph.graph.initializer}
    compared: Counter[str] = Counter()
    for name, weight in weights.items():
        if weight.form == "rows":  # the usual export has the table in floats
            continue
        assert made[name].dtype == theirs[name].dtype
        assert np.array_equal(made[name], theirs[name])
        compared[weight.form] += 1
    assert compared["int8"] == compared["scale"] == 14  # in each layer 3 + 1 of attention, 2 + 1 behind it
    assert compared["float32"] >= 1


def test_a_modernbert_with_biases_is_compact_with_the_weights_of_quantize_dynamic(
    tmp_path: Path, tiny_encoder_path: Path
) -> None:
    from cmbert_retrieval.encoders.export import export_encoder

    folder = build(tmp_path / "model", tiny_encoder_path, "modernbert", biases=True)
    report = export_encoder(folder, tmp_path / "out", compact=True)  # compares them, bit by bit
    weights = OnnxManifest.read(tmp_path / "out" / "onnx" / "cmbert.json").weights
    forms = Counter(weight.form for weight in weights.values())
    assert forms["int8"] == forms["scale"] == forms["zero_point"] == 12  # four in each layer
    assert report.agreement.min_cosine > 0.98


def test_it_is_run_by_the_same_operators_as_the_usual_int8_export(
    tmp_path: Path, compact: Path, quantized: Path
) -> None:
    import onnx
    import onnxruntime

    operators = []
    for folder in (compact, quantized):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.log_severity_level = 4
        manifest = OnnxManifest.read(folder / "onnx" / "cmbert.json")
        made = graph_weights(folder / SAFETENSORS, manifest.weights)
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in made.values()]
        if made:
            options.add_external_initializers(list(made), values)
        graph = str(folder / "onnx" / "model_int8.onnx")
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(str(tmp_path / "optimized.onnx")).graph.node
        operators.append(Counter(node.op_type for node in nodes))
    assert operators[0]["MatMulIntegerToFloat"] == 14
    assert operators[0] - operators[1] == {"Cast": 1}  # of the rows that were looked up
    assert operators[1] - operators[0] == {}


def test_exporting_it_again_gives_the_same_weights_and_vectors(tmp_path: Path, compact: Path) -> None:
    from cmbert_retrieval.encoders.export import export_encoder

    report = export_encoder(compact, tmp_path / "again", compact=True, texts=VARIED)
    assert report.identity == load_encoder(compact).identity
    names = [path.relative_to(compact) for path in sorted(compact.rglob("*")) if path.is_file()]
    assert names == [
        path.relative_to(tmp_path / "again")
        for path in sorted((tmp_path / "again").rglob("*"))
        if path.is_file()
    ]
    for name in names:
        if name.suffix != ".onnx":  # the exporter names and orders nodes otherwise from process to process
            assert (tmp_path / "again" / name).read_bytes() == (compact / name).read_bytes(), name
    again = load_encoder(tmp_path / "again").encode_document(TEXTS)
    assert np.array_equal(again, load_encoder(compact).encode_document(TEXTS))


def test_the_usual_export_takes_its_place(tmp_path: Path, compact: Path) -> None:
    from cmbert_retrieval.encoders.export import export_encoder

    folder = Path(shutil.copytree(compact, tmp_path / "own"))
    export_encoder(folder)
    assert not OnnxManifest.read(folder / "onnx" / "cmbert.json").weights
    assert json.loads((folder / "onnx" / "cmbert.json").read_text())["format"] == 1
    assert load_encoder(folder).identity == load_encoder(compact).identity
    usual, shared = (load_encoder(path).encode_query(TEXTS) for path in (folder, compact))
    assert (usual * shared).sum(axis=1).min() > 0.98


def test_a_head_and_weights_in_other_files_are_left_out(tmp_path: Path, tiny_encoder_path: Path) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    from cmbert_retrieval.encoders.export import export_encoder

    folder = build(tmp_path / "headed", tiny_encoder_path, "modernbert", head=True)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "torch_dtype": "float16"}))
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    modules += [{"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    shutil.copytree(tiny_encoder_path / "1_Pooling", folder / "1_Pooling")
    (folder / "pytorch_model.bin").write_bytes(b"other weights")
    export_encoder(folder, tmp_path / "out", compact=True)
    assert not (tmp_path / "out" / "pytorch_model.bin").exists()
    stored = read_safetensors(tmp_path / "out" / SAFETENSORS)
    assert stored["embeddings.tok_embeddings.weight"].dtype == np.int8
    assert not [name for name in stored if name.startswith(("model.", "head.", "decoder."))]
    assert load_encoder(tmp_path / "out").identity.weights_sha256 == weights_sha256(tmp_path / "out")
    plain = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert next(plain.parameters()).dtype == torch.float32  # whatever the configuration said before


def test_what_cannot_be_compact_is_refused_and_leaves_nothing(
    tmp_path: Path, tiny_encoder_path: Path
) -> None:
    from cmbert_retrieval.encoders.export import export_encoder

    bert = build(tmp_path / "bert", tiny_encoder_path, "bert")
    with pytest.raises(EncoderError, match=r"model_type 'bert'; a compact export needs .*: modernbert"):
        export_encoder(bert, tmp_path / "out", compact=True)
    with pytest.raises(ConfigError, match="in float32; expected quantize 'int8'"):
        export_encoder(tiny_encoder_path, tmp_path / "out", compact=True, quantize=None)
    with pytest.raises(ConfigError, match="itself; expected a folder to make: --out DIR"):
        export_encoder(tiny_encoder_path, compact=True)
    large = Path(shutil.copytree(tiny_encoder_path, tmp_path / "large"))
    shutil.rmtree(large / "onnx")
    weights = read_safetensors(large / SAFETENSORS)
    weights["layers.1.mlp.Wi.weight"][0, 0] = 1e6
    write_safetensors(large / SAFETENSORS, weights)
    with pytest.raises(EncoderError, match=r"layers\.1\.mlp\.Wi\.weight has values up to 1,000,000"):
        export_encoder(large, tmp_path / "out", compact=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bert", "large"]


def test_the_command_says_what_both_share(tmp_path: Path, tiny_encoder_path: Path) -> None:
    app = Typer()
    app.command()(export)
    arguments = [str(tiny_encoder_path), "--compact", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "tiny-encoder, int8, 0.1 MB with the weights, which torch uses too" in done.output
    assert "agreement with float32 on 8 texts: cosine mean " in done.output
