"""Work in parallel processes whose results come in the order of the tasks."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from cmbert_retrieval.errors import CmbertError

Task = TypeVar("Task")
Result = TypeVar("Result")

_AHEAD = 2
"""Tasks a process that wait or are done without having been asked for: they bound the memory."""

_tool: Any = None


def usable_processes(wanted: int | None) -> int:
    """Return how many processes to work in: as many as wanted, or as there are cores for this process."""
    if wanted is not None:
        return max(1, wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(
    work: Callable[[Any, Task], Result],
    tasks: Iterable[Task],
    processes: int,
    make_tool: Callable[[], Any] | None = None,
) -> Iterator[Result]:
    """Yield what ``work(tool, task)`` returns for each task, in their order.

    Args:
        work: a function of a module, which new processes can import.
        tasks: read no further ahead than is worked on.
        processes: 1 works in this one.
        make_tool: called once in each process; a function of a module, too. None: the tool is None.

    Raises:
        CmbertError: a process was ended from outside. Errors of ``work`` pass as they are.
    """
    if processes == 1:
        tool = make_tool() if make_tool is not None else None
        for task in tasks:
            yield work(tool, task)
        return
    # Not forked: a fork of a process with threads (those of tokenizers) may wait for ever.
    context = multiprocessing.get_context("spawn")
    waiting: deque[Future[Result]] = deque()
    pool = ProcessPoolExecutor(processes, context, _begin, (make_tool,))
    try:
        for task in tasks:
            waiting.append(pool.submit(_do, work, task))
            while len(waiting) >= _AHEAD * processes or (waiting and waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise CmbertError(
            "a process that worked on a part was ended from outside, perhaps for want of memory; run the "
            "same command again, with fewer processes"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(make_tool: Callable[[], Any] | None) -> None:
    global _tool
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core a process
    _tool = make_tool() if make_tool is not None else None


def _do(work: Callable[[Any, Task], Result], task: Task) -> Result:
    return work(_tool, task)
