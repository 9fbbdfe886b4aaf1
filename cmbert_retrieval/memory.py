"""How much memory this process may use: the machine's, capped by the limits of its control groups."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")
_MACHINE = Path("/proc/meminfo")

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt."""


def memory_limit() -> int | None:
    """Return the bytes that the strictest control group of this process allows; None without a limit."""
    return min((limit for _, limit in _limits()), default=None)


def available_memory() -> int | None:
    """Return the free memory in bytes, of the machine or of a control group; None where nobody tells."""
    free = []
    machine = _fields(_MACHINE).get("MemAvailable:")
    if machine is not None:
        free.append(machine * 1024)
    for group, limit in _limits():
        used = _number(group / "memory.current")
        if used is not None:
            # Files that were read stay in memory for as long as nobody needs it.
            free.append(max(0, limit - used + _fields(group / "memory.stat").get("inactive_file", 0)))
    return min(free, default=None)


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for what is allocated next, as long as this process runs.

    Else every large block goes back to the system and comes again page by page, filled with zeros, which
    takes a quarter of the time of a training step.

    Returns:
        Whether it does; False with another C library.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # not glibc
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))


def _limits() -> Iterator[tuple[Path, int]]:
    """Yield the control groups above this process that have a limit."""
    name = next((line[3:] for line in _read(_OWN_GROUP).splitlines() if line.startswith("0::")), "/")
    group = _ROOT / name.strip("/")
    # Inside a container the name may be one of the host; then the container's own group is the root.
    for folder in (group, *group.parents):
        limit = _number(folder / "memory.max") if folder.is_relative_to(_ROOT) else None
        if limit is not None:
            yield folder, limit


def _fields(path: Path) -> dict[str, int]:
    words = (line.split() for line in _read(path).splitlines())
    return {parts[0]: int(parts[1]) for parts in words if len(parts) > 1 and parts[1].isdigit()}


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None  # "max" where there is no limit


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
