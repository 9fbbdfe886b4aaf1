"""What importing the package costs, and what it offers."""

from __future__ import annotations

import json
import subprocess
import sys

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
