"""Models that the harness compares with: what they are asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cmbert_retrieval.evaluation.baselines import Rows, encoder_run
from cmbert_retrieval.types import Document

pytest.importorskip("sentence_transformers")
pytestmark = pytest.mark.slow

CODES = [
    Document("I21", "", "Infarction", entries=("Infarction", "heart attack")),
    Document("N20", "", "Calculus", entries=("Calculus", "kidney stone")),
]


def test_a_model_reads_names_with_its_prompt_for_them_as_the_encoder_does(
    tiny_encoder_path: Path, tmp_path: Path
) -> None:
    from cmbert_retrieval import Retriever
    from cmbert_retrieval.encoders import load_encoder

    shutil.copytree(tiny_encoder_path, tmp_path / "model")
    config = tmp_path / "model/config_sentence_transformers.json"
    config.write_text(
        json.dumps({**json.loads(config.read_text()), "prompts": {"name": "about the heart: "}})
    )
    queries = {"q": "stone in the kidney"}

    def scores(documents: list[Document]) -> dict[str, float]:
        name = str(tmp_path / "model")
        return encoder_run(Rows(documents), queries, 2, model=name, cache=tmp_path / "vectors")["q"]

    encoder = load_encoder(tmp_path / "model", backend="sentence_transformers", dtype="float32")
    with Retriever.from_documents(CODES, encoder=encoder) as retriever:
        expected = {hit.id: hit.score for hit in retriever.search(queries["q"], 2, mode="dense")}
    assert scores(CODES) == pytest.approx(expected, abs=2e-3)
    texts = [Document(code.id, name) for code in CODES for name in code.entries[1:]]
    plain = [Document(code.id, "", entries=code.entries[1:]) for code in CODES]
    assert scores(texts) != pytest.approx(scores(plain), abs=1e-3)


def test_other_weights_in_the_same_folder_are_measured_anew(tiny_encoder_path: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(tiny_encoder_path, folder)

    def scores(cache: str) -> dict[str, float]:
        queries = {"q": "stone in the kidney"}
        return encoder_run(Rows(CODES), queries, 2, model=str(folder), cache=tmp_path / cache)["q"]

    before = scores("vectors")
    weights = load_file(folder / "model.safetensors")
    torch.manual_seed(0)
    changed = {name: value + 0.1 * torch.randn_like(value) for name, value in weights.items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    assert scores("vectors") == scores("elsewhere") != before
