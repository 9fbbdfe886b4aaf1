"""Recipes: YAML files that say everything about a job, read into checked values.

A key that nobody knows is an error, never ignored: a mistyped option would silently be the default otherwise.
Only this module and ``recipe_files`` import pydantic, and no way of searching imports them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.recipe_files import (
    Section,
    absolute_path,
    did_you_mean,
    overridden,
    read_yaml,
    validated,
)

ColumnType = Literal["text", "integer", "number", "boolean", "date"]

FlashAttention = Literal["flash_attention_2", "flash_attention_3", "flash_attention_4"]
"""By the names of transformers; ``encoders/devices.py`` knows their packages."""


def none_means_absent(value: object) -> object:
    """Return None for ``none``, by which a recipe switches a section off."""
    return None if value == "none" else value


class SourceRecipe(Section):
    """What is read."""

    reader: str
    """The reader's name: ``pmc``, ``jsonl``, ``beir``, ``icd10cm``, ..."""

    path: str = ""
    """The file or folder. In a recipe file relative to that file, in an override relative to the working
    folder. Empty where the reader brings its own source (``icd10cm``: the release that is installed). The
    reader ``datasets`` also takes a hub id, as in ``org/name``; a folder of that name goes before."""

    options: dict[str, Any] = Field(default_factory=dict)
    """The reader's own options. The reader refuses those that it does not know."""


class EncoderRecipe(Section):
    """What turns texts into vectors. All fields but ``model`` are the options of ``load_encoder``."""

    model: str | None = None
    """A hub id, a bundled name, or a folder (written with a leading ``.``, ``~`` or ``/``; relative like
    ``source.path``). null: the default encoder."""

    revision: str | None = None
    """Branch, tag or commit of a hub model. null: its main branch."""

    backend: Literal["auto", "onnx", "sentence_transformers"] = "auto"
    """auto: onnx where the encoder's folder has it, else sentence_transformers."""

    device: str | None = None
    """``cpu``, ``cuda``, ``cuda:1``, ``mps``; null: a GPU where the backend finds one."""

    dtype: str = "auto"
    """Precision of the computation. auto: bfloat16 where the processor really has it, else float32."""

    attention: Literal["auto", "sdpa", FlashAttention] = "auto"
    """Attention implementation of the sentence_transformers backend."""

    batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens a batch, padding included, of the sentence_transformers backend. null: its own choice."""

    threads: int | None = Field(default=None, ge=1)
    """Threads on the CPU. null: all cores that this process may use."""

    pooling: str | None = None
    """``mean``, ``cls``, ``lasttoken``; null: what the model says."""

    prompts: dict[Literal["query", "document"], str] | None = None
    """Text put in front of queries and documents; null: what the model says."""

    max_tokens: int | None = Field(default=None, ge=8)
    """Longer texts are truncated to this many tokens. null: what the model says."""

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments for ``load_encoder``; its first argument is ``model``."""
        return {name: getattr(self, name) for name in type(self).model_fields if name != "model"}


class PassagesRecipe(Section):
    """How long documents become rows. Documents with entry texts of their own are not split."""

    max_tokens: int | None = Field(default=None, ge=16)
    """Longest passage in tokens of the encoder, title included. null: 256 of a document that is longer than
    the encoder reads, chosen by ``eval/suites/lengths.yaml``; any other is cut between its parts at most."""

    stride: int = Field(default=0, ge=0)
    """Sentences that neighbouring passages share."""


class VectorsRecipe(Section):
    """How vectors are kept."""

    factory: str = Field(default="Flat", min_length=1)
    """A FAISS factory: ``Flat`` (exact), ``HNSW32``, ``IVF4096,PQ64``, ``RaBitQ``, ...

    All but ``Flat`` may miss some of the nearest vectors; what they find is scored exactly.
    """


class LexicalRecipe(Section):
    """How words are kept."""

    analyser: str = Field(default="english", min_length=1)
    """What makes words of text: lower case, stop words, stems."""


class SearchRecipe(Section):
    """How the index is searched unless the search says otherwise.

    The defaults were chosen by ``benchmarks/fusion.py``, with the first weights of cmbert-mini on parts of
    SciFact, NFCorpus, MedQuAD and PMC that are for choosing: nDCG@10 0.730, 0.324, 0.602 and 0.509; by
    min-max at 0.4 0.723, 0.316, 0.610 and 0.488, by RRF 0.697, 0.310, 0.582 and 0.377. Codes and terms are
    better found with more of meaning: 0.8.
    """

    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    """By words and meaning, by meaning, or by words; an index with ``encoder: none`` has lexical only."""

    fusion: Literal["bounded", "min-max", "rrf"] = "bounded"
    """How the two rankings of a hybrid search become one: ``bounded`` by scores as shares of the best ones
    that are possible for the query, ``min-max`` as shares of the best ones found, ``rrf`` by ranks."""

    dense_weight: float = Field(default=0.3, ge=0, le=1)
    """The share of meaning in a hybrid search; words have the rest."""

    depth: int = Field(default=200, ge=1)
    """Rows that each ranking contributes before they are fused. What more results need comes behind."""


