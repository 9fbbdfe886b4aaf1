"""What a run will take, every number with its arithmetic: ``cmbert pretrain RECIPE --plan``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.pretraining.costs import (
    Shape,
    layer_bytes,
    logits_bytes,
    pairs,
    shape_of,
    training_flops,
)
from cmbert_retrieval.pretraining.division import Division, divide
from cmbert_retrieval.pretraining.model import parameters
from cmbert_retrieval.pretraining.recipe import MaskingRecipe, PhaseRecipe, PretrainRecipe
from cmbert_retrieval.recipe_files import did_you_mean

UTILISATION = 0.35
"""Share of a GPU's peak that is assumed. It is a guess until it was measured."""

OVERHEAD_BYTES = 2_000_000_000
"""CUDA's context, libraries' work space and what the allocator cannot use: assumed."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU.

    Attributes:
        name: as it is asked for.
        flops: floating-point operations a second in bfloat16 with sums in fp32, dense: data sheets print
            twice as many, "with sparsity", which training has not.
        bytes: memory, as the data sheet says it: 10**9 bytes a gigabyte, a little less than there is.
    """

    name: str
    flops: float
    bytes: int


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("A100-40GB", 312e12, 40 * 10**9),
        Gpu("A100-80GB", 312e12, 80 * 10**9),
        Gpu("H100", 989e12, 80 * 10**9),
        Gpu("H200", 989e12, 141 * 10**9),
        Gpu("L40S", 362e12, 48 * 10**9),
        Gpu("RTX-4090", 165e12, 24 * 10**9),
    )
}
"""The GPUs whose figures are known.

Source:
    NVIDIA's data sheets of A100, H100 (SXM; the PCIe card has 756e12), H200 (SXM) and L40S; the white paper
    "NVIDIA Ada GPU Architecture" for the GeForce RTX 4090, whose rate is that with fp32 sums.
"""


def find_gpu(name: str) -> Gpu:
    """Return a GPU of the table, in any case and with blanks for hyphens.

    Raises:
        ConfigError: it is not in the table.
    """
    folded = {known.casefold(): gpu for known, gpu in GPUS.items()}
    wanted = "-".join(name.casefold().split())
    if wanted not in folded:
        hint = did_you_mean(wanted, list(folded))
        raise ConfigError(f"unknown GPU '{name}'; expected one of {', '.join(GPUS)}{hint}")
    return folded[wanted]


def gpu_of_device(name: str) -> Gpu | None:
    """Return the GPU that a driver calls ``NVIDIA A100-SXM4-80GB``; None where it is not in the table."""
    given = name.casefold()
    for gpu in GPUS.values():
        if all(part in given for part in gpu.name.casefold().split("-")):
            return gpu
    return None


