"""What a command did."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Done:
    """Exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


def assert_error(done: Done, *words: str, code: int = 1) -> None:
    assert done.code == code
    assert done.out == ""
    assert done.err.startswith("cmbert: ")
    assert done.err.count("\n") == 1
    for word in words:
        assert word in done.err