class IndexRecipe(Section):
    """Everything that decides what an index holds and how it is searched."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """The index's name, fit for a folder. Unless given: the recipe file's."""

    source: SourceRecipe
    """What is read."""

    encoder: Annotated[EncoderRecipe | None, BeforeValidator(none_means_absent)] = EncoderRecipe()
    """What turns texts into vectors. ``none``: an index of words only."""

    passages: Annotated[PassagesRecipe | None, BeforeValidator(none_means_absent)] = PassagesRecipe()
    """How long documents become rows. ``none``: the whole text is one row, truncated by the encoder."""

    columns: dict[str, ColumnType] | None = None
    """Metadata to filter on: name -> type, beside what the reader declares. ``{}``: nothing at all."""

    vectors: VectorsRecipe = VectorsRecipe()
    """How vectors are kept."""

    lexical: LexicalRecipe = LexicalRecipe()
    """How words are kept."""

    search: SearchRecipe = SearchRecipe()
    """How the index is searched unless the search says otherwise."""

    shard_rows: int = Field(default=2048, ge=1, le=2048)
    """Rows that are encoded and committed to disk together: what a killed build may have to do again."""

    @model_validator(mode="before")
    @classmethod
    def _words_only_means_lexical(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("encoder", "") not in (None, "none"):
            return values
        search = values.get("search", {})
        if isinstance(search, Mapping) and "mode" not in search:
            return {**values, "search": {**search, "mode": "lexical"}}
        return values

    @model_validator(mode="after")
    def _mode_has_what_it_needs(self) -> IndexRecipe:
        if self.encoder is None and self.search.mode != "lexical":
            raise ValueError(
                f"search.mode '{self.search.mode}' needs an encoder; this recipe says 'encoder: none'"
            )
        return self

    @classmethod
    def for_corpus(
        cls, reader: str, path: str | Path = "", *, name: str | None = None, overrides: Sequence[str] = ()
    ) -> IndexRecipe:
        """Return the recipe that ``--from reader:path`` stands for: every field at its default.

        Args:
            reader: the reader's name.
            path: what it reads, relative to the working folder; "" where the reader brings its own source.
            name: the index's name; None makes one of the path's last part, or of the reader's name.
            overrides: ``section.key=value`` each, as on the command line.

        Raises:
            ConfigError: an override is wrong.
        """
        stem = Path(path).name.split(".")[0] if str(path) else ""
        safe_stem = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in stem)
        values = {
            "name": name or safe_stem.strip("-")[:100] or reader,
            "source": {"reader": reader, "path": source_path(str(path), Path.cwd(), reader)},
        }
        prepare = partial(_with_absolute_paths, folder=Path.cwd(), reader=reader)
        return validated(cls, overridden(values, overrides, prepare=prepare), f"--from {reader}:{path}")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> IndexRecipe:
        """Return the recipe that ``to_json`` wrote."""
        return validated(cls, dict(values), "recipe of the index")

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON values with every default written out: equal recipes, equal values."""
        return self.model_dump(mode="json")


def bundled_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(path.stem for path in _bundled_folder().glob("*.yaml"))


def load_index_recipe(recipe: str | Path, *, overrides: Sequence[str] = ()) -> IndexRecipe:
    """Read the recipe of an index.

    Args:
        recipe: a YAML file, or the name of a bundled recipe (``icd10cm``). A name without folder and ending
            is always a bundled one.
        overrides: ``section.key=value`` each, in this order; values are YAML (``5``, ``null``, ``[a, b]``).

    Raises:
        ConfigError: there is no such recipe, it is not YAML, or a key or value in it or in the overrides is
            wrong. The message names the file and the key, and the key that may have been meant.
    """
    path = _find(recipe)
    values = {"name": path.stem, **_with_absolute_paths(read_yaml(path), folder=path.parent.resolve())}
    prepare = partial(_with_absolute_paths, folder=Path.cwd(), reader=_reader_of(values))
    return validated(IndexRecipe, overridden(values, overrides, prepare=prepare), str(recipe))


def _bundled_folder() -> Path:
    return Path(__file__).parent / "recipes"


def _reader_of(values: Mapping[str, Any]) -> str:
    source = values.get("source")
    return str(source.get("reader", "")) if isinstance(source, Mapping) else ""


def source_path(path: str, folder: Path, reader: str) -> str:
    """Return the path of a source as it is opened: absolute, but for a hub id."""
    if reader == "datasets" and not path.startswith((".", "~", "/")) and not (folder / path).exists():
        return path  # a hub id
    return absolute_path(path, folder)


def _with_absolute_paths(values: Mapping[str, Any], *, folder: Path, reader: str = "") -> dict[str, Any]:
    """Return ``values`` with the paths of a recipe read from ``folder`` made absolute.

    ``reader`` is the source's, where ``values`` do not tell it.
    """
    values = dict(values)
    reader = _reader_of(values) or reader
    for section, key in (("source", "path"), ("encoder", "model")):
        part = values.get(section)
        if isinstance(part, dict) and isinstance(part.get(key), str):
            text = part[key]
            # A model without a leading dot, tilde or slash is a hub id or a bundled name.
            if key == "path":
                values[section] = {**part, key: source_path(text, folder, reader)}
            elif text.startswith((".", "~", "/")):
                values[section] = {**part, key: absolute_path(text, folder)}
    return values


def _find(recipe: str | Path) -> Path:
    path = Path(recipe).expanduser()
    if path.suffix in (".yaml", ".yml") or len(path.parts) != 1:
        if path.is_file():
            return path
        raise ConfigError(f"{recipe}: no such recipe file; the bundled ones are {_listed(bundled_recipes())}")
    if str(recipe) in bundled_recipes():
        return _bundled_folder() / f"{recipe}.yaml"
    raise ConfigError(
        f"no bundled recipe '{recipe}'; there is {_listed(bundled_recipes())}, or give the path of a "
        f".yaml file{did_you_mean(str(recipe), bundled_recipes())}"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"
