"""A pretraining run from prepared data to a checkpoint that anything of the ecosystem opens."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import PrinterCallback, ProgressCallback, TrainingArguments
from transformers.utils import is_flash_attn_2_available
from transformers.utils.logging import disable_progress_bar

from cmbert_retrieval.encoders.devices import choose_attention, choose_device, choose_dtype
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.memory import keep_freed_memory
from cmbert_retrieval.pretraining import attention as packed
from cmbert_retrieval.pretraining.callbacks import Bar, ShowProgress, StopOnSignal, TableLog
from cmbert_retrieval.pretraining.card import CARD, model_card
from cmbert_retrieval.pretraining.checkpoints import last_checkpoint
from cmbert_retrieval.pretraining.costs import Shape, training_flops
from cmbert_retrieval.pretraining.division import Division, divide
from cmbert_retrieval.pretraining.model import build_model
from cmbert_retrieval.pretraining.optimizers import make_optimizer
from cmbert_retrieval.pretraining.packing import Plan
from cmbert_retrieval.pretraining.planning import gpu_of_device, mean_rate
from cmbert_retrieval.pretraining.prepared import Prepared
from cmbert_retrieval.pretraining.recipe import PhaseRecipe, PretrainRecipe, TrainingRecipe
from cmbert_retrieval.pretraining.rows import PackedRows
from cmbert_retrieval.pretraining.run_pins import pin_run
from cmbert_retrieval.pretraining.schedules import warmup_stable_decay
from cmbert_retrieval.pretraining.trainer import MaskedTrainer, MaskingPlan
from cmbert_retrieval.pretraining.weights import Weighting
from cmbert_retrieval.storage import fsync_folder, fsync_tree, sha256_of

FINISHED = "model"
"""The folder of a phase's weights once it is over."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        folder: the finished model, or None when a signal stopped the run behind a checkpoint.
        held_out: the last measurement.
    """

    folder: Path | None
    held_out: dict[str, float]


def pretrain(
    recipe: PretrainRecipe, data: Path, out: Path, *, bar: Callable[[str, int], AbstractContextManager[Bar]]
) -> Outcome:
    """Train the phases of a recipe, going on from the last checkpoint in ``out`` where there is one.

    Args:
        recipe: what is done.
        data: prepared data.
        out: gets a folder a phase, and the finished model.
        bar: makes what progress is shown on, for a label and a number of tokens.

    Raises:
        ConfigError: ``out`` holds another run, or the recipe does not fit the number of processes.
        DivergedError: the loss is not a number any more.
    """
    disable_progress_bar()  # of transformers, for each file that it writes
    on_cpu = choose_device(None).type == "cpu"
    if on_cpu:
        settle_memory()
    prepared = Prepared.open(data)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    divided = [divide(phase, recipe.training, processes) for phase in recipe.phases]
    # One process writes what the others then find: data and out lie where all of them see them.
    with PartialState(cpu=on_cpu).main_process_first():
        out.mkdir(parents=True, exist_ok=True)
        _pin(recipe, prepared, out)
        for phase in recipe.phases:
            _plan(recipe, phase, prepared)
            prepared.plan("held_out", phase.context, 0)
    model, held_out = recipe.model, dict[str, float]()
    folders = [out / f"phase-{number + 1}" for number in range(len(divided))]
    for number, (phase, part) in enumerate(zip(recipe.phases, divided, strict=True)):
        run = _Phase(
            recipe=recipe.model_copy(update={"model": model}),
            phase=phase,
            part=part,
            masking=_masking(recipe, prepared, divided, number),
            prepared=prepared,
            folder=folders[number],
            card=partial(_card, recipe, prepared, folders[: number + 1]),
        )
        with bar(f"phase {number + 1} of {len(divided)}", part.steps * part.step_tokens) as shown:
            held_out = run.train(shown)
        if not (run.folder / FINISHED).exists():
            return Outcome(None, held_out)
        model = model.model_copy(update={"checkpoint": str(run.folder / FINISHED)})
    return Outcome(run.folder / FINISHED, held_out)


def settle_memory() -> None:
    """Keep the memory of a long run on a CPU at what it needs.

    oneDNN remembers how it computes products of up to 1,024 shapes, and hardly two micro-batches predict
    equally many tokens: that cost gigabytes and saved nothing. It reads its limit when it is first used.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    keep_freed_memory()


