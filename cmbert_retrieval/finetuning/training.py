"""A fine-tuning run from prepared pairs to a sentence-transformers folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer import losses
from transformers import PrinterCallback, ProgressCallback
from transformers.utils.logging import disable_progress_bar

from cmbert_retrieval.encoders.devices import choose_device
from cmbert_retrieval.errors import CmbertError, ConfigError
from cmbert_retrieval.finetuning import packing
from cmbert_retrieval.finetuning.card import ROWS, last_measured, model_card
from cmbert_retrieval.finetuning.drawing import PAIRS_NAME, TEXTS_NAME
from cmbert_retrieval.finetuning.losses import TeacherLoss
from cmbert_retrieval.finetuning.measuring import Measures, encoder_of
from cmbert_retrieval.finetuning.mixture import StageBatches, TextRows, open_stage
from cmbert_retrieval.finetuning.prepare import COMPLETE, TEXTS
from cmbert_retrieval.finetuning.recipe import FinetuneRecipe
from cmbert_retrieval.finetuning.report import REPORT_JSON, Report
from cmbert_retrieval.finetuning.students import Teacher, build_student, open_student
from cmbert_retrieval.finetuning.tables import Table
from cmbert_retrieval.finetuning.trainer import FinetuneTrainer, Measuring
from cmbert_retrieval.finetuning.training_recipe import FinetuneTrainingRecipe, StageRecipe
from cmbert_retrieval.finetuning.whitening import (
    add_whitening,
    drawn_pairs,
    pair_differences,
    whitening_matrix,
)
from cmbert_retrieval.pretraining.callbacks import (
    HELD_OUT_TABLE,
    Bar,
    ShowProgress,
    StopOnSignal,
    TableLog,
    append_row,
)
from cmbert_retrieval.pretraining.card import CARD
from cmbert_retrieval.pretraining.checkpoints import last_checkpoint
from cmbert_retrieval.pretraining.optimizers import make_optimizer
from cmbert_retrieval.pretraining.run_pins import pin_run
from cmbert_retrieval.pretraining.schedules import warmup_linear
from cmbert_retrieval.pretraining.training import (
    FINISHED,
    choose_training_attention,
    settle_memory,
    uses_bf16,
)
from cmbert_retrieval.pretraining.workfolder import write_json
from cmbert_retrieval.storage import fsync_folder, fsync_tree, sha256_of

START, WHITENED = "start", "whitened"
"""The folders of the model that a run begins with, and of the one that ``whitening`` makes of the last."""


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
    teacher: Teacher | None = None,
    bar: Callable[[str, int], AbstractContextManager[Bar]],
) -> Outcome:
    """Train the stages of a recipe, going on from the last checkpoint in ``out`` where there is one.

    Args:
        recipe: what is done.
        data: prepared pairs, with vectors and negatives where a stage takes them.
        out: gets a folder a stage, and the finished model.
        teacher: where the model takes something of it.
        bar: makes what progress is shown on, for a label and a number of steps.

    Raises:
        ConfigError: ``out`` holds another run, or the recipe does not fit the data or the processes.
        DivergedError: the loss is not a number any more.
    """
    disable_progress_bar()  # of transformers, for each file that it writes
    on_cpu = choose_device(None).type == "cpu"
    if on_cpu:
        settle_memory()
    with PartialState(cpu=on_cpu).main_process_first():
        out.mkdir(parents=True, exist_ok=True)
        _pin(recipe, data, out)
        texts = (
            text
            for name in recipe.data.sources
            for text in Table(data / TEXTS / f"{name}.arrow").values("text")
        )
        build_student(recipe.model, teacher, seed=recipe.seed, folder=out / START, texts=texts)
    measures = Measures(recipe, data)
    begin, measured = out / START, dict[str, float]()
    for number in range(len(recipe.stages)):
        *_, folder = _stage_folders(out, number + 1)
        run = _Stage(recipe, number, data, folder, begin, measures)
        measured = run.train(partial(bar, f"stage {number + 1} of {len(recipe.stages)}"))
        if not (folder / FINISHED).exists():
            return Outcome(None, measured)
        begin = folder / FINISHED
    if recipe.whitening is not None:
        folder = out / WHITENED
        with PartialState().main_process_first():
            if not (folder / FINISHED).exists():
                _whiten(recipe, data, begin, folder, measures, bar)
        return Outcome(folder / FINISHED, last_measured(folder))
    return Outcome(begin, measured)


def _whiten(
    recipe: FinetuneRecipe,
    data: Path,
    begin: Path,
    folder: Path,
    measures: Measures,
    bar: Callable[[str, int], AbstractContextManager[Bar]],
) -> None:
    """Write the last stage's model with the matrix of ``whitening`` behind it, measured as stages are."""
    how = recipe.whitening
    assert how is not None
    device = choose_device(None)
    model = _open(begin, recipe, device, tokens=recipe.model.length).to(device).eval()
    encode = encoder_of(model)
    pairs = drawn_pairs(recipe, how, data)
    with torch.inference_mode(), bar("whitening", sum(len(rows) for _, rows in pairs)) as shown:
        matrix = whitening_matrix(pair_differences(pairs, encode, shown), ridge=how.ridge)
    add_whitening(model, matrix)
    folder.mkdir(exist_ok=True)
    (folder / HELD_OUT_TABLE).unlink(missing_ok=True)
    with torch.inference_mode():
        append_row(folder / HELD_OUT_TABLE, {"step": 0, **measures.of(encode)})
    stages = _stage_folders(folder.parent, len(recipe.stages))
    _write_model(model, recipe, data, folder, [*stages, folder])


