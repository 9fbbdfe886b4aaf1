from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import read_safetensors, write_safetensors
from hub_cache import cached, listing
from numpy.typing import NDArray

from cmbert_retrieval.encoders import load_encoder
from cmbert_retrieval.encoders.compact import GraphWeight, graph_weights, quantize_matrix
from cmbert_retrieval.encoders.weights import weights_sha256
from cmbert_retrieval.errors import EncoderError

TEXTS = ["heart attack", "", "Type 2 diabetes mellitus with kidney disease", "Fever and cough. " * 8]


@pytest.fixture
def copy(tmp_path: Path, tiny_compact_path: Path) -> Path:
    return Path(shutil.copytree(tiny_compact_path, tmp_path / "copy"))


def change(folder: Path, **values: Any) -> None:
    manifest = folder / "onnx" / "cmbert.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **values}))


def test_it_makes_about_the_vectors_of_what_was_exported(
    tiny_compact_path: Path, tiny_encoder_path: Path
) -> None:
    compact, exported = load_encoder(tiny_compact_path), load_encoder(tiny_encoder_path)
    cosines = (compact.encode_document(TEXTS) * exported.encode_document(TEXTS)).sum(axis=1)
    assert 0.98 < cosines.min() < 0.999999


def test_its_identity_is_that_of_the_rounded_weights(
    tiny_compact_path: Path, tiny_encoder_path: Path
) -> None:
    own = load_encoder(tiny_compact_path).identity
    assert own.weights_sha256 == weights_sha256(tiny_compact_path)
    assert own.weights_sha256 != load_encoder(tiny_encoder_path).identity.weights_sha256


def test_the_weights_and_the_tokenizer_lie_there_once(
    tiny_compact_path: Path, tiny_encoder_path: Path
) -> None:
    files = [path for path in tiny_compact_path.rglob("*") if path.is_file()]
    assert sum(path.name == "tokenizer.json" for path in files) == 1
    sizes = {path.name: path.stat().st_size for path in files}
    values = read_safetensors(tiny_compact_path / "model.safetensors").values()
    assert sizes["model.safetensors"] - sum(array.nbytes for array in values) < 4_000
    assert sizes["model_int8.onnx"] < 30_000
    assert sizes["model.safetensors"] < (tiny_encoder_path / "model.safetensors").stat().st_size / 2


def test_a_saved_copy_is_the_same_encoder(tmp_path: Path, tiny_compact_path: Path) -> None:
    encoder = load_encoder(tiny_compact_path)
    encoder.save_pretrained(str(tmp_path / "saved"))
    again = load_encoder(tmp_path / "saved")
    assert again.identity == encoder.identity
    assert again.encode_document(TEXTS).tobytes() == encoder.encode_document(TEXTS).tobytes()


def test_opening_writes_nothing_into_the_folder(copy: Path) -> None:
    before = listing(copy)
    load_encoder(copy).encode_query(TEXTS)
    assert listing(copy) == before


def test_many_threads_open_and_run_it_at_the_same_time(tiny_compact_path: Path) -> None:
    def vectors(_: int) -> bytes:
        return load_encoder(tiny_compact_path, threads=1).encode_document(TEXTS).tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(vectors, range(12)))) == 1


def test_it_opens_from_where_the_hub_keeps_its_files_and_not_without_its_weights(
    tmp_path: Path, tiny_compact_path: Path
) -> None:
    where: dict[str, Any] = {"cache_folder": tmp_path, "local_files_only": True}
    snapshot = cached(tmp_path, "someone/compact", tiny_compact_path)
    vectors = load_encoder("someone/compact", **where).encode_query(TEXTS)
    assert np.array_equal(vectors, load_encoder(tiny_compact_path).encode_query(TEXTS))
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match="holds only a part of it"):
        load_encoder("someone/compact", **where)


# --- the rule of 8 bits ---


def by_hand(row: list[float]) -> tuple[list[int], float]:
    """Return a row in 64 steps up to its largest value, and the size of a step."""
    step = max(abs(value) for value in row) / 64
    step = step if step >= 2.0**-126 else 1.0
    return [round(float(np.float32(value) / np.float32(step))) for value in row], step


def test_a_matrix_is_quantised_as_by_hand() -> None:
    generator = np.random.default_rng(3)
    matrix = generator.normal(size=(6, 40)).astype(np.float16).astype(np.float32)
    matrix[1] *= 1e-4
    matrix[2] = 0
    matrix[3] = 1e-38 * generator.integers(-9, 9, 40)
    matrix[4, 7] = 60_000
    matrix[5] = np.arange(-20, 20) / 2  # halves of steps are rounded to even
    matrix[5, 0] = 64
    weights, scales, zero_points = quantize_matrix(matrix)
    assert weights.shape == (40, 6) and weights.flags.c_contiguous
    assert (weights.dtype, scales.dtype, zero_points.dtype) == (np.int8, np.float32, np.int8)
    for output, row in enumerate(matrix.tolist()):
        steps, step = by_hand(row)
        assert weights[:, output].tolist() == steps
        assert scales[output] == np.float32(step)
    assert zero_points.tolist() == [0] * 6


# --- what cannot be opened ---

