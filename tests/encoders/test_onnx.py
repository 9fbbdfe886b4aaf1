from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cmbert_retrieval.encoders import load_encoder, onnx
from cmbert_retrieval.encoders.onnx import OnnxEncoder
from cmbert_retrieval.errors import CmbertError, ConfigError, EncoderError

TEXTS = [
    "heart attack",
    "",
    "Type 2 diabetes mellitus with kidney disease",
    "Fever, cough and shortness of breath for a week. " * 8,
    "hip fracture",
    "  \n\t ",
    "Émile's naïve 5 µg/ml β-blocker ≥ 3× 💊",
]
WORDS = [
    "heart",
    "attack",
    "hypercholesterolaemia",
    "1,204",
    " ",
    " ",
    "\n",
    "\t",
    "  ",
    "\x1c",
    "é",
    "💊",
    ".",
]


@pytest.fixture
def copy(tmp_path: Path, tiny_encoder_path: Path) -> Path:
    return Path(shutil.copytree(tiny_encoder_path, tmp_path / "copy"))


@pytest.mark.parametrize("kind", ["encoder", "compact"])
def test_neither_torch_nor_what_exports_is_imported(request: pytest.FixtureRequest, kind: str) -> None:
    code = (
        "import sys; from cmbert_retrieval.encoders import load_encoder\n"
        "vectors = load_encoder(sys.argv[1]).encode_query(['heart attack'])\n"
        "assert vectors.shape == (1, 32)\n"
        "absent = {'torch', 'transformers', 'sentence_transformers', 'onnx', 'safetensors'}\n"
        "bad = (absent | {'huggingface_hub'}) & set(sys.modules)\n"
        "assert not bad, bad"
    )
    folder = request.getfixturevalue(f"tiny_{kind}_path")
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_vectors_are_float32_of_unit_length_in_the_order_of_the_texts(tiny_encoder_path: Path) -> None:
    encoder = load_encoder(tiny_encoder_path)
    vectors = encoder.encode_document(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), encoder.identity.dim)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert np.allclose(encoder.encode_query([text])[0], vector, atol=1e-5)


def test_equal_calls_give_equal_bytes(tiny_encoder_path: Path) -> None:
    one, two = (load_encoder(tiny_encoder_path, threads=2) for _ in range(2))
    assert one.encode_document(TEXTS).tobytes() == two.encode_document(TEXTS).tobytes()


@pytest.mark.parametrize("kind", ["encoder", "compact"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_text_has_one_vector_whatever_is_encoded_with_it(
    request: pytest.FixtureRequest, kind: str, threads: int
) -> None:
    encoder = load_encoder(request.getfixturevalue(f"tiny_{kind}_path"), threads=threads)
    texts = [*TEXTS, *(" ".join(["pain"] * words + [TEXTS[0]]) for words in range(40)), *TEXTS, *TEXTS[::-1]]
    whole = encoder.encode_document(texts)
    for text, vector in zip(texts, whole, strict=True):
        assert encoder.encode_document([text])[0].tobytes() == vector.tobytes()


def test_texts_of_one_length_run_together_where_scales_are_fixed(
    monkeypatch: pytest.MonkeyPatch, tiny_encoder_path: Path, tiny_compact_path: Path
) -> None:
    ran: list[tuple[int, int]] = []

    def run(self: OnnxEncoder, rows: list[list[int]]) -> NDArray[np.float32]:
        ran.append((len(rows), len(rows[0])))
        return original(self, rows)

    original = OnnxEncoder._run
    monkeypatch.setattr(OnnxEncoder, "_run", run)
    texts = ["fever"] * 5 + ["pain"] * 5 + ["heart attack heart attack"]
    for folder, largest in ((tiny_encoder_path, 1), (tiny_compact_path, 4)):
        ran.clear()
        load_encoder(folder, threads=3).encode_document(texts)
        assert sum(count for count, _ in ran) == len(texts)
        assert max(count for count, _ in ran) == largest  # a third of them, so that no thread waits


def test_many_threads_share_an_encoder(tiny_encoder_path: Path) -> None:
    encoder = load_encoder(tiny_encoder_path, threads=1)
    expected = encoder.encode_document(TEXTS)
    counts = encoder.count_tokens(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        vectors = [pool.submit(encoder.encode_document, TEXTS) for _ in range(40)]
        counted = [pool.submit(encoder.count_tokens, TEXTS) for _ in range(40)]
    assert all(np.array_equal(future.result(), expected) for future in vectors)
    assert all(future.result() == counts for future in counted)


def test_no_texts_give_no_vectors(tiny_encoder_path: Path) -> None:
    encoder = load_encoder(tiny_encoder_path)
    assert encoder.encode_document([]).shape == (0, 32)
    assert encoder.count_tokens([]) == []


def test_a_single_string_is_refused_and_not_quoted(tiny_encoder_path: Path) -> None:
    with pytest.raises(ConfigError, match="got one string") as caught:
        load_encoder(tiny_encoder_path).encode_query("secret diagnosis")
    assert "secret" not in str(caught.value)


def test_long_texts_are_truncated_and_counted_in_full(tiny_encoder_path: Path) -> None:
    encoder = load_encoder(tiny_encoder_path)
    long, longer = "kidney " * 200, "kidney " * 200 + "heart " * 50
    assert encoder.count_tokens([longer])[0] > encoder.count_tokens([long])[0] > encoder.identity.max_tokens
    assert np.allclose(*encoder.encode_document([long, longer]), atol=1e-6)


@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=60).map("".join), min_size=1, max_size=5),
    st.sampled_from([1, 2, 5]),
)
def test_tokenising_only_the_beginning_of_a_long_text_changes_nothing(
    tiny_encoder_path: Path, texts: list[str], characters: int
) -> None:
    encoder = load_encoder(tiny_encoder_path, max_tokens=8, threads=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx, "_CHARACTERS", 1_000)
        expected = encoder.encode_document(texts)
        patch.setattr(onnx, "_CHARACTERS", characters)
        assert encoder.encode_document(texts).tobytes() == expected.tobytes()


