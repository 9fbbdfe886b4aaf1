"""sentence-transformers' trainer, with batches, a schedule and measurements of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainer
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState

from cmbert_retrieval.finetuning.measuring import Measures, encoder_of
from cmbert_retrieval.finetuning.mixture import StageBatches, StageRows
from cmbert_retrieval.pretraining.checkpoints import SafeTraining


class FinetuneTrainer(SafeTraining, SentenceTransformerTrainer):  # type: ignore[misc]
    """sentence-transformers' trainer on the batches of a stage, with safe checkpoints."""

    def __init__(
        self,
        *,
        rows: StageRows,
        batches: StageBatches,
        schedule: Callable[[int, int], float],
        **settings: Any,
    ) -> None:
        """Take what sentence-transformers' trainer takes.

        Args:
            rows: what is learnt from.
            batches: of this process.
            schedule: factor of the learning rate at a step, counted from 0, of so many steps.
            settings: of sentence-transformers' trainer.
        """
        self._rows, self._batches, self._schedule = rows, batches, schedule
        super().__init__(**settings)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the batches as they come: they are divided among the processes already."""
        return DataLoader(
            self._rows,
            batch_sampler=self._batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LambdaLR:
        """Change the learning rate as the schedule says."""
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.optimizer, lambda step: self._schedule(step, num_training_steps)
        )
        return self.lr_scheduler

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Do without: what it looks for in the data is in no card of ours."""


class Measuring(TrainerCallback):  # type: ignore[misc]
    """Measures every so many steps, and at the end."""

    def __init__(self, measures: Measures, steps: int) -> None:
        self._measures, self._steps = measures, steps
        self.trainer: FinetuneTrainer | None = None

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **others: Any) -> None:
        """Measure where it is time."""
        if state.global_step % self._steps == 0 or state.global_step == state.max_steps:
            wanted = control.should_log
            self.measure()
            control.should_log = wanted  # telling what was measured has put it out

    def measure(self) -> None:
        """Measure now, on the first process alone."""
        trainer = self.trainer
        assert trainer is not None
        if not trainer.is_world_process_zero():
            return
        model = trainer.accelerator.unwrap_model(trainer.model)
        was_training = model.training
        model.eval()
        with torch.inference_mode(), trainer.compute_loss_context_manager():
            found = self._measures.of(encoder_of(model))
        model.train(was_training)
        if found:
            trainer.log({f"eval_{name}": value for name, value in found.items()})