def _masking(
    recipe: PretrainRecipe, prepared: Prepared, divided: Sequence[Division], number: int
) -> MaskingPlan:
    return MaskingPlan(
        first_rate=recipe.masking.first_rate,
        last_rate=recipe.masking.last_rate,
        steps=sum(part.steps for part in divided),
        steps_before=sum(part.steps for part in divided[:number]),
        seed=recipe.seed,
        mask_id=prepared.special.mask,
        vocabulary=len(prepared.tokenizer),
    )


def _card(recipe: PretrainRecipe, prepared: Prepared, folders: Sequence[Path]) -> str:
    return model_card(recipe, prepared.report, folders)


def _pin(recipe: PretrainRecipe, prepared: Prepared, out: Path) -> None:
    pinned = recipe.model_dump(mode="json")
    # How often is looked and told may change between two runs of the same training.
    for name in ("checkpoint_steps", "keep_checkpoints", "evaluate_steps", "log_steps", "report_to",
                 "micro_batch_tokens", "attention", "compile"):  # fmt: skip
        del pinned["training"][name]
    pin_run(out, pinned, sha256_of(prepared.folder / "prepared.json"))


@dataclass(frozen=True, slots=True)
class _Phase:
    """One phase, ready to be trained."""

    recipe: PretrainRecipe
    phase: PhaseRecipe
    part: Division
    masking: MaskingPlan
    prepared: Prepared
    folder: Path
    card: Callable[[], str]

    def train(self, bar: Bar) -> dict[str, float]:
        """Train to the end, or to where a signal stops it; return the last measurement on held-out text."""
        finished = self.folder / FINISHED
        if finished.exists():
            return {}
        self.folder.mkdir(parents=True, exist_ok=True)
        stop = StopOnSignal()
        trainer = self._trainer(stop, bar)
        resumed = last_checkpoint(self.folder)
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        if stop.stopped:
            return {}
        held_out = self._measured(trainer)
        if trainer.is_world_process_zero():
            building = finished.with_name(f"{FINISHED}.building")
            shutil.rmtree(building, ignore_errors=True)
            trainer.accelerator.unwrap_model(trainer.model).save_pretrained(building)
            self.prepared.tokenizer.save_pretrained(building)
            (building / CARD).write_text(self.card(), encoding="utf-8")
            fsync_tree(building)
            building.rename(finished)
            fsync_folder(self.folder)
        trainer.accelerator.wait_for_everyone()
        return held_out

    def _measured(self, trainer: MaskedTrainer) -> dict[str, float]:
        """Return the measurement of the last step, made now unless it was made there."""
        if not self.prepared.held_out:
            return {}
        logged = [one for one in trainer.state.log_history if "eval_loss" in one]
        if logged and logged[-1]["step"] == trainer.state.global_step:
            return {name: value for name, value in logged[-1].items() if name.startswith("eval_")}
        return trainer.evaluate()

    def _trainer(self, stop: StopOnSignal, bar: Bar) -> MaskedTrainer:
        recipe, training, part = self.recipe, self.recipe.training, self.part
        device = choose_device(None)
        attention = _attention(training, device)
        model, _ = build_model(
            recipe.model, self.phase, self.prepared.tokenizer, seed=recipe.seed, attention=attention
        )
        special = self.prepared.special
        plan = _plan(recipe, self.phase, self.prepared)
        rows = PackedRows(self.prepared.train, plan, special, rows=part.steps * part.rows, seed=recipe.seed)
        plan = self.prepared.plan("held_out", self.phase.context, 0)
        measured = min(len(plan), -(-training.evaluate_tokens // self.phase.context))
        held_out = PackedRows(self.prepared.held_out, plan, special, rows=measured, seed=0)
        optimizer = make_optimizer(model, training, self.phase.learning_rate)
        factor = partial(
            warmup_stable_decay, steps=part.steps, warmup=self.phase.warmup, decay=self.phase.decay
        )
        trainer = MaskedTrainer(
            model=model,
            args=self._arguments(device),
            train_dataset=rows,
            held_out=held_out if len(held_out) else None,
            kept=training.keep_checkpoints,
            masking=self.masking,
            weighting=Weighting.of(recipe.masking.method, recipe.masking.boost, recipe.masking.salience),
            attention=attention,
            window=model.config.local_attention,
            optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)),
            callbacks=[
                stop,
                ShowProgress(bar, part.step_tokens, self._step_flops(model), _peak(device, part.processes)),
                TableLog(self.folder, step_tokens=part.step_tokens, rate=self.masking.rate),
            ],
        )
        for talkative in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(talkative)
        return trainer

    def _step_flops(self, model: torch.nn.Module) -> float:
        """Return the operations of a step at the phase's mean rate, were each row one document."""
        shape = Shape(**{name: getattr(model.config, name) for name in Shape.__dataclass_fields__})
        rows, context = self.part.rows, self.phase.context
        masking = self.masking
        rate = mean_rate(self.recipe.masking, masking.steps_before, self.part.steps, masking.steps)
        return training_flops(shape, rows=rows, context=context, predicted=rate * rows * context)

    def _arguments(self, device: torch.device) -> TrainingArguments:
        training, part = self.recipe.training, self.part
        held_out = bool(len(self.prepared.held_out))
        return TrainingArguments(
            output_dir=str(self.folder),
            max_steps=part.steps,
            per_device_train_batch_size=part.micro_rows,
            per_device_eval_batch_size=part.micro_rows,
            gradient_accumulation_steps=part.accumulation,
            max_grad_norm=training.max_gradient_norm,
            bf16=uses_bf16(training.precision, device),
            use_cpu=device.type == "cpu",
            torch_compile=training.compile,
            save_steps=training.checkpoint_steps,
            eval_strategy="steps" if held_out else "no",
            eval_steps=training.evaluate_steps,
            logging_steps=training.log_steps,
            logging_nan_inf_filter=False,
            report_to=training.report_to,
            run_name=self.recipe.name,
            seed=self.recipe.seed,
            remove_unused_columns=False,
            ddp_find_unused_parameters=False,
            dataloader_num_workers=4 if device.type == "cuda" else 0,
            dataloader_pin_memory=device.type == "cuda",
            disable_tqdm=True,
        )


