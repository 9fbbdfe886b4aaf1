"""What the fault tests share: invented documents, and indexes built from them once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness
import pytest

from cmbert_retrieval.encoders import load_encoder
from cmbert_retrieval.encoders.base import Encoder

SHARD_ROWS = 256
DELETED = [f"d{number}" for number in range(100, 160)] + ["d2001", "d3"]


@dataclass(frozen=True)
class Workshop:
    """Sources, and the index after each of four commands.

    Attributes:
        folder: for the copies of tests.
        encoder_path: the encoder of all of them.
        encoder: the same, open.
        corpus: what is built.
        addition: what is added: new, changed and unchanged documents.
        built: the index after the build, which is commit 1.
        added: after the addition to it.
        deleted: after deleting ``DELETED`` from that.
        optimized: after optimizing that.
        reports: what each of these commands reported, by its name.
    """

    folder: Path
    encoder_path: Path
    encoder: Encoder
    corpus: Path
    addition: Path
    built: Path
    added: Path
    deleted: Path
    optimized: Path
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)

    def build(self, out: Path) -> list[str]:
        """Return the command that builds."""
        settings = ["--set", f"shard_rows={SHARD_ROWS}", "--set", "columns={year: integer}"]
        source = ["--from", f"jsonl:{self.corpus}", "--encoder", str(self.encoder_path)]
        return ["index", "build", *source, *settings, "--out", str(out), "--json"]

    def add(self, root: Path) -> list[str]:
        """Return the command that adds."""
        return ["index", "add", str(root), "--from", f"jsonl:{self.addition}", "--json"]

    def delete(self, root: Path) -> list[str]:
        """Return the command that deletes."""
        return ["index", "delete", str(root), *DELETED, "--json"]

    def optimize(self, root: Path) -> list[str]:
        """Return the command that optimizes."""
        return ["index", "optimize", str(root), "--json"]


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path) -> Workshop:
    """Indexes built by real commands that nobody disturbed."""
    folder = tmp_path_factory.mktemp("faults")
    documents = harness.invented(range(1500), seed=1)
    again = harness.invented([7, 700, 1400], seed=2)  # ids that come twice in one source
    corpus = harness.write_corpus(folder / "corpus.jsonl", [*documents[:1450], *again, *documents[1450:]])
    changed = harness.invented(range(0, 300, 3), seed=3)
    new = harness.invented(range(2000, 2500), seed=1)
    addition = harness.write_corpus(folder / "addition.jsonl", [*changed, *documents[1000:1100], *new])
    made = Workshop(
        folder,
        tiny_encoder_path,
        load_encoder(tiny_encoder_path, threads=1),
        corpus,
        addition,
        *(folder / name for name in ("built", "added", "deleted", "optimized")),
    )
    before: Path | None = None
    for target, command in (
        (made.built, made.build),
        (made.added, made.add),
        (made.deleted, made.delete),
        (made.optimized, made.optimize),
    ):
        if before is not None:
            harness.shutil.copytree(before, target)
        ended = harness.run(*command(target))
        assert ended.code == 0, ended.err
        made.reports[command.__name__] = ended.report
        before = target
    return made
