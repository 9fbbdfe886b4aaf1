"""Rows: every token once an epoch, in an order that nobody can change, and blind across borders."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pyarrow")

from token_samples import SPECIAL, VOCABULARY  # noqa: E402

from cmbert_retrieval.pretraining import attention  # noqa: E402
from cmbert_retrieval.pretraining.packing import plan_rows, write_plan  # noqa: E402
from cmbert_retrieval.pretraining.prepared import Prepared  # noqa: E402
from cmbert_retrieval.pretraining.rows import PackedRows, collate, model_inputs  # noqa: E402
from cmbert_retrieval.pretraining.shards import TokenShards  # noqa: E402

pytestmark = pytest.mark.slow  # torch

CONTEXT = 64


@pytest.fixture
def rows(shards: TokenShards, tmp_path: Path) -> PackedRows:
    plan = write_plan(plan_rows(shards.lengths, CONTEXT, 0), tmp_path, CONTEXT)
    return PackedRows(shards, plan, SPECIAL, rows=2 * len(plan) + 3, seed=0)


def test_runs_that_begin_at_the_same_time_share_a_plan(shards: TokenShards, tmp_path: Path) -> None:
    prepared = Prepared(tmp_path, tokenizer=None, train=shards, held_out=shards)  # type: ignore[arg-type]
    with ThreadPoolExecutor(8) as pool:
        plans = list(pool.map(lambda _: prepared.plan("train", CONTEXT, 0), range(8)))
    for plan in plans:
        assert np.array_equal(plan.pieces, plans[0].pieces)
        assert len(plan) == len(plans[0]) > 0


def tokens_of(row: dict[str, Any]) -> list[int]:
    return [token for token in row["input_ids"].tolist() if token > 4]


def test_every_token_is_seen_once_an_epoch(rows: PackedRows, shards: TokenShards) -> None:
    epoch = (len(rows) - 3) // 2
    expected = sorted(token for number in range(len(shards)) for token in shards.document(number)[0].tolist())
    orders = []
    for start in (0, epoch):
        seen = [rows[place] for place in range(start, start + epoch)]
        assert sorted(token for row in seen for token in tokens_of(row)) == expected
        assert {row["epoch"] for row in seen} == {start // epoch}
        orders.append([row["row"] for row in seen])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(epoch))
    assert orders[0] != orders[1]


def test_lengths_fill_each_row_and_special_tokens_are_never_predicted(rows: PackedRows) -> None:
    for place in range(len(rows)):
        row = rows[place]
        assert row["lengths"].sum() == CONTEXT
        special = row["input_ids"] < 5
        assert not row["marks"][special].any()
        assert row["marks"][~special].all()
        starts = np.cumsum([0, *row["lengths"][:-1]])
        assert set(row["input_ids"][starts].tolist()) <= {SPECIAL.cls, SPECIAL.pad}


def model(implementation: str) -> Any:
    from transformers import ModernBertConfig, ModernBertModel

    attention.register()
    config = ModernBertConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=2, local_attention=8, pad_token_id=0, cls_token_id=1, sep_token_id=2,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    return ModernBertModel._from_config(config, attn_implementation=implementation).double().eval()


@pytest.mark.parametrize("implementation", [attention.NAME, "sdpa"])
def test_a_packed_document_is_encoded_as_if_it_were_alone(rows: PackedRows, implementation: str) -> None:
    batch = collate([rows[place] for place in range(4)])
    made = model(implementation)
    with torch.inference_mode():
        inputs = model_inputs(
            batch["input_ids"], batch["lengths"], attention=made.config._attn_implementation, window=8
        )
        packed = made(**inputs).last_hidden_state.reshape(-1, 32)
        alone = model("eager")
        at = 0
        for length in batch["lengths"].tolist():
            tokens = batch["input_ids"].reshape(1, -1)[:, at : at + length]
            torch.testing.assert_close(packed[at : at + length], alone(tokens).last_hidden_state[0])
            at += length


@pytest.mark.parametrize("implementation", [attention.NAME, "sdpa"])
def test_a_changed_document_leaves_the_vectors_of_the_others_equal(
    rows: PackedRows, implementation: str
) -> None:
    batch = collate([rows[place] for place in range(3)])
    made = model(implementation)
    changed = batch["input_ids"].clone()
    length = int(batch["lengths"][0])
    changed[0, 1 : length - 1] = 7
    with torch.inference_mode():
        before, after = (
            made(**model_inputs(ids, batch["lengths"], attention=implementation, window=8))[0].flatten(0, 1)
            for ids in (batch["input_ids"], changed)
        )
    assert not torch.equal(before[:length], after[:length])
    assert torch.equal(before[length:], after[length:])
