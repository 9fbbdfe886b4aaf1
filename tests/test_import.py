"""What importing the package costs, and what it offers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cmbert_retrieval

HEAVY = (
    "torch",
    "transformers",
    "faiss",
    "onnxruntime",
    "numpy",
    "lxml",
    "tokenizers",
    "pydantic",
    "tantivy",
    "typer",
    "pyarrow",
    "datasets",
)


def modules_after(code: str) -> set[str]:
    """Return the names of the top-level packages that a new Python has loaded after ``code``."""
    show = "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    program = f"import json, sys\n{code}\n{show}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert modules_after("import cmbert_retrieval").isdisjoint(HEAVY)


def test_the_plain_values_and_errors_load_nothing_heavy() -> None:
    names = "Document, Query, Hit, Code, Section, CmbertError, MissingExtraError"
    assert modules_after(f"from cmbert_retrieval import {names}").isdisjoint(HEAVY)


@pytest.mark.parametrize("name", cmbert_retrieval.__all__)
def test_every_exported_name_can_be_imported(name: str) -> None:
    assert getattr(cmbert_retrieval, name) is not None
    assert name in dir(cmbert_retrieval)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Retreiver'"):
        _ = cmbert_retrieval.Retreiver


def test_the_version_is_the_one_of_the_installed_package() -> None:
    from importlib.metadata import version

    assert version("cmbert-retrieval") == cmbert_retrieval.__version__


def test_nothing_is_reported_to_anybody_and_nothing_kept_in_the_home_folder(
    tmp_path: Path, tiny_encoder_path: Path
) -> None:
    program = (
        "import sys, time; from cmbert_retrieval import load_encoder; "
        "load_encoder(sys.argv[1]).encode_query(['x']); time.sleep(1)"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    subprocess.run([sys.executable, "-c", program, str(tiny_encoder_path)], env=environment, check=True)
    assert list(tmp_path.rglob("*")) == []  # onnxruntime would keep a device id and a queue of events here
