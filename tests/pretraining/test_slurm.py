"""Many processes: started as Slurm does and by torchrun, stopped by a signal, gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "pretraining/slurm.sh"
STEPS = 200

# What Slurm promises: srun starts the tasks, numbered, hands on the job's signal to each, and ends with the
# highest of their exit codes, 128 and the signal's number for one that a signal ended.
SRUN = f"""#!{sys.executable}
import os, signal, subprocess, sys
words = sys.argv[1:]
while words[0].startswith("--"):
    del words[0]
tasks = []
for number in range(2):
    names = {{"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number), "SLURM_NTASKS": "2"}}
    tasks.append(subprocess.Popen(words, env={{**os.environ, **names}}))
signal.signal(signal.SIGUSR1, lambda *_: [task.send_signal(signal.SIGUSR1) for task in tasks])
codes = [task.wait() for task in tasks]
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""
SCONTROL = """#!/bin/sh
if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> "$(dirname "$0")/asked"; fi
"""


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a job: programs of Slurm first on the path."""
    programs = tmp_path / "slurm"
    programs.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    here = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "node[1-2]",
    }
    return {**os.environ, **here}


def asked(tmp_path: Path) -> list[str]:
    path = tmp_path / "slurm/asked"
    return path.read_text().splitlines() if path.exists() else []


def test_the_script_is_sound_bash() -> None:
    assert subprocess.run(["bash", "-n", SCRIPT], check=False).returncode == 0


def test_an_error_of_a_process_is_the_job_s_and_nothing_is_requeued(
    job: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        ["bash", SCRIPT, "absent.yaml", "--data", "absent"],
        cwd=ROOT, env=job, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "absent.yaml" in done.stderr and "Traceback" not in done.stderr
    assert asked(tmp_path) == []


def test_several_processes_are_told_to_prepare_text_before(job: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", SCRIPT, "recipe.yaml"],
        cwd=ROOT, env=job, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "pretraining/run.py: got no --data, expected prepared text where several processes train; "
        "run first: cmbert pretrain prepare RECIPE --out FOLDER"
    ]


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Return the words behind the script for a run of many tiny steps, its text prepared."""
    pytest.importorskip("torch")
    pytest.importorskip("accelerate")
    import yaml
    from test_training import RECIPE
    from token_samples import prepare_folder

    made = json.loads(json.dumps(RECIPE))
    del made["name"]
    made["phases"][0]["tokens"] = made["training"]["batch_tokens"] * STEPS
    made["training"]["checkpoint_steps"] = made["training"]["evaluate_steps"] = 10 * STEPS
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(made))
    (tmp_path / "data").mkdir()
    prepare_folder(tmp_path / "data")
    return [str(recipe), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]


@contextmanager
def started(command: list[str], environment: dict[str, str], **settings: bool) -> Iterator[subprocess.Popen]:
    """Start a command in a session of its own, none of whose processes is left over."""
    environment = {**environment, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.communicate()


def wait_for_a_step(process: subprocess.Popen, out: Path) -> None:
    until = time.monotonic() + 240
    while not (out / "phase-1/training.csv").exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)


def steps(out: Path) -> list[int]:
    from test_training import column

    return [int(step) for step in column(out / "phase-1/training.csv", "step")]


def whole(out: Path) -> list[int]:
    from cmbert_retrieval.pretraining.checkpoints import checkpoints

    return [int(path.name.rpartition("-")[2]) for path in checkpoints(out / "phase-1")]


@pytest.mark.slow
def test_a_job_whose_time_is_nearly_over_is_requeued_and_goes_on(
    job: dict[str, str], words: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with started(["bash", str(SCRIPT), *words], job) as process:
        wait_for_a_step(process, out)
        # Slurm signals the tasks, which srun stands for here, not the script.
        (srun,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(srun), signal.SIGUSR1)
        _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert asked(tmp_path) == [f"requeue {job['SLURM_JOB_ID']}"]
    (stopped,) = whole(out)
    assert 0 < stopped < STEPS
    assert "stopped by a signal behind a checkpoint" in said
    done = subprocess.run(
        ["bash", SCRIPT, *words], cwd=ROOT, env=job, capture_output=True, text=True, timeout=480, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(out / "phase-1/model")]  # of the first process alone
    assert asked(tmp_path) == [f"requeue {job['SLURM_JOB_ID']}"]
    assert steps(out) == list(range(1, STEPS + 1))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_torchrun_stops_its_processes_behind_a_checkpoint(
    words: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    from torch.distributed.run import get_args_parser

    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1",
        "--nproc-per-node", "2",
    ]  # fmt: skip
    if number == signal.SIGUSR1:
        if "--signals-to-handle" not in get_args_parser().format_help():
            pytest.skip("this torchrun hands on SIGTERM and SIGINT only")
        command += ["--signals-to-handle", "SIGTERM,SIGINT,SIGUSR1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with started([*command, "pretraining/run.py", *words], environment) as process:
        wait_for_a_step(process, tmp_path / "out")
        process.send_signal(number)
        _, said = process.communicate(timeout=240)
    assert process.returncode == 1, said  # torchrun's own; the checkpoint tells how it was
    (stopped,) = whole(tmp_path / "out")
    assert 0 < stopped < STEPS and steps(tmp_path / "out")[-1] == stopped
