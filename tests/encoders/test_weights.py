from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from checkpoints import read_safetensors, small_encoder, write_safetensors

from cmbert_retrieval.encoders.weights import canonical_names, checkpoint_tensors, read_header, weights_sha256
from cmbert_retrieval.errors import EncoderError


def test_the_hash_is_the_same_alone_below_a_head_sharded_and_in_any_order(tmp_path: Path) -> None:
    tensors = small_encoder()
    write_safetensors(tmp_path / "alone" / "model.safetensors", tensors)
    backwards = dict(reversed(list(tensors.items())))
    write_safetensors(tmp_path / "backwards" / "model.safetensors", backwards)
    headed = {f"model.{name}": values for name, values in tensors.items()}
    headed |= {
        "head.dense.weight": np.ones((4, 4), np.float32),
        "decoder.weight": np.ones((11, 4), np.float32),
    }
    write_safetensors(tmp_path / "headed" / "model.safetensors", headed)
    for number, (name, values) in enumerate(tensors.items()):
        write_safetensors(tmp_path / "sharded" / f"model-{number}.safetensors", {name: values})
    places = {name: f"model-{number}.safetensors" for number, name in enumerate(tensors)}
    index = tmp_path / "sharded" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))

    expected = weights_sha256(tmp_path / "alone")
    for other in ("backwards", "headed", "sharded"):
        assert weights_sha256(tmp_path / other) == expected


def test_the_hash_is_the_same_for_equal_values_in_half_precision(tmp_path: Path) -> None:
    tensors = small_encoder()
    write_safetensors(tmp_path / "full" / "model.safetensors", tensors)
    write_safetensors(tmp_path / "bf16" / "model.safetensors", tensors, bfloat16=True)
    halves = {name: values.astype(np.float16) for name, values in tensors.items()}
    write_safetensors(tmp_path / "fp16" / "model.safetensors", halves)
    assert weights_sha256(tmp_path / "bf16") == weights_sha256(tmp_path / "full")
    assert weights_sha256(tmp_path / "fp16") == weights_sha256(tmp_path / "full")


@pytest.mark.parametrize("change", ["a value", "a shape", "a name", "one more layer"])
def test_the_hash_changes_with(tmp_path: Path, change: str) -> None:
    tensors = small_encoder()
    write_safetensors(tmp_path / "one" / "model.safetensors", tensors)
    if change == "a value":
        tensors["layers.1.attn.weight"][3, 3] += 1 / 64
    elif change == "a shape":
        tensors["layers.1.attn.weight"] = tensors["layers.1.attn.weight"].reshape(2, 8)
    elif change == "a name":
        tensors["layers.2.attn.weight"] = tensors.pop("layers.1.attn.weight")
    else:
        tensors["layers.2.attn.weight"] = np.zeros((4, 4), np.float32)
    write_safetensors(tmp_path / "two" / "model.safetensors", tensors)
    assert weights_sha256(tmp_path / "one") != weights_sha256(tmp_path / "two")


def test_the_hash_ignores_position_buffers_and_poolers(tmp_path: Path) -> None:
    tensors = small_encoder()
    write_safetensors(tmp_path / "one" / "model.safetensors", tensors)
    tensors["embeddings.position_ids"] = np.arange(16, dtype=np.int64)
    tensors["pooler.dense.weight"] = np.ones((4, 4), np.float32)
    write_safetensors(tmp_path / "two" / "model.safetensors", tensors)
    assert weights_sha256(tmp_path / "one") == weights_sha256(tmp_path / "two")


