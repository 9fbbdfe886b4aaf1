"""Training tokens a second of ``cmbert pretrain`` beside transformers' plain recipe, and what a step costs.

Both sides train the same model (that of ``pretraining/recipes/mini-cpu.yaml``) on the same documents,
articles and answers to patients as long as they come, in one process and in turns. Ours: packed rows, bf16
where the processor has it, logits of what is predicted alone, token-aware masking. The other side:
``Trainer`` with ``DataCollatorForLanguageModeling``, batches of 8 documents (its default) cut at the same
context and padded to the longest, fp32, sdpa, logits everywhere, AdamW, as many batches a step as make
about as many tokens. Tokens are those of text: neither padding nor special ones. Those of both sides are
made before. Both keep freed memory, as ``cmbert pretrain`` does.

A step is timed from the end of the one before to its own, the optimizer's work included; the first of each
turn does not count. Memory is the most anonymous memory of ``cmbert pretrain`` (``RssAnon``, as in
``memory.py``: shards are mapped files, whose pages the system keeps while there is room), for a corpus and
for one four times as large: the same shards, four times as often.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from _measure import ROOT, RUNS, Results, SkippedError, most_anonymous_mib, read_jsonl, run, versioned, wanted

from cmbert_retrieval.pretraining.prepare import prepare
from cmbert_retrieval.pretraining.recipe import PretrainRecipe, load_pretrain_recipe

RECIPE = ROOT / "pretraining" / "recipes" / "mini-cpu.yaml"
ARTICLES = "pmc_oa_bulk_sample/oa_comm_xml.sample.baseline.tar.gz"
ANSWERS = "medquad/medquad.jsonl.gz"

TURNS, WARM_UP, STEPS = 5, 1, 2  # turns of each side; steps of a turn that do not count, and that do
BATCH_TOKENS = 8_192  # of a step: several micro-batches on either side
DOCUMENTS = 8  # of a padded batch: what TrainingArguments does
RATE = 0.30
SIZES = (4, 16)  # how often the prepared shards are taken: some 100 MB, and four times that
MEMORY_STEPS = 4


@dataclass(slots=True)
class Turn:
    """What one turn of a side took, steps that count only.

    Attributes:
        seconds: of each step.
        loading: seconds of each step until its masked batches are there.
        tokens: of text, of each step.
        positions: that were computed, of each step.
    """

    seconds: list[float] = field(default_factory=list)
    loading: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Tokens of text a second."""
        return sum(self.tokens) / sum(self.seconds)


def mini(data: Path) -> PretrainRecipe:
    """Return the recipe with sources that are at hand."""
    answers = RUNS / "answers.jsonl"
    RUNS.mkdir(parents=True, exist_ok=True)
    rows = (row for row in read_jsonl(data / ANSWERS) if row["answer"].strip())
    lines = [
        json.dumps({"_id": row["_id"], "title": row["question"], "text": row["answer"]}) + "\n"
        for row in rows
    ]
    answers.write_text("".join(lines), encoding="utf-8")
    values = load_pretrain_recipe(RECIPE).model_dump(mode="json")
    values["data"] = {
        "sources": {
            "articles": {"reader": "pmc", "path": str(wanted(data / ARTICLES)), "licenses": ["CC BY", "CC0"]},
            "answers": {"reader": "jsonl", "path": str(answers), "license": "CC BY 4.0"},
        },
        "lexicon": {"icd10cm": {"reader": "icd10cm"}},
        "tokenizer": values["data"]["tokenizer"],
    }
    values["masking"] |= {"first_rate": RATE, "last_rate": RATE}
    values["training"]["batch_tokens"] = BATCH_TOKENS
    return PretrainRecipe.model_validate(values)


