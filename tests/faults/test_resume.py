"""What an interrupted build may be gone on with, and what not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import harness
import pytest
from conftest import Workshop
from harness import State

from cmbert_retrieval.indexes.verify import verify

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def begun(workshop: Workshop) -> Path:
    """A build that was interrupted after its third shard, by something that every machine has."""
    root = workshop.folder / "begun"
    process = harness.start(workshop.build(root))
    third = root / "segments" / "00000.building" / "vectors-00002.npy"
    while not third.exists() and process.poll() is None:
        pass
    harness.kill(process)
    harness.finish(process)
    assert harness.stored_rows(root / "segments" / "00000.building") >= 3 * 256
    return root


def with_setting(setting: str) -> Callable[[Workshop, Path, list[str]], list[str]]:
    return lambda workshop, folder, command: [*command, "--set", setting]


def with_changed_source(workshop: Workshop, folder: Path, command: list[str]) -> list[str]:
    changed = folder / "changed.jsonl"
    text = workshop.corpus.read_text(encoding="utf-8")
    changed.write_text(text.replace("d1499", "d9499"), encoding="utf-8")
    # The name is made of the file's, and is part of the recipe.
    return [*(part.replace(str(workshop.corpus), str(changed)) for part in command), "--set", "name=corpus"]


def with_other_encoder(workshop: Workshop, folder: Path, command: list[str]) -> list[str]:
    return [*command, "--set", "encoder.prompts={document: 'note: '}"]


def without_encoder(workshop: Workshop, folder: Path, command: list[str]) -> list[str]:
    return ["none" if part == str(workshop.encoder_path) else part for part in command]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (with_setting("shard_rows=200"), "another recipe (shard_rows 256, now 200); "),
        (with_setting("vectors.factory=HNSW8"), "another recipe (vectors.factory 'Flat', now 'HNSW8'); "),
        (with_setting("columns={year: text}"), "another recipe (columns.year 'integer', now 'text'); "),
        (with_setting("source.options={text: title}"), "source.options"),
        (with_other_encoder, "encoder (prompts.document None, now 'note: ')"),
        (without_encoder, " and encoder; "),
        (with_changed_source, "changed.jsonl is new); repeat the first command"),
    ],
)
def test_going_on_with_something_else_is_refused_and_the_error_says_what_differs(
    workshop: Workshop,
    begun: Path,
    tmp_path: Path,
    change: Callable[[Workshop, Path, list[str]], list[str]],
    named: str,
) -> None:
    before = harness.stored_rows(begun / "segments" / "00000.building")
    ended = harness.run(*change(workshop, tmp_path, workshop.build(begun)))
    assert ended.code == 1
    assert named in ended.err and "--restart" in ended.err and len(ended.err.splitlines()) == 1, ended.err
    assert harness.stored_rows(begun / "segments" / "00000.building") == before


def test_restart_throws_away_what_was_done_and_builds_what_is_asked_for_now(
    workshop: Workshop, begun: Path, tmp_path: Path
) -> None:
    root = tmp_path / "index"
    shutil.copytree(begun, root)
    ended = harness.run(*workshop.build(root), "--restart", "--set", "shard_rows=500")
    assert ended.code == 0, ended.err
    assert ended.report["encoded"] == ended.report["rows"]
    assert verify(root).problems == []
    assert State.of(root).texts() == State.of(workshop.built).texts()


def test_the_same_files_in_another_place_are_gone_on_with(
    workshop: Workshop, begun: Path, tmp_path: Path
) -> None:
    root, moved = tmp_path / "index", tmp_path / "moved.jsonl"
    shutil.copytree(begun, root)
    shutil.copyfile(workshop.corpus, moved)
    stored = harness.stored_rows(root / "segments" / "00000.building")
    command = [part.replace(str(workshop.corpus), str(moved)) for part in workshop.build(root)]
    command += ["--set", "name=corpus"]  # the name is made of the file's, and is part of the recipe
    ended = harness.run(*command)
    assert ended.code == 0, ended.err
    assert ended.report["encoded"] == ended.report["rows"] - stored
    assert State.of(root) == State.of(workshop.built)


def test_an_addition_is_refused_after_another_change_and_begun_again_with_restart(
    workshop: Workshop, tmp_path: Path
) -> None:
    root = tmp_path / "index"
    shutil.copytree(workshop.built, root)
    first = root / "segments" / "00001.building" / "vectors-00000.npy"
    process = harness.start(workshop.add(root))
    while not first.exists() and process.poll() is None:
        pass
    harness.kill(process)
    harness.finish(process)
    assert harness.run("index", "delete", str(root), "d1").code == 0
    assert len(harness.unfinished(root)) == 1  # the deletion did not touch it
    ended = harness.run(*workshop.add(root))
    assert ended.code == 1 and "the index has changed since this addition was begun" in ended.err
    assert harness.run("index", "optimize", str(root)).code == 0
    ended = harness.run(*workshop.add(root))
    assert ended.code == 1 and "--restart" in ended.err
    assert harness.run(*workshop.add(root), "--restart").code == 0
    result = verify(root)
    assert (result.problems, result.leftovers, harness.unfinished(root)) == ([], [], [])
    texts = State.of(workshop.added).texts()
    del texts["d1"]
    assert State.of(root).texts() == texts


def test_a_segment_that_was_finished_and_not_committed_is_committed_without_encoding(
    workshop: Workshop, tmp_path: Path
) -> None:
    if harness.why_no_strace():
        pytest.skip(harness.why_no_strace())
    root = tmp_path / "index"
    harness.run_and_kill_at(workshop.build(root), harness.RENAMES, root / "manifest.json.tmp")
    assert harness.phase(root, 0) == harness.RENAME
    ended = harness.run(*workshop.build(root))
    assert ended.code == 0, ended.err
    assert ended.report["encoded"] == 0
    assert State.of(root) == State.of(workshop.built)
    assert harness.answers(root, workshop.encoder) == harness.answers(workshop.built, workshop.encoder)
