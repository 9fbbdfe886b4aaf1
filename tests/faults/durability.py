"""Reading a trace of system calls: was every file of a commit on the disk before the commit was made?

The trace is followed as the file system sees it: writes and fsyncs belong to a file, not to its name, and
names move with ``rename`` and multiply with ``link``. A write is durable after an fsync of the file, a
name after an fsync of the folder that it stands in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

TRACED = ",".join(
    "?" + call  # not every machine has the old ones
    for call in (
        "open openat creat write pwrite64 writev pwritev pwritev2 sendfile copy_file_range ftruncate "
        "truncate fallocate mmap msync fsync fdatasync sync_file_range rename renameat renameat2 link linkat "
        "unlink unlinkat mkdir mkdirat rmdir close"
    ).split()
)
"""What is asked of strace (``-y``: descriptors come with their paths)."""

_WRITES = frozenset(
    "write pwrite64 writev pwritev pwritev2 sendfile copy_file_range ftruncate fallocate".split()
)
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+)")
_BEGUN = re.compile(r"^(\d+) +(.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
_DESCRIPTOR = re.compile(r"^(\d+)<([^>]*)>")
_PATHS = re.compile(r'(?:AT_FDCWD<([^>]*)>, )?"([^"]*)"')


@dataclass(slots=True)
class Inode:
    """A file, whatever it is called.

    Attributes:
        dirty: why its content may be lost in a power cut; "" when it is on the disk.
    """

    dirty: str = ""


@dataclass(slots=True)
class Disk:
    """The files below ``root`` as a trace left them, and the commits that it saw."""

    root: PurePosixPath
    files: dict[str, Inode] = field(default_factory=dict)
    new_names: dict[str, str] = field(default_factory=dict)  # path -> why its name may be lost
    mapped: set[int] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    commits: int = 0

    def inode(self, path: str) -> Inode:
        """Return the file of that name; one that was there before the trace is durable."""
        return self.files.setdefault(path, Inode())


def calls(lines: Iterable[str]) -> Iterable[tuple[str, str, str]]:
    """Yield (call, arguments, result) of each successful call, interrupted ones put together."""
    begun: dict[str, str] = {}
    for line in lines:
        line = line.rstrip("\n")
        if found := _BEGUN.match(line):
            begun[found[1]] = found[2]
            continue
        if found := _RESUMED.match(line):
            line = f"{found[1]} {begun.pop(found[1], '')}{found[3]}"
        if (found := _LINE.match(line)) and not found[4].startswith("-"):
            yield found[2], found[3], found[4]


def violations(lines: Iterable[str], root: Path, named: Iterable[str]) -> tuple[list[str], int]:
    """Return what was not durable at the last rename of the manifest, and how many commits there were.

    Args:
        lines: a trace of ``TRACED``.
        root: the index.
        named: the files that its manifest names, relative to ``root``; those must be durable.
    """
    disk = Disk(PurePosixPath(root))
    wanted = [str(root / name) for name in named]
    for call, arguments, result in calls(lines):
        _follow(disk, call, arguments, result, wanted)
    return disk.problems, disk.commits


def _follow(disk: Disk, call: str, arguments: str, result: str, wanted: list[str]) -> None:
    described = _DESCRIPTOR.match(arguments)
    paths = [
        str(PurePosixPath(folder) / path) if folder else path for folder, path in _PATHS.findall(arguments)
    ]
    if call in ("open", "openat", "creat"):
        if paths and ("O_CREAT" in arguments or call == "creat") and paths[0] not in disk.files:
            # Whether it was there before is not told. Taking it for new asks for more, never for less.
            disk.new_names[paths[0]] = "made"
        if paths and "O_TRUNC" in arguments:
            disk.inode(paths[0]).dirty = "truncated"
    elif call in ("mkdir", "mkdirat"):
        disk.new_names[paths[0]] = "made"
    elif call in _WRITES and described:
        disk.inode(described[2]).dirty = call
    elif call == "truncate":
        disk.inode(paths[0]).dirty = call
    elif call == "mmap":
        shared = re.search(r"PROT_WRITE.*MAP_SHARED.*, \d+<([^>]*)>", arguments)
        if shared:  # may be written at any time from now on
            disk.inode(shared[1]).dirty = "mapped for writing"
    elif call in ("fsync", "fdatasync") and described:
        _synced(disk, described[2])
    elif call.startswith("rename"):
        _moved(disk, paths[0], paths[1], wanted)
    elif call.startswith("link"):
        disk.files[paths[1]] = disk.inode(paths[0])
        disk.new_names[paths[1]] = "linked"
    elif call in ("unlink", "unlinkat", "rmdir") and paths:
        disk.files.pop(paths[0], None)
        disk.new_names.pop(paths[0], None)


def _synced(disk: Disk, path: str) -> None:
    disk.inode(path).dirty = ""
    inside = [name for name in disk.new_names if str(PurePosixPath(name).parent) == path]
    for name in inside:
        del disk.new_names[name]


def _moved(disk: Disk, source: str, target: str, wanted: list[str]) -> None:
    if target == str(disk.root / "manifest.json"):
        disk.commits += 1
        disk.problems = _not_durable(disk, source, wanted)  # the files of the last manifest: judge the last
    for names in (disk.files, disk.new_names):
        moved = {name: value for name, value in names.items() if name.startswith(f"{source}/")}
        for name, value in moved.items():
            del names[name]  # type: ignore[attr-defined]
            names[target + name[len(source) :]] = value  # type: ignore[index]
    disk.files[target] = disk.files.pop(source, Inode())
    disk.new_names.pop(source, None)
    disk.new_names[target] = "renamed"


def _not_durable(disk: Disk, manifest: str, wanted: list[str]) -> list[str]:
    found = []
    for path in [manifest, *wanted]:
        name = PurePosixPath(path).relative_to(disk.root)
        if disk.inode(path).dirty:
            found.append(f"{name}: {disk.inode(path).dirty} and not fsynced before the commit")
        if path == manifest:
            continue  # its name may be lost: the rename is what makes it count
        for part in (PurePosixPath(path), *PurePosixPath(path).parents):
            if str(part) in disk.new_names:
                shown = part.relative_to(disk.root) if disk.root in part.parents else part.name
                found.append(
                    f"{shown}: {disk.new_names[str(part)]}, and its folder not fsynced before the commit"
                )
    return sorted(set(found))
