"""How the tokens of a phase are divided among steps, processes and micro-batches."""

from __future__ import annotations

from dataclasses import dataclass

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.pretraining.recipe import PhaseRecipe, TrainingRecipe


@dataclass(frozen=True, slots=True)
class Division:
    """How a phase is divided.

    Attributes:
        steps: of the phase.
        processes: that compute at the same time.
        micro_rows: that a process computes at once.
        accumulation: micro-batches of a process and step.
        context: tokens of a row.
    """

    steps: int
    processes: int
    micro_rows: int
    accumulation: int
    context: int

    @property
    def rows(self) -> int:
        """Rows of a step, over all processes."""
        return self.processes * self.accumulation * self.micro_rows

    @property
    def step_tokens(self) -> int:
        """Tokens of a step, over all processes."""
        return self.rows * self.context

    @property
    def micro_batch_tokens(self) -> int:
        """Tokens that a process computes at once."""
        return self.micro_rows * self.context


def divide(phase: PhaseRecipe, training: TrainingRecipe, processes: int) -> Division:
    """Return how a phase is divided among steps, processes and micro-batches.

    The rows of a step depend on the recipe alone; a step is the same for any number of processes.

    Raises:
        ConfigError: the rows of a step cannot be shared out evenly.
    """
    rows = max(1, training.batch_tokens // phase.context)
    if rows % processes:
        raise ConfigError(
            f"a step has {rows} rows of {phase.context} tokens, which {processes} processes cannot share "
            f"evenly; set training.batch_tokens to a multiple of {phase.context * processes}"
        )
    share = rows // processes
    most = max(1, min(share, training.micro_batch_tokens // phase.context))
    micro_rows = next(size for size in range(most, 0, -1) if share % size == 0)
    steps = -(-phase.tokens // (rows * phase.context))
    return Division(steps, processes, micro_rows, share // micro_rows, phase.context)
