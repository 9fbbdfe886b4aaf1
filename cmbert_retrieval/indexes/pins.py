"""What a build was begun with, beside what it stores: it goes on only with the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cmbert_retrieval.errors import IndexMismatchError
from cmbert_retrieval.storage import atomic_file, fsync_folder, remove_tree

PINS = "build.json"
_PATHS = "paths"
_SHOWN_DIFFERENCES = 3


def begin_folder(folder: Path, pins: Mapping[str, Any], paths: Sequence[str]) -> None:
    """Make the folder of a build, with its pins and the paths of its sources."""
    # Its name appears with its pins inside: a kill cannot leave a folder that nobody may resume.
    fresh = folder.with_suffix(".new")
    remove_tree(fresh)
    fresh.mkdir(parents=True)
    with atomic_file(fresh / PINS) as file:
        file.write(json.dumps({**pins, _PATHS: list(paths)}, indent=1, sort_keys=True).encode())
    fresh.rename(folder)
    fsync_folder(folder.parent)


def check_pins(folder: Path, pins: Mapping[str, Any], paths: Sequence[str]) -> None:
    """Check that a build was begun with the same pins; ``paths`` are those of the sources that are given now.

    Raises:
        IndexMismatchError: it was not; the message names what differs, and what to do about it.
    """
    try:
        begun = json.loads((folder / PINS).read_bytes())
    except (OSError, ValueError) as error:
        raise IndexMismatchError(
            f"{folder / PINS} cannot be read ({type(error).__name__}), so this build cannot go on; "
            "add --restart to begin it again"
        ) from None
    different = [key for key in pins if begun.get(key) != pins[key]]
    if "commit" in different:
        raise IndexMismatchError(
            f"{folder}: the index has changed since this addition was begun; add --restart to begin it again"
        )
    if different:
        others = [key for key in different if key not in ("version", "sources")]
        names = [_difference(key, begun.get(key), pins[key]) for key in others]
        what, how = ["another " + " and ".join(names)] if names else [], ""
        lost = False
        if "sources" in different:
            said, lost = _other_sources(begun, pins["sources"], paths)
            what.append(said)
        if "version" in different:
            what.insert(0, f"version {begun.get('version', 'unknown')}, now {pins['version']}")
            how = " with that version"
        advice = (
            "add --restart to throw away what it did and begin again"
            if lost  # whatever is repeated, these files are not those that it read
            else f"repeat the first command{how} to finish it, or add --restart to throw away what it did"
        )
        raise IndexMismatchError(f"{folder}: this build was begun with {', and '.join(what)}; {advice}")


def _other_sources(
    begun: Mapping[str, Any], given: Sequence[Sequence[Any]], paths: Sequence[str]
) -> tuple[str, bool]:
    """Return which sources differ, and whether those that the build was begun with can be had no more.

    Args:
        begun: what ``begin_folder`` wrote, or an earlier version, which wrote no paths.
        given: checksum and size of each source of this run.
        paths: theirs.
    """
    try:
        before = {
            str(path): (str(checksum), int(size))
            for path, (checksum, size) in zip(begun[_PATHS], begun["sources"], strict=True)
        }
    except (KeyError, TypeError, ValueError):
        return "other sources", False
    now = {path: (str(checksum), int(size)) for path, (checksum, size) in zip(paths, given, strict=True)}
    told, lost = [], False
    for path in sorted({*before, *now}):
        if path not in now:
            if before[path] in now.values():
                continue  # it has only moved
            is_gone = not Path(path).expanduser().exists()
            lost |= is_gone
            told.append(f"{path} {'is gone' if is_gone else 'is not among them now'}")
        elif path not in before:
            if now[path] not in before.values():
                told.append(f"{path} is new")
        elif before[path] != now[path]:
            lost = True
            (_, old), (_, new) = before[path], now[path]
            sizes = f"{old:,} bytes, now {new:,}" if old != new else "of the same size"
            told.append(f"{path} has changed since ({sizes}, another checksum)")
    # Files that came into a folder after the build began: its first command would find them, too.
    lost |= set(before) < set(now)
    more = len(told) - _SHOWN_DIFFERENCES
    shown = "; ".join(told[:_SHOWN_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
    return f"other sources ({shown})" if told else "other sources (in another order)", lost


def _difference(key: str, begun: Any, given: Any) -> str:
    """Return the name of a pin, with the settings in it that differ where it has any."""
    if not isinstance(begun, dict) or not isinstance(given, dict):
        return key
    before, now = _flat(begun), _flat(given)
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    if not names:
        return key
    parts = [f"{name} {before.get(name)!r}, now {now.get(name)!r}" for name in names[:_SHOWN_DIFFERENCES]]
    more = len(names) - len(parts)
    return f"{key} ({'; '.join(parts)}{f'; and {more} more' if more else ''})"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