def test_special_tokens_and_prompts_are_not_counted(tiny_encoder_path: Path) -> None:
    plain = load_encoder(tiny_encoder_path)
    prompted = load_encoder(tiny_encoder_path, prompts={"document": "a long prompt: "})
    assert plain.count_tokens([""]) == [0]
    assert plain.count_tokens(TEXTS) == prompted.count_tokens(TEXTS)


def test_prompts_are_put_in_front_of_their_own_side(tiny_encoder_path: Path) -> None:
    plain = load_encoder(tiny_encoder_path)
    prompted = load_encoder(tiny_encoder_path, prompts={"query": "query: "})
    assert np.array_equal(prompted.encode_query(["fever"]), plain.encode_query(["query: fever"]))
    assert np.array_equal(prompted.encode_document(["fever"]), plain.encode_document(["fever"]))
    assert prompted.identity.prompts == {"query": "query: "}


def test_the_length_can_be_changed_within_the_models_positions(tiny_encoder_path: Path) -> None:
    shorter = load_encoder(tiny_encoder_path, max_tokens=8)
    assert shorter.identity.max_tokens == 8
    text = "Type 2 diabetes mellitus with kidney disease"
    assert not np.allclose(shorter.encode_query([text]), load_encoder(tiny_encoder_path).encode_query([text]))
    assert load_encoder(tiny_encoder_path, max_tokens=128).encode_query(["fever " * 200]).shape == (1, 32)
    with pytest.raises(ConfigError, match="max_tokens is 129; expected 3 to 128"):
        load_encoder(tiny_encoder_path, max_tokens=129)


def test_progress_adds_up_to_the_number_of_texts(tiny_encoder_path: Path) -> None:
    seen: list[int] = []
    texts = (TEXTS * 100)[:77]
    load_encoder(tiny_encoder_path).encode_document(texts, progress=seen.append)
    assert len(seen) > 1
    assert sum(seen) == len(texts)


def test_a_saved_encoder_is_the_same_encoder(tmp_path: Path, tiny_encoder_path: Path) -> None:
    encoder = load_encoder(tiny_encoder_path)
    encoder.save_pretrained(str(tmp_path / "saved"))
    again = load_encoder(tmp_path / "saved")
    assert again.identity == encoder.identity
    assert np.array_equal(again.encode_document(TEXTS), encoder.encode_document(TEXTS))
    with pytest.raises(EncoderError, match="own folder"):
        again.save_pretrained(str(tmp_path / "saved"))


def test_a_dtype_that_was_not_exported_is_an_error_not_another_one(tiny_encoder_path: Path) -> None:
    with pytest.raises(EncoderError, match="no graph in 'int8'; there is float32"):
        load_encoder(tiny_encoder_path, dtype="int8")


def test_a_cut_graph_is_an_error_naming_the_file(copy: Path) -> None:
    graph = copy / "onnx" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:5000])
    with pytest.raises(EncoderError, match=r"model\.onnx: onnxruntime cannot open it"):
        load_encoder(copy)


def test_a_missing_graph_is_an_error_naming_the_file(copy: Path) -> None:
    (copy / "onnx" / "model.onnx").unlink()
    with pytest.raises(EncoderError, match=r"model\.onnx: absent, though onnx/cmbert\.json names it"):
        load_encoder(copy)


