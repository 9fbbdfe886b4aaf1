"""A cache of the hub written by hand, as the hub's client lays it out, and processes that use one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"

OPENING = """
import json, sys
from cmbert_retrieval import CmbertError, Retriever
name, options = sys.argv[1], json.loads(sys.argv[2])
try:
    with Retriever.from_pretrained(name, **options) as retriever:
        print(json.dumps([hit.id for hit in retriever.search("heart failure", 5)]))
except CmbertError as error:
    print(json.dumps(str(error)))
"""


def cached(cache: Path, name: str, folder: Path, *, commit: str = COMMIT, ref: str | None = "main") -> Path:
    """Put a folder into a cache; return its snapshot, which links to blobs."""
    root = cache / f"models--{name.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            blob = root / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
            shutil.copyfile(path, blob)
            link = snapshot / path.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    if ref is not None:
        (root / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (root / "refs" / ref).write_text(commit)
    return snapshot


def listing(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Return each file and folder below with its time of change, its size and where it leads."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        target = str(path.readlink()) if path.is_symlink() else ""
        found[str(path)] = (status.st_mtime_ns, status.st_size, target)
    return found


def run_python(
    code: str, *args: str | Path, home: Path, endpoint: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own: the hub's client reads its variables once.

    Args:
        code: Python; ``sys.argv[1:]`` is ``args``.
        args: its arguments.
        home: what the process has as home, and as ``HF_HOME``.
        endpoint: address of the hub; None for one where nobody listens.
        variables: of the environment.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment = {
        **kept,
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": endpoint or "http://127.0.0.1:9",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "CMBERT_CACHE": str(home / "cmbert"),
        **variables,
    }
    command = [sys.executable, "-c", code, *(str(arg) for arg in args)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=environment, cwd=home
    )


def printed(done: subprocess.CompletedProcess[str]) -> Any:
    """Return the JSON that a process printed."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
