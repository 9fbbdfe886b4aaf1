"""The logic of the benchmarks' helpers; what they measure is measured by ``make bench``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture()
def measure(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import _measure

    yield _measure
    sys.modules.pop("_measure")


def test_sides_take_every_item_in_every_round_in_blocks_that_alternate(measure: ModuleType) -> None:
    calls: list[tuple[str, int]] = []
    sides = {name: lambda item, name=name: calls.append((name, item)) for name in ("a", "b")}
    times = measure.take_turns(sides, 2, [1, 2, 3], block=2)
    assert [len(times[name].wall) for name in ("a", "b")] == [6, 6]
    round_ = [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 3), ("a", 3)]
    assert calls == [*round_, *round_, *round_]  # one more than is counted


def test_sides_without_items_are_called_with_nothing_and_warmed_up_once(measure: ModuleType) -> None:
    calls: list[str] = []
    times = measure.take_turns({name: lambda name=name: calls.append(name) for name in "ab"}, 3)
    assert calls == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert len(times["a"].wall) == len(times["b"].processor) == 3


@pytest.mark.parametrize(
    ("mark", "ours", "met"),
    [
        ("ratio >= 1.5", 3.0, True),
        ("ratio >= 1.5", 2.9, False),
        ("ours <= 3", 3.0, True),
        ("ratio <= 1", 3.0, False),
    ],
)
def test_a_line_says_whether_the_mark_is_met(
    measure: ModuleType, capsys: pytest.CaptureFixture[str], mark: str, ours: float, met: bool
) -> None:
    results = measure.Results("speed")
    results.add("reading", ours=ours, theirs=2.0, unit="files/s", peer="other 1.0", repeats=3, mark=mark)
    results.skip("writing", "no disk")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["ratio"] == ours / 2 and lines[0]["met"] is met and lines[0]["machine"]["cores"] >= 1
    assert lines[1] == {"benchmark": "speed", "name": "writing", "skipped": "no disk"}
    shown = measure.table(lines)
    assert ("MISSED" in shown) is not met
    assert "no disk" in shown
