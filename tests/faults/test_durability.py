"""Before a manifest is renamed into place, all that it names is on the disk: read off the system calls."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import harness
import pytest
from conftest import Workshop
from durability import TRACED, violations

from cmbert_retrieval.indexes.manifest import read_manifest

pytestmark = pytest.mark.slow


def traced(command: list[str], to: Path) -> list[str]:
    """Run a command to its end; return the lines of its trace."""
    if harness.why_no_strace():
        pytest.skip(harness.why_no_strace())
    strace = ["strace", "-f", "-y", "-s", "0", "--seccomp-bpf", "-o", str(to), "-e", f"trace={TRACED}"]
    # Without "-s 0" the trace would quote the documents.
    ended = harness.finish(harness.start(command, prefix=strace))
    assert ended.code == 0, ended.err
    return to.read_text(encoding="utf-8", errors="replace").splitlines()


def named(root: Path) -> list[str]:
    """Return the files that the manifest names, and the lease file that readers of it need."""
    manifest = read_manifest(root)
    return [*manifest.files, f"commits/{manifest.commit:05d}"]


def fsyncs_that_matter(lines: list[str], root: Path, files: list[str]) -> tuple[int, int]:
    """Return how many fsyncs of the index there are, and how many of them alone the proof would miss."""
    places = [n for n, line in enumerate(lines) if "sync(" in line and f"<{root}" in line]
    needed = sum(bool(violations([*lines[:n], *lines[n + 1 :]], root, files)[0]) for n in places)
    return len(places), needed


def test_all_files_of_a_build_an_addition_and_a_merge_are_fsynced_before_the_commit(
    workshop: Workshop, tmp_path: Path
) -> None:
    root = tmp_path / "new" / "index"  # the folder above has to be made durable, too
    for command in (workshop.build(root), workshop.add(root), workshop.delete(root), workshop.optimize(root)):
        lines = traced(command, tmp_path / "trace")
        found, commits = violations(lines, root, named(root))
        assert commits == 1
        assert found == [], command[1]


def test_the_proof_fails_when_an_fsync_is_taken_out_of_the_trace(workshop: Workshop, tmp_path: Path) -> None:
    root = tmp_path / "index"
    lines = traced(workshop.build(root), tmp_path / "trace")
    files = named(root)
    assert violations(lines, root, files) == ([], 1)

    def without(*parts: str) -> list[str]:
        kept = [line for line in lines if not ("sync(" in line and any(part in line for part in parts))]
        assert len(kept) < len(lines)
        return violations(kept, root, files)[0]

    # Each kind of file, under any of the names that it had.
    for parts, name in (
        (("vectors-00001.npy",), "segments/00000/vectors-00001.npy"),
        (("vectors.faiss",), "segments/00000/vectors.faiss"),
        (("documents.sqlite>",), "segments/00000/documents.sqlite"),
        (("build.json",), "segments/00000/build.json"),
        (("lexical/00001/meta.json", "lexical/00001/.tmp"), "lexical/00001/meta.json"),
        (("commits/00001.tmp",), "commits/00001"),
        (("manifest.json.tmp",), "manifest.json.tmp"),
        ((f"<{root}/lexical/00001>",), "lexical/00001/meta.json"),
        ((f"<{root}/segments>",), "segments/00000"),
        ((f"<{root}/lexical>",), "lexical/00001"),
        ((f"<{root}/commits>",), "commits/00001"),
        ((f"<{root}>",), "segments"),
        ((f"<{root.parent}>",), root.name),
    ):
        assert any(found.startswith(f"{name}: ") for found in without(*parts)), name
    total, needed = fsyncs_that_matter(lines, root, files)
    assert total > needed > 0


def test_a_write_behind_the_last_fsync_is_found_under_any_name_of_the_file() -> None:
    root = Path(os.sep) / "index"
    lines = [
        '7 openat(AT_FDCWD</>, "/index/a", O_WRONLY|O_CREAT, 0666) = 3</index/a>',
        '7 write(3</index/a>, ""..., 5) = 5',
        "7 fsync(3</index/a>) = 0",
        '7 link("/index/a", "/index/b") = 0',
        "7 fsync(4</index>) = 0",
        '7 rename("/index/manifest.json.tmp", "/index/manifest.json") = 0',
    ]
    assert violations(lines, root, ["a", "b"]) == ([], 1)
    late = [
        *lines[:4],
        "8 pwrite64(3</index/a>,  <unfinished ...>",
        '8 <... pwrite64 resumed>""..., 1, 0) = 1',
    ]
    found, _ = violations([*late, *lines[4:]], root, ["b"])
    assert found == ["b: pwrite64 and not fsynced before the commit"]
    found, _ = violations([*lines[:4], *lines[5:]], root, ["b"])
    assert found == ["b: linked, and its folder not fsynced before the commit"]
    mapped = "7 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 3</index/a>, 0) = 0x7f14f1000000"
    assert violations([*lines[:4], mapped, *lines[4:]], root, ["a"])[0] != []
    failed = "7 fsync(3</index/a>) = -1 EIO (Input/output error)"
    assert violations([*lines[:2], failed, *lines[3:]], root, ["a"])[0] != []


def test_strace_is_asked_for_every_call_that_the_proof_follows() -> None:
    if harness.why_no_strace():
        pytest.skip(harness.why_no_strace())
    done = subprocess.run(
        ["strace", "-o", os.devnull, "-e", f"trace={TRACED}", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