Damage = Callable[[dict[str, NDArray[Any]]], Any]


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-1000]),
        lambda file: file.write_bytes(file.read_bytes()[:20_000] + b"\7" + file.read_bytes()[20_001:]),
        lambda file: file.write_bytes(b""),
    ],
    ids=["truncated", "a byte changed", "empty"],
)
def test_a_changed_weights_file_is_refused(copy: Path, damage: Callable[[Path], Any]) -> None:
    damage(copy / "model.safetensors")
    with pytest.raises(EncoderError, match=r"model\.safetensors: has changed since the export"):
        load_encoder(copy)


def test_an_absent_weights_file_is_named(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"model\.safetensors: absent, and the graph in onnx/ has its"):
        load_encoder(copy)


QKV = "layers.0.attn.Wqkv.weight"
TABLE = "embeddings.tok_embeddings.weight"
NORM = "embeddings.norm.weight"


def set_nan(tensors: dict[str, NDArray[Any]], name: str) -> None:
    tensors[name].flat[0] = np.nan


UNUSABLE: dict[str, tuple[Damage, str]] = {
    "a tensor is missing": (lambda tensors: tensors.pop(QKV), f"no tensor '{QKV}'"),
    "NaN in a matrix": (lambda tensors: set_nan(tensors, QKV), f"'{QKV}' holds NaN or infinity"),
    "NaN in a norm": (lambda tensors: set_nan(tensors, NORM), f"'{NORM}' holds NaN or infinity"),
    "a matrix in one dimension": (
        lambda tensors: tensors.update({QKV: tensors[QKV].ravel()}),
        r"is F16 of shape \(3072,\), .* needs floats in two dimensions",
    ),
    "a matrix of integers": (
        lambda tensors: tensors.update({QKV: tensors[QKV].astype(np.int64)}),
        "is I64 of shape .* needs floats in two dimensions",
    ),
    "a table of floats": (
        lambda tensors: tensors.update({TABLE: tensors[TABLE].astype(np.float32)}),
        r"is F32 of shape \(420, 32\), .* needs I8 in two dimensions",
    ),
    "a norm in int8": (
        lambda tensors: tensors.update({NORM: np.ones(32, np.int8)}),
        "is I8 of shape .* needs floats",
    ),
    "a shorter table": (
        lambda tensors: tensors.update({TABLE: tensors[TABLE][:100]}),
        "onnxruntime cannot open it",
    ),
    "a transposed matrix": (
        lambda tensors: tensors.update({QKV: tensors[QKV].T.copy()}),
        f"'{QKV}' has 32 rows, the graph in onnx/ needs 64",
    ),
}


@pytest.mark.parametrize("damage, message", UNUSABLE.values(), ids=UNUSABLE)
def test_weights_that_the_graph_cannot_use_are_an_error_and_no_crash(
    copy: Path, damage: Damage, message: str
) -> None:
    tensors = read_safetensors(copy / "model.safetensors")
    damage(tensors)
    write_safetensors(copy / "model.safetensors", tensors)
    change(copy, sources={})
    with pytest.raises(EncoderError, match=message):
        load_encoder(copy)


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"tensor": QKV, "form": "int4"}, "has the form 'int4', expected one of rows, float32, int8, scale"),
        ({"tensor": QKV}, "not an export manifest"),
        ({"tensor": QKV, "form": "int8", "rows": [32]}, "not an export manifest"),
        ({"tensor": QKV, "form": "int8", "rows": [32, 32]}, "rows from 32 to 32, expected some"),
        ({"tensor": QKV, "form": "int8", "rows": [64, 97]}, "has 96 rows, the graph in onnx/ needs 97"),
        ("float32", "not an export manifest"),
        ({"tensor": "final_norm.weight", "form": "float32"}, "onnxruntime cannot open it"),
    ],
)
def test_a_weight_that_the_manifest_makes_up_is_refused(copy: Path, entry: Any, message: str) -> None:
    manifest = json.loads((copy / "onnx" / "cmbert.json").read_text())
    change(copy, weights={**manifest["weights"], "made_up": entry})
    with pytest.raises(EncoderError, match=message):
        load_encoder(copy)


@pytest.mark.parametrize("weights", [["a"], "a", {"a": None}])
def test_weights_that_are_no_list_by_name_are_refused(copy: Path, weights: Any) -> None:
    change(copy, weights=weights)
    with pytest.raises(EncoderError, match="not an export manifest"):
        load_encoder(copy)


def test_a_weight_that_the_manifest_leaves_out_is_refused(copy: Path) -> None:
    weights = json.loads((copy / "onnx" / "cmbert.json").read_text())["weights"]
    for name in list(weights)[::5]:
        change(copy, weights={other: entry for other, entry in weights.items() if other != name})
        with pytest.raises(EncoderError, match="onnxruntime cannot open it"):
            load_encoder(copy)
    change(copy, weights={})
    with pytest.raises(EncoderError, match="onnxruntime cannot open it"):
        load_encoder(copy)


def test_weights_in_bfloat16_are_taken_as_well(tmp_path: Path) -> None:
    values = np.array([[0.5, -2.0], [8.0, 1.0]], np.float32)
    write_safetensors(tmp_path / "model.safetensors", {"norm": values}, bfloat16=True)
    made = graph_weights(tmp_path / "model.safetensors", {"a": GraphWeight("norm", "float32")})
    assert np.array_equal(made["a"], values)
