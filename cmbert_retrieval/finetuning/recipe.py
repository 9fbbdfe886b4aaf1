"""The recipe of a fine-tuning run: pairs, what may not be in them, model, teacher, stages, training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from cmbert_retrieval.config import none_means_absent
from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.finetuning.data_recipe import PairDataRecipe
from cmbert_retrieval.finetuning.training_recipe import FinetuneTrainingRecipe, StageRecipe, WhiteningRecipe
from cmbert_retrieval.pretraining.recipe import (
    ModelRecipe,
    absolute_model,
    part_of,
    with_absolute_model,
    with_absolute_source,
)
from cmbert_retrieval.recipe_files import Section, absolute_path, overridden, read_extended, validated


class NegativesRecipe(Section):
    """Texts that are near an anchor and do not answer it, found by searching the positives of its source."""

    count: int = Field(default=3, ge=1, le=32)
    """Of every pair."""

    modes: list[Literal["lexical", "dense"]] = Field(default=["lexical", "dense"], min_length=1)
    """What searches."""

    encoder: str | None = None
    """Of dense search and of the margin. null: the teacher."""

    top: int = Field(default=50, ge=1, le=1000)
    """Answers that are looked at."""

    skip: int = Field(default=0, ge=0)
    """First answers that are passed over."""

    margin: float | None = Field(default=0.95, gt=0, le=1)
    """A negative's similarity to the anchor is at most this share of the positive's: what is nearer may be
    another right answer. null: however near."""

    complete: list[str] = Field(default_factory=list)
    """Sources without that margin, since their pairs hold every right answer, as the names of codes do."""


class TeacherRecipe(Section):
    """A model whose vectors are learnt from."""

    model: str = "minilm"
    """``minilm`` for the one that the extra of this name brings, else a hub id or a folder."""

    beside: str | None = None
    """A second one, a hub id or a folder, asked about the same texts: what both say is brought to vectors as
    long as the first one's. null: none."""

    beside_weight: float | None = Field(default=None, gt=0)
    """Length of the second one's vectors: the longer, the farther from the first's. null: 1, as they have."""

    max_tokens: int = Field(default=256, ge=16)
    """Of a text that they read."""

    dtype: Literal["auto", "int8", "float32", "bfloat16"] = "auto"
    """Their precision. auto: int8 where a model has an export, as ``minilm`` has."""

    words: float = Field(default=0.0, ge=0)
    """Length of what a text's words say by themselves, beside the teacher's vector of length 1: the sum of
    their vectors in the teacher's table, rare ones more, so that rare words are found again."""


class StudentRecipe(ModelRecipe):
    """The model that is trained: a checkpoint, or a shape to begin with."""

    averaged_with: list[str] = Field(default_factory=list)
    """More checkpoints of the same shape and tokenizer: training begins with the mean of all their weights,
    which is better than any of them where they were trained from the same weights on other texts."""

    tokenizer: str | None = None
    """``teacher``, a hub id or a folder. null: the checkpoint's own."""

    vocabulary: int | None = Field(default=None, ge=300)
    """Give a WordPiece tokenizer only so many entries, those that prepared texts have most often. null: it
    stays as it is."""

    words: int = Field(default=0, ge=0)
    """Of ``vocabulary``, words of the texts that the tokenizer cuts; they are whole then, and begin where
    the teacher's vector of the word says, without a teacher with the mean of their pieces' embeddings."""

    embeddings: Literal["random", "teacher"] = "random"
    """``teacher``: begin with its token embeddings; both have the same tokenizer then. A narrower model takes
    their principal components."""

    length: int = Field(default=512, ge=16, le=8192)
    """Tokens that are read unless a user asks for more."""

    query_prompt: str = ""
    """Put in front of questions."""

    document_prompt: str = ""
    """Put in front of what is searched."""

    name_prompt: str = ""
    """Put in front of both in pairs of names of codes and terms, and wherever such an index is searched: what
    is near among names need not be near in sentences."""

    name_sources: list[str] = Field(default_factory=list)
    """Sources whose pairs are of names."""

    matryoshka: list[int] = Field(default_factory=list)
    """Shorter vectors that are trained, too: the first so many numbers."""


class MeasuredRecipe(Section):
    """What is measured while training: parts of sets that nothing is reported on."""

    data: str = ""
    """The folder of evaluation sets. "": only held-out pairs are measured."""

    sets: list[str] = Field(default_factory=list)
    """``NAME:PART`` each, such as ``nfcorpus:validation``."""

    @model_validator(mode="after")
    def _nothing_is_tested(self) -> MeasuredRecipe:
        for name in self.sets:
            if name.partition(":")[2] not in ("validation", "train"):
                raise ValueError(f"'{name}': expected NAME:validation or NAME:train; tests come afterwards")
        return self


