#!/bin/bash
# Pretrains on nodes of 8 GPUs under Slurm, requeued until the run is finished. From the repository's root, once:
#   cmbert pretrain prepare RECIPE --out DATA
#   sbatch --nodes=2 --time=24:00:00 pretraining/slurm.sh RECIPE --data DATA --out RUN
# RECIPE, DATA and RUN lie where all nodes see them. Options of sbatch before the script replace those below; the
# words behind it are those of 'cmbert pretrain run'. PYTHON is the interpreter [.venv/bin/python].
#
# srun starts the processes, without torchrun: Slurm then signals each of them itself, and their exit code comes
# through. torchrun, unless told otherwise (torch 2.13 can be), dies of SIGUSR1 and kills its processes 30 seconds after
# a signal that it passes on; and it makes 1 of every exit code. Not run on a cluster yet.
#SBATCH --job-name=cmbert-pretrain
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

# Without 'B:' before it, the signal above goes to the processes, not to this script: 300 seconds before the time is
# over they write a checkpoint at the next step, and end with 75.
STOPPED=75

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
PYTHON=${PYTHON:-.venv/bin/python}
export MASTER_ADDR MASTER_PORT OMP_NUM_THREADS PYTHON

# Variables are each process's own: the inner shell, which the process replaces, looks them up.
# --wait: when one process fails, the others are ended a minute later instead of waiting for it.
code=0
# shellcheck disable=SC2016
srun --kill-on-bad-exit=0 --wait=60 --gpu-bind=none --cpus-per-task="$OMP_NUM_THREADS" bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
    exec "$PYTHON" pretraining/run.py "$@"
' run "$@" || code=$?

if [ "$code" -eq "$STOPPED" ]; then
    echo "stopped before the time was over; requeued, the run goes on from its last checkpoint"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
