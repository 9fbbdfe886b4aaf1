"""Small token shards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from cmbert_retrieval.pretraining.shards import TokenShards


@pytest.fixture
def shards(tmp_path: Path) -> TokenShards:
    """Return 60 documents of 0 to 99 tokens in two shards."""
    pytest.importorskip("torch")
    pytest.importorskip("pyarrow")
    from token_samples import VOCABULARY, token_documents

    from cmbert_retrieval.pretraining.shards import TokenShards, write_shard

    lengths = np.random.default_rng(5).integers(0, 100, 60).tolist()
    made = token_documents(lengths)
    paths = [tmp_path / "00000.arrow", tmp_path / "00001.arrow"]
    for path, part in zip(paths, (made[:25], made[25:]), strict=True):
        write_shard(path, part, vocabulary=VOCABULARY)
    return TokenShards(paths)