def _plan(recipe: PretrainRecipe, phase: PhaseRecipe, prepared: Prepared) -> Plan:
    """Return the rows of a phase.

    Raises:
        CorpusError: there are none.
    """
    weights = [source.weight for source in recipe.data.sources.values()]
    plan = prepared.plan("train", phase.context, recipe.seed, weights)
    if not len(plan):
        raise CorpusError(f"{prepared.folder}: no text to train on")
    return plan


def _attention(training: TrainingRecipe, device: torch.device) -> str:
    """Return the attention as transformers names it.

    Raises:
        EncoderError: it was asked for by name, and is not there.
    """
    name = training.attention
    if name == "packed" or (name == "auto" and device.type == "cpu"):
        return packed.register(compiled=training.compile)
    return choose_training_attention(name, device)


def choose_training_attention(name: str, device: torch.device) -> str:
    """Return an attention other than our own as transformers names it; ``auto`` chooses by the GPU.

    Raises:
        EncoderError: it was asked for by name, and is not there.
    """
    if name == "auto":
        usable = is_flash_attn_2_available() and torch.cuda.get_device_capability(device) >= (8, 0)
        return "flash_attention_2" if usable else "sdpa"
    return choose_attention(name, device) or "sdpa"


def _peak(device: torch.device, processes: int) -> float | None:
    """Return what the GPUs of a run could do in a second; None where that is not known."""
    if device.type != "cuda":
        return None
    gpu = gpu_of_device(torch.cuda.get_device_name(device))
    return processes * gpu.flops if gpu else None


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Return whether a precision of a recipe computes in bf16 on a device."""
    names = {"auto": "auto", "bf16": "bfloat16", "fp32": "float32"}
    return bool(choose_dtype(names[precision], device) == torch.bfloat16)
