"""Batches of a stage: every row in its share, no text twice, the same for any number of processes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pyarrow")

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.finetuning.drawing import repeated
from cmbert_retrieval.finetuning.mixture import (
    Key,
    PairRows,
    StageBatches,
    distinct_batches,
    open_stage,
)
from cmbert_retrieval.finetuning.recipe import FinetuneRecipe
from cmbert_retrieval.finetuning.tables import PAIR_COLUMNS, TEXT_COLUMNS, Table, TableWriter

pytestmark = pytest.mark.slow  # torch


def prepared(folder: Path, sizes: dict[str, int]) -> Path:
    for part in ("train", "texts", "vectors"):
        (folder / part).mkdir(parents=True)
    for name, size in sizes.items():
        with TableWriter(folder / f"train/{name}.arrow", PAIR_COLUMNS) as table:
            for row in range(size):
                table.add({"anchor": f"{name} asks {row}", "positive": f"{name} answers {row}",
                           "document": str(row), "kind": "names", "negatives": []})  # fmt: skip
        with TableWriter(folder / f"texts/{name}.arrow", TEXT_COLUMNS) as table:
            for row in range(size):
                table.add({"text": f"{name} tells {row}"})
        vectors = np.arange(size * 4).reshape(size, 4).astype(np.float16)
        np.save(folder / f"vectors/{name}.npy", vectors)
    return folder


def recipe(
    names: list[str],
    *stages: dict[str, Any],
    weights: dict[str, float] | None = None,
    model: dict[str, Any] | None = None,
) -> FinetuneRecipe:
    sources = {
        name: {"reader": "jsonl", "pairs": ["title-text"], "weight": (weights or {}).get(name, 1.0)}
        for name in names
    }
    return FinetuneRecipe.model_validate(
        {"name": "tiny", "data": {"sources": sources}, "teacher": {},
         "model": model or {"checkpoint": "none"}, "stages": list(stages)}
    )  # fmt: skip


STAGE = {"pairs": 96, "texts": 64, "pair_batch": 8, "text_batch": 16}


def test_a_stage_has_weights_of_pairs_of_its_own(tmp_path: Path) -> None:
    data = prepared(tmp_path, {"a": 90, "b": 90, "c": 90})
    stage = {**STAGE, "texts": 96, "pair_weights": {"a": 3.0, "b": 1.0}}
    _, batches, _ = open_stage(recipe(["a", "b", "c"], stage, weights={"b": 1.0, "c": 5.0}), 0, data)
    kinds = Counter((key.kind, key.source) for batch in batches for key in batch)
    assert (kinds["pairs", 0], kinds["pairs", 1], kinds["pairs", 2]) == (72, 24, 0)
    assert kinds["texts", 2] > 4 * kinds["texts", 0] > 0  # of texts there are none
    with pytest.raises(ValueError, match="pair_weights of 'd', and no source is called so"):
        recipe(["a"], {**STAGE, "pair_weights": {"d": 1.0}})


def test_sources_give_their_shares_by_size_and_weight(tmp_path: Path) -> None:
    data = prepared(tmp_path, {"a": 120, "b": 60})
    _, batches, counts = open_stage(recipe(["a", "b"], STAGE, weights={"b": 4.0}), 0, data)
    kinds = Counter(key.kind for batch in batches for key in batch)
    assert kinds == {"pairs": 96, "texts": 64}
    pairs = Counter(key.source for batch in batches for key in batch if key.kind == "pairs")
    assert pairs == {0: 32, 1: 64}
    assert counts == {"a": 32 + 21, "b": 64 + 43}
    assert all(len({key.kind for key in batch}) == 1 for batch in batches)


def test_rows_are_seen_as_often_as_each_other(tmp_path: Path) -> None:
    data = prepared(tmp_path, {"a": 10, "b": 30})
    _, batches, _ = open_stage(recipe(["a", "b"], {"pairs": 80, "pair_batch": 8}), 0, data)
    seen = Counter((key.source, key.row) for batch in batches for key in batch)
    assert set(seen.values()) == {2} and len(seen) == 40
    assert [repeated(3, 7, np.random.default_rng(0)).count(row) >= 2 for row in range(3)] == [True] * 3


def test_no_text_comes_twice_in_a_batch() -> None:
    random = np.random.default_rng(1)
    texts = {Key("pairs", 0, row): set(random.integers(0, 60, 2).tolist()) for row in range(200)}
    batches, left = distinct_batches(list(texts), 16, texts.__getitem__)
    for batch in batches:
        found = [text for key in batch for text in texts[key]]
        assert len(found) == len(set(found)) and len(batch) == 16
    assert sorted([key for batch in batches for key in batch] + left) == sorted(texts)


def test_what_is_left_of_sources_fills_batches_together(tmp_path: Path) -> None:
    data = prepared(tmp_path, {"a": 5, "b": 5, "c": 22})
    _, batches, counts = open_stage(recipe(["a", "b", "c"], {"pairs": 32, "pair_batch": 8}), 0, data)
    assert counts == {"a": 5, "b": 5, "c": 22}
    assert (
        sorted(len({key.source for key in batch}) for batch in batches) == [1, 1, 3, 3] or len(batches) == 4
    )


def test_processes_share_every_batch(tmp_path: Path) -> None:
    data = prepared(tmp_path, {"a": 40, "b": 20})
    _, batches, _ = open_stage(recipe(["a", "b"], STAGE), 0, data)
    shared = [list(StageBatches(batches, rank=rank, processes=4)) for rank in range(4)]
    assert {len(part) for part in shared} == {len(batches)}
    for step, batch in enumerate(batches):
        assert sorted(key for part in shared for key in part[step]) == sorted(batch)
        assert len({part[step][0].kind for part in shared}) == 1


def test_rows_have_their_vectors_and_negatives(tmp_path: Path) -> None:
    data = prepared(tmp_path, {"a": 40, "b": 20})
    (data / "negatives/a").mkdir(parents=True)
    mined = np.full((40, 2), -1, np.int32)
    mined[:, 0] = (np.arange(40) + 7) % 40
    np.save(data / "negatives/a/0000.npy", mined)
    stage = {**STAGE, "negatives": 2}
    rows, batches, _ = open_stage(recipe(["a", "b"], stage), 0, data)
    for batch in batches:
        for key, row in zip(batch, rows.__getitems__(batch), strict=True):
            name = "ab"[key.source]
            assert row["dataset_name"] == key.kind
            if key.kind == "texts":
                assert row["text"] == f"{name} tells {key.row}"
                assert row["label"].tolist() == [key.row * 4 + place for place in range(4)]
                continue
            negatives = [row["negative_1"], row["negative_2"]]
            assert row["positive"] == f"{name} answers {key.row}" not in negatives
            assert len(set(negatives)) == 2
            assert name == "b" or negatives[0] == f"a answers {(key.row + 7) % 40}"


def test_only_pairs_of_names_have_the_prompt_for_names(tmp_path: Path) -> None:
    data = prepared(tmp_path, {"a": 40, "b": 40})
    model = {"checkpoint": "none", "query_prompt": "q: ", "name_prompt": "n: ", "name_sources": ["b"]}
    rows, batches, _ = open_stage(recipe(["a", "b"], {**STAGE, "negatives": 1}, model=model), 0, data)
    for batch in batches:
        for key, row in zip(batch, rows.__getitems__(batch), strict=True):
            if key.kind == "texts":
                assert row["text"].startswith("ab"[key.source])
                continue
            asked, answered = (("q: a asks", "a answers"), ("n: b asks", "n: b answers"))[key.source]
            assert row["anchor"].startswith(asked)
            assert row["positive"].startswith(answered) and row["negative_1"].startswith(answered)


def test_negatives_of_a_file_go_before_mined_ones(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with TableWriter(tmp_path / "train/a.arrow", PAIR_COLUMNS) as table:
        for row in range(9):
            table.add({"anchor": f"q{row}", "positive": f"p{row}", "document": "", "kind": "pairs",
                       "negatives": ["given"]})  # fmt: skip
    rows = PairRows(tmp_path, "a", negatives=2, seed=0)
    (pair,) = rows.take([4])
    assert pair["negative_1"] == "given" and pair["negative_2"] in {f"p{row}" for row in range(9)} - {"p4"}


def test_too_few_rows_for_a_batch_are_an_error(tmp_path: Path) -> None:
    data = prepared(tmp_path, {"a": 5})
    with pytest.raises(ConfigError, match="stage 1: 6 pairs without equal texts are less than a batch of 8"):
        open_stage(recipe(["a"], {"pairs": 6, "pair_batch": 8}), 0, data)
    with pytest.raises(ConfigError, match="stage 1: 3 texts are less than a batch of 16"):
        open_stage(recipe(["a"], {"texts": 3, "text_batch": 16}), 0, data)


def test_stages_see_rows_in_orders_of_their_own(tmp_path: Path) -> None:
    data = prepared(tmp_path, {"a": 40})
    made = recipe(["a"], STAGE, STAGE)
    first, second, again = (open_stage(made, number, data)[1] for number in (0, 1, 0))
    assert first == again != second
    assert json.dumps(first) != json.dumps(second)


def test_rows_of_a_table_are_found_wherever_they_were_written(tmp_path: Path) -> None:
    with TableWriter(tmp_path / "a.arrow", TEXT_COLUMNS) as writer:
        for number in range(20_001):  # two whole batches and one row
            writer.add({"text": f"text {number}"})
    table = Table(tmp_path / "a.arrow")
    rows = [20_000, 0, 9_999, 10_000, 19_999, 10_000]
    assert table.take("text", rows) == [f"text {row}" for row in rows]
    with pytest.raises(IndexError):
        table.take("text", [20_001])