def timed(trainer: Any, count: Callable[[int, list[Any]], tuple[int, int]]) -> Turn:
    """Train some steps, and return what they took.

    Args:
        trainer: of transformers, whose batches come by ``get_batch_samples``.
        count: tokens of text and positions of a step, given its number and its batches.
    """
    from transformers import TrainerCallback

    turn, step = Turn(), 0
    ends: list[float] = []
    plain = trainer.get_batch_samples

    def get_batch_samples(*arguments: Any) -> Any:
        nonlocal step
        began = time.perf_counter()
        batches, items = plain(*arguments)
        spent = time.perf_counter() - began
        if WARM_UP <= step < WARM_UP + STEPS:
            turn.loading.append(spent)
            tokens, positions = count(step, batches)
            turn.tokens.append(tokens)
            turn.positions.append(positions)
        step += 1
        return batches, items

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Notes when steps end, and ends the turn."""

        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            ends.append(time.perf_counter())
            control.should_training_stop = len(ends) == WARM_UP + STEPS

    trainer.get_batch_samples = get_batch_samples
    trainer.add_callback(Clock())
    trainer.train()
    turn.seconds = [there - here for here, there in itertools.pairwise(ends)][WARM_UP - 1 :]
    return turn


def turn_of_ours(recipe: PretrainRecipe, folder: Path, out: Path) -> Turn:
    """Train with the trainer that ``cmbert pretrain`` makes."""
    import numpy as np

    from cmbert_retrieval.pretraining import training
    from cmbert_retrieval.pretraining.callbacks import NoBar, StopOnSignal
    from cmbert_retrieval.pretraining.prepared import Prepared

    prepared = Prepared.open(folder)
    (phase,) = recipe.phases
    divided = [training.divide(phase, recipe.training, 1)]
    made = training._Phase(
        recipe=recipe,
        phase=phase,
        part=divided[0],
        masking=training._masking(recipe, prepared, divided, 0),
        prepared=prepared,
        folder=out,
        card=str,
    )
    trainer = made._trainer(StopOnSignal(), NoBar())
    special = prepared.special
    ids = [special.pad, special.cls, special.sep]

    def count(step: int, batches: list[Any]) -> tuple[int, int]:
        rows = divided[0].rows
        # Before masking, which may hide a token behind one that looks special.
        found = [trainer.train_dataset[place]["input_ids"] for place in range(step * rows, (step + 1) * rows)]
        return sum(int((~np.isin(row, ids)).sum()) for row in found), rows * phase.context

    return timed(trainer, count)


def turn_of_theirs(recipe: PretrainRecipe, folder: Path, out: Path, turn: int) -> Turn:
    """Train with transformers alone."""
    import numpy as np
    from transformers import DataCollatorForLanguageModeling, PrinterCallback, Trainer, TrainingArguments

    from cmbert_retrieval.pretraining.model import build_model
    from cmbert_retrieval.pretraining.prepared import Prepared

    prepared = Prepared.open(folder)
    (phase,) = recipe.phases
    model, _ = build_model(recipe.model, phase, prepared.tokenizer, seed=recipe.seed, attention="sdpa")
    model.config.sparse_prediction = model.sparse_prediction = False
    special, shards, room = prepared.special, prepared.train, phase.context - 2
    documents = [
        {"input_ids": [special.cls, *shards.document(number)[0][:room].tolist(), special.sep]}
        for number in range(len(shards))
        if shards.lengths[number]
    ]
    mean = float(np.minimum(shards.lengths[shards.lengths > 0], room).mean())
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=10**6,
        learning_rate=phase.learning_rate,
        per_device_train_batch_size=DOCUMENTS,
        gradient_accumulation_steps=max(1, round(BATCH_TOKENS / (DOCUMENTS * mean))),
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        seed=turn,  # other documents in each turn
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=documents,
        data_collator=DataCollatorForLanguageModeling(prepared.tokenizer, mlm_probability=RATE),
    )
    trainer.remove_callback(PrinterCallback)

    def count(step: int, batches: list[Any]) -> tuple[int, int]:
        masks = [batch["attention_mask"] for batch in batches]
        return sum(int(mask.sum()) - 2 * len(mask) for mask in masks), sum(mask.numel() for mask in masks)

    return timed(trainer, count)


def speed(recipe: PretrainRecipe, folder: Path, results: Results) -> None:
    """Measure tokens a second, what of a step is loading and masking, and what of the positions is text."""
    ours: list[Turn] = []
    theirs: list[Turn] = []
    with tempfile.TemporaryDirectory(dir=RUNS) as out:
        for turn in range(TURNS):
            sides = [
                lambda turn=turn: ours.append(turn_of_ours(recipe, folder, Path(out) / f"ours-{turn}")),
                lambda turn=turn: theirs.append(
                    turn_of_theirs(recipe, folder, Path(out) / f"theirs-{turn}", turn)
                ),
            ]
            for side in sides if turn % 2 == 0 else reversed(sides):
                side()
    facts = {"peer": versioned("transformers"), "repeats": TURNS}
    results.add(
        "training, text tokens",
        ours=statistics.median(turn.speed for turn in ours),
        theirs=statistics.median(turn.speed for turn in theirs),
        unit="tokens/s",
        mark="ratio >= 2.5",
        step_tokens=round(statistics.mean(_all(ours, "tokens"))),
        step_tokens_theirs=round(statistics.mean(_all(theirs, "tokens"))),
        step_seconds=round(statistics.median(_all(ours, "seconds")), 2),
        step_seconds_theirs=round(statistics.median(_all(theirs, "seconds")), 2),
        **facts,
    )
    results.add(
        "share of positions that hold text",
        ours=100 * sum(_all(ours, "tokens")) / sum(_all(ours, "positions")),
        theirs=100 * sum(_all(theirs, "tokens")) / sum(_all(theirs, "positions")),
        unit="%",
        **facts,
    )
    plan_used = _used(recipe, folder)
    results.add(
        "share of positions of all rows that hold a token",
        ours=100 * plan_used,
        unit="%",
        repeats=1,
        mark="ours >= 98",
    )
    results.add(
        "loading and masking, share of a step",
        ours=100 * statistics.median(_shares(ours)),
        theirs=100 * statistics.median(_shares(theirs)),
        unit="%",
        mark="ours <= 5",
        **facts,
    )


def _all(turns: Sequence[Turn], name: str) -> list[float]:
    return [value for turn in turns for value in getattr(turn, name)]


def _shares(turns: Sequence[Turn]) -> list[float]:
    pairs = zip(_all(turns, "loading"), _all(turns, "seconds"), strict=True)
    return [loading / seconds for loading, seconds in pairs]


def _used(recipe: PretrainRecipe, folder: Path) -> float:
    from cmbert_retrieval.pretraining import training
    from cmbert_retrieval.pretraining.prepared import Prepared

    return training._plan(recipe, recipe.phases[0], Prepared.open(folder)).used


def memory(recipe: PretrainRecipe, folder: Path, results: Results) -> None:
    """Measure the memory of a run on the prepared shards, taken some times and four times as often."""
    if not Path("/proc/self/status").exists():
        raise SkippedError("memory needs /proc, as Linux has it")
    peaks, tokens = {}, {}
    shards = sorted((folder / "train").glob("*.arrow"))
    values = recipe.model_dump(mode="json")
    values["phases"][0]["tokens"] = MEMORY_STEPS * BATCH_TOKENS
    values["training"]["evaluate_tokens"] = BATCH_TOKENS
    for size in SIZES:
        with tempfile.TemporaryDirectory(dir=RUNS) as work:
            corpus = Path(work) / "data"
            (corpus / "train").mkdir(parents=True)
            for name in ("tokenizer", "held_out"):
                (corpus / name).symlink_to(folder / name)
            for name in ("prepared.json", "report.json"):
                shutil.copy(folder / name, corpus)
            for number, shard in enumerate(shards * size):
                (corpus / "train" / f"{number:05}.arrow").symlink_to(shard)
            path = Path(work) / "recipe.yaml"
            path.write_text(yaml.safe_dump(values), encoding="utf-8")
            command = [sys.executable, "-m", "cmbert_retrieval", "pretrain", "run", str(path)]
            peaks[size] = most_anonymous_mib([*command, "--data", str(corpus), "--out", f"{work}/out"])
        tokens[size] = size * json.loads((folder / "prepared.json").read_bytes())["tokens"]
    few, many = SIZES
    results.add(
        f"training on {tokens[many] / 1e6:,.0f} million tokens, memory",
        ours=peaks[many],
        theirs=peaks[few],
        unit="MiB anonymous",
        peer=f"itself with {tokens[few] / 1e6:,.0f}",
        repeats=1,
        mark="ratio <= 1.1",
        shards_mib=round(many * sum(shard.stat().st_size for shard in shards) / 2**20),
    )


def pretraining(data: Path, results: Results) -> None:
    """Measure all of it."""
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise SkippedError(
            f"{error.name} is not installed: pip install 'cmbert-retrieval[pretrain]'"
        ) from None
    from cmbert_retrieval.pretraining.training import settle_memory
    from cmbert_retrieval.threads import thread_budget

    torch.set_num_threads(thread_budget())
    settle_memory()
    recipe = mini(data)
    folder = RUNS / "pretraining-text"
    sys.stderr.write("preparing text, once\n")
    prepare(recipe, folder, restart=False)
    speed(recipe, folder, results)
    memory(recipe, folder, results)


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the marks are those of a processor
    os.environ.setdefault("PYTHONPATH", str(ROOT))  # the library of this clone, wherever one is installed
    run(pretraining, __doc__)