class FinetuneRecipe(Section):
    """Everything that decides what a run does."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """The run's name. Unless given: the recipe file's."""

    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of random weights and of the order."""

    data: PairDataRecipe
    """What is learnt from."""

    negatives: Annotated[NegativesRecipe | None, BeforeValidator(none_means_absent)] = None
    """How negatives are found. ``none``: other pairs of a batch alone."""

    teacher: Annotated[TeacherRecipe | None, BeforeValidator(none_means_absent)] = None
    """Whose vectors are learnt from. ``none``: nobody's."""

    model: StudentRecipe
    """What is trained."""

    stages: list[StageRecipe] = Field(min_length=1)
    """One after the other, each from the weights of the one before."""

    whitening: Annotated[WhiteningRecipe | None, BeforeValidator(none_means_absent)] = None
    """The matrix that vectors are multiplied by when all stages are over. ``none``: there is none."""

    training: FinetuneTrainingRecipe = FinetuneTrainingRecipe()
    """How it is trained."""

    measured: MeasuredRecipe = MeasuredRecipe()
    """What is measured while training."""

    @model_validator(mode="after")
    def _parts_fit(self) -> FinetuneRecipe:
        for stage in self.stages:
            for weights in ("pair_weights", "text_weights"):
                for name in getattr(stage, weights):
                    if name not in self.data.sources:
                        raise ValueError(f"a stage has {weights} of '{name}', and no source is called so")
        lists = {
            "negatives.complete": self.negatives.complete if self.negatives is not None else [],
            "model.name_sources": self.model.name_sources,
            "whitening.sources": self.whitening.sources if self.whitening is not None else [],
        }
        for key, names in lists.items():
            for name in names:
                if name not in self.data.sources:
                    raise ValueError(f"{key} names '{name}', and no source is called so")
        if self.whitening is not None and self.model.matryoshka:
            raise ValueError(
                "whitening mixes all numbers of a vector; model.matryoshka would cut it: leave one out"
            )
        if bool(self.model.name_prompt) != bool(self.model.name_sources):
            raise ValueError("model.name_prompt and model.name_sources go together; give both or neither")
        if self.teacher is None:
            if any(stage.texts for stage in self.stages):
                raise ValueError("a stage learns from a teacher's texts, but there is no 'teacher'")
            if "teacher" in (self.model.tokenizer, self.model.embeddings):
                raise ValueError("the model takes something of its teacher, but there is no 'teacher'")
        longest = self.teacher.max_tokens if self.teacher is not None else 0
        if any(stage.texts and stage.tokens < longest for stage in self.stages):
            raise ValueError("a stage reads less of a text than its teacher did: stages.N.tokens")
        if self.model.words and self.model.vocabulary is None:
            raise ValueError(
                "model.words are part of model.vocabulary; say how many entries there are in all"
            )
        if self.model.embeddings == "teacher" and self.model.tokenizer != "teacher":
            raise ValueError("embeddings of the teacher need its tokenizer: model.tokenizer: teacher")
        if self.model.checkpoint is None and self.model.averaged_with:
            raise ValueError("model.averaged_with: there is no model.checkpoint to average them with")
        if self.model.checkpoint is not None and self.model.embeddings == "teacher":
            raise ValueError("a checkpoint has its own embeddings; leave model.embeddings out")
        if self.model.checkpoint is None and any(
            size >= self.model.hidden_size for size in self.model.matryoshka
        ):
            raise ValueError(f"model.matryoshka: expected lengths below {self.model.hidden_size}")
        if self.model.checkpoint is None and self.model.tokenizer is None:
            raise ValueError("a model without a 'checkpoint' has no tokenizer; name one: model.tokenizer")
        return self

    def prompts_of(self, source: str) -> tuple[str, str]:
        """Return what is put in front of a source's anchors and of their positives and negatives."""
        model = self.model
        if source in model.name_sources:
            return model.name_prompt, model.name_prompt
        return model.query_prompt, model.document_prompt


def load_finetune_recipe(path: str | Path, *, overrides: Sequence[str] = ()) -> FinetuneRecipe:
    """Read the recipe of a fine-tuning run.

    Args:
        path: a YAML file; paths in it are relative to it. It may name another one that it ``extends``.
        overrides: ``section.key=value`` each, in this order; paths in them are relative to the working
            folder.

    Raises:
        ConfigError: there is no such file, it is not YAML, or a key or value in it or in the overrides is
            wrong. The message names the file and the key, and the key that may have been meant.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(f"{path}: no such recipe file; there are some in pretraining/recipes")
    values = read_extended(file, _named)
    prepare = partial(_with_absolute_paths, folder=Path.cwd(), known=values)
    return validated(FinetuneRecipe, overridden(values, overrides, prepare=prepare), str(path))


def _named(values: dict[str, Any], file: Path, below: dict[str, Any]) -> dict[str, Any]:
    return {"name": file.stem, **_with_absolute_paths(values, file.parent, below)}


def _with_absolute_paths(
    values: Mapping[str, Any], folder: Path, known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    made = dict(values)
    data = made.get("data")
    if isinstance(data, Mapping):
        made["data"] = data = dict(data)
        if isinstance(data.get("sources"), Mapping):
            readers = part_of(known, "data", "sources")
            data["sources"] = {
                name: with_absolute_source(source, folder, part_of(readers, str(name)).get("reader", ""))
                for name, source in data["sources"].items()
            }
        if isinstance(data.get("exclude_names"), str):
            data["exclude_names"] = absolute_path(data["exclude_names"], folder)
        data |= _with_absolute_folder(data, "overlap", folder)
    made |= _with_absolute_folder(made, "measured", folder)
    for section, keys in {"model": ("checkpoint", "tokenizer"), "teacher": ("model", "beside")}.items():
        for key in keys:
            made |= with_absolute_model(made, section, key, folder)
    others = part_of(made, "model").get("averaged_with")
    if isinstance(others, list):
        made["model"] = {**made["model"], "averaged_with": [absolute_model(name, folder) for name in others]}
    return made | with_absolute_model(made, "negatives", "encoder", folder)


def _with_absolute_folder(values: Mapping[str, Any], section: str, folder: Path) -> dict[str, Any]:
    part = values.get(section)
    if not isinstance(part, Mapping) or not isinstance(part.get("data"), str):
        return {}
    return {section: {**part, "data": absolute_path(part["data"], folder)}}
