"""Killed at any moment, an index is as one of its commits left it, and the same command finishes the work."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import harness
import pytest
from conftest import SHARD_ROWS, Workshop
from harness import DONE, PHASES, RENAME, SHARDS, WORDS, Ended, State

from cmbert_retrieval.indexes.locks import commit_name
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# How many kills at moments drawn by a seeded generator. Some stretches of a run are over in a hundredth of a
# second, where chance alone would hardly ever hit them: these are slowed down, and moments drawn within them.
KILLS = {
    "anywhere": {"build": 8, "add": 6, "delete": 4, "optimize": 4},
    SHARDS: {"build": 7, "add": 5},
    WORDS: {"build": 2, "add": 2, "delete": 2, "optimize": 2},
    RENAME: {"build": 2, "add": 2, "delete": 2, "optimize": 2},
}
assert sum(sum(kills.values()) for kills in KILLS.values()) == 50


@dataclass
class Job:
    """A command with the index before it and the index that an undisturbed run leaves."""

    name: str
    before: Path | None
    after: Path
    command: Callable[[Path], list[str]]
    workshop: Workshop

    @cached_property
    def commit(self) -> int:
        return harness.commit_of(self.before) if self.before else 0

    @cached_property
    def old(self) -> State:
        return State.of(self.before) if self.before else State({}, b"")

    @cached_property
    def new(self) -> State:
        return State.of(self.after)

    @cached_property
    def answers(self) -> dict[str, list[tuple[str, float]]]:
        return harness.answers(self.after, self.workshop.encoder)

    @cached_property
    def seconds(self) -> float:
        """How long the command runs when two of its kind run at once, as they do below."""
        with ThreadPoolExecutor(2) as pool:
            return max(pool.map(self._measure, range(2)))

    def _measure(self, number: int) -> float:
        with harness.copied(self.before, self.workshop.folder / f"{self.name}-timed-{number}") as root:
            began = time.monotonic()
            assert harness.run(*self.command(root)).code == 0
            return time.monotonic() - began


def jobs(workshop: Workshop) -> dict[str, Job]:
    return {
        "build": Job("build", None, workshop.built, workshop.build, workshop),
        "add": Job("add", workshop.built, workshop.added, workshop.add, workshop),
        "delete": Job("delete", workshop.added, workshop.deleted, workshop.delete, workshop),
        "optimize": Job("optimize", workshop.deleted, workshop.optimized, workshop.optimize, workshop),
    }


def check_after_kill(job: Job, root: Path) -> str:
    """Check that what a kill left is a whole commit; return the phase that it hit."""
    hit = harness.phase(root, job.commit)
    assert harness.commit_of(root) in (job.commit, job.commit + 1)
    assert harness.problems(root) == []
    if harness.commit_of(root):
        assert State.of(root) == (job.new if hit == DONE else job.old), f"{job.name}, killed {hit}"
    return hit


def check_second_run(job: Job, root: Path, hit: str) -> None:
    """Run the command again, to its end, and compare with a run that nobody disturbed."""
    stored = sum(harness.stored_rows(folder) for folder in harness.unfinished(root))
    ended = harness.run(*job.command(root))
    if hit == DONE and job.name in ("build", "delete"):
        expected = "holds an index already" if job.name == "build" else "are not in the index"
        assert ended.code == 1 and expected in ended.err, ended.err
    else:
        assert ended.code == 0, ended.err
        rows = len(job.new.rows.keys() - job.old.rows.keys())  # of deleted ones there are none in an addition
        if job.name in ("build", "add"):
            # Rows that die in the build that made them (ids that came twice) are stored, too.
            dead = ended.report["rows"] - rows
            missing = 0 if hit == DONE else rows + dead - stored
            assert ended.report["encoded"] <= max(missing, 0) + (0 if hit == DONE else SHARD_ROWS)
        if hit != DONE:
            assert counts(ended.report) == counts(job.workshop.reports[job.name]), f"{job.name}, killed {hit}"
    result = verify(root)
    assert (result.problems, result.leftovers, harness.unfinished(root)) == ([], [], [])
    assert State.of(root) == job.new, f"{job.name}, killed {hit}, then finished"
    assert harness.answers(root, job.workshop.encoder) == job.answers, f"{job.name}, killed {hit}"


def counts(report: dict[str, Any]) -> dict[str, Any]:
    """Return what a report says of the work as a whole, not of this run."""
    return {name: value for name, value in report.items() if name not in ("index", "encoded")}


Kill = Callable[[list[str], Path], Ended]


def trial(job: Job, number: int, way: Kill) -> str:
    with harness.copied(job.before, job.workshop.folder / f"{job.name}-{number}") as root:
        ended = way(job.command(root), root)
        acknowledged = ended.code == 0
        hit = check_after_kill(job, root)
        assert hit == DONE or not acknowledged, "a command said that it was done, and its work is not there"
        check_second_run(job, root, hit)
        return hit


def trials(planned: Sequence[tuple[Job, Kill]]) -> list[tuple[str, str]]:
    """Run all, two at a time; return (command, phase hit) of each."""
    for job, _ in planned:
        _ = job.old, job.new, job.answers  # computed once, by one thread
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(trial, job, number, way) for number, (job, way) in enumerate(planned)]
        return [(job.name, future.result()) for (job, _), future in zip(planned, done, strict=True)]


def table(hits: Sequence[tuple[str, str]]) -> str:
    names = list(KILLS["anywhere"])
    lines = [f"{'killed':40}" + "".join(f"{name:>10}" for name in names) + f"{'all':>6}"]
    found = Counter(hits)
    for one in PHASES:
        cells = [found[name, one] for name in names]
        lines.append(f"{one:40}" + "".join(f"{cell:>10}" for cell in cells) + f"{sum(cells):>6}")
    return "\n".join(lines)


def at_time(seconds: float) -> Kill:
    return lambda command, root: harness.run_and_kill(command, seconds)


def at_call(calls: str, *names: str, when: int = 1) -> Kill:
    def way(command: list[str], root: Path) -> Ended:
        return harness.run_and_kill_at(command, calls, *(root / name for name in names), when=when)

    return way


def within(job: Job, stretch: str, share: float) -> Kill:
    """Kill in a stretch of a run, most of whose flushes and renames are made to wait.

    Args:
        job: the command.
        stretch: one of ``KILLS``.
        share: where in the stretch, 0..1.
    """

    def way(command: list[str], root: Path) -> Ended:
        if stretch == SHARDS:
            shards = root / "segments" / f"{0 if job.name == 'build' else 1:05d}.building"
            first, *others = (shards / f"vectors-{number:05d}.npy" for number in range(8))
            slow, begins, delay, seconds = (
                [path.with_name(f"{path.name}.tmp") for path in others],
                first,
                0.2,
                0.6,
            )
        elif stretch == WORDS:
            words = root / "lexical" / commit_name(job.commit + 1)
            slow, begins, delay, seconds = [words / "meta.json"], words, 0.3, 0.9
        else:
            new = root / "manifest.json.tmp"
            slow, begins, delay, seconds = [new], new, 1.0, 0.9
        calls = f"{harness.RENAMES},fsync" if stretch == WORDS else harness.RENAMES
        wait = seconds * share
        return harness.run_slowed_and_kill(command, calls, *slow, delay=delay, begins=begins, seconds=wait)

    return way


def test_killed_at_50_random_moments_every_command_leaves_a_commit_and_can_be_finished(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    if harness.why_no_strace():
        pytest.skip(harness.why_no_strace())
    draw = random.Random(20260801)
    planned = []
    for name, job in jobs(workshop).items():
        for stretch, kills in KILLS.items():
            count = kills.get(name, 0)
            for number in range(count):
                # One in each equal part: random, and nowhere left out.
                share = (number + draw.random()) / count
                way = at_time(job.seconds * share) if stretch == "anywhere" else within(job, stretch, share)
                planned.append((job, way))
    hits = trials(planned)
    with capsys.disabled():
        print(f"\n{table(hits)}")
    by_phase = Counter(hit for _, hit in hits)
    assert sum(by_phase.values()) == 50
    assert by_phase[SHARDS] >= 10 and by_phase[WORDS] >= 5 and by_phase[RENAME] >= 5


def test_killed_at_each_step_of_a_commit_every_command_leaves_a_commit_and_can_be_finished(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    if harness.why_no_strace():
        pytest.skip(harness.why_no_strace())
    planned = []
    expected = []
    for job in jobs(workshop).values():
        following = commit_name(job.commit + 1)
        manifest = ("manifest.json.tmp", "manifest.json")
        steps = [
            (at_call(harness.RENAMES, *manifest), RENAME),
            (at_call(harness.RENAMES, f"lexical/{following}/meta.json"), WORDS),
            (at_call("fsync", f"lexical/{following}/meta.json"), WORDS),
            (at_call("?unlink,unlinkat", f"commits/{commit_name(job.commit)}"), DONE),
        ]
        if job.name == "build":
            steps[-1] = (at_call(harness.RENAMES, *manifest), RENAME)
        if job.name in ("build", "add"):
            number = "00000" if job.name == "build" else "00001"
            for shard in (1, 2, 3):
                vectors = f"segments/{number}.building/vectors-{shard:05d}.npy"
                steps.append((at_call(harness.RENAMES, f"{vectors}.tmp"), SHARDS))
            journal = f"segments/{number}.building/documents.sqlite-journal"
            steps.append(
                (at_call("?unlink,unlinkat", journal, when=4), SHARDS)
            )  # in the midst of a transaction
            steps.append((at_call("?unlink,unlinkat", journal, when=5), SHARDS))
            steps.append((at_call(harness.RENAMES, f"segments/{number}.building"), SHARDS))
        planned += [(job, way) for way, _ in steps]
        expected += [(job.name, hit) for _, hit in steps]
    hits = trials(planned)
    with capsys.disabled():
        print(f"\n{table(hits)}")
    assert hits == expected
    by_phase = Counter(hit for _, hit in hits)
    assert by_phase[SHARDS] >= 10 and by_phase[WORDS] >= 5 and by_phase[RENAME] >= 5


def test_killed_again_and_again_a_build_still_comes_to_its_end_without_encoding_twice(
    workshop: Workshop,
) -> None:
    job = jobs(workshop)["build"]
    draw = random.Random(7)
    with harness.copied(None, workshop.folder / "again") as root:
        for _ in range(8):
            harness.run_and_kill(job.command(root), job.seconds * draw.uniform(0.3, 0.7))
            hit = check_after_kill(job, root)
            if hit == DONE:
                break
        check_second_run(job, root, hit)


def test_killed_while_it_clears_up_after_a_kill_a_command_can_still_be_finished(workshop: Workshop) -> None:
    if harness.why_no_strace():
        pytest.skip(harness.why_no_strace())
    job = jobs(workshop)["add"]
    following = commit_name(job.commit + 1)
    with harness.copied(job.before, workshop.folder / "messy") as messy:
        harness.run_and_kill_at(job.command(messy), harness.RENAMES, messy / "manifest.json.tmp")
        assert harness.phase(messy, job.commit) == RENAME
        for calls, name in (
            (harness.RENAMES, "segments/00001"),  # back to .building
            ("?unlink,unlinkat", "manifest.json.tmp"),
            ("?unlink,unlinkat", f"commits/{following}"),
            ("?rmdir,unlinkat", f"lexical/{following}"),
            ("?unlink,unlinkat", f"deleted/{following}.npy"),
        ):
            root = workshop.folder / "messier"
            shutil.copytree(messy, root)
            ended = harness.run_and_kill_at(job.command(root), calls, root / name)
            assert ended.code != 0, f"{calls} {name} was not called"
            hit = check_after_kill(job, root)
            assert hit != DONE
            check_second_run(job, root, hit)
            shutil.rmtree(root)


def test_a_reader_of_an_old_commit_keeps_it_through_a_kill_and_the_clearing_up_after_it(
    workshop: Workshop,
) -> None:
    if harness.why_no_strace():
        pytest.skip(harness.why_no_strace())
    with harness.copied(workshop.built, workshop.folder / "held") as root:
        with IndexReader(root) as held:
            before = State.of_reader(held)
            assert harness.run("index", "delete", str(root), "d1", "d2").code == 0
            harness.run_and_kill_at(workshop.add(root), harness.RENAMES, root / "manifest.json.tmp")
            assert harness.phase(root, 2) == RENAME
            assert harness.run(*workshop.add(root)).code == 0
            assert harness.run("index", "optimize", str(root)).code == 0
            assert State.of_reader(held) == before  # read anew, from files of commit 1
            assert len(held.words.rows()) == len(before.rows)
        assert verify(root).problems == []
        assert verify(root).leftovers != []
        assert harness.run("index", "delete", str(root), "d5").code == 0
        assert verify(root).leftovers == []
