"""Training runs: the same step however it is shared out, resumed to the last digit, stopped without loss."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from token_samples import prepare_folder  # noqa: E402

from cmbert_retrieval.errors import ConfigError, CorpusError, EncoderError, StorageError  # noqa: E402
from cmbert_retrieval.pretraining.callbacks import NoBar  # noqa: E402
from cmbert_retrieval.pretraining.checkpoints import checkpoints  # noqa: E402
from cmbert_retrieval.pretraining.division import divide  # noqa: E402
from cmbert_retrieval.pretraining.recipe import PretrainRecipe  # noqa: E402
from cmbert_retrieval.pretraining.training import pretrain  # noqa: E402

pytestmark = pytest.mark.slow  # torch

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "data": {
        "sources": {"a": {"reader": "jsonl"}, "b": {"reader": "pmc", "weight": 2.0}, "c": {"reader": "pmc"}}
    },
    "model": {"hidden_size": 32, "layers": 3, "heads": 2, "intermediate_size": 48, "window": 8},
    "phases": [{"tokens": 64 * 16 * 8, "context": 64, "learning_rate": 3e-3}],
    "training": {
        "batch_tokens": 64 * 16, "micro_batch_tokens": 64 * 16, "checkpoint_steps": 3, "evaluate_steps": 20,
        "log_steps": 1, "precision": "fp32", "weight_decay": 0.01,
    },
}  # fmt: skip


def recipe(**changes: Any) -> PretrainRecipe:
    values = json.loads(json.dumps(RECIPE))
    for name, value in changes.items():
        section, _, key = name.partition("__")
        if key:
            values[section][key] = value
        else:
            values[section] = value
    return PretrainRecipe.model_validate(values)


def train(made: PretrainRecipe, data: Path, out: Path) -> Path | None:
    return pretrain(made, data, out, bar=lambda label, tokens: nullcontext(NoBar())).folder


def column(path: Path, name: str) -> list[str]:
    with path.open(newline="") as file:
        return [row[name] for row in csv.DictReader(file)]


def losses(out: Path) -> list[str]:
    return column(out / "phase-1/training.csv", "loss")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an unbroken run of eight steps by one process, without accumulation."""
    out = tmp_path_factory.mktemp("plain")
    assert train(recipe(), data, out) == out / "phase-1/model"
    return out


def test_the_loss_falls_and_the_folder_opens_whole(plain: Path, data: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    longer = recipe(phases=[{"tokens": 64 * 16 * 60, "context": 64, "learning_rate": 1e-2}])
    folder = train(longer, data, tmp_path)
    assert folder is not None
    found = [float(loss) for loss in losses(tmp_path)]
    assert len(found) == 60
    assert sum(found[-5:]) / 5 < found[0] - 1
    _, info = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert AutoTokenizer.from_pretrained(folder).mask_token == "[MASK]"
    accuracy = [float(share) for share in column(tmp_path / "phase-1/held_out.csv", "accuracy@25")]
    assert accuracy[-1] > accuracy[0]
    assert column(tmp_path / "phase-1/held_out.csv", "step") == ["20", "40", "60"]  # each is measured once


def close(here: dict[str, torch.Tensor], there: dict[str, torch.Tensor]) -> None:
    assert here.keys() == there.keys()
    for name, tensor in here.items():
        torch.testing.assert_close(tensor, there[name], rtol=1e-4, atol=2e-5, msg=name)


def test_accumulated_steps_are_whole_steps(plain: Path, data: Path, tmp_path: Path) -> None:
    folder = train(recipe(training__micro_batch_tokens=64 * 4), data, tmp_path)
    assert folder is not None
    close(weights(folder), weights(plain / "phase-1/model"))
    pairs = zip(losses(tmp_path), losses(plain), strict=True)
    assert all(float(here) == pytest.approx(float(there), abs=1e-4) for here, there in pairs)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_a_compiled_model_learns_the_same(plain: Path, data: Path, tmp_path: Path) -> None:
    folder = train(recipe(training__compile=True), data, tmp_path)
    assert folder is not None
    close(weights(folder), weights(plain / "phase-1/model"))


def test_a_resumed_run_is_the_unbroken_one_to_the_last_digit(plain: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, tmp_path / "run")
    phase = tmp_path / "run/phase-1"
    shutil.rmtree(phase / "model")
    assert [path.name for path in checkpoints(phase)] == ["checkpoint-6", "checkpoint-8"]
    shutil.rmtree(phase / "checkpoint-8")
    folder = train(recipe(), data, tmp_path / "run")
    assert folder is not None
    assert losses(tmp_path / "run") == losses(plain)
    expected = weights(plain / "phase-1/model")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(folder).items())


