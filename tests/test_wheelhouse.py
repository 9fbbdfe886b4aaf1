"""An installation without a network and without torch, from what ``make wheelhouse`` left, works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import copy_checkout

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ARTICLES = (
    ("1", "Statins after a stroke", "We followed 812 patients who took a statin after their first stroke."),
    ("2", "Asthma in children", "Inhaled steroids lowered the number of attacks among children with asthma."),
    ("3", "Hip fractures", "Surgery within a day lowered the mortality of old people with a broken hip."),
)


def alone(*command: str | Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a network namespace of its own, where nothing can be reached."""
    unshare = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(cache), "CMBERT_CACHE": str(cache)}
    return subprocess.run([*unshare, *map(str, command)], env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of a new environment that was filled from the wheelhouse alone."""
    root = tmp_path_factory.mktemp("wheelhouse")
    if shutil.which("unshare") is None or alone("true", cache=root).returncode:
        pytest.skip("this system allows no network namespaces")
    clone = copy_checkout(root / "clone")
    made = subprocess.run(
        ["make", "wheelhouse", f"PYTHON={sys.executable}"], cwd=clone, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    wheelhouse = clone / "dist" / "wheelhouse"
    subprocess.run([sys.executable, "-m", "venv", root / "env"], check=True)
    pip = (root / "env/bin/pip", "install", "-qq", "--no-index", "--find-links", wheelhouse)
    done = alone(*pip, "cmbert-retrieval", cache=root)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(clone)
    return root / "env" / "bin"


def test_the_demo_runs(installed: Path, tmp_path: Path) -> None:
    done = alone(installed / "cmbert", "demo", cache=tmp_path)
    assert done.returncode == 0, done.stderr
    answers = done.stdout.partition("heart attack\n")[2]
    assert answers.splitlines()[1].startswith("I21")


def test_there_is_no_torch(installed: Path, tmp_path: Path) -> None:
    facts = json.loads(alone(installed / "cmbert", "env", "--json", cache=tmp_path).stdout)
    assert facts["gpu"]["torch"] == "not installed"
    assert facts["encoders"]["cmbert-mini"].startswith("the default one")


def test_an_index_is_built_and_searched_by_meaning(installed: Path, tmp_path: Path) -> None:
    rows = (json.dumps({"id": id_, "title": title, "text": text}) for id_, title, text in ARTICLES)
    (tmp_path / "articles.jsonl").write_text("\n".join(rows))
    index = tmp_path / "index"
    source = f"jsonl:{tmp_path / 'articles.jsonl'}"
    build = ("index", "build", "--from", source, "--out", index)
    built = alone(installed / "cmbert", *build, cache=tmp_path)
    assert built.returncode == 0, built.stderr
    search = ("search", index, "femur injuries of the elderly", "--mode", "dense", "--json")
    found = alone(installed / "cmbert", *search, cache=tmp_path)
    assert json.loads(found.stdout)[0]["id"] == "3"
