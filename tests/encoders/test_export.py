from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import read_safetensors, write_safetensors
from tiny_models import build, build_decoder
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


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_tokens_see_as_far_in_the_graph_of_a_modernbert_as_in_torch(
    tmp_path: Path, tiny_encoder_path: Path, pooling: str
) -> None:
    from cmbert_retrieval.encoders.export import export_encoder

    folder = build(tmp_path / "model", tiny_encoder_path, "modernbert")  # 8 tokens far, every second layer
    options = {"device": "cpu", "dtype": "float32", "pooling": pooling}
    encoder = load_encoder(folder, backend="sentence_transformers", **options)
    encoder.save_pretrained(tmp_path / "pooled")
    export_encoder(tmp_path / "pooled", tmp_path / "out", quantize=None)
    onnx = load_encoder(tmp_path / "out", backend="onnx")
    texts = [" ".join(["pain"] * words) for words in (5, 6, 7, 8, 15, 16, 40)]
    ours, theirs = onnx.encode_document(texts), encoder.encode_document(texts)
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_a_modernbert_with_biases_is_exported_by_torch(tmp_path: Path, tiny_encoder_path: Path) -> None:
    from cmbert_retrieval.encoders.export import export_encoder

    folder = build(tmp_path / "model", tiny_encoder_path, "modernbert", biases=True)
    report = export_encoder(folder, tmp_path / "out", quantize=None)
    assert report.float_distance < 1e-5


