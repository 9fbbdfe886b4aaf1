"""Prepared data, opened: tokenizer, token shards, and which document stands in which row."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.pretraining.packing import Plan, mix, plan_rows, read_plan, write_plan
from cmbert_retrieval.pretraining.report import REPORT_JSON
from cmbert_retrieval.pretraining.rows import SpecialTokens
from cmbert_retrieval.pretraining.shards import TokenShards

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True, slots=True)
class Prepared:
    """Prepared data, opened.

    Attributes:
        folder: where they are.
        tokenizer: what made the tokens.
        train: what is learnt from.
        held_out: what is measured on.
    """

    folder: Path
    tokenizer: PreTrainedTokenizerFast
    train: TokenShards
    held_out: TokenShards

    @classmethod
    def open(cls, folder: Path) -> Prepared:
        """Open a folder that ``prepare`` has finished.

        Raises:
            CorpusError: it is not there, or not finished.
        """
        if not (folder / "prepared.json").is_file():
            raise CorpusError(
                f"{folder}: no prepared data; run: cmbert pretrain prepare RECIPE --out {folder}"
            )
        from transformers import AutoTokenizer

        return cls(
            folder,
            AutoTokenizer.from_pretrained(folder / "tokenizer"),
            TokenShards(sorted((folder / "train").glob("*.arrow"))),
            TokenShards(sorted((folder / "held_out").glob("*.arrow"))),
        )

    @property
    def special(self) -> SpecialTokens:
        """The ids that rows are made with."""
        found = self.tokenizer
        return SpecialTokens(
            cls=found.cls_token_id, sep=found.sep_token_id, pad=found.pad_token_id, mask=found.mask_token_id
        )

    @property
    def report(self) -> dict[str, Any]:
        """What was prepared, as ``Report.to_json`` has it."""
        return dict(json.loads((self.folder / REPORT_JSON).read_bytes()))

    def plan(self, part: str, context: int, seed: int, weights: Sequence[float] | None = None) -> Plan:
        """Return which documents stand in which row, made once and kept beside the data.

        Several runs may ask at the same time.
        """
        shards = self.train if part == "train" else self.held_out
        mixture = hashlib.sha256(repr(list(weights or ())).encode()).hexdigest()[:8]
        folder = self.folder / "plans" / f"{part}-{seed}-{mixture}"
        with suppress(FileNotFoundError):
            return read_plan(folder, context)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):  # another run has just made it
                return read_plan(folder, context)
            documents = mix(shards.sources, weights, seed) if weights is not None else None
            rows = plan_rows(shards.lengths, context, seed, documents=documents, continues=shards.continues)
            return write_plan(rows, folder, context)
