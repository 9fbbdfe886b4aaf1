from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import read_safetensors, write_safetensors
from tiny_models import build, build_decoder, build_pair

from cmbert_retrieval.encoders import load_encoder
from cmbert_retrieval.encoders.identity import check_same_encoder, probe_vectors, row_cosines
from cmbert_retrieval.errors import ConfigError, EncoderError

pytest.importorskip("sentence_transformers", reason="the extra 'train' is not installed")
pytestmark = pytest.mark.slow

TEXTS = [
    "heart attack",
    "",
    "Type 2 diabetes mellitus with kidney disease",
    "Fever and cough for a week. " * 9,
]


def load(folder: Path, **options: Any) -> Any:
    return load_encoder(
        folder, backend="sentence_transformers", **{"device": "cpu", "dtype": "float32", **options}
    )


@pytest.fixture
def copy(tmp_path: Path, tiny_encoder_path: Path) -> Path:
    return Path(shutil.copytree(tiny_encoder_path, tmp_path / "copy"))


def test_torch_and_onnx_are_the_same_encoder(tiny_encoder_path: Path) -> None:
    torch, onnx = load(tiny_encoder_path), load_encoder(tiny_encoder_path, backend="onnx")
    assert torch.identity == onnx.identity
    assert np.allclose(torch.encode_document(TEXTS), onnx.encode_document(TEXTS), atol=1e-5)
    assert torch.count_tokens(TEXTS) == onnx.count_tokens(TEXTS)
    assert min(check_same_encoder(torch.identity, probe_vectors(torch), onnx).values()) > 0.9999


def test_vectors_are_those_of_sentence_transformers_itself(tiny_encoder_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(str(tiny_encoder_path), device="cpu").encode(TEXTS)
    assert np.allclose(load(tiny_encoder_path, batch_tokens=1).encode_document(TEXTS), expected, atol=1e-5)


def test_a_prompt_outside_the_pooling_is_left_out_as_sentence_transformers_does(copy: Path) -> None:
    from sentence_transformers import SentenceTransformer

    pooling = copy / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({**json.loads(pooling.read_text()), "include_prompt": False}))
    expected = SentenceTransformer(str(copy), device="cpu").encode(TEXTS, prompt="about the heart: ")
    encoder = load(copy, prompts={"query": "about the heart: "})
    assert np.allclose(encoder.encode_query(TEXTS), expected, atol=1e-5)
    assert not np.allclose(load(copy).encode_query(TEXTS), expected, atol=1e-2)


def test_many_threads_share_an_encoder(tiny_encoder_path: Path) -> None:
    encoder = load(tiny_encoder_path)
    expected = encoder.encode_document(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: encoder.encode_document(TEXTS), range(24)))
        assert len(set(map(tuple, pool.map(lambda _: encoder.count_tokens(TEXTS), range(24))))) == 1
    assert all(np.allclose(vectors, expected, atol=1e-6) for vectors in found)


@pytest.mark.parametrize("kind, heads", [("bert", "cls."), ("modernbert", "decoder.")])
def test_a_masked_language_model_loads_and_its_heads_are_listed(
    tmp_path: Path, tiny_encoder_path: Path, caplog: pytest.LogCaptureFixture, kind: str, heads: str
) -> None:
    folder = build(tmp_path / kind, tiny_encoder_path, kind, head=True)
    with caplog.at_level(logging.WARNING):
        encoder = load(folder)
    assert any(name.startswith(heads) for name in encoder.report.heads)
    assert "was not trained for retrieval" in caplog.text
    assert encoder.identity.pooling == "mean"
    bare = build(tmp_path / "bare", tiny_encoder_path, kind)
    same_values = {name: values for name, values in read_safetensors(bare / "model.safetensors").items()}
    prefixed = read_safetensors(folder / "model.safetensors")
    prefix = {"bert": "bert.", "modernbert": "model."}[kind]
    for name in same_values:
        same_values[name] = prefixed.get(prefix + name, same_values[name])
    write_safetensors(bare / "model.safetensors", same_values)
    assert load(bare).identity.weights_sha256 == encoder.identity.weights_sha256
    assert np.allclose(load(bare).encode_query(TEXTS), encoder.encode_query(TEXTS), atol=1e-6)


def test_a_missing_layer_tensor_is_an_error_that_names_it(copy: Path) -> None:
    weights = read_safetensors(copy / "model.safetensors")
    weights.pop("layers.1.mlp.Wi.weight")
    write_safetensors(copy / "model.safetensors", weights)
    with pytest.raises(EncoderError, match=r"missing in the checkpoint: layers\.1\.mlp\.Wi\.weight"):
        load(copy)


def test_a_layer_too_many_is_an_error_that_names_it(copy: Path) -> None:
    weights = read_safetensors(copy / "model.safetensors")
    weights["layers.2.mlp.Wi.weight"] = weights["layers.1.mlp.Wi.weight"]
    write_safetensors(copy / "model.safetensors", weights)
    with pytest.raises(EncoderError, match=r"left over in the checkpoint: layers\.2\.mlp\.Wi\.weight"):
        load(copy)


