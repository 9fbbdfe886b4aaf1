"""A model of two encoders, one for queries and one for documents, from its hub id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hub_cache import COMMIT, cached
from samples import build, documents, queries

from cmbert_retrieval import Retriever, load_encoder
from cmbert_retrieval.errors import EncoderError

pytest.importorskip("sentence_transformers")
pytestmark = pytest.mark.slow


def answers(retriever: Retriever) -> list[list[tuple[str, float]]]:
    return [[(hit.id, hit.score) for hit in hits] for hits in retriever.search(queries(3), 5, mode="dense")]


def test_a_model_of_two_encoders_works_from_its_hub_id(tmp_path: Path, tiny_encoder_path: Path) -> None:
    import tiny_models

    parts = [
        tiny_models.build(tmp_path / kind, tiny_encoder_path, kind, longest=128)
        for kind in ("bert", "modernbert")
    ]
    pair = tiny_models.build_pair(tmp_path / "pair", *parts)
    cached(tmp_path / "hub", "someone/pair", pair)
    where: dict[str, Any] = {"cache_folder": tmp_path / "hub", "local_files_only": True}
    opened, expected = load_encoder("someone/pair", **where), load_encoder(pair)
    texts = ["fever", "acute kidney injury"]
    assert (opened.identity.name, opened.identity.revision) == ("someone/pair", COMMIT)
    assert (opened.encode_query(texts) == expected.encode_query(texts)).all()
    assert (opened.encode_document(texts) == expected.encode_document(texts)).all()
    assert not (opened.encode_query(texts) == opened.encode_document(texts)).all()

    build(tmp_path / "index", documents(6), opened)
    with Retriever.from_pretrained("someone/pair", index=tmp_path / "index", **where) as retriever:
        first = answers(retriever)
        retriever.save_pretrained(tmp_path / "saved")
    cached(tmp_path / "hub", "someone/pair-index", tmp_path / "saved")
    with Retriever.from_pretrained("someone/pair-index", **where) as retriever:
        assert answers(retriever) == first

    weights = sorted((tmp_path / "hub").glob("models--someone--pair/snapshots/*/document*/model.safetensors"))
    weights[0].unlink()
    with pytest.raises(EncoderError, match="holds only a part of it"):
        load_encoder("someone/pair", **where)
