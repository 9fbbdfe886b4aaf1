"""How commands show things: results on stdout as JSON, a table or tab-separated text; progress on stderr."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

CONTROL = {code: " " for code in (*range(32), *range(127, 160))}
"""Control characters: an article must not steer the terminal that shows it, nor break a line of output."""

SECONDS_BETWEEN_LINES = 10.0
"""How often progress is told where there is no terminal to draw a bar on."""


def clean(text: str) -> str:
    """Return ``text`` as one line without control characters."""
    return " ".join(text.translate(CONTROL).split())


def is_terminal(stream: TextIO | None = None) -> bool:
    """Return whether a person reads ``stream`` (stdout by default)."""
    return (stream or sys.stdout).isatty()


def is_quiet() -> bool:
    """Return whether only errors are wanted (``--quiet``)."""
    return logging.getLogger("cmbert_retrieval").getEffectiveLevel() > logging.WARNING


def tell(line: str) -> None:
    """Print a line on stderr that is no error: what a build left out, where it goes on."""
    if not is_quiet():
        sys.stderr.write(f"{clean(line)}\n")
        sys.stderr.flush()


def print_json(value: object) -> None:
    """Print ``value`` as JSON on stdout; dataclasses, numpy values, paths and sets are turned into JSON."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2, allow_nan=False, default=_as_json)
    sys.stdout.write("\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """Print rows: as a table on a terminal, as tab-separated lines without a header elsewhere.

    Args:
        columns: the headings.
        rows: one value a column. None is shown as nothing.
        title: put above the table; left out of tab-separated text.
    """
    texts = [["" if value is None else clean(str(value)) for value in row] for row in rows]
    if not is_terminal():
        sys.stdout.writelines("\t".join(row) + "\n" for row in texts)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, title_justify="left", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = bool(texts) and all(_is_number(row[index]) for row in texts)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in texts:
        table.add_row(*(Text(value) for value in row))
    Console().print(table)


class ProgressBar:
    """Progress on stderr: a bar with rate and time left on a terminal, a line now and then elsewhere.

    Silent under ``--quiet``. Calling it adds to the count, as whatever takes a ``progress`` does::

        with ProgressBar("encoding", total=len(texts), unit="texts") as progress:
            encoder.encode_document(texts, progress=progress)
    """

    def __init__(self, label: str, *, total: int | None = None, unit: str = "rows") -> None:
        """Make a bar that is drawn between ``__enter__`` and ``__exit__``.

        Args:
            label: what is being done, as one word or two.
            total: how much there is to do, where that is known.
            unit: what is counted, in the plural.
        """
        self.label, self.total, self.unit, self.count = label, total, unit, 0
        self._before = 0  # done by an earlier run: says nothing of how fast this one is
        self._quiet = is_quiet()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> ProgressBar:
        self._began = self._said = time.monotonic()
        self._told = 0
        if not self._quiet and is_terminal(sys.stderr):
            self._bar = _rich_bar(self.unit)
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.total)
        return self

    def __call__(self, count: int = 1) -> None:
        """Note that ``count`` more are done."""
        self.count += count
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, count)
        elif not self._quiet and time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._say()

    def resume(self, count: int) -> None:
        """Note that ``count`` were done by an earlier run."""
        self._before += count
        self.count += count
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.count)

    def expect(self, total: int) -> None:
        """Set how much there is to do, once that is known."""
        self.total = total
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=total)

    def describe(self, label: str) -> None:
        """Say what is being done now."""
        self.label = label
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=label)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif not self._quiet and kind is None and self.count > self._told:
            self._say(last=True)

    def _say(self, *, last: bool = False) -> None:
        self._said, self._told = time.monotonic(), self.count
        seconds = max(self._said - self._began, 1e-9)
        rate = (self.count - self._before) / seconds
        line = f"{self.label}: {self.count:,}"
        if self.total:
            line += f" of {self.total:,} {self.unit} ({self.count / self.total:.0%})"
        else:
            line += f" {self.unit}"
        line += f", {rate:,.1f} a second"
        if self.total and rate and self.count < self.total and not last:
            line += f", {_minutes((self.total - self.count) / rate)} left"
        elif self.count:
            done = last or self.count == self.total
            line += f", {_minutes(seconds)} {'in all' if done else 'so far'}"
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _rich_bar(unit: str) -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            rate = task.finished_speed or task.speed
            return Text("" if rate is None else f"{rate:,.0f} {unit}/s")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True


def _as_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} has no JSON form; expected values, dataclasses or arrays")