def test_a_tensor_of_another_shape_is_an_error_that_names_it(copy: Path) -> None:
    weights = read_safetensors(copy / "model.safetensors")
    weights["layers.1.mlp.Wi.weight"] = weights["layers.1.mlp.Wi.weight"][:-2]
    write_safetensors(copy / "model.safetensors", weights)
    with pytest.raises(EncoderError, match=r"layers\.1\.mlp\.Wi\.weight has shape \(94, 32\)"):
        load(copy)


def test_a_bert_checkpoint_that_claims_to_be_a_modernbert_is_refused(
    tmp_path: Path, tiny_encoder_path: Path
) -> None:
    folder = build(tmp_path / "bert", tiny_encoder_path, "bert", head=True)
    other = build(tmp_path / "modernbert", tiny_encoder_path, "modernbert")
    shutil.copy(other / "config.json", folder / "config.json")
    with pytest.raises(EncoderError, match=r"missing in the checkpoint: .* and \d+ more; left over .*bert\."):
        load(folder)


def test_pickled_weights_are_refused_before_they_are_opened(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="pickle"):
        load(copy)


def test_another_pooling_by_name_is_used(tiny_encoder_path: Path) -> None:
    import torch

    encoder = load_encoder(tiny_encoder_path, pooling="cls", device="cpu", dtype="float32")
    assert encoder.identity.pooling == "cls"
    tokens = encoder.model.tokenizer(TEXTS[0], return_tensors="pt")  # type: ignore[attr-defined]
    with torch.inference_mode():
        state = encoder.model[0].auto_model(**tokens).last_hidden_state[0, 0].numpy()  # type: ignore[attr-defined]
    assert np.allclose(encoder.encode_query(TEXTS[:1])[0], state / np.linalg.norm(state), atol=1e-5)
    both = load(tiny_encoder_path, pooling="cls+mean")
    assert both.encode_query(TEXTS).shape == (4, 64)
    with pytest.raises(ConfigError, match="pooling is 'median'"):
        load(tiny_encoder_path, pooling="median")


def test_what_is_asked_for_by_name_and_absent_is_an_error(tiny_encoder_path: Path) -> None:
    from cmbert_retrieval.encoders.devices import choose_device, has_bfloat16

    with pytest.raises(EncoderError, match="flash_attention_2"):
        load(tiny_encoder_path, attention="flash_attention_2")
    with pytest.raises(EncoderError, match="dtype 'float16' was asked for"):
        load(tiny_encoder_path, dtype="float16")
    if not has_bfloat16(choose_device("cpu")):
        with pytest.raises(EncoderError, match="dtype 'bfloat16' was asked for"):
            load(tiny_encoder_path, dtype="bfloat16")


def test_attentions_agree(tiny_encoder_path: Path) -> None:
    eager, sdpa = (
        load(tiny_encoder_path, attention=name).encode_document(TEXTS) for name in ("eager", "sdpa")
    )
    assert np.allclose(eager, sdpa, atol=1e-5)


