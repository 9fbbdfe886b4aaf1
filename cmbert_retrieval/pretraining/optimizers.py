"""Optimizers of pretraining: which parameters decay, and whose code does the step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from cmbert_retrieval.errors import MissingExtraError

if TYPE_CHECKING:
    import torch


class OptimizerRecipe(Protocol):
    """The part of a recipe that says how weights are changed."""

    @property
    def optimizer(self) -> str:
        """``adamw`` or ``stable-adamw``."""

    @property
    def betas(self) -> tuple[float, float]:
        """Of the moving averages."""

    @property
    def epsilon(self) -> float:
        """Added to the denominator."""

    @property
    def weight_decay(self) -> float:
        """Of matrices."""


def make_optimizer(
    model: torch.nn.Module, recipe: OptimizerRecipe, learning_rate: float, *, embeddings_rate: float = 1.0
) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe. Matrices decay; biases and norms do not.

    Args:
        model: whose parameters are trained.
        recipe: which optimizer, and its constants.
        learning_rate: the highest.
        embeddings_rate: share of it with which tables of embeddings are changed.

    Raises:
        MissingExtraError: the package of StableAdamW is not there.

    Source:
        Wortsman et al., "Stable and low-precision training for large-scale vision-language models",
        NeurIPS 2023 (StableAdamW); by ``torch-optimi``.
    """
    import torch

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    tables: set[torch.nn.Parameter] = set()
    if embeddings_rate != 1:
        tables.update(part.weight for part in model.modules() if isinstance(part, torch.nn.Embedding))
    matrices = [p for p in trained if p.ndim > 1]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in matrices if p not in tables], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    if tables:
        slower = {"weight_decay": recipe.weight_decay, "lr": learning_rate * embeddings_rate}
        groups.append({"params": [p for p in matrices if p in tables], **slower})
    settings = {"lr": learning_rate, "betas": recipe.betas, "eps": recipe.epsilon}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=True, **settings)
    try:
        from optimi import StableAdamW
    except ImportError:
        raise MissingExtraError.of("the optimizer 'stable-adamw'", "torch-optimi", "pretrain") from None
    optimizer: torch.optim.Optimizer = StableAdamW(groups, **settings)
    return optimizer
