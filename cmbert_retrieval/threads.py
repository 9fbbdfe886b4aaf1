"""One thread budget for onnxruntime, FAISS and the rest: each of them would take all cores for itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cmbert_retrieval.errors import ConfigError


def usable_cores() -> int:
    """Return how many cores this process may use: its affinity, capped by the container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass  # no control groups here: the affinity is all that there is to know
    return cores


def thread_budget(threads: int | None = None) -> int:
    """Return the threads for one library call: ``threads``, ``$CMBERT_THREADS`` or the usable cores.

    Raises:
        ConfigError: the number is not a positive integer.
    """
    given: object = threads if threads is not None else os.environ.get("CMBERT_THREADS") or usable_cores()
    try:
        count = int(str(given))
    except ValueError:
        count = 0
    if count < 1:
        name = "threads" if threads is not None else "CMBERT_THREADS"
        raise ConfigError(f"{name} is {given!r}; expected a positive whole number")
    return count


_environment = threading.Lock()


@contextmanager
def sleeping_openmp() -> Iterator[None]:
    """Load a library with OpenMP in here: its threads sleep while they wait, unless the user says otherwise.

    By default they spin. Where other work has one of the cores, all then wait for the end of its time slice:
    a search over 40,000 vectors took 25 ms instead of 3.
    """
    name = "OMP_WAIT_POLICY"
    with _environment:
        given = name in os.environ
        os.environ.setdefault(name, "passive")  # read once, when the library is loaded
        try:
            yield
        finally:
            if not given:
                os.environ.pop(name, None)  # not meant for torch


def limit_tokenizers(threads: int | None = None) -> None:
    """Hold the tokenizers' own pool to the budget. The first call of a process decides, as their pool is one.

    They read it from the environment when they first encode several texts; a number that the user put there
    stays.

    Raises:
        ConfigError: the number is not a positive integer.
    """
    os.environ.setdefault("RAYON_NUM_THREADS", str(thread_budget(threads)))