def test_a_broken_tokenizer_is_an_error_naming_the_file(copy: Path) -> None:
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(EncoderError, match=r"tokenizer\.json: cannot be opened"):
        load_encoder(copy)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"format": 99}, "written in format 99"),
        ({"files": {"float32": "../model.onnx"}}, "not an export manifest"),
        ({"files": ["model.onnx"]}, "not an export manifest"),
        ({"identity": {"name": "x"}}, "not an export manifest"),
        ({"pad_id": None}, "not an export manifest"),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_refused(
    copy: Path, change: dict[str, object], message: str
) -> None:
    path = copy / "onnx" / "cmbert.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(EncoderError, match=message):
        load_encoder(copy)


def test_a_graph_of_another_width_is_refused_with_both_shapes(copy: Path) -> None:
    path = copy / "onnx" / "cmbert.json"
    manifest = json.loads(path.read_text())
    manifest["identity"]["dim"] = 48
    path.write_text(json.dumps(manifest))
    with pytest.raises(EncoderError, match=r"\(1, 32\), expected \(1, 48\)"):
        load_encoder(copy).encode_query(["fever"])


def test_a_folder_without_an_export_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="cmbert export"):
        OnnxEncoder(tmp_path)


def test_threads_come_from_the_environment_and_nonsense_is_refused(
    monkeypatch: pytest.MonkeyPatch, tiny_encoder_path: Path
) -> None:
    monkeypatch.setenv("CMBERT_THREADS", "many")
    with pytest.raises(CmbertError, match="CMBERT_THREADS is 'many'"):
        load_encoder(tiny_encoder_path)
    load_encoder(tiny_encoder_path, threads=1)


def test_a_forked_process_encodes_too(tiny_encoder_path: Path) -> None:
    code = (
        "import os, sys; from cmbert_retrieval.encoders import load_encoder\n"
        "encoder = load_encoder(sys.argv[1], threads=2)\n"
        "texts = ['heart attack', 'fever', 'hip fracture']\n"
        "expected = encoder.encode_document(texts).tobytes()\n"
        "child = os.fork()\n"
        "equal = encoder.encode_document(texts).tobytes() == expected\n"
        "if not child: os._exit(0 if equal else 1)\n"
        "sys.exit(os.waitpid(child, 0)[1] != 0 or not equal)\n"
    )
    command = [sys.executable, "-c", code, str(tiny_encoder_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            _, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, errors


def test_long_texts_run_one_at_a_time_and_give_the_same_vectors(
    monkeypatch: pytest.MonkeyPatch, tiny_encoder_path: Path
) -> None:
    expected = load_encoder(tiny_encoder_path, threads=3).encode_document(TEXTS * 5)
    monkeypatch.setattr(onnx, "_LONG_TOKENS", 5)
    assert np.array_equal(load_encoder(tiny_encoder_path, threads=3).encode_document(TEXTS * 5), expected)


@pytest.mark.parametrize(
    "bad, said",
    [(None, "is a NoneType; expected a string"), ("secret \udc80", "lone surrogate at character 7")],
)
@pytest.mark.parametrize("method", ["encode_query", "encode_document", "count_tokens"])
def test_what_is_no_text_is_refused_by_position_and_not_quoted(
    tiny_encoder_path: Path, method: str, bad: Any, said: str
) -> None:
    with pytest.raises(ConfigError, match=rf"text 1 \(from 0\) .*{said}") as caught:
        getattr(load_encoder(tiny_encoder_path), method)(["Émile", bad])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "prompts, said",
    [
        ({"passage": "p: "}, "prompts has the key 'passage'"),
        ({"query": None}, "the query prompt is a NoneType"),
    ],
)
def test_prompts_for_something_else_or_without_text_are_refused(
    tiny_encoder_path: Path, prompts: Any, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        load_encoder(tiny_encoder_path, prompts=prompts)


def test_an_empty_prompt_is_none(tiny_encoder_path: Path) -> None:
    assert load_encoder(tiny_encoder_path, prompts={"query": ""}).identity.prompts == {}


def test_a_prompt_that_the_pooling_leaves_out_is_refused(copy: Path) -> None:
    pooling = copy / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({**json.loads(pooling.read_text()), "include_prompt": False}))
    load_encoder(copy)
    with pytest.raises(EncoderError, match="its pooling leaves the prompt out"):
        load_encoder(copy, backend="onnx", prompts={"query": "about the heart: "})


def test_a_broken_graph_prints_nothing_of_its_own(copy: Path) -> None:
    (copy / "onnx" / "model.onnx").write_bytes(b"no graph")
    code = (
        "import sys; from cmbert_retrieval.encoders import load_encoder\n"
        "from cmbert_retrieval.errors import EncoderError\n"
        "try: load_encoder(sys.argv[1])\n"
        "except EncoderError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(copy)], capture_output=True, text=True)
    assert "onnxruntime cannot open it" in done.stdout
    assert done.stderr == ""
