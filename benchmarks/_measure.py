"""What all benchmarks share: sides that take turns, one JSON line a measurement, a table at the end.

A line on stdout has ``benchmark``, ``name``, ``ours``, ``theirs``, ``ratio`` (ours / theirs), ``unit``,
``peer`` (what the other side is, with its version), ``repeats`` (what the two are medians of), ``mark`` and
``met`` where the project promises something, the facts of the ``machine``, and details of its own. What
cannot be measured here is a line with ``skipped`` and the reason. The table goes to stderr.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from cmbert_retrieval.cli._machine import processor
from cmbert_retrieval.threads import thread_budget

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "runs" / "benchmarks"
"""What is made once and found again; git ignores it."""

Sides = Mapping[str, Callable[..., Any]]


class SkippedError(Exception):
    """Something cannot be measured here; its text says why."""


def default_data() -> Path:
    """Return the folder of real data: ``$CMBERT_DATA``, or ``shared/data`` beside the clone."""
    return Path(os.environ.get("CMBERT_DATA") or ROOT.parent / "shared" / "data")


def wanted(path: Path) -> Path:
    """Return a path below the data folder.

    Raises:
        SkippedError: nothing is there.
    """
    if not path.exists():
        raise SkippedError(f"no {'/'.join(path.parts[-2:])} in the data folder (make bench DATA=folder)")
    return path


def versioned(package: str) -> str:
    """Return a peer's name with its version.

    Raises:
        SkippedError: it is not installed.
    """
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        raise SkippedError(f"{package} is not installed (make bench installs it)") from None


def read_jsonl(path: Path) -> Iterable[dict[str, Any]]:
    """Yield the objects of a ``.jsonl.gz``."""
    with gzip.open(wanted(path), "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


# --- measuring ---


class Times:
    """Seconds of the calls of one side, by the clock on the wall and of processor time."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.processor: list[float] = []

    def take(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Call, and note how long that took."""
        used, began = time.process_time(), time.perf_counter()
        call(*arguments)
        self.wall.append(time.perf_counter() - began)
        self.processor.append(time.process_time() - used)

    @property
    def p50(self) -> float:
        """The median by the clock on the wall."""
        return statistics.median(self.wall)

    @property
    def p95(self) -> float:
        """What 95 of 100 calls stay below."""
        return statistics.quantiles(self.wall, n=20)[-1] if len(self.wall) > 1 else self.wall[0]


def take_turns(sides: Sides, repeats: int, items: Sequence[Any] = (), *, block: int = 25) -> dict[str, Times]:
    """Return the times of each side after ``repeats`` rounds; one more before them does not count.

    The sides alternate, and who begins does too, so that whatever else the machine does meets all of them.

    Args:
        sides: name -> what is called, with an item or, where there are none, with nothing.
        repeats: rounds.
        items: what each side is called with in each round, one time each.
        block: items that one side takes before it is the next one's turn: what a side needs stays in the
            processor's cache meanwhile, as it does for a user who has that side alone.
    """
    times = {side: Times() for side in sides}
    blocks = [items[start : start + block] for start in range(0, len(items), block)] or [()]
    turn = 0
    for repeat in range(-1, repeats):
        for part in blocks:
            turn += 1
            for side in list(sides) if turn % 2 else list(reversed(sides)):
                to = times[side] if repeat >= 0 else Times()
                for arguments in [(item,) for item in part] if items else [()]:
                    to.take(sides[side], *arguments)
    return times


def most_anonymous_mib(command: list[str]) -> float:
    """Run a command; return the most anonymous memory that it had, in MiB.

    Raises:
        SkippedError: it failed.
    """
    most = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            for line in status.read_text().splitlines():
                if line.startswith("RssAnon:"):
                    most = max(most, int(line.split()[1]))
            time.sleep(0.02)
    if process.returncode:
        raise SkippedError(f"{command[3]} failed with exit code {process.returncode}")
    return most / 1024


# --- telling ---


@functools.cache
def machine() -> dict[str, Any]:
    """Return the facts that a figure depends on."""
    facts = processor()
    return {
        "processor": facts["model"],
        "cores": facts["cores usable"],
        "threads": thread_budget(),
        "features": facts["features"],
        "gpu": False,
        "system": platform.system(),
        "python": platform.python_version(),
    }


def satisfies(mark: str, line: Mapping[str, Any]) -> bool:
    """Return whether a line meets its mark, such as ``ratio >= 1.5``."""
    key, sign, bound = mark.split()
    value = float(line[key])
    return value >= float(bound) if sign == ">=" else value <= float(bound)


class Results:
    """Prints each measurement as it comes."""

    def __init__(self, benchmark: str) -> None:
        self.benchmark = benchmark
        self.lines: list[dict[str, Any]] = []

    def add(
        self,
        name: str,
        *,
        ours: float,
        unit: str,
        repeats: int,
        theirs: float | None = None,
        peer: str = "",
        mark: str = "",
        **details: Any,
    ) -> None:
        """Print a measurement.

        Args:
            name: what was measured.
            ours: our side.
            unit: of both sides.
            repeats: what each of them is the median of.
            theirs: the other side, where there is one.
            peer: what the other side is.
            mark: what the project promises: a key, ``>=`` or ``<=``, and a number.
            details: more keys for the line.
        """
        line: dict[str, Any] = {"benchmark": self.benchmark, "name": name, "ours": _rounded(ours)}
        line["theirs"] = _rounded(theirs) if theirs is not None else None
        line["ratio"] = _rounded(ours / theirs) if theirs else None
        line |= {"unit": unit, "peer": peer, "repeats": repeats, **details}
        if mark:
            line |= {"mark": mark, "met": satisfies(mark, line)}
        self._print({**line, "machine": machine()})

    def skip(self, name: str, reason: str) -> None:
        """Print that something could not be measured."""
        self._print({"benchmark": self.benchmark, "name": name, "skipped": reason})

    def _print(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        print(json.dumps(line, ensure_ascii=False), flush=True)


def table(lines: Iterable[Mapping[str, Any]]) -> str:
    """Return measurements as a table, a row each."""
    rows = [("", "measured", "ours", "theirs", "ratio", "unit", "against", "mark")]
    for line in lines:
        start = (line["benchmark"], line["name"])
        if "skipped" in line:
            rows.append((*start, "skipped:", line["skipped"], "", "", "", ""))
            continue
        mark = f"{line['mark']}: {'met' if line['met'] else 'MISSED'}" if "mark" in line else ""
        values = (_shown(line[key]) for key in ("ours", "theirs", "ratio"))
        rows.append((*start, *values, line["unit"], line["peer"], mark))
    # A reason runs on over the columns behind it.
    widths = [
        max(len(row[column]) for row in rows if row[2] != "skipped:" or column < 2) for column in range(8)
    ]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def run(measure: Callable[..., None], description: str | None, **choices: Sequence[str]) -> None:
    """Be the command of one benchmark: read its options, measure, print.

    Args:
        measure: takes the data folder, the results, and what was chosen by keyword.
        description: for ``--help``.
        choices: more options, name -> what may be chosen; the first is the default.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=default_data(), help="folder of the real data [%(default)s]"
    )
    parser.add_argument("--no-table", action="store_true", help="JSON lines only")
    for name, values in choices.items():
        parser.add_argument(f"--{name}", choices=values, default=values[0])
    options = parser.parse_args()
    results = Results(Path(sys.argv[0]).stem)
    try:
        if not options.data.is_dir():
            raise SkippedError(
                f"{options.data} is no folder; say where the real data are: make bench DATA=folder"
            )
        measure(options.data.resolve(), results, **{name: getattr(options, name) for name in choices})
    except SkippedError as error:
        results.skip("all" if not results.lines else "the rest", str(error))
    if not options.no_table:
        print(table(results.lines), file=sys.stderr)
