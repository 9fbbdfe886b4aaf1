"""What may be committed, and what may be in the wheel."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cmbert_retrieval import __version__

ROOT = Path(__file__).parents[1]

PACKAGE = "cmbert_retrieval"
MAX_LINES = 400
MAX_BYTES = 20_000_000

MACHINE_PATH = re.compile(r"(?<![\w.}])/(?:work|root|home|Users)/\w")
LEFTOVER = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b")
UNSAFE = {"pickle", "cPickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}


def tracked() -> list[Path]:
    """Return the files under version control, or skip where there is none (an unpacked release)."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a clone, to know which files are ours")
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def texts() -> list[tuple[Path, str]]:
    """Return path and text of every tracked file that is text."""
    found = []
    for path in tracked():
        try:
            found.append((path.relative_to(ROOT), path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return found


def matches(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]


def modules() -> list[tuple[Path, str]]:
    return [(path, text) for path, text in texts() if path.suffix == ".py"]


def test_every_module_of_the_package_is_under_400_lines() -> None:
    lengths = {str(path): text.count("\n") for path, text in modules() if path.parts[0] == PACKAGE}
    assert lengths
    assert {path: lines for path, lines in lengths.items() if lines >= MAX_LINES} == {}


def test_no_tracked_file_is_over_20_mb() -> None:
    assert [path for path in tracked() if path.stat().st_size > MAX_BYTES] == []


def test_no_tracked_file_names_a_folder_of_somebodys_machine() -> None:
    assert matches(MACHINE_PATH) == []


def test_nothing_is_left_to_be_done() -> None:
    assert matches(LEFTOVER) == []


def test_no_module_imports_pickle_or_loads_one() -> None:
    found = []
    for path, text in modules():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").partition(".")[0]}
            elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                names = (
                    UNSAFE
                    if not (isinstance(node.value, ast.Constant) and node.value.value is False)
                    else set()
                )
            else:
                continue
            if names & UNSAFE:
                found.append(f"{path}:{node.lineno}")
    assert found == []


def test_every_folder_with_modules_is_a_package_so_that_the_wheel_has_it() -> None:
    folders = {path.parent for path, _ in modules() if path.parts[0] == PACKAGE}
    assert [folder for folder in folders if not (ROOT / folder / "__init__.py").exists()] == []


def test_the_citation_and_the_package_name_the_same_version() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_wheel_holds_the_package_with_its_data_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77", reason="building a wheel offline needs setuptools 77")
    for path in tracked():
        copy = tmp_path / "source" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*build, "--wheel-dir", tmp_path, tmp_path / "source"], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    package = {name for name in names if ".dist-info/" not in name}
    ours = [str(path.relative_to(ROOT)) for path in tracked()]
    assert package == {name for name in ours if name.startswith(f"{PACKAGE}/")}
    assert any(name.endswith("licenses/LICENSE") for name in names)
