"""How a fine-tuning recipe trains: its stages, what is the same in all of them, and what comes behind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cmbert_retrieval.config import FlashAttention
from cmbert_retrieval.recipe_files import Section


class StageRecipe(Section):
    """A stretch of training."""

    texts: int = Field(default=0, ge=0)
    """Texts that are learnt from the teacher, in batches of their own between those of pairs."""

    text_rounds: int = Field(default=1, ge=1)
    """How often each of them is seen: teachers that are slow are asked about fewer texts."""

    pairs: int = Field(default=0, ge=0)
    """Pairs that are seen."""

    pair_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Source -> how often its pairs come in this stage, beside their number; others' do not. {}: those of all
    sources, by their ``weight``."""

    text_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """The same for texts."""

    learning_rate: float = Field(default=1e-3, gt=0)
    """The highest."""

    warmup: float = Field(default=0.05, ge=0, le=1)
    """Share of the steps in which it rises from 0."""

    decay: float | None = Field(default=None, gt=0, le=1)
    """Share of the steps, at the end, in which it falls evenly to 0. null: all that ``warmup`` leaves."""

    text_batch: int = Field(default=128, ge=2)
    """Texts of a step."""

    pair_batch: int = Field(default=128, ge=2)
    """Pairs of a step: every one has the others' positives for negatives."""

    temperature: float = Field(default=0.05, gt=0)
    """Of the contrastive loss."""

    symmetric: bool = True
    """Anchors are looked for by positives, too."""

    negatives: int = Field(default=0, ge=0, le=32)
    """Negatives that every pair takes along: those that came with it, mined ones, then some by chance."""

    similarity: float = Field(default=1.0, ge=0)
    """Weight of the loss that compares similarities within a batch with the teacher's; that of the vectors
    themselves is 1."""

    tokens: int = Field(default=256, ge=16, le=8192)
    """Tokens of a text in this stage."""

    @model_validator(mode="after")
    def _something_is_learnt(self) -> StageRecipe:
        if not self.texts and not self.pairs:
            raise ValueError("a stage learns neither from 'texts' nor from 'pairs'; say how many")
        return self

    @model_validator(mode="after")
    def _shares_fit(self) -> StageRecipe:
        if self.warmup + self.falling > 1 + 1e-9:
            raise ValueError(f"warmup {self.warmup} and decay {self.decay} are more than the whole")
        return self

    @property
    def falling(self) -> float:
        """Share of the steps in which the learning rate falls."""
        return 1 - self.warmup if self.decay is None else self.decay


class FinetuneTrainingRecipe(Section):
    """How it is trained."""

    optimizer: Literal["adamw", "stable-adamw"] = "adamw"
    """stable-adamw clips updates itself."""

    betas: tuple[float, float] = Field(default=(0.9, 0.98), strict=False)
    """Of the moving averages."""

    epsilon: float = Field(default=1e-6, gt=0)
    """Added to the denominator."""

    weight_decay: float = Field(default=0.01, ge=0)
    """Of matrices; biases and norms have none."""

    max_gradient_norm: float = Field(default=1.0, ge=0)
    """Longer gradients are shortened to this. 0: not at all."""

    embeddings_rate: float = Field(default=1.0, gt=0)
    """Share of the learning rate with which token embeddings are changed. Below 1, a rare token keeps more of
    what it begins with: Adam moves it as far at each of its few gradients as a frequent one at many."""

    micro_batch: int = Field(default=0, ge=0)
    """Texts that are computed at once; gradients of a larger batch are cached. 0: the whole batch."""

    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 where the processor computes in it, else fp32. Weights and their averages stay fp32."""

    attention: Literal["auto", FlashAttention, "sdpa", "packed"] = "auto"
    """auto: flash_attention_2 on a GPU where it is installed, else sdpa; packed on a CPU."""

    compile: bool = False
    """Compile the layers with torch.compile; on a CPU that takes a C++ compiler."""

    checkpoint_steps: int = Field(default=500, ge=1)
    """Steps between two checkpoints."""

    evaluate_steps: int = Field(default=1000, ge=1)
    """Steps between two measurements."""

    log_steps: int = Field(default=20, ge=1)
    """Steps between two lines of the log."""

    report_to: list[str] = Field(default_factory=list)
    """Loggers of transformers: ``wandb``, ``tensorboard``, ``trackio``, ..."""


class WhiteningRecipe(Section):
    """A matrix behind the pooling: it makes less of what texts about one thing differ by: ``whitening``."""

    sources: list[str] = Field(min_length=1)
    """Sources whose pairs say what that is, each as much as any other."""

    pairs: int = Field(default=2500, ge=1)
    """Of each of them."""

    ridge: float = Field(default=0.5, gt=0)
    """Added to the variance within pairs in every direction, as a share of its mean: with more of it, less is
    changed."""