def test_a_plain_checkpoint_is_saved_as_a_folder_that_both_libraries_open(
    tmp_path: Path, tiny_encoder_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = load(build(tmp_path / "plain", tiny_encoder_path, "modernbert"))
    encoder.save_pretrained(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.identity.weights_sha256 == encoder.identity.weights_sha256
    assert np.allclose(again.encode_query(TEXTS), encoder.encode_query(TEXTS), atol=1e-6)
    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(
        TEXTS, normalize_embeddings=True
    )
    assert np.allclose(theirs, encoder.encode_query(TEXTS), atol=1e-5)


def test_code_beside_the_weights_is_never_run(tmp_path: Path, copy: Path) -> None:
    ran = tmp_path / "ran"
    (copy / "custom_st.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    modules = json.loads((copy / "modules.json").read_text())
    modules[0]["type"] = "custom_st.Transformer"
    (copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(EncoderError, match=r"'custom_st\.Transformer' is code of the model's own"):
        load(copy)
    assert not ran.exists()


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_a_folder_without_its_tokenizer_is_refused(tmp_path: Path, tiny_encoder_path: Path) -> None:
    folder = build(tmp_path / "bert", tiny_encoder_path, "bert")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(EncoderError, match="all of them special; expected a vocabulary"):
        load(folder)


def test_a_tokenizer_with_more_ids_than_embeddings_is_refused(
    tmp_path: Path, tiny_encoder_path: Path
) -> None:
    folder = build(tmp_path / "small", tiny_encoder_path, "bert")
    weights = read_safetensors(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"][:100]
    write_safetensors(folder / "model.safetensors", weights)
    change(folder / "config.json", vocab_size=100)
    with pytest.raises(EncoderError, match=r"gives ids up to \d+, the model has embeddings for 100"):
        load(folder)


def test_a_pooling_of_another_width_is_an_error_when_it_is_loaded(copy: Path) -> None:
    change(copy / "1_Pooling" / "config.json", embedding_dimension=64, word_embedding_dimension=64)
    with pytest.raises(EncoderError, match="the model was loaded, but cannot encode"):
        load(copy)


def test_what_is_no_text_is_refused_by_position(tiny_encoder_path: Path) -> None:
    encoder = load(tiny_encoder_path)
    for method in (encoder.encode_document, encoder.encode_query, encoder.count_tokens):
        with pytest.raises(ConfigError, match=r"text 1 \(from 0\) is a NoneType"):
            method(["fever", None])


def test_an_empty_text_of_a_decoder_without_special_tokens_is_one_pad_token(
    tmp_path: Path, tiny_encoder_path: Path
) -> None:
    encoder = load(build_decoder(tmp_path / "decoder", tiny_encoder_path))
    assert encoder.count_tokens([""]) == [0]
    together = encoder.encode_document(TEXTS)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for text, vector in zip(TEXTS, together, strict=True):  # lengths differ, and none of them has a pad token
        assert np.allclose(encoder.encode_document([text])[0], vector, atol=1e-5)
    assert np.allclose(together[1], encoder.encode_document(["[SEP]"])[0], atol=1e-5)


def test_the_budget_holds_for_torch_and_for_tokenizers(tiny_encoder_path: Path) -> None:
    code = (
        "import os, sys; from cmbert_retrieval.encoders import load_encoder\n"
        "load_encoder(sys.argv[1], backend='sentence_transformers', device='cpu')\n"
        "import torch; print(torch.get_num_threads(), os.environ['RAYON_NUM_THREADS'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RAYON_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_encoder_path)],
        capture_output=True,
        text=True,
        env={**environment, "CMBERT_THREADS": "1"},
    )
    assert done.stdout == "1 1\n", done.stderr


@pytest.fixture
def pair(tmp_path: Path, tiny_encoder_path: Path) -> Path:
    """A model of two encoders: a ModernBERT for queries, a BERT for documents."""
    document = build(tmp_path / "bert", tiny_encoder_path, "bert")
    return build_pair(tmp_path / "pair", tiny_encoder_path, document)


def test_queries_and_documents_go_through_an_encoder_each(pair: Path) -> None:
    from sentence_transformers import SentenceTransformer

    theirs, ours = SentenceTransformer(str(pair), device="cpu"), load(pair)
    assert np.allclose(ours.encode_query(TEXTS), theirs.encode_query(TEXTS), atol=1e-5)
    assert np.allclose(ours.encode_document(TEXTS), theirs.encode_document(TEXTS), atol=1e-5)
    assert not np.allclose(ours.encode_document(TEXTS), ours.encode_query(TEXTS), atol=1e-1)
    assert (ours.identity.dim, ours.identity.max_tokens, ours.identity.normalized) == (16, 512, True)


def test_a_projection_runs_behind_a_model_in_the_fastest_precision(pair: Path) -> None:
    fastest, exact = load(pair, dtype="auto"), load(pair)
    for ours, theirs in (
        (fastest.encode_query(TEXTS), exact.encode_query(TEXTS)),
        (fastest.encode_document(TEXTS), exact.encode_document(TEXTS)),
    ):
        assert (row_cosines(ours, theirs) > 0.98).all()


def test_the_hash_of_two_encoders_covers_each_module_of_both_and_their_order(pair: Path) -> None:
    before = load(pair).identity.weights_sha256
    files = sorted(pair.glob("*/model.safetensors"))
    assert len(files) == 4  # two transformers, two projections
    for file in files:
        original = file.read_bytes()
        weights = read_safetensors(file)
        name = "linear.weight" if "linear.weight" in weights else sorted(weights)[0]
        write_safetensors(file, {**weights, name: -weights[name]})
        assert load(pair).identity.weights_sha256 != before, file
        file.write_bytes(original)
    assert load(pair).identity.weights_sha256 == before
    config = json.loads((pair / "router_config.json").read_text())
    routes = config["structure"]
    change(pair / "router_config.json", structure={"query": routes["document"], "document": routes["query"]})
    assert load(pair).identity.weights_sha256 != before


def test_two_encoders_are_saved_whole_and_not_exported(tmp_path: Path, pair: Path) -> None:
    from cmbert_retrieval.encoders.export import export_encoder

    encoder = load(pair)
    encoder.save_pretrained(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.identity.weights_sha256 == encoder.identity.weights_sha256
    assert np.array_equal(again.encode_query(TEXTS), encoder.encode_query(TEXTS))
    with pytest.raises(EncoderError, match="an encoder for queries and one for documents"):
        export_encoder(pair, tmp_path / "out")
    with pytest.raises(ConfigError, match="layers depend on its own"):
        load(pair, pooling="cls")