def torchrun(processes: int, data: Path, out: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).parent / "run_tiny.py"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1",
        "--nproc-per-node", str(processes), str(script), str(data), str(out), *settings,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def test_two_processes_are_one_and_a_run_of_two_goes_on_in_one(
    plain: Path, data: Path, tmp_path: Path
) -> None:
    done = torchrun(2, data, tmp_path / "two")
    assert done.returncode == 0, done.stderr[-3000:]
    close(weights(tmp_path / "two/phase-1/model"), weights(plain / "phase-1/model"))
    pairs = zip(losses(tmp_path / "two"), losses(plain), strict=True)
    assert all(float(here) == pytest.approx(float(there), abs=1e-4) for here, there in pairs)
    # From the checkpoint that two wrote, one goes on.
    phase = tmp_path / "two/phase-1"
    for gone in ("model", "checkpoint-8"):
        shutil.rmtree(phase / gone)
    folder = train(recipe(), data, tmp_path / "two")
    assert folder is not None
    close(weights(folder), weights(plain / "phase-1/model"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_behind_a_checkpoint(plain: Path, data: Path, tmp_path: Path, number: int) -> None:
    script = Path(__file__).parent / "run_tiny.py"
    out = tmp_path / "run"
    process = subprocess.Popen([sys.executable, str(script), str(data), str(out), "slow"])
    until = time.monotonic() + 120
    while not (out / "phase-1/training.csv").exists() and time.monotonic() < until:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(60) == 75
    assert checkpoints(out / "phase-1")
    assert not (out / "phase-1/model").exists()
    assert subprocess.run([sys.executable, str(script), str(data), str(out)], check=False).returncode == 0
    assert losses(out) == losses(plain)


def test_phases_follow_each_other_with_their_own_length_and_rope(data: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig

    phases = [
        {"tokens": 64 * 16 * 3, "context": 64, "global_theta": 1e4},
        {"tokens": 64 * 16 * 2, "context": 128, "learning_rate": 1e-3, "decay": 0.0},
    ]
    folder = train(recipe(phases=phases), data, tmp_path)
    assert folder == tmp_path / "phase-2/model"
    assert len(losses(tmp_path)) == 3
    thetas = [
        AutoConfig.from_pretrained(path).rope_parameters["full_attention"]["rope_theta"]
        for path in (tmp_path / "phase-1/model", folder)
    ]
    assert thetas == [1e4, 160_000]
    rates = column(tmp_path / "phase-1/training.csv", "masking_rate") + column(
        tmp_path / "phase-2/training.csv", "masking_rate"
    )
    assert [float(rate) for rate in rates] == pytest.approx([0.3, 0.2625, 0.225, 0.1875, 0.15])


def test_a_folder_keeps_to_its_run(plain: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds a run of masking\.first_rate=0\.3, not 0\.4"):
        train(recipe(masking={"first_rate": 0.4}), data, plain)
    assert train(recipe(training__log_steps=5), data, plain) is not None


def test_data_that_are_not_prepared_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no prepared data; run: cmbert pretrain prepare"):
        train(recipe(), tmp_path, tmp_path / "out")


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(data: Path, tmp_path: Path) -> None:
    wild = recipe(
        phases=[{"tokens": 64 * 16 * 40, "context": 64, "learning_rate": 1e30, "warmup": 0.5}],
        training__optimizer="adamw",
    )
    from cmbert_retrieval.pretraining.checkpoints import DivergedError

    with pytest.raises(DivergedError, match=r"step \d+: the loss is not a number any more"):
        train(wild, data, tmp_path)
    assert not (tmp_path / "phase-1/model").exists()


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    plain: Path, data: Path, tmp_path: Path
) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Filling(NoBar):
        """After the fourth step, no file may grow beyond 20 kB."""

        steps = 0

        def __call__(self, count: int = 1) -> None:
            self.steps += 1
            if self.steps == 4:
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))

    try:
        with pytest.raises(StorageError, match=r"checkpoint of step 6 cannot be written .* former one stays"):
            pretrain(recipe(), data, tmp_path, bar=lambda label, tokens: nullcontext(Filling()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in (tmp_path / "phase-1").iterdir() if path.is_dir()] == ["checkpoint-3"]
    folder = train(recipe(), data, tmp_path)
    assert folder is not None
    assert losses(tmp_path) == losses(plain)
    assert all(
        torch.equal(one, weights(folder)[name]) for name, one in weights(plain / "phase-1/model").items()
    )


def test_steps_are_shared_out_evenly_or_not_at_all() -> None:
    made = recipe(training__batch_tokens=64 * 12, training__micro_batch_tokens=64 * 5)
    (phase,) = made.phases
    divided = [divide(phase, made.training, processes) for processes in (1, 2, 3)]
    found = [(part.rows, part.micro_rows, part.accumulation) for part in divided]
    assert found == [(12, 4, 3), (12, 3, 2), (12, 4, 1)]
    with pytest.raises(ConfigError, match="12 rows of 64 tokens, which 5 processes cannot share"):
        divide(phase, made.training, 5)


@pytest.mark.parametrize("break_it", ["shape", "missing", "another model", "kind"])
def test_a_checkpoint_that_does_not_fit_is_refused_by_the_names_of_its_tensors(
    plain: Path, data: Path, tmp_path: Path, break_it: str
) -> None:
    from safetensors.torch import save_file

    broken = tmp_path / "broken"
    shutil.copytree(plain / "phase-1/model", broken)
    tensors = weights(broken)
    name = "model.layers.1.mlp.Wo.weight"
    changes: dict[str, Callable[[], str]] = {
        "shape": lambda: f"of another shape: {name} is [32, 7], expected [32, 48]",
        "missing": lambda: f"missing: {name}",
        "another model": lambda: (
            "missing: head.dense.weight, head.norm.weight, model.layers.{0,1,2}.mlp.Wo.weight; "
            "unexpected: bert.{0,1}.weight"
        ),
        "kind": lambda: "a checkpoint of 'bert', expected 'modernbert'",
    }
    if break_it == "shape":
        tensors[name] = torch.zeros(32, 7)
    elif break_it == "missing":
        del tensors[name]
    elif break_it == "another model":
        there = [name for name in tensors if name.startswith("head.") or name.endswith("mlp.Wo.weight")]
        for place, gone in enumerate(there):
            tensors[f"bert.{place % 2}.weight"] = tensors.pop(gone)
    else:
        config = json.loads((broken / "config.json").read_text())
        (broken / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises((EncoderError, ConfigError)) as error:
        train(recipe(model={**RECIPE["model"], "checkpoint": str(broken)}), data, tmp_path / "out")
    assert changes[break_it]() in str(error.value)