@dataclass(frozen=True, slots=True)
class Line:
    """A number of a plan.

    Attributes:
        name: what it is.
        value: the number.
        shown: the number with its unit, for people.
        arithmetic: how it came about.
    """

    name: str
    value: float
    shown: str
    arithmetic: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run takes.

    Attributes:
        parts: title -> numbers.
        notes: what is assumed, and what will not do.
        fits: whether the memory of the GPU is enough.
    """

    parts: dict[str, list[Line]]
    notes: list[str]
    fits: bool

    def value(self, part: str, name: str) -> float:
        """Return a number of a part by its name."""
        return next(line.value for line in self.parts[part] if line.name == name)

    def lines(self) -> Iterator[str]:
        """Yield the plan as text."""
        width = max(len(line.name) for part in self.parts.values() for line in part)
        shown = max(len(line.shown) for part in self.parts.values() for line in part)
        for title, part in self.parts.items():
            yield title
            for line in part:
                arithmetic = f"  = {line.arithmetic}" if line.arithmetic else ""
                yield f"  {line.name:<{width}}  {line.shown:>{shown}}{arithmetic}"
        yield from self.notes


def plan_run(
    recipe: PretrainRecipe, *, gpu: str = "A100-80GB", gpus: int = 8, utilisation: float = UTILISATION
) -> Plan:
    """Return what a run takes on GPUs of a kind.

    Args:
        recipe: of the run.
        gpu: a name of ``GPUS``.
        gpus: how many, on all nodes.
        utilisation: share of their peak that is reached.

    Raises:
        ConfigError: an unknown GPU, a number that cannot be, a step that the GPUs cannot share evenly, or a
            checkpoint's folder that cannot be read.
    """
    card = find_gpu(gpu)
    if gpus < 1:
        raise ConfigError(f"a run takes at least one GPU; got {gpus}")
    if not 0 < utilisation <= 1:
        raise ConfigError(f"a utilisation lies between 0 and 1; got {utilisation}")
    shape, origin = shape_of(recipe)
    training = recipe.training
    batches = [divide(phase, training, gpus) for phase in recipe.phases]
    parts = {f"model, after {origin}": _model(shape)}
    largest = max(batches, key=lambda batch: (batch.micro_batch_tokens, batch.context))
    memory = _memory(shape, recipe, largest, card)
    parts[f"memory of each {card.name}, of {card.bytes / 1e9:.0f} GB"] = memory
    hours, flops, before, steps = 0.0, 0.0, 0, sum(batch.steps for batch in batches)
    for number, (phase, batch) in enumerate(zip(recipe.phases, batches, strict=True), start=1):
        rate = mean_rate(recipe.masking, before, batch.steps, steps)
        lines = _phase(shape, phase, batch, rate, card, utilisation)
        parts[f"phase {number}: {phase.tokens:,} tokens in rows of {phase.context:,}"] = lines
        flops += next(line.value for line in lines if line.name == "FLOPs")
        hours += next(line.value for line in lines if line.name == "hours")
        before += batch.steps
    parts["all phases"] = [
        Line("steps", steps, f"{steps:,}", " + ".join(f"{batch.steps:,}" for batch in batches)),
        Line("FLOPs", flops, f"{flops:.3e}"),
        Line("hours", hours, f"{hours:.2f} h"),
        Line("GPU hours", hours * gpus, f"{hours * gpus:.1f} h", f"{gpus} x {hours:.4g} h"),
    ]
    needed = next(line.value for line in memory if line.name == "together")
    notes = [
        f"assumed: {utilisation:.0%} of the peak of {card.flops:.3g} FLOP/s (bf16, dense), flash-attention, "
        "rows that one document fills; without reading, measuring and checkpoints"
    ]
    if training.precision == "fp32":
        notes.append("the recipe computes in fp32, whose peak is lower: it will take more hours than these")
    if needed > card.bytes:
        notes.append(_too_much(memory, largest, card))
    return Plan(parts, notes, needed <= card.bytes)


def mean_rate(masking: MaskingRecipe, before: int, steps: int, all_steps: int) -> float:
    """Return the mean masking rate of a phase's steps; over a run it falls evenly, see ``falling_rate``."""
    if all_steps < 2:
        return masking.first_rate
    middle = before + (steps - 1) / 2
    return masking.first_rate + (masking.last_rate - masking.first_rate) * middle / (all_steps - 1)


def _model(shape: Shape) -> list[Line]:
    width, inner, layers = shape.hidden_size, shape.intermediate_size, shape.num_hidden_layers
    embedding = shape.vocab_size * width
    norms = (2 * layers + 2) * width
    count = parameters(shape)
    return [
        Line("embedding", embedding, f"{embedding:,}", f"{shape.vocab_size:,} x {width}"),
        Line(
            "layers",
            shape.matrices,
            f"{shape.matrices:,}",
            f"{layers} x (4 x {width} x {width} + 3 x {width} x {inner})",
        ),
        Line("norms", norms, f"{norms:,}", f"(2 x {layers} + 2) x {width}"),
        Line("head", width * width, f"{width * width:,}", f"{width} x {width}"),
        Line("decoder's bias", shape.vocab_size, f"{shape.vocab_size:,}", "its weights are the embedding's"),
        Line("parameters", count, f"{count:,}", "the sum"),
    ]


