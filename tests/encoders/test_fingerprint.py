from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cmbert_retrieval.encoders.fingerprint import check_fingerprint, fingerprint
from cmbert_retrieval.errors import EncoderError


@pytest.fixture
def folder(tmp_path: Path, tiny_encoder_path: Path) -> Path:
    return Path(shutil.copytree(tiny_encoder_path, tmp_path / "folder"))


def test_a_copy_with_other_times_and_without_weights_is_the_same(tmp_path: Path, folder: Path) -> None:
    expected = fingerprint(folder)
    copy = Path(shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile))
    os.utime(copy / "model.safetensors", (1, 1))
    (copy / "README.md").write_text("new")
    check_fingerprint(copy, expected)
    (copy / "model.safetensors").unlink()
    check_fingerprint(copy, expected)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "1_Pooling/config.json", "modules.json"]
)
def test_a_changed_file_is_named(folder: Path, name: str) -> None:
    expected = fingerprint(folder)
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(EncoderError, match=f"{name}: has changed since the export"):
        check_fingerprint(folder, expected)


def test_weights_that_the_export_does_not_know_are_named(folder: Path) -> None:
    expected = fingerprint(folder)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    with pytest.raises(EncoderError, match=r"model-00001-of-00001\.safetensors: has changed"):
        check_fingerprint(folder, expected)


def test_a_change_of_a_large_file_in_every_part_is_seen_at_the_same_size(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(bytes(5_000_000))
    expected = fingerprint(folder)
    for start in range(0, 5_000_000, 500_000):  # a tenth of it each, as a layer of ten
        changed = bytearray(5_000_000)
        changed[start : start + 500_000] = b"\1" * 500_000
        weights.write_bytes(changed)
        with pytest.raises(EncoderError, match=r"model\.safetensors: has changed"):
            check_fingerprint(folder, expected)


def test_an_export_of_an_older_version_is_not_checked(folder: Path) -> None:
    check_fingerprint(folder, {})
