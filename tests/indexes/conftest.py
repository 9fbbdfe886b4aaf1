"""What the tests of indexes share."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmbert_retrieval.encoders import load_encoder
from cmbert_retrieval.encoders.base import Encoder


@pytest.fixture(scope="session")
def encoder(tiny_encoder_path: Path) -> Encoder:
    """A real encoder of 32 dimensions."""
    return load_encoder(tiny_encoder_path)
