"""A fine-tuning run from prepared pairs to a sentence-transformers folder."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import disable_progress_bars
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import DefaultBatchSampler, NoDuplicatesBatchSampler
from sentence_transformers.sentence_transformer import losses
from torch.utils.data import RandomSampler
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, TrainerControl, TrainerState
from transformers.utils.logging import disable_progress_bar

from cmbert_retrieval.encoders.devices import choose_device
from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.finetuning import packing
from cmbert_retrieval.finetuning.card import model_card
from cmbert_retrieval.finetuning.losses import TeacherLoss
from cmbert_retrieval.finetuning.measuring import Measures, encoder_of
from cmbert_retrieval.finetuning.mixture import TEXTS_NAME, stage_datasets
from cmbert_retrieval.finetuning.prepare import COMPLETE, TEXTS, read_rows
from cmbert_retrieval.finetuning.recipe import FinetuneRecipe, StageRecipe
from cmbert_retrieval.finetuning.report import REPORT_JSON, Report
from cmbert_retrieval.finetuning.students import build_student, open_student
from cmbert_retrieval.finetuning.teacher import VectorCache
from cmbert_retrieval.pretraining.callbacks import Bar, ShowProgress, StopOnSignal, TableLog
from cmbert_retrieval.pretraining.card import CARD
from cmbert_retrieval.pretraining.checkpoints import SafeTraining, last_checkpoint
from cmbert_retrieval.pretraining.optimizers import make_optimizer
from cmbert_retrieval.pretraining.run_pins import pin_run
from cmbert_retrieval.pretraining.schedules import warmup_linear
from cmbert_retrieval.pretraining.training import (
    FINISHED,
    choose_training_attention,
    settle_memory,
    uses_bf16,
)
from cmbert_retrieval.storage import fsync_folder, fsync_tree, sha256_of

logger = logging.getLogger(__name__)

START = "start"
"""The folder of the model that a run begins with."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        folder: the finished model, or None when a signal stopped the run behind a checkpoint.
        measured: the last measurement.
    """

    folder: Path | None
    measured: dict[str, float]


def finetune(
    recipe: FinetuneRecipe,
    data: Path,
    out: Path,
    *,
    cache: VectorCache | None = None,
    teacher: Path | None = None,
    bar: Callable[[str, int], AbstractContextManager[Bar]],
) -> Outcome:
    """Train the stages of a recipe, going on from the last checkpoint in ``out`` where there is one.

    Args:
        recipe: what is done.
        data: prepared pairs, with negatives where a stage takes them.
        out: gets a folder a stage, and the finished model.
        cache: what the teacher said of the texts.
        teacher: the folder of its weights, where the model takes something of it.
        bar: makes what progress is shown on, for a label and a number of steps.

    Raises:
        ConfigError: ``out`` holds another run, or the recipe does not fit the data or the processes.
        DivergedError: the loss is not a number any more.
    """
    disable_progress_bar()  # of transformers, for each file that it writes
    disable_progress_bars()  # of datasets
    on_cpu = choose_device(None).type == "cpu"
    if on_cpu:
        settle_memory()
    with PartialState(cpu=on_cpu).main_process_first():
        out.mkdir(parents=True, exist_ok=True)
        _pin(recipe, data, out)
        texts = (
            row["text"] for name in recipe.data.sources for row in read_rows(data / TEXTS / f"{name}.arrow")
        )
        build_student(recipe.model, teacher, seed=recipe.seed, folder=out / START, texts=texts)
    measures = Measures(recipe, data)
    begin, measured = out / START, dict[str, float]()
    for number, stage in enumerate(recipe.stages, start=1):
        folder = out / f"stage-{number}"
        if not (folder / FINISHED).exists():
            run = _Stage(recipe, stage, number, data, folder, begin, cache, measures)
            label = f"stage {number} of {len(recipe.stages)}"
            measured = run.train(partial(bar, label))
            if not (folder / FINISHED).exists():
                return Outcome(None, measured)
        begin = folder / FINISHED
    return Outcome(begin, measured)


def _pin(recipe: FinetuneRecipe, data: Path, out: Path) -> None:
    pinned = recipe.model_dump(mode="json")
    # How often is looked and told may change between two runs of the same training.
    del pinned["measured"]
    for name in ("checkpoint_steps", "evaluate_steps", "log_steps", "report_to", "attention"):
        del pinned["training"][name]
    pin_run(out, pinned, sha256_of(data / COMPLETE))


class FinetuneTrainer(SafeTraining, SentenceTransformerTrainer):  # type: ignore[misc]
    """sentence-transformers' trainer with safe checkpoints, and a card of our own."""

    warmup = 0.0
    """Share of the steps in which the learning rate rises."""

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LambdaLR:
        """Let the learning rate rise, then fall evenly."""
        factor = partial(warmup_linear, steps=num_training_steps, warmup=self.warmup)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, factor)
        return self.lr_scheduler

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Do without: what it looks for in the data is in no card of ours."""


class _Measuring(TrainerCallback):  # type: ignore[misc]
    """Measures every so many steps, and at the end."""

    def __init__(self, measures: Measures, steps: int) -> None:
        self._measures, self._steps = measures, steps
        self.trainer: FinetuneTrainer | None = None
        self.last: dict[str, float] = {}

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
        was_training, length = model.training, model.max_seq_length
        model.eval()
        with torch.inference_mode(), trainer.compute_loss_context_manager():
            self.last = self._measures.of(encoder_of(model))
        model.train(was_training)
        model.max_seq_length = length
        if self.last:
            trainer.log({f"eval_{name}": value for name, value in self.last.items()})


@dataclass(frozen=True, slots=True)
class _Stage:
    """One stage, ready to be trained."""

    recipe: FinetuneRecipe
    stage: StageRecipe
    number: int
    data: Path
    folder: Path
    begin: Path
    cache: VectorCache | None
    measures: Measures

    def train(self, bar: Callable[[int], AbstractContextManager[Bar]]) -> dict[str, float]:
        """Train to the end, or to where a signal stops it; return the last measurement."""
        self.folder.mkdir(parents=True, exist_ok=True)
        device = choose_device(None)
        attention, packed = _attention(self.recipe.training.attention, device)
        model = open_student(self.begin, attention=attention, tokens=self.stage.tokens)
        if packed:
            packing.pack_inputs(model)
        stop, measuring = StopOnSignal(), _Measuring(self.measures, self.recipe.training.evaluate_steps)
        trainer = self._trainer(model, stop, measuring)
        measuring.trainer = trainer
        steps = len(trainer.get_train_dataloader())
        with bar(steps) as shown:
            trainer.add_callback(ShowProgress(shown, 1))
            resumed = last_checkpoint(self.folder)
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        if not stop.stopped and trainer.is_world_process_zero():
            self._finish(trainer.accelerator.unwrap_model(trainer.model))
        trainer.accelerator.wait_for_everyone()
        return measuring.last

    def _finish(self, model: SentenceTransformer) -> None:
        finished = self.folder / FINISHED
        building = finished.with_name(f"{FINISHED}.building")
        shutil.rmtree(building, ignore_errors=True)
        model.max_seq_length = self.recipe.model.length
        model.save(str(building), create_model_card=False)
        report = Report.from_json(json.loads((self.data / REPORT_JSON).read_bytes()))
        stages = [self.folder.with_name(f"stage-{number}") for number in range(1, self.number + 1)]
        (building / CARD).write_text(model_card(self.recipe, report, stages), encoding="utf-8")
        fsync_tree(building)
        building.rename(finished)
        fsync_folder(self.folder)

    def _trainer(
        self, model: SentenceTransformer, stop: StopOnSignal, measuring: _Measuring
    ) -> FinetuneTrainer:
        datasets = stage_datasets(self.recipe, self.stage, self.data, self.cache)
        found = {
            name: self._teacher_loss(model) if name == TEXTS_NAME else self._contrastive(model)
            for name in datasets
        }
        optimizer = make_optimizer(model, self.recipe.training, self.stage.learning_rate)
        trainer = FinetuneTrainer(
            model=model,
            args=self._arguments(),
            train_dataset=datasets,
            loss=found,
            optimizers=(optimizer, None),
            callbacks=[stop, measuring, TableLog(self.folder)],
        )
        trainer.warmup = self.stage.warmup
        for talkative in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(talkative)
        return trainer

    def _teacher_loss(self, model: SentenceTransformer) -> TeacherLoss:
        assert self.cache is not None
        return TeacherLoss(
            model, self.cache, similarity=self.stage.similarity, shorter=self.recipe.model.matryoshka
        )

    def _contrastive(self, model: SentenceTransformer) -> torch.nn.Module:
        stage, training = self.stage, self.recipe.training
        settings: dict[str, Any] = {
            "scale": 1 / stage.temperature,
            "gather_across_devices": _processes() > 1,
        }
        if stage.symmetric:
            settings |= {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
        if training.micro_batch:
            made = losses.CachedMultipleNegativesRankingLoss(
                model, mini_batch_size=training.micro_batch, **settings
            )
        else:
            made = losses.MultipleNegativesRankingLoss(model, **settings)
        dims = self.recipe.model.matryoshka
        if not dims:
            return made
        width = model[0].model.config.hidden_size
        return losses.MatryoshkaLoss(model, made, matryoshka_dims=[width, *dims])

    def _arguments(self) -> SentenceTransformerTrainingArguments:
        recipe, stage, training = self.recipe, self.stage, self.recipe.training
        device = choose_device(None)
        negatives = [f"negative_{place}" for place in range(1, 33)]
        prompts = {"anchor": recipe.model.query_prompt}
        prompts |= dict.fromkeys(("positive", "text", *negatives), recipe.model.document_prompt)
        return SentenceTransformerTrainingArguments(
            output_dir=str(self.folder),
            num_train_epochs=1,
            per_device_train_batch_size=_share(stage.pair_batch),
            batch_sampler=partial(_sampler, stage),
            dataloader_drop_last=True,
            max_grad_norm=training.max_gradient_norm,
            bf16=uses_bf16(training.precision, device),
            use_cpu=device.type == "cpu",
            prompts={name: text for name, text in prompts.items() if text} or None,
            save_steps=training.checkpoint_steps,
            logging_steps=training.log_steps,
            logging_nan_inf_filter=False,
            report_to=training.report_to,
            run_name=recipe.name,
            seed=recipe.seed,
            ddp_find_unused_parameters=False,
            dataloader_num_workers=4 if device.type == "cuda" else 0,
            dataloader_pin_memory=device.type == "cuda",
            disable_tqdm=True,
        )


def _sampler(
    stage: StageRecipe,
    dataset: Any,
    batch_size: int,
    drop_last: bool,
    valid_label_columns: list[str] | None = None,
    generator: torch.Generator | None = None,
    seed: int = 0,
) -> DefaultBatchSampler:
    """Return batches of texts for the teacher, or of pairs without equal texts among them."""
    settings: Mapping[str, Any] = {
        "drop_last": drop_last,
        "valid_label_columns": valid_label_columns,
        "generator": generator,
        "seed": seed,
    }
    if "label" in dataset.column_names:
        rows = RandomSampler(dataset, generator=generator)
        return DefaultBatchSampler(rows, batch_size=_share(stage.text_batch), **settings)
    return NoDuplicatesBatchSampler(dataset, batch_size=_share(stage.pair_batch), **settings)


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _share(batch: int) -> int:
    """Return a process's part of a batch.

    Raises:
        ConfigError: the processes cannot divide it.
    """
    processes = _processes()
    if batch % processes:
        raise ConfigError(f"a batch of {batch} cannot be divided among {processes} processes")
    return batch // processes


def _attention(name: str, device: torch.device) -> tuple[str, bool]:
    """Return the attention as transformers names it, and whether it takes texts without padding on a CPU."""
    if name == "packed" or (name == "auto" and device.type == "cpu"):
        return packing.register(), True
    return choose_training_attention(name, device), False


__all__ = ["FinetuneTrainer", "Outcome", "finetune"]