def _stage_folders(out: Path, count: int) -> list[Path]:
    return [out / f"stage-{number}" for number in range(1, count + 1)]


def _pin(recipe: FinetuneRecipe, data: Path, out: Path) -> None:
    pinned = recipe.model_dump(mode="json")
    # How often is looked and told may change between two runs of the same training.
    for name in ("checkpoint_steps", "evaluate_steps", "log_steps", "report_to", "attention", "compile",
                 "micro_batch"):  # fmt: skip
        del pinned["training"][name]
    pin_run(out, pinned, sha256_of(data / COMPLETE))


@dataclass(frozen=True, slots=True)
class _Stage:
    """One stage, ready to be trained."""

    recipe: FinetuneRecipe
    number: int
    data: Path
    folder: Path
    begin: Path
    measures: Measures

    @property
    def stage(self) -> StageRecipe:
        """What is done."""
        return self.recipe.stages[self.number]

    def train(self, bar: Callable[[int], AbstractContextManager[Bar]]) -> dict[str, float]:
        """Train to the end, or to where a signal stops it; return the last measurement."""
        if (self.folder / FINISHED).exists():
            return last_measured(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        rows, batches, counts = open_stage(self.recipe, self.number, self.data)
        device = choose_device(None)
        training = self.recipe.training
        model = _open(self.begin, self.recipe, device, tokens=self.stage.tokens)
        stop, measuring = StopOnSignal(), Measuring(self.measures, training.evaluate_steps)
        shared = StageBatches(batches, rank=int(os.environ.get("RANK", "0")), processes=_processes())
        with bar(len(shared)) as shown:
            trainer = FinetuneTrainer(
                rows=rows,
                batches=shared,
                schedule=partial(warmup_linear, warmup=self.stage.warmup, decay=self.stage.falling),
                model=model,
                args=self._arguments(device),
                loss={TEXTS_NAME: self._teacher_loss(model), PAIRS_NAME: self._contrastive(model)},
                optimizers=(self._optimizer(model), None),
                callbacks=[stop, measuring, TableLog(self.folder), ShowProgress(shown, 1)],
            )
            for talkative in (PrinterCallback, ProgressCallback):
                trainer.remove_callback(talkative)
            measuring.trainer = trainer
            resumed = last_checkpoint(self.folder)
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        if not stop.stopped and trainer.is_world_process_zero():
            if trainer.state.global_step != len(shared):
                raise CmbertError(
                    f"{self.folder}: ended at step {trainer.state.global_step} of {len(shared)}; run it again"
                )
            self._finish(trainer.accelerator.unwrap_model(trainer.model), counts)
        trainer.accelerator.wait_for_everyone()
        return last_measured(self.folder)

    def _finish(self, model: SentenceTransformer, counts: Mapping[str, int]) -> None:
        write_json(self.folder / ROWS, counts)
        stages = _stage_folders(self.folder.parent, self.number + 1)
        _write_model(model, self.recipe, self.data, self.folder, stages)

    def _optimizer(self, model: SentenceTransformer) -> torch.optim.Optimizer:
        training = self.recipe.training
        return make_optimizer(
            model, training, self.stage.learning_rate, embeddings_rate=training.embeddings_rate
        )

    def _teacher_loss(self, model: SentenceTransformer) -> TeacherLoss:
        width, taught = model[0].model.config.hidden_size, self._taught()
        if not self.stage.similarity and taught not in (None, width):
            raise ConfigError(
                f"the teacher's vectors have {taught} numbers, the model's {width}; expected "
                f"stages.{self.number}.similarity above 0, or nothing would be learnt from them"
            )
        return TeacherLoss(model, similarity=self.stage.similarity, shorter=self.recipe.model.matryoshka)

    def _taught(self) -> int | None:
        """Return the length of the teacher's vectors; None where the stage takes none."""
        if not self.stage.texts:
            return None
        return int(TextRows(self.data, next(iter(self.recipe.data.sources))).vectors.shape[1])

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

    def _arguments(self, device: torch.device) -> SentenceTransformerTrainingArguments:
        recipe, training = self.recipe, self.recipe.training
        _check_shares(self.stage)
        return SentenceTransformerTrainingArguments(
            output_dir=str(self.folder),
            num_train_epochs=1,
            max_grad_norm=training.max_gradient_norm,
            bf16=uses_bf16(training.precision, device),
            use_cpu=device.type == "cpu",
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


def _open(folder: Path, recipe: FinetuneRecipe, device: torch.device, *, tokens: int) -> SentenceTransformer:
    """Open a model with the attention of its recipe."""
    attention, packed = _attention(recipe.training, device)
    model = open_student(folder, attention=attention, tokens=tokens, compiled=recipe.training.compile)
    if packed:
        packing.pack_inputs(model)
    return model


def _write_model(
    model: SentenceTransformer, recipe: FinetuneRecipe, data: Path, folder: Path, tables: Sequence[Path]
) -> None:
    """Write ``FOLDER/model`` with its card, told from the tables in the folders of stages."""
    finished = folder / FINISHED
    building = finished.with_name(f"{FINISHED}.building")
    shutil.rmtree(building, ignore_errors=True)
    model.max_seq_length = recipe.model.length
    model.save(str(building), create_model_card=False)
    report = Report.from_json(json.loads((data / REPORT_JSON).read_bytes()))
    (building / CARD).write_text(model_card(recipe, report, tables), encoding="utf-8")
    fsync_tree(building)
    building.rename(finished)
    fsync_folder(folder)


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _check_shares(stage: StageRecipe) -> None:
    """Raise ``ConfigError`` where the processes cannot divide a batch."""
    processes = _processes()
    for batch in (stage.text_batch, stage.pair_batch):
        if batch % processes:
            raise ConfigError(f"a batch of {batch} cannot be divided among {processes} processes")


def _attention(training: FinetuneTrainingRecipe, device: torch.device) -> tuple[str, bool]:
    """Return the attention as transformers names it, and whether it takes texts without padding on a CPU."""
    name = training.attention
    if name == "packed" or (name == "auto" and device.type == "cpu"):
        return packing.register(compiled=training.compile), True
    return choose_training_attention(name, device), False
