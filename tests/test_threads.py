from __future__ import annotations

import pytest

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.threads import thread_budget, usable_cores


def test_an_argument_wins_over_the_environment_and_that_over_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CMBERT_THREADS", raising=False)
    assert thread_budget() == usable_cores() >= 1
    monkeypatch.setenv("CMBERT_THREADS", "3")
    assert thread_budget() == 3
    assert thread_budget(2) == 2


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_are_refused(threads: int) -> None:
    with pytest.raises(ConfigError, match="threads is"):
        thread_budget(threads)