def test_an_int8_export_is_smaller_and_opens_by_itself_as_the_same_weights(
    tmp_path: Path, tiny_encoder_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    from cmbert_retrieval.encoders.export import export_encoder

    report = export_encoder(tiny_encoder_path, tmp_path / "int8", texts=TEXTS)
    assert report.dtype == "int8"
    assert report.agreement.texts == 8 + len(TEXTS)
    assert 0.99 < report.agreement.min_cosine < 0.999999
    assert report.graph_bytes < (tiny_encoder_path / "onnx" / "model.onnx").stat().st_size
    encoder = load_encoder(tmp_path / "int8")
    assert encoder.identity.weights_sha256 == load_encoder(tiny_encoder_path).identity.weights_sha256
    assert SentenceTransformer(str(tmp_path / "int8"), device="cpu").encode(TEXTS).shape == (5, 32)
    assert sorted(path.name for path in (tmp_path / "int8" / "onnx").iterdir()) == [
        "cmbert.json",
        "model_int8.onnx",
        "tokenizer.json",
    ]


def test_with_texts_enough_a_modernbert_gets_fixed_scales_and_takes_several_texts(
    tmp_path: Path, tiny_encoder_path: Path
) -> None:
    from cmbert_retrieval.encoders.export import MIN_SCALE_TEXTS, export_encoder
    from cmbert_retrieval.encoders.onnx import open_session, takes_several

    texts = [f"{days} days of fever" + " and pain" * (days % 9) for days in range(MIN_SCALE_TEXTS)]
    for name, given in (("few", texts[1:]), ("enough", texts)):
        report = export_encoder(tiny_encoder_path, tmp_path / name, texts=given)
        assert report.agreement.min_cosine > 0.99
        session = open_session(tmp_path / name / "onnx" / "model_int8.onnx", {})
        assert takes_several(session) == (name == "enough")
        weights = (path / "model.safetensors" for path in (tiny_encoder_path, tmp_path / name))
        assert len({path.read_bytes() for path in weights}) == 1  # only the graph has other weights


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


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.fixture
def own(tmp_path: Path, tiny_encoder_path: Path) -> Path:
    """A copy of the fixture without its export."""
    folder = Path(shutil.copytree(tiny_encoder_path, tmp_path / "own"))
    shutil.rmtree(folder / "onnx")
    return folder


def test_a_pooling_without_the_prompt_is_not_exported_when_there_is_one(tmp_path: Path, own: Path) -> None:
    from cmbert_retrieval.encoders.export import export_encoder

    change(own / "1_Pooling" / "config.json", include_prompt=False)
    export_encoder(own, tmp_path / "without", quantize=None)
    change(own / "config_sentence_transformers.json", prompts={"query": "about the heart: "})
    with pytest.raises(EncoderError, match="its pooling leaves the prompt out"):
        export_encoder(own, tmp_path / "with", quantize=None)
    assert not (tmp_path / "with").exists()


def test_other_files_in_onnx_stay_and_ours_are_replaced(own: Path) -> None:
    from cmbert_retrieval.encoders.export import export_encoder

    (own / "onnx").mkdir()
    (own / "onnx" / "model_O4.onnx").write_text("theirs")
    export_encoder(own, quantize=None)
    export_encoder(own)
    assert (own / "onnx" / "model_O4.onnx").read_text() == "theirs"
    names = {path.name for path in (own / "onnx").iterdir()}
    assert names == {"cmbert.json", "model_O4.onnx", "model_int8.onnx", "tokenizer.json"}


def test_a_file_of_others_under_our_name_is_not_replaced(own: Path) -> None:
    from cmbert_retrieval.encoders.export import export_encoder

    (own / "onnx").mkdir()
    (own / "onnx" / "model.onnx").write_text("theirs")
    with pytest.raises(EncoderError, match=r"model\.onnx: is there already, and no export of ours"):
        export_encoder(own, quantize=None)
    assert [path.read_text() for path in (own / "onnx").iterdir()] == ["theirs"]


def test_an_export_of_other_weights_than_those_beside_it_is_refused_until_it_is_made_again(own: Path) -> None:
    from cmbert_retrieval.encoders.export import export_encoder

    export_encoder(own, quantize=None)
    before = load_encoder(own).encode_query(TEXTS)
    (own / "model.safetensors").touch()
    assert np.array_equal(load_encoder(own).encode_query(TEXTS), before)
    weights = read_safetensors(own / "model.safetensors")
    weights["layers.1.mlp.Wi.weight"] *= -1
    write_safetensors(own / "model.safetensors", weights)
    with pytest.raises(
        EncoderError, match=r"model\.safetensors: has changed since the export .*export again"
    ):
        load_encoder(own)
    export_encoder(own, quantize=None)
    torch = load_encoder(own, backend="sentence_transformers", device="cpu", dtype="float32")
    assert load_encoder(own).identity == torch.identity
    assert np.allclose(load_encoder(own).encode_query(TEXTS), torch.encode_query(TEXTS), atol=1e-4)


def test_the_tokenizer_that_ran_is_exported(tmp_path: Path, own: Path) -> None:
    from cmbert_retrieval.encoders.export import export_encoder

    change(own / "sentence_bert_config.json", do_lower_case=True)
    export_encoder(own, tmp_path / "out", quantize=None)
    torch = load_encoder(own, backend="sentence_transformers", device="cpu", dtype="float32")
    texts = ["FEVER and Cough", "fever and cough"]
    assert np.allclose(
        load_encoder(tmp_path / "out").encode_query(texts), torch.encode_query(texts), atol=1e-4
    )
    assert load_encoder(tmp_path / "out").count_tokens(texts) == torch.count_tokens(texts)


def test_an_empty_text_of_a_decoder_has_the_same_vector_in_both(
    tmp_path: Path, tiny_encoder_path: Path
) -> None:
    from cmbert_retrieval.encoders.export import export_encoder

    folder = build_decoder(tmp_path / "decoder", tiny_encoder_path)
    export_encoder(folder, tmp_path / "out", quantize=None)
    torch = load_encoder(folder, backend="sentence_transformers", device="cpu", dtype="float32")
    texts = ["", *TEXTS[:3]]
    assert np.allclose(
        load_encoder(tmp_path / "out").encode_query(texts), torch.encode_query(texts), atol=1e-4
    )


def test_the_folder_that_one_stands_in_is_exported_and_no_folder_in_it(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cmbert_retrieval.encoders.export import export_encoder

    monkeypatch.chdir(own)
    for out in (".", "sub"):
        with pytest.raises(EncoderError, match="is in the encoder's own folder"):
            export_encoder(".", out)
    assert export_encoder(".", quantize=None).identity.name == "own"
    assert load_encoder(".").identity.name == "own"


def test_an_export_of_an_export_keeps_its_name(tmp_path: Path, own: Path) -> None:
    from cmbert_retrieval.encoders.export import export_encoder

    export_encoder(own, tmp_path / "first", quantize=None, identity_name="tiny")
    assert export_encoder(tmp_path / "first", tmp_path / "second").identity.name == "tiny"


def test_what_a_killed_export_left_is_removed_and_what_a_living_one_has_is_not(
    tmp_path: Path, own: Path
) -> None:
    import fcntl

    from cmbert_retrieval.encoders.export import export_encoder

    killed, living = tmp_path / ".out.building-killed", tmp_path / ".out.building-living"
    for folder in (killed, living):
        (folder / "encoder").mkdir(parents=True)
    descriptor = os.open(living, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        export_encoder(own, tmp_path / "out", quantize=None)
    finally:
        os.close(descriptor)
    assert sorted(path.name for path in tmp_path.iterdir()) == [living.name, "out", "own"]


def test_float32_of_an_int8_export_runs_on_torch(tmp_path: Path, own: Path) -> None:
    from cmbert_retrieval.encoders.export import export_encoder
    from cmbert_retrieval.encoders.onnx import OnnxEncoder

    export_encoder(own, tmp_path / "out")
    assert isinstance(load_encoder(tmp_path / "out"), OnnxEncoder)
    assert not isinstance(load_encoder(tmp_path / "out", dtype="float32", device="cpu"), OnnxEncoder)
    with pytest.raises(EncoderError, match="no graph in 'float32'"):
        load_encoder(tmp_path / "out", dtype="float32", backend="onnx")


def test_the_overlap_of_the_nearest_ten_is_printed_for_enough_texts(tmp_path: Path, own: Path) -> None:
    app = Typer()
    app.command()(export)
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"fever and cough for {number} days\n" for number in range(100)))
    done = CliRunner().invoke(app, [str(own), "--out", str(tmp_path / "out"), "--texts", str(texts)])
    assert done.exit_code == 0, done.output
    assert "; top-10 overlap " in done.output
