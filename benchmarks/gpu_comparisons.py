"""What is checked on a GPU: each check returns its figures, and whether they ``passed``.

Everything takes the device as an argument, so that all but the kernels themselves can be tried on a CPU.
"""

from __future__ import annotations

import csv
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from cmbert_retrieval.pretraining.recipe import PretrainRecipe

ROOT = Path(__file__).resolve().parents[1]

BASE = {"hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": 22, "num_attention_heads": 12}
"""The shape of ModernBERT-base."""

_VOCABULARY = 50_368


class SkippedError(Exception):
    """Something cannot be checked here; its text says why."""


# --- attention ---


def packed_row(context: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``input_ids [1, context]`` and the ``lengths`` of the documents that fill them, on the CPU."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    lengths, left = [], context
    while left:
        lengths.append(min(left, int(torch.randint(8, max(9, context // 4), (), generator=generator))))
        left -= lengths[-1]
    return torch.randint(5, _VOCABULARY, (1, context), generator=generator), torch.tensor(lengths)


def base_model(attention: str, device: str, shape: Mapping[str, int]) -> torch.nn.Module:
    """Return a ModernBERT with random weights, the same ones for every attention."""
    import torch
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    torch.manual_seed(7)
    config = ModernBertConfig(vocab_size=_VOCABULARY, sparse_prediction=True, **shape)
    model = ModernBertForMaskedLM._from_config(config, attn_implementation=attention)
    made: torch.nn.Module = model.float().to(device)
    return made


def compare_attentions(
    attention: str,
    *,
    device: str,
    dtype: torch.dtype,
    shape: Mapping[str, int] = BASE,
    context: int = 1024,
    borders: Callable[[torch.Tensor], torch.Tensor] = lambda lengths: lengths,
) -> dict[str, Any]:
    """Compare an attention with sdpa, both in ``dtype``, by how far each is from sdpa in float32.

    A kernel in bfloat16 may be as wrong as another one in bfloat16, not twice as wrong.

    Args:
        attention: as transformers names it.
        device: where both run.
        dtype: of the products.
        shape: of the model.
        context: tokens of the packed row.
        borders: what ``attention`` is told the documents' lengths are; sdpa is told the true ones.

    Returns:
        Relative errors of vectors and gradients, of this attention and of sdpa, and whether they ``passed``.
    """
    import torch

    exact = _vectors_and_gradients("sdpa", device, torch.float32, shape, context, lambda lengths: lengths)
    plain = _vectors_and_gradients("sdpa", device, dtype, shape, context, lambda lengths: lengths)
    here = _vectors_and_gradients(attention, device, dtype, shape, context, borders)
    found: dict[str, Any] = {}
    passed = True
    for name, reference, sdpa, ours in zip(("vectors", "gradients"), exact, plain, here, strict=True):
        error, allowed = _relative(ours, reference), _relative(sdpa, reference)
        passed &= error <= 2 * allowed + 1e-4  # NaN does not pass
        found |= {f"{name}_error": error, f"{name}_error_of_sdpa": allowed}
    return {**found, "dtype": str(dtype).removeprefix("torch."), "tokens": context, "passed": passed}


def _vectors_and_gradients(
    attention: str,
    device: str,
    dtype: torch.dtype,
    shape: Mapping[str, int],
    context: int,
    borders: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    from cmbert_retrieval.pretraining.rows import model_inputs

    model: Any = base_model(attention, device, shape).model
    ids, lengths = packed_row(context)
    inputs = model_inputs(
        ids.to(device), borders(lengths).to(device), attention=attention, window=model.config.local_attention
    )
    with torch.autocast(torch.device(device).type, dtype, enabled=dtype != torch.float32):
        vectors = model(**inputs).last_hidden_state.float().view(context, -1)
    wanted = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1)).to(device)
    (vectors * wanted).sum().backward()
    gradients = [part.grad.flatten().cpu() for part in model.parameters() if part.grad is not None]
    return vectors.detach().cpu(), torch.cat(gradients)


def _relative(found: torch.Tensor, reference: torch.Tensor) -> float:
    return float((found - reference).norm() / reference.norm())


def packed_speed(
    attention: str,
    *,
    device: str,
    dtype: torch.dtype,
    shape: Mapping[str, int] = BASE,
    context: int = 1024,
    rows: int = 16,
    steps: int = 20,
) -> dict[str, Any]:
    """Return tokens a second of whole training steps on packed rows: forward, backward, StableAdamW.

    Three in ten tokens are predicted. The figure is the median step's, after three that do not count.
    """
    import torch

    from cmbert_retrieval.pretraining.optimizers import make_optimizer
    from cmbert_retrieval.pretraining.recipe import TrainingRecipe
    from cmbert_retrieval.pretraining.rows import model_inputs

    model = base_model(attention, device, shape)
    made = [packed_row(context, seed=seed) for seed in range(rows)]
    ids = torch.cat([part for part, _ in made]).to(device)
    lengths = torch.cat([part for _, part in made]).to(device)
    inputs = model_inputs(ids, lengths, attention=attention, window=model.config.local_attention)
    hidden = torch.rand(ids.shape, generator=torch.Generator().manual_seed(2)).to(device) < 0.3
    labels = torch.where(hidden, ids, -100).view_as(inputs["input_ids"])
    optimizer = make_optimizer(model, TrainingRecipe(), 1e-4)
    on_gpu = torch.device(device).type == "cuda"
    seconds = []
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(3 + steps):
        began = time.perf_counter()
        with torch.autocast(torch.device(device).type, dtype, enabled=dtype != torch.float32):
            loss = model(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return {
        "tokens_per_second": round(rows * context / statistics.median(seconds[3:])),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if on_gpu else None,
        "tokens": rows * context,
        "dtype": str(dtype).removeprefix("torch."),
        "passed": bool(torch.isfinite(loss)),
    }


# --- FAISS ---


def same_neighbours(scores: Any, rows: Any, other_scores: Any, other_rows: Any) -> bool:
    """Return whether two exact searches found the same: scores, and rows but for ties at the last score.

    Args:
        scores: ``[queries, k]``, the best first.
        rows: ``[queries, k]``.
        other_scores: as the first.
        other_rows: as the second.
    """
    if (scores != other_scores).any():
        return False
    for line, here, there in zip(scores, rows, other_rows, strict=True):
        certain = line > line[-1]
        if set(here[certain].tolist()) != set(there[certain].tolist()):
            return False
    return True


def check_faiss() -> dict[str, Any]:
    """Compare FAISS on the GPU with the CPU: the same rows from a flat index, the recall of an IVF.

    Vectors are small integers, whose inner products float32 holds exactly in any order of adding.

    Raises:
        SkippedError: FAISS is not built for GPUs.
    """
    import faiss
    import numpy as np

    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        raise SkippedError('FAISS is built for CPUs; see "GPU" in the README for the package faiss-gpu')
    generator = np.random.default_rng(7)
    vectors, queries = (
        generator.integers(-127, 128, (count, 128)).astype(np.float32) for count in (200_000, 500)
    )
    flat = faiss.IndexFlatIP(128)
    flat.add(vectors)
    resources = faiss.StandardGpuResources()
    expected = flat.search(queries, 10)
    found = faiss.index_cpu_to_gpu(resources, 0, flat).search(queries, 10)
    ivf = faiss.IndexIVFFlat(faiss.IndexFlatIP(128), 128, 1024, faiss.METRIC_INNER_PRODUCT)
    ivf.train(vectors[:50_000])
    ivf.add(vectors)
    on_gpu = faiss.index_cpu_to_gpu(resources, 0, ivf)
    ivf.nprobe = on_gpu.nprobe = 64
    recall, recall_of_cpu = (_recall(index.search(queries, 10)[1], expected[1]) for index in (on_gpu, ivf))
    same = same_neighbours(*expected, *found)
    return {
        "flat_same": same,
        "ivf_recall": recall,
        "ivf_recall_of_cpu": recall_of_cpu,
        "passed": same and abs(recall - recall_of_cpu) <= 0.01,
    }


def _recall(rows: Any, expected: Any) -> float:
    shares = [len(set(here) & set(there)) / len(there) for here, there in zip(rows, expected, strict=True)]
    return round(statistics.fmean(shares), 4)


# --- resume ---


def check_resume(recipe: PretrainRecipe, data: Path, work: Path) -> dict[str, Any]:
    """Train to the end twice, and once more from the first's oldest checkpoint; compare losses and weights.

    Args:
        recipe: of one phase, with more than one checkpoint kept.
        data: prepared.
        work: an empty folder.

    Returns:
        The largest difference between weights of an unbroken and a resumed run, and of two unbroken runs:
        where that is not 0, the device itself does not repeat a sum. Only a resume to the last digit passed.
    """
    from cmbert_retrieval.pretraining.checkpoints import checkpoints

    for name in ("unbroken", "again"):
        _train(recipe, data, work / name)
    shutil.copytree(work / "unbroken", work / "resumed")
    phase = work / "resumed" / "phase-1"
    shutil.rmtree(phase / "model")
    first, *later = checkpoints(phase)
    for folder in later:
        shutil.rmtree(folder)
    _train(recipe, data, work / "resumed")
    losses = {name: _losses(work / name) for name in ("unbroken", "resumed")}
    difference = _difference(work / "unbroken", work / "resumed")
    return {
        "resumed_at_step": int(first.name.rpartition("-")[2]),
        "steps": len(losses["unbroken"]),
        "losses_same": losses["unbroken"] == losses["resumed"],
        "largest_difference": difference,
        "largest_difference_of_two_runs": _difference(work / "unbroken", work / "again"),
        "passed": losses["unbroken"] == losses["resumed"] and difference == 0,
    }


def _train(recipe: PretrainRecipe, data: Path, out: Path) -> None:
    from cmbert_retrieval.pretraining.callbacks import NoBar
    from cmbert_retrieval.pretraining.training import pretrain

    pretrain(recipe, data, out, bar=lambda label, tokens: nullcontext(NoBar()))


def _losses(out: Path) -> list[str]:
    with (out / "phase-1" / "training.csv").open(newline="") as file:
        return [row["loss"] for row in csv.DictReader(file)]


def _difference(here: Path, there: Path) -> float:
    from safetensors.torch import load_file

    one, other = (load_file(out / "phase-1" / "model" / "model.safetensors") for out in (here, there))
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


def resume_smoke_run() -> dict[str, Any]:
    """Check resuming with the smoke recipe."""
    from cmbert_retrieval.pretraining.prepare import prepare
    from cmbert_retrieval.pretraining.recipe import load_pretrain_recipe

    recipe = load_pretrain_recipe(ROOT / "pretraining" / "recipes" / "smoke.yaml")
    training = recipe.training.model_copy(
        update={"checkpoint_steps": 20, "keep_checkpoints": 9, "log_steps": 1}
    )
    recipe = recipe.model_copy(update={"training": training})
    with tempfile.TemporaryDirectory() as folder:
        prepare(recipe, Path(folder) / "data")
        return check_resume(recipe, Path(folder) / "data", Path(folder))
