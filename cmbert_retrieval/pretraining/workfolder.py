"""A folder that a preparation makes in stages: pinned to its recipe, written by one process at a time."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmbert_retrieval.errors import ConfigError, StorageError
from cmbert_retrieval.storage import atomic_file, remove_tree

_LOCK = "prepare.lock"


@dataclass(frozen=True, slots=True)
class WorkFolder:
    """Where a preparation works.

    Attributes:
        path: the folder.
        begun: file that says with what it was begun; goes when all is there.
        complete: file that says what it was made with; comes when all is there.
        parts: names of everything else that a preparation makes there.
        content: what is prepared, for messages.
    """

    path: Path
    begun: str
    complete: str
    parts: Sequence[str]
    content: str

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the right to write to the folder; the kernel drops it when the process dies.

        Raises:
            StorageError: another process has it.
        """
        with (self.path / _LOCK).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StorageError(
                    f"{self.path}: another process is at work in this folder; wait for it"
                ) from None
            yield

    def clear(self) -> None:
        """Throw away what an earlier preparation made."""
        for name in (self.begun, self.complete, *self.parts):
            remove_tree(self.path / name)

    def begin(self, pins: Mapping[str, Any]) -> bool:
        """Return whether the folder is complete; write the pins of a new one.

        Raises:
            ConfigError: the folder is of another recipe, or holds something else.
        """
        path = self.path
        found = next((path / name for name in (self.complete, self.begun) if (path / name).exists()), None)
        if found is None:
            foreign = sorted(entry.name for entry in path.iterdir() if entry.name != _LOCK)
            if foreign:
                raise ConfigError(
                    f"{path}: holds '{foreign[0]}' and no {self.complete}; expected a new folder, or one of "
                    f"{self.content}"
                )
            write_json(path / self.begun, pins)
            return False
        try:
            known = json.loads(found.read_bytes())
        except (OSError, ValueError) as error:
            reason = type(error).__name__
            raise ConfigError(f"{found}: cannot be read ({reason}); prepare again with --restart") from None
        if different := [name for name in pins if known.get(name) != pins[name]]:
            what = _difference(different[0], known.get(different[0]), pins[different[0]])
            raise ConfigError(
                f"{path}: was prepared with another {what}; name another folder, or add --restart to throw "
                "away what is there"
            )
        return found.name == self.complete

    def finish(self, values: Mapping[str, Any]) -> None:
        """Say that all is there."""
        write_json(self.path / self.complete, {"complete": True, **values})
        remove_tree(self.path / self.begun)


def _difference(key: str, known: Any, given: Any) -> str:
    if isinstance(known, dict) and isinstance(given, dict):
        for name in given:
            if known.get(name) != given[name]:
                return _difference(f"{key}.{name}", known.get(name), given[name])
    return key


def hash_of(names: Iterable[str]) -> str:
    """Return a hash of ids or names, whatever order they come in."""
    return hashlib.sha256("\n".join(sorted(names)).encode("utf-8", "surrogatepass")).hexdigest()


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON values for people to read, whole or not at all."""
    with atomic_file(path) as file:
        file.write(json.dumps(values, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace"))
