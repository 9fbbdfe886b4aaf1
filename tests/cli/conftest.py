"""The command, run in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Done, Run

from cmbert_retrieval.cli import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``cmbert`` with these arguments and return what it ended with and printed."""
    monkeypatch.delenv("CMBERT_DEBUG", raising=False)

    def call(*args: str | Path) -> Done:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return call
