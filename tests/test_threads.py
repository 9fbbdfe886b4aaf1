from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.threads import limit_tokenizers, thread_budget, usable_cores


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


def test_tokenizers_keep_to_the_first_budget_or_to_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    monkeypatch.setenv("CMBERT_THREADS", "3")
    limit_tokenizers()
    limit_tokenizers(2)
    assert os.environ["RAYON_NUM_THREADS"] == "3"


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("active", "ACTIVE")])
def test_threads_of_faiss_sleep_while_they_wait_unless_the_user_says_otherwise(
    given: str | None, expected: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_DISPLAY_ENV": "true"} | ({"OMP_WAIT_POLICY": given} if given else {})
    code = (
        "import os; from cmbert_retrieval.indexes.vectors import _faiss; _faiss(); "
        "print(os.environ.get('OMP_WAIT_POLICY'))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    told = re.search(r"OMP_WAIT_POLICY\s*=\s*'(\w+)'", done.stderr)
    if told is None:
        pytest.skip("this OpenMP does not tell its settings")
    assert told[1] == expected
    assert done.stdout.strip() == str(given)  # other libraries see what was there
