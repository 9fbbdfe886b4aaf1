"""A file that cannot grow: one line that names it, the index as it was, and the same command goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import harness
import pytest
from conftest import Workshop
from harness import State

from cmbert_retrieval.indexes.manifest import MANIFEST
from cmbert_retrieval.indexes.verify import verify

pytestmark = pytest.mark.slow


def sizes(root: Path) -> dict[str, int]:
    """Return the size of each file of an index."""
    return {
        path.relative_to(root).as_posix(): path.stat().st_size for path in root.rglob("*") if path.is_file()
    }


def just_too_small(root: Path, ending: str) -> int:
    """Return a limit at which the largest file with this ending cannot be written whole."""
    return max(size for name, size in sizes(root).items() if name.endswith(ending)) - 1


def fails_then_finishes(command: list[str], root: Path, limit: int, before: State | None, after: Path) -> str:
    """Run the command with and without the limit; return the line that the first run ended with."""
    ended = harness.run(*command, largest_file=limit)
    assert ended.code == 1, (limit, ended)
    lines = ended.err.strip().splitlines()
    told = [line for line in lines if line.startswith("cmbert: ")]
    assert len(told) == 1 and lines[-1] == told[0], ended.err
    assert "Traceback" not in ended.err and "panicked" not in ended.err
    assert ": cannot be written: " in told[0] and "run the same command again" in told[0]
    assert str(root) in told[0]
    if before is None:
        assert not (root / MANIFEST).exists()
    else:
        assert harness.problems(root) == []
        assert State.of(root) == before
        # Nothing that a failed run wrote takes the room that is missing, except what can be gone on from.
        assert [name for name in verify(root).leftovers] == []
    finished = harness.run(*command)
    assert finished.code == 0, finished.err
    result = verify(root)
    assert (result.problems, result.leftovers) == ([], [])
    assert State.of(root) == State.of(after)
    return told[0]


@pytest.mark.parametrize(
    ("limit_of", "named"),
    [
        (lambda built: 500, "build.json"),
        (lambda built: 40_000, "documents.sqlite"),
        (lambda built: just_too_small(built, "documents.sqlite"), "documents.sqlite"),
    ],
)
def test_a_build_on_a_full_disk_names_the_file_and_is_finished_later(
    workshop: Workshop, tmp_path: Path, limit_of: Callable[[Path], int], named: str
) -> None:
    root = tmp_path / "index"
    limit = limit_of(workshop.built)
    assert named in fails_then_finishes(workshop.build(root), root, limit, None, workshop.built)


@pytest.mark.parametrize("factory", ["Flat", "HNSW8"])
def test_vectors_that_cannot_be_written_are_an_error_naming_their_file(
    workshop: Workshop, tmp_path: Path, factory: str
) -> None:
    # One long text in short passages: SQLite keeps them small, so that the vectors are the largest file.
    corpus = harness.write_corpus(tmp_path / "corpus.jsonl", [{"id": "d1", "text": "Fever. " * 3000}])
    root = tmp_path / "index"
    command = ["index", "build", "--from", f"jsonl:{corpus}", "--encoder", str(workshop.encoder_path)]
    command += ["--set", "passages.max_tokens=16", "--set", "passages.stride=6"]
    command += ["--set", f"vectors.factory={factory}", "--out", str(root), "--json"]
    whole = tmp_path / "whole"
    assert harness.run(*(str(whole) if part == str(root) else part for part in command)).code == 0
    files = sizes(whole)
    largest = files.pop("segments/00000/vectors.faiss")
    limit = (largest + max(files.values())) // 2
    assert max(files.values()) < limit < largest
    assert "vectors.faiss" in fails_then_finishes(command, root, limit, None, whole)


def test_deleting_and_optimizing_on_a_full_disk_leave_the_commit_before(
    workshop: Workshop, tmp_path: Path
) -> None:
    places = set()
    deleting = [100, 600, just_too_small(workshop.deleted, "manifest.json")]
    for limit in deleting:
        with harness.copied(workshop.added, tmp_path / "index") as root:
            before = State.of(workshop.added)
            told = fails_then_finishes(workshop.delete(root), root, limit, before, workshop.deleted)
            places.add(told.split(": ")[1].removeprefix(f"{root}/").split("/")[0])
    optimizing = [
        just_too_small(workshop.optimized, ending) for ending in (".idx", ".npy", ".sqlite", ".faiss")
    ]
    for limit in optimizing:
        with harness.copied(workshop.deleted, tmp_path / "index") as root:
            before = State.of(workshop.deleted)
            told = fails_then_finishes(workshop.optimize(root), root, limit, before, workshop.optimized)
            places.add(told.split(": ")[1].removeprefix(f"{root}/").split("/")[0])
    assert places >= {"lexical", "segments", "commits"}
