"""Fixtures of the whole suite."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")

# The same examples for everybody, so that a failure is a change's own. To look for new ones:
# HYPOTHESIS_PROFILE=explore make test
settings.register_profile("same", derandomize=True)
settings.register_profile("explore", print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The command configures logging for its process, which here runs other tests after it."""
    loggers = (logging.getLogger(), logging.getLogger("cmbert_retrieval"))
    levels = [one.level for one in loggers]
    yield
    for one, level in zip(loggers, levels, strict=True):
        one.setLevel(level)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: ``$CMBERT_DATA``, or ``shared/data`` beside the clone."""
    folder = Path(os.environ.get("CMBERT_DATA") or FIXTURES.parents[1].parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no real data here: set CMBERT_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def tiny_encoder_path() -> Path:
    """A real ModernBERT with random weights and 32 dimensions, exported: opens in no time, without torch."""
    return FIXTURES / "tiny-encoder"


@pytest.fixture(scope="session")
def tiny_compact_path() -> Path:
    """A compact export of it: int8, and its weights once for torch and onnx."""
    return FIXTURES / "tiny-compact"
