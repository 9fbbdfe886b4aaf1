"""What to do about a damaged index, as a command that can be pasted."""

from __future__ import annotations

import shlex
from pathlib import Path

_MANIFEST = "manifest.json"


def run_verify(path: Path) -> str:
    """Return ``run: cmbert index verify FOLDER`` for an index's folder, or for a file in it."""
    for folder in (path, *path.parents):
        if (folder / _MANIFEST).is_file():
            return f"run: cmbert index verify {shlex.quote(str(folder))}"
    return "run: cmbert index verify"  # a file of no index that is finished
