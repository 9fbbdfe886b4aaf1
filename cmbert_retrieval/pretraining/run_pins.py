"""What run a folder holds, so that another one is refused by the name of what differs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.storage import atomic_file

RUN = "run.json"


def pin_run(out: Path, recipe: Mapping[str, Any], data: str) -> None:
    """Write down what run a folder holds, and refuse another one.

    Args:
        out: the folder.
        recipe: what decides the run, as JSON values.
        data: a hash of what it learns from.

    Raises:
        ConfigError: the folder holds a run of another recipe, or on other data.
    """
    path = out / RUN
    pins = {"recipe": recipe, "data": data}
    if not path.exists():
        with atomic_file(path) as file:
            file.write(json.dumps(pins, indent=2).encode())
        return
    known = dict(json.loads(path.read_text(encoding="utf-8")))
    if known != pins:
        raise ConfigError(
            f"{out} holds a run of {_difference(known, pins)}; give that back, or choose another --out"
        )


def _difference(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    if known["data"] != wanted["data"]:
        return "other data"
    here, there = (dict(_flat(pins["recipe"])) for pins in (known, wanted))
    key = next(key for key in {**here, **there} if here.get(key) != there.get(key))
    return f"{key}={here.get(key)!r}, not {there.get(key)!r}"


def _flat(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _flat(value, f"{name}.{key}" if name else key)
    elif isinstance(values, list) and values and isinstance(values[0], Mapping):
        for number, value in enumerate(values):
            yield from _flat(value, f"{name}.{number}")
    else:
        yield name, values
