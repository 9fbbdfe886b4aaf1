"""What goes along with training: stopping on a signal, progress, and the log as a table."""

from __future__ import annotations

import csv
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

STOPPED_EXIT_CODE = 75
"""Ends a run that a signal stopped behind a checkpoint: "try again later", as sysexits.h has it."""

TRAINING_TABLE, HELD_OUT_TABLE = "training.csv", "held_out.csv"

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopOnSignal(TrainerCallback):  # type: ignore[misc]
    """Ends training with a checkpoint at the next step once SIGTERM or SIGUSR1 came to any process.

    Schedulers send one of them some time before they kill a job.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._asked = False
        self._before: dict[int, Any] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Listen."""
        self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Leave the signals to whom they belonged."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Stop here if any process was asked to, so that all stop at the same step."""
        asked = self._asked
        if args.world_size > 1:
            flag = torch.tensor(float(asked), device=args.device)
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
            asked = bool(flag)
        if asked and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = control.should_training_stop = True

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True


class Bar(Protocol):
    """What progress is shown on."""

    def __call__(self, count: int = 1) -> None:
        """Note that so many more tokens are done."""

    def resume(self, count: int) -> None:
        """Note that so many were done by an earlier run."""

    def describe(self, label: str) -> None:
        """Say how it goes."""


class NoBar:
    """A bar that nobody looks at."""

    def __call__(self, count: int = 1) -> None:
        """Do nothing."""

    def resume(self, count: int) -> None:
        """Do nothing."""

    def describe(self, label: str) -> None:
        """Do nothing."""


class ShowProgress(TrainerCallback):  # type: ignore[misc]
    """Counts what is learnt on a bar, and says beside it how the loss stands and how busy the device is."""

    def __init__(
        self, bar: Bar, step_tokens: int, step_flops: float | None = None, peak_flops: float | None = None
    ) -> None:
        """Show a phase.

        Args:
            bar: counts tokens, or steps.
            step_tokens: of a step, over all processes; 1 to count steps.
            step_flops: operations of a step; None where that is not known.
            peak_flops: what all devices together could do in a second; None where that is not known.
        """
        self._bar, self._tokens = bar, step_tokens
        self._flops, self._peak = step_flops, peak_flops
        self._last = (0.0, 0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Begin where the last checkpoint was."""
        self._last = (time.monotonic(), state.global_step)
        if state.is_world_process_zero:
            self._bar.resume(state.global_step * self._tokens)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Count a step."""
        if state.is_world_process_zero:
            self._bar(self._tokens)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **others: Any,
    ) -> None:
        """Say how it goes."""
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        now = time.monotonic()
        seconds, steps = now - self._last[0], state.global_step - self._last[1]
        self._last = (now, state.global_step)
        label = f"step {state.global_step:,} of {state.max_steps:,}, loss {logs['loss']:.3f}"
        if seconds > 0 and self._flops is not None:
            speed = steps * self._flops / seconds
            label += f", {speed / 1e12:.3g} TFLOP/s"
            label += f" ({speed / self._peak:.0%} of the peak)" if self._peak else ""
        self._bar.describe(label)


class TableLog(TrainerCallback):  # type: ignore[misc]
    """Writes what is logged as tables: ``training.csv`` and ``held_out.csv``, a line at a time."""

    def __init__(
        self,
        folder: Path,
        *,
        step_tokens: int | None = None,
        rate: Callable[[int], float] | None = None,
    ) -> None:
        """Write into ``folder``, beside each step its tokens so far and its masking rate, where they are."""
        self._folder, self._tokens, self._rate = folder, step_tokens, rate

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Drop the lines behind the checkpoint that is resumed from: they will come again."""
        if not state.is_world_process_zero:
            return
        for path in (self._folder / TRAINING_TABLE, self._folder / HELD_OUT_TABLE):
            if path.exists():
                with path.open(newline="") as file:
                    header, *rows = csv.reader(file)
                kept = [row for row in rows if int(row[0]) <= state.global_step]
                with path.open("w", newline="") as file:
                    csv.writer(file, lineterminator="\n").writerows([header, *kept])

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **others: Any,
    ) -> None:
        """Write a line."""
        if not state.is_world_process_zero or not logs:
            return
        step = state.global_step
        row: dict[str, float] = {"step": step}
        if self._tokens is not None:
            row["tokens"] = step * self._tokens
        if "loss" in logs:
            row["learning_rate"] = logs["learning_rate"]
            if self._rate is not None:
                row["masking_rate"] = self._rate(step - 1)
            append_row(self._folder / TRAINING_TABLE, row | {"loss": logs["loss"]})
        measured = {
            name.removeprefix("eval_"): value for name, value in logs.items() if name.startswith("eval_")
        }
        if measured:
            append_row(self._folder / HELD_OUT_TABLE, row | measured)


def append_row(path: Path, row: Mapping[str, float]) -> None:
    """Write a row at the end of a table; a new one begins with the names of its columns."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(row)
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in row.values()])
