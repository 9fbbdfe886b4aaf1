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


def test_int8_counts_as_the_floats_that_loading_makes_of_it(tmp_path: Path) -> None:
    tensors = small_encoder()
    table = "embeddings.word_embeddings.weight"
    tensors[table] = np.arange(-22, 22, dtype=np.float32).reshape(11, 4)
    write_safetensors(tmp_path / "floats" / "model.safetensors", tensors)
    tensors[table] = tensors[table].astype(np.int8)
    write_safetensors(tmp_path / "bytes" / "model.safetensors", tensors)
    assert weights_sha256(tmp_path / "bytes") == weights_sha256(tmp_path / "floats")
    tensors[table][5, 2] += 1
    write_safetensors(tmp_path / "bytes" / "model.safetensors", tensors)
    assert weights_sha256(tmp_path / "bytes") != weights_sha256(tmp_path / "floats")


@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_tensor_is_read_whole_in_its_shape(tmp_path: Path, bfloat16: bool) -> None:
    tensors = small_encoder()
    tensors["embeddings.rows"] = np.arange(-4, 4, dtype=np.int8).reshape(2, 4)
    tensors["layers.0.half"] = np.array([0.5, -2.0], np.float16)
    tensors["layers.0.positions"] = np.arange(3)
    write_safetensors(tmp_path / "model.safetensors", tensors, bfloat16=bfloat16)
    header = read_header(tmp_path / "model.safetensors")
    with pytest.raises(EncoderError, match=r"'layers\.0\.positions' is in I64; expected floats or I8"):
        header.pop("layers.0.positions").read()
    for name, tensor in header.items():
        values = tensor.read()
        assert np.array_equal(values, tensors[name])
        assert values.dtype == (np.int8 if name == "embeddings.rows" else np.float32)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(EncoderError, match="changed while it was read"):
        header["final_norm.weight"].read()


def test_floats_of_8_bits_have_their_values(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", {"x": np.array([0, 1, 56, 126, 185], np.uint8)})
    (tensor,) = read_header(tmp_path / "model.safetensors").values()
    assert tensor.read().tolist() == [0.0, 2.0**-9, 1.0, 448.0, -1.125]


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


def test_floats_of_other_kinds_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write_safetensors(file, small_encoder())
    file.write_bytes(file.read_bytes().replace(b'"F32"', b'"F4_"', 1))
    with pytest.raises(EncoderError, match=r"tensor '.*' is in F4_; expected F64, F32, F16, BF16 or F8_E4M3"):
        read_header(file)


HOSTILE = {
    "a negative extent": '"shape": [-1, -4], "data_offsets": [0, 16]',
    "a shape whose size is 0 in 64 bits": '"shape": [4294967296, 4294967296], "data_offsets": [0, 0]',
    "a fraction": '"shape": [4.0], "data_offsets": [0, 16]',
    "an infinite offset": '"shape": [4], "data_offsets": [0, Infinity]',
    "a text for a shape": '"shape": "4", "data_offsets": [0, 16]',
    "true for an extent": '"shape": [true], "data_offsets": [0, 4]',
    "backwards": '"shape": [4], "data_offsets": [16, 0]',
    "before the values": '"shape": [4], "data_offsets": [-16, 0]',
    "over another tensor": '"shape": [4], "data_offsets": [8, 24]',
    "nested without end": '"shape": [4], "data_offsets": ' + "[" * 100_000,
}


@pytest.mark.parametrize("entry", HOSTILE.values(), ids=HOSTILE)
def test_a_header_that_lies_is_an_error(tmp_path: Path, entry: str) -> None:
    honest = '"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}'
    header = f'{{{honest}, "b": {{"dtype": "F32", {entry}}}}}'.encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    with pytest.raises(EncoderError, match=r"model\.safetensors: not a whole safetensors file"):
        read_header(path)
