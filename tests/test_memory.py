"""The memory that there is: the least of what machine and control groups leave."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cmbert_retrieval import memory

GIB = 2**30


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 GiB free and a process in the group ``/jobs/7``, none of them limited."""
    monkeypatch.setattr(memory, "_ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(memory, "_MACHINE", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text(f"MemTotal: {16 * 2**20} kB\nMemAvailable:   {8 * 2**20} kB\n")
    (tmp_path / "own").write_text("1:name=systemd:/other\n0::/jobs/7\n")
    for name in ("jobs/7", "jobs"):
        limit(tmp_path / "cgroup" / name, "max", used=GIB)
    return tmp_path


def limit(group: Path, most: int | str, *, used: int, cached: int = 0) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "memory.max").write_text(f"{most}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nactive_file 7\n")


def test_without_limits_it_is_what_the_machine_has_free(system: Path) -> None:
    assert memory.available_memory() == 8 * GIB
    assert memory.memory_limit() is None


@pytest.mark.parametrize("group", [".", "jobs", "jobs/7"])
def test_a_limit_of_any_group_above_the_process_counts(system: Path, group: str) -> None:
    limit(system / "cgroup" / group, 4 * GIB, used=3 * GIB)
    assert memory.available_memory() == GIB
    assert memory.memory_limit() == 4 * GIB


def test_files_that_were_read_do_not_count_as_used(system: Path) -> None:
    limit(system / "cgroup/jobs/7", 4 * GIB, used=4 * GIB, cached=3 * GIB)
    assert memory.available_memory() == 3 * GIB


def test_a_generous_limit_does_not_make_memory(system: Path) -> None:
    limit(system / "cgroup/jobs", 100 * GIB, used=0)
    assert memory.available_memory() == 8 * GIB


def test_where_the_system_tells_nothing_nothing_is_known(system: Path) -> None:
    (system / "meminfo").unlink()
    (system / "own").unlink()
    assert memory.available_memory() is None
    limit(system / "cgroup", 2 * GIB, used=GIB)
    assert memory.available_memory() == GIB


_KEPT = """
from pathlib import Path
from cmbert_retrieval.memory import keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if not keep_freed_memory():
    raise SystemExit("not glibc")
before = resident()
block = bytearray(b"x" * 1000) * 200_000
del block
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_freed_memory_can_be_kept_for_what_is_allocated_next() -> None:
    done = subprocess.run([sys.executable, "-c", _KEPT], capture_output=True, text=True, check=False)
    if "not glibc" in done.stderr:
        pytest.skip("another C library")
    assert int(done.stdout) > 100_000_000
