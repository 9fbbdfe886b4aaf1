"""What the check of a GPU decides by, as far as a CPU can tell; with a GPU, the check itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks/gpu_check.py"
SHAPE = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 2,
    "local_attention": 32,
}  # fmt: skip


@pytest.fixture()
def check(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import gpu_check

    yield gpu_check
    sys.modules.pop("gpu_check")


@pytest.fixture()
def comparisons(check: ModuleType) -> ModuleType:
    return sys.modules["gpu_comparisons"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *words], capture_output=True, text=True, timeout=580, check=False
    )


def test_without_results_the_table_says_so(tmp_path: Path) -> None:
    done = run("--table", "--folder", str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "not run on a GPU yet\n")


def test_the_table_holds_every_check_of_every_file(check: ModuleType, tmp_path: Path) -> None:
    lines = [
        {"name": "speed", "tokens_per_second": 123_456, "passed": True, "seconds": 9.0},
        {"name": "resume", "largest_difference": 0.25, "passed": False, "seconds": 9.0},
        {"name": "FAISS", "skipped": "for CPUs", "seconds": 0.0},
    ]
    for name in ("b", "a"):
        made = {"device": f"GPU {name}", "measured": "2026-01-02", "checks": lines}
        (tmp_path / f"{name}.json").write_text(json.dumps(made))
    _, _, *rows = check.table(tmp_path.glob("*.json")).splitlines()
    assert rows[:3] == [
        "| GPU a | speed | passed: tokens per second 123,456 | 2026-01-02 |",
        "| GPU a | resume | FAILED: largest difference 0.25 | 2026-01-02 |",
        "| GPU a | FAISS | skipped: for CPUs | 2026-01-02 |",
    ]
    assert [row[:7] for row in rows] == ["| GPU a"] * 3 + ["| GPU b"] * 3


def test_a_check_that_fails_ends_no_other(check: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> dict[str, Any]:
        raise RuntimeError("no kernel image\nis available")

    def absent() -> dict[str, Any]:
        raise check.SkippedError("not installed")

    lines = check.run_checks({"a": broken, "b": absent, "c": lambda: {"passed": True}})
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == lines
    assert [{key: value for key, value in line.items() if key != "seconds"} for line in lines] == [
        {"name": "a", "error": "RuntimeError: no kernel image", "passed": False},
        {"name": "b", "skipped": "not installed"},
        {"name": "c", "passed": True},
    ]


def test_neighbours_are_the_same_but_for_ties_at_the_end(comparisons: ModuleType) -> None:
    scores = np.array([[9.0, 7.0, 5.0, 5.0]])
    rows = np.array([[1, 2, 3, 4]])
    assert comparisons.same_neighbours(scores, rows, scores, np.array([[1, 2, 8, 3]]))
    assert not comparisons.same_neighbours(scores, rows, scores, np.array([[1, 8, 3, 4]]))
    assert not comparisons.same_neighbours(scores, rows, scores - 1, rows)


@pytest.mark.slow
def test_without_a_gpu_nothing_is_written(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run("--folder", str(tmp_path / "results"))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "sees no CUDA GPU; nothing was checked" in line
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_an_attention_that_keeps_borders_passes_and_one_that_does_not_fails(comparisons: ModuleType) -> None:
    torch = pytest.importorskip("torch")
    from cmbert_retrieval.pretraining.attention import register

    name = register()
    settings = {"device": "cpu", "dtype": torch.bfloat16, "shape": SHAPE, "context": 256}
    found = comparisons.compare_attentions(name, **settings)
    assert found["passed"] and 0 < found["vectors_error"] < 0.1
    exact = comparisons.compare_attentions(name, **{**settings, "dtype": torch.float32})
    assert exact["passed"] and exact["gradients_error"] < 1e-4
    blind = comparisons.compare_attentions(name, **settings, borders=lambda lengths: lengths.sum()[None])
    assert not blind["passed"] and blind["vectors_error"] > 3 * blind["vectors_error_of_sdpa"]


@pytest.mark.slow
def test_packed_training_is_timed_on_any_device(comparisons: ModuleType) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("optimi")
    found = comparisons.packed_speed(
        "sdpa", device="cpu", dtype=torch.float32, shape=SHAPE, context=64, rows=2, steps=3
    )
    assert found["passed"] and found["tokens"] == 128 and found["tokens_per_second"] > 0


@pytest.mark.slow
def test_a_resume_on_a_cpu_is_exact_and_another_seed_is_not_called_the_same(
    comparisons: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("accelerate")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "pretraining"))
    from test_training import recipe
    from token_samples import prepare_folder

    (tmp_path / "data").mkdir()
    made = recipe(training__keep_checkpoints=9)
    found = comparisons.check_resume(made, prepare_folder(tmp_path / "data"), tmp_path)
    assert found == {
        "resumed_at_step": 3, "steps": 8, "losses_same": True, "largest_difference": 0.0,
        "largest_difference_of_two_runs": 0.0, "passed": True,
    }  # fmt: skip
    comparisons._train(recipe(seed=5), tmp_path / "data", tmp_path / "other")
    assert comparisons._difference(tmp_path / "unbroken", tmp_path / "other") > 0


@pytest.mark.gpu
def test_the_check_of_a_gpu_passes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    done = run("--folder", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("*.json")
    assert all(line.get("passed", True) for line in json.loads(path.read_text())["checks"])
