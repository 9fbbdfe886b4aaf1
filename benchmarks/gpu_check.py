"""Checks what a CPU cannot: flash-attention, packed speed, FAISS on a GPU, exact resume. Takes ten minutes.

    make gpu-check                            writes benchmarks/gpu/DEVICE.json
    python benchmarks/gpu_check.py --table    prints the files of that folder as a table

Every check is a JSON line on stdout, ``passed`` or ``skipped`` with the reason. The exit code is 1 when one
did not pass, and 2 without a GPU: then nothing is written.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from gpu_comparisons import (
    ROOT,
    SkippedError,
    check_faiss,
    compare_attentions,
    packed_speed,
    resume_smoke_run,
)

from cmbert_retrieval.encoders.devices import FLASH_PACKAGES, choose_attention
from cmbert_retrieval.errors import EncoderError

FILES = ROOT / "benchmarks" / "gpu"
NOT_RUN = "not run on a GPU yet"

_REPORTED = (
    "torch",
    "transformers",
    "accelerate",
    "torch-optimi",
    "faiss-gpu",
    "faiss-cpu",
    *FLASH_PACKAGES.values(),
)


def checks() -> dict[str, Callable[[], dict[str, Any]]]:
    """Return the checks by name, in the order in which they run."""
    import torch

    dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    made: dict[str, Callable[[], dict[str, Any]]] = {}
    for attention in FLASH_PACKAGES:
        made[f"{attention} against sdpa"] = lambda attention=attention: compare_attentions(
            _there(attention), device="cuda", dtype=dtype
        )
    for attention in ("sdpa", *FLASH_PACKAGES):
        made[f"packed training, {attention}"] = lambda attention=attention: packed_speed(
            _there(attention), device="cuda", dtype=dtype
        )
    made["FAISS on the GPU against the CPU"] = check_faiss
    made["resume"] = resume_smoke_run
    return made


def _there(attention: str) -> str:
    """Return the attention's name.

    Raises:
        SkippedError: its package is missing.
    """
    import torch

    try:
        return choose_attention(attention, torch.device("cuda")) or attention
    except EncoderError as error:
        raise SkippedError(str(error)) from error


def run_checks(made: Mapping[str, Callable[[], dict[str, Any]]]) -> list[dict[str, Any]]:
    """Run the checks, print a line each, and return the lines. One that fails ends no other."""
    lines = []
    for name, check in made.items():
        began = time.perf_counter()
        try:
            line = {"name": name, **check()}
        except SkippedError as reason:
            line = {"name": name, "skipped": str(reason)}
        except Exception as error:  # a kernel that does not run on this device is what is looked for
            said = (str(error).strip().splitlines() or [""])[0]
            line = {"name": name, "error": f"{type(error).__name__}: {said}", "passed": False}
        line["seconds"] = round(time.perf_counter() - began, 1)
        print(json.dumps(line), flush=True)
        lines.append(line)
    return lines


def device_facts() -> dict[str, Any]:
    """Return what the figures depend on: the GPU and the versions of what computes on it."""
    import torch

    properties = torch.cuda.get_device_properties(0)
    versions = {"python": platform.python_version(), "cuda": torch.version.cuda}
    for package in _REPORTED:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "device": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "measured": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": versions,
    }


def table(files: Iterable[Path]) -> str:
    """Return result files as a Markdown table for the README, or that there are none."""
    rows = []
    for path in sorted(files):
        result = json.loads(path.read_text(encoding="utf-8"))
        for line in result["checks"]:
            if "skipped" in line:
                found = f"skipped: {line['skipped']}"
            else:
                figures = {
                    key: value for key, value in line.items() if key not in ("name", "passed", "seconds")
                }
                shown = ", ".join(
                    f"{key.replace('_', ' ')} {_shown(value)}" for key, value in figures.items()
                )
                found = f"{'passed' if line['passed'] else 'FAILED'}: {shown}"
            rows.append(f"| {result['device']} | {line['name']} | {found} | {result['measured']} |")
    return "\n".join(["| GPU | check | found | measured |", "|---|---|---|---|", *rows]) if rows else NOT_RUN


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--table", action="store_true", help="print the results that there are, check nothing"
    )
    parser.add_argument("--folder", type=Path, default=FILES, help="of the results [%(default)s]")
    options = parser.parse_args()
    if options.table:
        print(table(options.folder.glob("*.json")))
        return 0
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # matrices are multiplied in one order
    import torch

    if not torch.cuda.is_available():
        print(f"gpu-check: torch {torch.__version__} sees no CUDA GPU; nothing was checked", file=sys.stderr)
        return 2
    facts = device_facts()
    lines = run_checks(checks())
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / (re.sub(r"[^a-z0-9]+", "-", facts["device"].lower()).strip("-") + ".json")
    path.write_text(json.dumps({**facts, "checks": lines}, indent=2) + "\n", encoding="utf-8")
    print(path, file=sys.stderr)
    return 0 if all(line.get("passed", True) for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