def test_the_hash_covers_a_projection_behind_the_pooling(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", small_encoder())
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    write_safetensors(
        tmp_path / "2_Dense" / "model.safetensors", {"linear.weight": np.ones((2, 4), np.float32)}
    )
    before = weights_sha256(tmp_path)
    write_safetensors(
        tmp_path / "2_Dense" / "model.safetensors", {"linear.weight": np.zeros((2, 4), np.float32)}
    )
    assert weights_sha256(tmp_path) != before


def test_an_export_keeps_the_hash_of_the_weights_beside_it(tiny_encoder_path: Path) -> None:
    manifest = json.loads((tiny_encoder_path / "onnx" / "cmbert.json").read_text())
    assert manifest["identity"]["weights_sha256"] == weights_sha256(tiny_encoder_path)


def test_values_are_read_as_they_were_written(tmp_path: Path, tiny_encoder_path: Path) -> None:
    expected = read_safetensors(tiny_encoder_path / "model.safetensors")
    for name, tensor in checkpoint_tensors(tiny_encoder_path).items():
        assert np.array_equal(np.concatenate(list(tensor.values())), expected[name].ravel())


@pytest.mark.parametrize(
    "prefix, heads",
    [
        ("", ["pooler.dense.weight", "cls.predictions.bias"]),
        (
            "bert.",
            [
                "bert.pooler.dense.weight",
                "cls.predictions.transform.dense.weight",
                "cls.seq_relationship.bias",
            ],
        ),
        ("model.", ["head.dense.weight", "head.norm.weight", "decoder.weight", "decoder.bias"]),
        ("distilbert.", ["vocab_transform.weight", "vocab_projector.bias"]),
    ],
)
def test_heads_are_told_from_the_encoder_below_any_prefix(prefix: str, heads: list[str]) -> None:
    own = ["embeddings.word_embeddings.weight", "encoder.layer.0.output.LayerNorm.gamma", "final_norm.weight"]
    encoder, found = canonical_names([*(prefix + name for name in own), *heads])
    assert found == sorted(heads)
    assert encoder["encoder.layer.0.output.LayerNorm.weight"] == prefix + own[1]
    assert len(encoder) == 3


def test_a_layer_outside_the_prefix_is_no_head() -> None:
    encoder, heads = canonical_names(["bert.embeddings.w", "bert.layers.0.w", "other.layers.0.w", "cls.bias"])
    assert "other.layers.0.w" in encoder
    assert heads == ["cls.bias"]


@pytest.mark.parametrize(
    "damage", ["truncated", "no header", "header beyond the file", "offsets outside", "empty"]
)
def test_a_broken_safetensors_file_is_an_error_that_names_it(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, small_encoder())
    whole = path.read_bytes()
    path.write_bytes(
        {
            "truncated": whole[:-40],
            "no header": b"\x08\0\0\0\0\0\0\0notjson!" + whole,
            "header beyond the file": (1 << 40).to_bytes(8, "little") + whole[8:],
            "offsets outside": whole.replace(b'"data_offsets": [0, ', b'"data_offsets": [9, '),
            "empty": b"",
        }[damage]
    )
    with pytest.raises(EncoderError, match=r"model\.safetensors: not a whole safetensors file"):
        read_header(path)


def test_pickled_weights_are_refused_with_the_way_to_convert_them(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(
        EncoderError, match=r"pickle \(pytorch_model\.bin\).*model\.safetensors.*save_pretrained"
    ):
        checkpoint_tensors(tmp_path)


def test_a_shard_outside_the_folder_is_refused(tmp_path: Path) -> None:
    index = {"weight_map": {"embeddings.w": "../elsewhere.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(EncoderError, match="not a plain file name"):
        checkpoint_tensors(tmp_path)


def test_a_projection_in_a_pickle_is_refused_and_not_left_out_of_the_hash(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", small_encoder())
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    write_safetensors(tmp_path / "2_Dense" / "model.safetensors", {"linear.weight": np.eye(4, dtype="f4")})
    before = weights_sha256(tmp_path)
    (tmp_path / "2_Dense" / "pytorch_model.bin").write_bytes(b"")
    assert weights_sha256(tmp_path) == before
    (tmp_path / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"2_Dense: its weights are a pickle \(pytorch_model\.bin\)"):
        weights_sha256(tmp_path)


def test_floats_of_eight_bits_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write_safetensors(file, small_encoder())
    file.write_bytes(file.read_bytes().replace(b'"F32"', b'"F8_"', 1))
    with pytest.raises(EncoderError, match=r"tensor '.*' is in F8_; expected F64, F32, F16 or BF16"):
        read_header(file)
