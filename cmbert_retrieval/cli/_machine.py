"""What the machine has: processor, memory, GPUs, Java. Asks the system; imports nothing heavy."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from cmbert_retrieval.memory import available_memory, memory_limit
from cmbert_retrieval.threads import usable_cores

SECONDS_TO_ANSWER = 10.0
"""How long another program may take to tell its version."""

FEATURES = {
    "avx2": ("avx2", "hw.optional.avx2_0"),
    "avx512": ("avx512f", "hw.optional.avx512f"),
    "vnni": ("avx512_vnni", "avx_vnni", "asimddp", "hw.optional.arm.FEAT_DotProd"),
    "amx": ("amx_tile", "hw.optional.arm.FEAT_SME"),
    "bf16": ("avx512_bf16", "amx_bf16", "bf16", "hw.optional.arm.FEAT_BF16"),
    "int8 matrices": ("amx_int8", "i8mm", "hw.optional.arm.FEAT_I8MM"),
}
"""What decides the speed of an encoder -> the flags by which Linux (x86, ARM) and macOS tell it."""


def processor() -> dict[str, Any]:
    """Return the processor's model, its cores, and the features that matter to encoders."""
    model, flags = platform.processor() or platform.machine(), set[str]()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = (part.strip() for part in line.partition(":"))
            if key == "model name":
                model = value
            elif key.lower() in ("flags", "features"):
                flags.update(value.split())
                break
    elif sys.platform == "darwin":
        model = answer("sysctl", "-n", "machdep.cpu.brand_string") or model
        told = answer("sysctl", "hw.optional") or ""
        flags.update(line.partition(":")[0] for line in told.splitlines() if line.endswith(": 1"))
    return {
        "model": model,
        "cores usable": usable_cores(),
        "cores": os.cpu_count() or 1,
        "features": [name for name, signs in FEATURES.items() if flags.intersection(signs)],
    }


def memory() -> dict[str, Any]:
    """Return total and available memory in GiB, and the container's limit where there is one."""
    values: dict[str, Any] = {}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        values["total GiB"] = _gib(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name, size in (("available GiB", available_memory()), ("limit GiB", memory_limit())):
        if size is not None:
            values[name] = _gib(size)
    return values


def gpus() -> list[dict[str, str]]:
    """Return name, memory and driver of each GPU that ``nvidia-smi`` knows; nothing where that is absent."""
    fields = ("name", "memory.total", "driver_version")
    told = answer("nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader")
    rows = [line.split(", ") for line in (told or "").splitlines()]
    names = ("name", "memory", "driver")
    return [dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names)]


def java() -> dict[str, str | None]:
    """Return ``JAVA_HOME`` and the version of the Java that would be run (Pyserini needs 21)."""
    home = os.environ.get("JAVA_HOME")
    program = str(Path(home) / "bin" / "java") if home else "java"
    told = answer(program, "-version")
    return {"JAVA_HOME": home, "version": told.splitlines()[0] if told else None}


def folder(path: Path) -> dict[str, Any]:
    """Return where a folder is, its size in MiB and the space left on its disk in GiB."""
    total = 0
    for place, _, names in os.walk(path):
        for name in names:
            file = Path(place) / name
            # Others may be tidying up meanwhile, and a link's target is counted where it lies.
            if not file.is_symlink() and file.exists():
                total += file.stat().st_size
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    return {
        "path": str(path),
        "exists": path.exists(),
        "size MiB": round(total / 2**20, 1),
        "free GiB": _gib(shutil.disk_usage(existing).free),
    }


def answer(program: str, *arguments: str) -> str | None:
    """Return what a program prints; None where it is absent, fails, or takes longer than ten seconds."""
    if shutil.which(program) is None:
        return None
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SECONDS_TO_ANSWER,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _gib(count: int) -> float:
    return round(count / 2**30, 1)
