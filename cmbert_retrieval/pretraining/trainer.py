"""The trainer: transformers' loop, with masking on the device, a loss over all tokens, safe checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler
from transformers import Trainer

from cmbert_retrieval.errors import CmbertError
from cmbert_retrieval.pretraining.accuracy import Accuracy
from cmbert_retrieval.pretraining.checkpoints import SafeTraining
from cmbert_retrieval.pretraining.masking import IGNORED, mask_rows
from cmbert_retrieval.pretraining.rows import collate, model_inputs
from cmbert_retrieval.pretraining.schedules import falling_rate
from cmbert_retrieval.pretraining.weights import Weighting

HELD_OUT_RATE = 0.15
"""Held-out text is masked at this rate, whatever is trained, so that runs can be compared: once every token
by itself, once words and terms as a whole."""

Batch = dict[str, Any]


@dataclass(frozen=True, slots=True)
class MaskingPlan:
    """How rows are masked over a run.

    Attributes:
        first_rate: at the first step of the run.
        last_rate: at its last step.
        steps: of the whole run, over all phases.
        steps_before: of the phases that are over.
        seed: of the draws.
        mask_id: the mask's token.
        vocabulary: tokens that a random replacement may be.
    """

    first_rate: float
    last_rate: float
    steps: int
    steps_before: int
    seed: int
    mask_id: int
    vocabulary: int

    def rate(self, step: int) -> float:
        """Return the rate at a step of this phase."""
        return falling_rate(self.steps_before + step, self.steps, self.first_rate, self.last_rate)

    def mask(self, batch: Mapping[str, Any], weights: torch.Tensor, rate: float) -> Batch:
        """Return a batch with ``labels`` and ``terms``, its tokens hidden by these weights."""
        masked = mask_rows(
            batch["input_ids"],
            weights,
            batch["rows"],
            batch["epochs"],
            rate=rate,
            seed=self.seed,
            mask_id=self.mask_id,
            vocabulary=self.vocabulary,
        )
        return {
            "input_ids": masked.input_ids,
            "labels": masked.labels,
            "terms": masked.terms,
            "lengths": batch["lengths"],
        }


class MaskedTrainer(SafeTraining, Trainer):  # type: ignore[misc]
    """Trains on packed rows that are masked when they are needed."""

    def __init__(
        self,
        *,
        masking: MaskingPlan,
        weighting: Weighting,
        attention: str,
        window: int,
        held_out: Dataset[Batch] | None,
        kept: int,
        **settings: Any,
    ) -> None:
        """Take what transformers' trainer takes.

        Args:
            masking: how many tokens are hidden when.
            weighting: of the tokens, for training.
            attention: as transformers names it.
            window: tokens that a layer with a window sees.
            held_out: packed rows that are measured on.
            kept: checkpoints that are kept.
            settings: of transformers' trainer.
        """
        super().__init__(data_collator=collate, eval_dataset=held_out, **settings)
        self.masking = masking
        self._attention, self._window, self._weighting = attention, window, weighting
        self.kept = kept
        # The model divides its loss by the number of predicted tokens that it is told.
        self.model_accepts_loss_kwargs = True

    def _get_train_sampler(self, train_dataset: Dataset[Batch] | None = None) -> Sampler[int]:
        """Take the rows as they come: they are in order, the same for any number of processes."""
        return SequentialSampler(train_dataset or self.train_dataset)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], torch.Tensor | int | None]:
        """Return the masked batches of one step, and the predicted tokens of all of them on all processes."""
        rate = self.masking.rate(self.state.global_step)
        batches = []
        for _, batch in zip(range(num_batches), epoch_iterator, strict=False):
            here = self._prepare_inputs(batch)
            batches.append(self.masking.mask(here, self._weighting.weights(here["marks"]), rate))
        return batches, self._get_num_items_in_batch(batches, device)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the sum of this batch's losses, divided by the predicted tokens of the whole step."""
        return super().compute_loss(model, self._arguments(inputs), return_outputs, num_items_in_batch)

    def _arguments(self, batch: Mapping[str, Any]) -> Batch:
        inputs = model_inputs(
            batch["input_ids"], batch["lengths"], attention=self._attention, window=self._window
        )
        return {**inputs, "labels": batch["labels"].view_as(inputs["input_ids"])}

    def evaluate(self, *unused: Any, metric_key_prefix: str = "eval", **ignored: Any) -> dict[str, float]:
        """Return accuracies and loss on held-out rows, masked in the same two ways every time."""
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        model.eval()
        ways = {("", Weighting(units=False)): Accuracy(), ("units_", Weighting()): Accuracy()}
        for batch in self.get_eval_dataloader():
            here = self._prepare_inputs(batch)
            for (_, weighting), found in ways.items():
                masked = self.masking.mask(here, weighting.weights(here["marks"]), HELD_OUT_RATE)
                labels, terms = masked["labels"].reshape(-1), masked["terms"].reshape(-1)
                predicted = labels != IGNORED
                with torch.inference_mode(), self.compute_loss_context_manager():
                    logits = model(**self._arguments(masked)).logits
                found.add(logits, labels[predicted], terms[predicted])
        metrics: dict[str, float] = {}
        for (way, _), found in ways.items():
            if self.args.world_size > 1:
                for part in (found.counts, found.loss):
                    part.copy_(self.accelerator.reduce(part.to(self.args.device), reduction="sum").cpu())
            shares = found.shares()
            metrics |= {f"{metric_key_prefix}_{way}{name}": value for name, value in shares.items()}
        model.train(was_training)
        self.log(metrics)
        # Without it, transformers takes the measurement for still to be made, and makes it again at the end.
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Batch]:
        """Return the held-out rows of this process."""
        return super().get_eval_dataloader(eval_dataset)

    # --- checkpoints ---

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Refuse a checkpoint that lacks a tensor; the decoder's is the embedding's, and written once."""
        missing = set(load_result.missing_keys) - set(self.model.all_tied_weights_keys)
        if missing or load_result.unexpected_keys:
            names = [*sorted(missing), *load_result.unexpected_keys]
            raise CmbertError(f"{self.args.output_dir}: a checkpoint with other tensors: {', '.join(names)}")