def _memory(shape: Shape, recipe: PretrainRecipe, batch: Division, card: Gpu) -> list[Line]:
    count, layers, tokens = parameters(shape), shape.num_hidden_layers, batch.micro_batch_tokens
    bf16 = recipe.training.precision != "fp32"
    rate = max(recipe.masking.first_rate, recipe.masking.last_rate)
    predicted = math.ceil(tokens * rate)
    layer, logit = layer_bytes(shape, bf16=bf16), logits_bytes(shape, bf16=bf16)
    lines = [
        _bytes("weights", 4 * count, f"4 bytes x {count:,}"),
        _bytes("gradients", 4 * count, f"4 bytes x {count:,}"),
        _bytes("optimiser's averages", 8 * count, f"2 x 4 bytes x {count:,}"),
    ]
    if bf16:
        lines.append(_bytes("weights in bf16", 2 * count, f"2 bytes x {count:,}, while a batch is computed"))
    if batch.processes > 1:
        lines.append(_bytes("gradients to be sent", 4 * count, f"4 bytes x {count:,}, the buckets of DDP"))
    lines += [
        _bytes(
            "activations",
            tokens * (layers * layer + 8 * shape.hidden_size),
            f"{tokens:,} tokens x ({layers} layers x {layer:,} + 8 x {shape.hidden_size}) bytes",
        ),
        _bytes("logits", predicted * logit, f"{rate:g} x {tokens:,} tokens x {logit:,} bytes"),
        _bytes("CUDA and the rest", OVERHEAD_BYTES, "assumed"),
    ]
    total = sum(line.value for line in lines)
    return [*lines, _bytes("together", int(total), f"{total / card.bytes:.0%} of {card.bytes / 1e9:.0f} GB")]


def _bytes(name: str, value: int, arithmetic: str) -> Line:
    return Line(name, value, f"{value / 1e9:.2f} GB", arithmetic)


def _too_much(memory: list[Line], batch: Division, card: Gpu) -> str:
    needed = next(line.value for line in memory if line.name == "together")
    growing = sum(line.value for line in memory if line.name in ("activations", "logits"))
    room = card.bytes - (needed - growing)
    rows = int(batch.micro_rows * room / growing) if room > 0 else 0
    start = f"it does not fit: {needed / 1e9:.1f} GB of {card.bytes / 1e9:.0f} GB"
    if rows < 1:
        return f"{start}, and neither does a single row of {batch.context:,} tokens; take a larger GPU"
    return f"{start}; training.micro_batch_tokens={rows * batch.context} would"


def _phase(
    shape: Shape, phase: PhaseRecipe, batch: Division, rate: float, card: Gpu, utilisation: float
) -> list[Line]:
    width, context, window = shape.hidden_size, phase.context, shape.local_attention
    everywhere, nearby = pairs(context) / context, pairs(context, window) / context
    total = training_flops(shape, rows=1, context=context, predicted=rate * context) / context
    flops = total * batch.step_tokens * batch.steps
    speed = batch.processes * card.flops * utilisation
    seconds = flops / speed
    return [
        Line(
            "tokens a step",
            batch.step_tokens,
            f"{batch.step_tokens:,}",
            f"{batch.processes} GPUs x {batch.accumulation} micro-batches x {batch.micro_rows} rows "
            f"x {context:,}",
        ),
        Line("accumulation", batch.accumulation, f"{batch.accumulation}", "micro-batches of a GPU in a step"),
        Line("steps", batch.steps, f"{batch.steps:,}", f"{phase.tokens:,} / {batch.step_tokens:,}, then up"),
        Line("masking rate", rate, f"{rate:.4f}", "the mean of the phase's steps"),
        _flops("matrices, a token", 6 * shape.matrices, f"6 x {shape.matrices:,}"),
        _flops(
            "global attention, a token",
            12 * width * shape.global_layers * everywhere,
            f"12 x {width} x {shape.global_layers} layers x {everywhere:,.0f} tokens in sight",
        ),
        _flops(
            "windowed attention, a token",
            12 * width * shape.windowed_layers * nearby,
            f"12 x {width} x {shape.windowed_layers} layers x {nearby:,.1f} tokens in sight",
        ),
        _flops(
            "head and decoder, a token",
            6 * shape.head * rate,
            f"6 x {width} x ({width} + {shape.vocab_size:,}) x {rate:.4f}, at predicted tokens alone",
        ),
        _flops("FLOPs a token", total, "the sum of the four"),
        Line("FLOPs", flops, f"{flops:.3e}", f"{total:.4g} x {batch.step_tokens:,} x {batch.steps:,} steps"),
        Line(
            "tokens a second",
            speed / total,
            f"{speed / total:,.0f}",
            f"{batch.processes} x {card.flops:.3g} x {utilisation:g} / {total:.4g}",
        ),
        Line(
            "hours",
            seconds / 3600,
            f"{seconds / 3600:.2f} h",
            f"{flops:.3e} / ({batch.processes} x {card.flops:.3g} x {utilisation:g}) / 3600 s",
        ),
    ]


def _flops(name: str, value: float, arithmetic: str) -> Line:
    return Line(name, value, f"{value:,.0f}", arithmetic)
