"""Masking of real text: rates, terms, whole words and replacements, counted by themselves token by token."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

for package in ("torch", "pyarrow", "datasketch", "wordfreq", "transformers"):
    pytest.importorskip(package)

from prepare_samples import recipe, write_jsonl  # noqa: E402

from cmbert_retrieval.pretraining.masking import IGNORED, mask_rows  # noqa: E402
from cmbert_retrieval.pretraining.prepare import prepare  # noqa: E402
from cmbert_retrieval.pretraining.prepared import Prepared  # noqa: E402
from cmbert_retrieval.pretraining.rows import PackedRows, collate  # noqa: E402
from cmbert_retrieval.pretraining.weights import CONTINUES, LEVEL_MASK, TERM, Weighting  # noqa: E402

pytestmark = pytest.mark.slow

CONTEXT, ANSWERS = 256, 1500
METHODS = ("token-aware", "whole-words", "uniform")


@pytest.fixture(scope="module")
def prepared(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Answers to patients, prepared with a small tokenizer and the names of ICD-10-CM as terms."""
    folder = tmp_path_factory.mktemp("masking")
    with gzip.open(shared_data / "medquad" / "medquad.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = (row for row in map(json.loads, lines) if row["answer"].strip())
        documents = [
            {"_id": row["_id"], "title": row["question"], "text": row["answer"]}
            for row in itertools.islice(rows, ANSWERS)
        ]
    source = {"reader": "jsonl", "path": str(write_jsonl(folder / "answers.jsonl", documents))}
    made = recipe(
        {"answers": source},
        lexicon={"icd10cm": {"reader": "icd10cm"}},
        tokenizer={"vocabulary": 2000, "sample_characters": 1_000_000},
        held_out=0.01,
    )
    prepare(made, folder / "data", processes=1)
    return Prepared.open(folder / "data")


@pytest.fixture(scope="module")
def batch(prepared: Prepared) -> dict[str, Any]:
    """All of the text in packed rows."""
    plan = prepared.plan("train", CONTEXT, 0)
    rows = PackedRows(prepared.train, plan, prepared.special, rows=len(plan), seed=0)
    return collate([rows[place] for place in range(len(rows))])


class MaskedText(NamedTuple):
    ids: np.ndarray
    marks: np.ndarray
    shown: np.ndarray
    predicted: np.ndarray


@pytest.fixture(scope="module")
def masked(prepared: Prepared, batch: dict[str, Any]) -> Any:
    def mask(method: str, rate: float) -> MaskedText:
        weights = Weighting.of(method, 2.0, 0.25).weights(batch["marks"])
        made = mask_rows(
            batch["input_ids"], weights, batch["rows"], batch["epochs"], rate=rate, seed=3,
            mask_id=prepared.special.mask, vocabulary=len(prepared.tokenizer),
        )  # fmt: skip
        assert made.impossible == 0
        arrays = (batch["input_ids"], batch["marks"], made.input_ids, made.labels != IGNORED)
        return MaskedText(*(array.numpy() for array in arrays))

    return mask


def units(marks: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Yield (row, first, one past the last) of the words and terms, by going from token to token."""
    for row, values in enumerate(marks.tolist()):
        first = None
        for place, value in enumerate([*values, 0]):
            open_ = value & LEVEL_MASK > 0
            if first is not None and not (open_ and value & CONTINUES):
                yield row, first, place
                first = None
            if open_ and first is None:
                first = place


@pytest.mark.parametrize("rate", [0.15, 0.30])
@pytest.mark.parametrize("method", METHODS)
def test_as_many_tokens_are_predicted_as_the_rate_says(masked: Any, method: str, rate: float) -> None:
    text = masked(method, rate)
    open_ = (text.marks & LEVEL_MASK) > 0
    assert open_.sum() > 100_000
    # What is drawn together varies together: a draw over units of s tokens varies by p (1 - p) s ** 2 each,
    # and p (1 - p) is at most 1/4 whatever the weights. Five standard errors.
    sizes = np.array([1] if method == "uniform" else [end - first for _, first, end in units(text.marks)])
    squares = open_.sum() if method == "uniform" else (sizes**2).sum()
    tolerance = 5 * np.sqrt(0.25 * squares) / open_.sum()
    assert tolerance < 0.02
    assert text.predicted.sum() / open_.sum() == pytest.approx(rate, abs=tolerance)


@pytest.mark.parametrize("rate", [0.15, 0.30])
def test_terms_are_predicted_more_often_by_token_aware_masking_alone(masked: Any, rate: float) -> None:
    shares = {}
    for method in METHODS:
        text = masked(method, rate)
        term = (text.marks & TERM) > 0
        shares[method] = term[text.predicted].mean()
        all_ = term[(text.marks & LEVEL_MASK) > 0].mean()
    assert 0.02 < all_ < 0.6
    assert shares["uniform"] == pytest.approx(all_, rel=0.05)
    assert shares["whole-words"] == pytest.approx(all_, rel=0.1)
    assert shares["token-aware"] > 1.3 * shares["uniform"]


@pytest.mark.parametrize("method", ["token-aware", "whole-words"])
def test_a_word_is_predicted_as_a_whole_or_not_at_all(masked: Any, method: str) -> None:
    text = masked(method, 0.3)
    several = [unit for unit in units(text.marks) if unit[2] - unit[1] > 1]
    assert len(several) > 10_000
    assert {text.predicted[row, first:end].mean() for row, first, end in several} == {0.0, 1.0}
    alone = masked("uniform", 0.3)
    assert any(0 < alone.predicted[row, first:end].mean() < 1 for row, first, end in several)


@pytest.mark.parametrize("method", METHODS)
def test_special_tokens_and_padding_are_never_predicted(masked: Any, prepared: Prepared, method: str) -> None:
    text = masked(method, 0.3)
    special = prepared.special
    for kind in (special.cls, special.sep, special.pad):
        at = text.ids == kind
        assert at.any()
        assert not text.predicted[at].any()
        assert (text.shown[at] == kind).all()


@pytest.mark.parametrize("method", METHODS)
def test_eight_of_ten_are_hidden_one_is_another_one_itself(
    masked: Any, prepared: Prepared, method: str
) -> None:
    text = masked(method, 0.3)
    shown, ids = text.shown[text.predicted], text.ids[text.predicted]
    count, vocabulary = len(ids), len(prepared.tokenizer)
    hidden, itself = shown == prepared.special.mask, shown == ids
    error = 5 / np.sqrt(count)
    assert hidden.mean() == pytest.approx(0.8 + 0.1 / vocabulary, abs=error * 0.4)
    assert itself.mean() == pytest.approx(0.1 + 0.1 / vocabulary, abs=error * 0.3)
    assert (~hidden & ~itself).mean() == pytest.approx(0.1 - 0.2 / vocabulary, abs=error * 0.3)
    assert (text.shown[~text.predicted] == text.ids[~text.predicted]).all()
