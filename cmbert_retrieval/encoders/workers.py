"""The threads of an encoder, in whatever process it finds itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

_Input = TypeVar("_Input")
_Output = TypeVar("_Output")


@dataclass(frozen=True, slots=True)
class _Made:
    pool: ThreadPoolExecutor
    alone: threading.Lock = field(default_factory=threading.Lock)
    process: int = field(default_factory=os.getpid)


class Workers:
    """A pool of threads, and a lock for what must run one at a time.

    A forked process (gunicorn --preload, multiprocessing) inherits both as they were, but none of the
    threads: work given to that pool would wait for ever, and so would whoever takes a lock that was held.
    There both are made anew.

    Args:
        threads: in the pool; they start with the first work.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._made = self._make()

    @property
    def alone(self) -> threading.Lock:
        """Held by work that must not run beside more of its kind."""
        return self._of_this_process().alone

    def map(self, work: Callable[[_Input], _Output], inputs: Sequence[_Input]) -> Iterator[_Output]:
        """Yield the results in the order of the inputs. A single one runs on the calling thread."""
        if len(inputs) == 1:
            return map(work, inputs)
        return self._of_this_process().pool.map(work, inputs)

    def _of_this_process(self) -> _Made:
        if self._made.process != os.getpid():
            self._made = self._make()
        return self._made

    def _make(self) -> _Made:
        return _Made(ThreadPoolExecutor(self.threads, thread_name_prefix="cmbert-encoder"))
