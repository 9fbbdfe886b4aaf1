"""Where the library keeps what it makes for itself."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for what can be made again: ``$CMBERT_CACHE`` or ``~/.cache/cmbert``."""
    configured = os.environ.get("CMBERT_CACHE")
    if configured:
        return Path(configured).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "cmbert"
