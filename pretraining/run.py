"""``cmbert pretrain`` in one process of many: ``torchrun ... pretraining/run.py RECIPE --data FOLDER``.

Takes the options of ``cmbert pretrain run``. Text is prepared before, by one process that needs no GPU; the
first process alone prints and shows progress.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from cmbert_retrieval.cli import main

_STOPPED = 75  # as callbacks.STOPPED_EXIT_CODE, without waiting for torch


def _stop(number: int, frame: FrameType | None) -> None:
    """End outside of training, where everything on disk is whole; training has its own way to stop."""
    sys.exit(_STOPPED)


def run(
    arguments: list[str], command: str = "pretrain", script: str = "pretraining/run.py", what: str = "text"
) -> int:
    """Run the command and return its exit code, the same in all processes unless one of them fails."""
    signal.signal(signal.SIGUSR1, _stop)
    rank, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    words = [command, "run", *arguments]
    if processes > 1 and not any(word == "--data" or word.startswith("--data=") for word in arguments):
        if rank == 0:
            sys.stderr.write(
                f"{script}: got no --data, expected prepared {what} where several processes train; "
                f"run first: cmbert {command} prepare RECIPE --out FOLDER\n"
            )
        return 2
    if rank > 0:
        words.insert(0, "--quiet")
        sys.stdout = Path(os.devnull).open("w")
    code = main(words)
    if processes > 1 and code in (0, _STOPPED):
        _leave_together()
    return code


def _leave_together() -> None:
    """Wait for all: torchrun kills the others once one ends with a code; the first may still write."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
