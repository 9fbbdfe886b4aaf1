"""Work in parallel: results in order, errors as they are, and a process that was killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from cmbert_retrieval.errors import CmbertError, CorpusError
from cmbert_retrieval.pretraining.processes import in_processes, usable_processes


def tool() -> str:
    return "t"


def work(made: str | None, task: int) -> str:
    if task == 13:
        raise CorpusError("thirteen")
    if task == 17:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{made}{task}"


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order(processes: int) -> None:
    assert list(in_processes(work, range(12), processes, tool)) == [f"t{task}" for task in range(12)]
    assert list(in_processes(work, [1], processes)) == ["None1"]
    assert list(in_processes(work, [], processes)) == []


@pytest.mark.parametrize("processes", [1, 2])
def test_errors_pass_as_they_are(processes: int) -> None:
    with pytest.raises(CorpusError, match="thirteen"):
        list(in_processes(work, range(10, 20), processes, tool))


def test_a_killed_process_is_told() -> None:
    with pytest.raises(CmbertError, match=r"ended from outside.*run the same command again"):
        list(in_processes(work, [1, 17, 2], 2, tool))


@pytest.mark.parametrize("processes", [1, 2])
def test_tasks_are_read_no_further_ahead_than_needed(processes: int) -> None:
    read = 0

    def tasks() -> Iterator[int]:
        nonlocal read
        for _ in range(1000):
            read += 1
            yield 1

    results = in_processes(work, tasks(), processes, tool)
    for _ in range(5):
        next(results)
    assert read <= 5 + 2 * processes
    results.close()  # type: ignore[attr-defined]


def test_all_cores_are_used_unless_told_otherwise() -> None:
    assert usable_processes(3) == 3
    assert 1 <= usable_processes(None) <= (os.cpu_count() or 1)
