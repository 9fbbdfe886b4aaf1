"""Two writers, signals that ask a writer to stop, and a folder whose manifest is gone."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import harness
import pytest
from conftest import Workshop
from harness import State

from cmbert_retrieval.indexes.manifest import MANIFEST
from cmbert_retrieval.indexes.verify import verify

pytestmark = pytest.mark.slow


def wait_for(path: Path, *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} did not appear"
        time.sleep(0.002)


def test_of_two_writers_the_second_is_refused_with_one_line_and_the_first_finishes(
    workshop: Workshop, tmp_path: Path
) -> None:
    root = tmp_path / "index"
    shutil.copytree(workshop.built, root)
    first = harness.start(workshop.add(root))
    wait_for(root / "segments" / "00001.building" / "vectors-00000.npy")
    first.send_signal(signal.SIGSTOP)  # it holds the lock for as long as the second takes
    try:
        for command in ([*workshop.delete(root)[:3], "d1"], workshop.optimize(root), workshop.add(root)):
            second = harness.run(*command)
            assert second.code == 1
            assert second.err.splitlines() == [
                f"cmbert: {root}: another process is writing to this index; wait for it, then try again"
            ]
    finally:
        first.send_signal(signal.SIGCONT)
    assert harness.finish(first).code == 0
    assert verify(root).problems == []
    assert State.of(root) == State.of(workshop.added)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_build_that_is_asked_to_stop_stops_and_goes_on_where_it_was(
    workshop: Workshop, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    root = tmp_path / "index"
    process = harness.start(workshop.build(root))
    wait_for(root / "segments" / "00000.building" / "vectors-00001.npy")
    harness.kill(process, with_signal=sent)
    ended = harness.finish(process)
    assert ended.code == code, ended.err
    if sent == signal.SIGINT:
        assert ended.err.splitlines()[-1] == "cmbert: stopped; run the same command again to go on"
    assert "Traceback" not in ended.err
    (building,) = harness.unfinished(root)
    stored = harness.stored_rows(building)
    again = harness.run(*workshop.build(root))
    assert again.code == 0, again.err
    assert again.report["encoded"] == again.report["rows"] - stored
    assert State.of(root) == State.of(workshop.built)


def test_an_index_without_its_manifest_is_not_taken_for_an_empty_folder(
    workshop: Workshop, tmp_path: Path
) -> None:
    root = tmp_path / "index"
    shutil.copytree(workshop.added, root)
    (root / MANIFEST).unlink()
    ended = harness.run(*workshop.build(root))
    assert ended.code == 1
    assert f"copy {root}/commits/00002 to {root}/{MANIFEST}" in ended.err
    shutil.copyfile(root / "commits" / "00002", root / MANIFEST)
    assert verify(root).problems == []
    assert State.of(root) == State.of(workshop.added)


def test_a_commit_is_not_taken_back_when_old_files_cannot_be_removed(
    workshop: Workshop, tmp_path: Path
) -> None:
    root = tmp_path / "index"
    shutil.copytree(workshop.built, root)
    # A lease that cannot be opened as a file stands for whatever keeps the cleaner from its work.
    command = [*workshop.delete(root)[:3], "d1", "--json"]
    if harness.why_no_strace():
        pytest.skip(harness.why_no_strace())
    calls = "?unlink,unlinkat"
    prefix = ["strace", "-f", "-o", os.devnull, "-P", str(root / "commits" / "00001")]
    prefix += ["-e", f"trace={calls}", "-e", f"inject={calls}:error=EACCES"]
    ended = harness.finish(harness.start(command, prefix=prefix))
    assert ended.code == 0, ended.err
    assert "commit 2 is done, but old files could not be removed" in ended.err
    assert ended.report["commit"] == 2 and verify(root).problems == []
    assert harness.run(*workshop.delete(root)[:3], "d2").code == 0
    assert verify(root).leftovers == []
