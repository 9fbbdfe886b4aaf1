"""Run the recipe of ``test_training`` in a process of its own: DATA OUT [slow]."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from test_training import recipe  # noqa: E402

from cmbert_retrieval.pretraining.callbacks import NoBar  # noqa: E402
from cmbert_retrieval.pretraining.training import pretrain  # noqa: E402


class Slow(NoBar):
    """Waits at every step, so that a signal comes in time."""

    def __call__(self, count: int = 1) -> None:
        time.sleep(0.5)


if __name__ == "__main__":
    bar = Slow() if sys.argv[3:] == ["slow"] else NoBar()
    outcome = pretrain(
        recipe(), Path(sys.argv[1]), Path(sys.argv[2]), bar=lambda label, tokens: nullcontext(bar)
    )
    sys.exit(0 if outcome.folder else 75)
