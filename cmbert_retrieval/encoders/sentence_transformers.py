"""Any sentence-transformers or transformers encoder, on the GPU or the CPU."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.encoders.base import EncoderIdentity, Progress
from cmbert_retrieval.encoders.batching import length_sorted_batches
from cmbert_retrieval.encoders.devices import choose_attention, choose_device, choose_dtype
from cmbert_retrieval.encoders.modules import SIDES, module_paths, module_routes
from cmbert_retrieval.encoders.onnx import with_changes
from cmbert_retrieval.encoders.report import LoadReport, check_loaded
from cmbert_retrieval.encoders.settings import read_settings
from cmbert_retrieval.encoders.texts import check_texts
from cmbert_retrieval.encoders.weights import check_no_pickle, checkpoint_tensors, weights_sha256
from cmbert_retrieval.errors import CmbertError, ConfigError, EncoderError, MissingExtraError
from cmbert_retrieval.threads import limit_tokenizers, thread_budget

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

DEFAULT_CPU_BATCH_TOKENS = 4096
DEFAULT_GPU_BATCH_TOKENS = 65_536


class SentenceTransformersEncoder:
    """A sentence-transformers folder or a plain checkpoint, run by torch.

    The folder may hold two encoders, one for queries and one for documents (a Router).

    Args:
        folder: with ``config.json`` and safetensors.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; None takes CUDA where there is some.
        dtype: ``auto`` is bfloat16 where the processor computes in it, else float32.
        attention: ``auto`` leaves the choice to transformers (``sdpa`` where the model has it).
        batch_tokens: tokens of a batch, with padding.
        threads: for torch on the CPU, for the whole process; see ``thread_budget``.
        pooling: another pooling than the folder's.
        max_tokens: truncate elsewhere than the folder says.
        prompts: other prompts than the folder's.
        name: how users call the model; the folder's name when None.
        revision: the hub commit.
        source: what ``load_encoder`` needs to open this again; the folder when None.

    Raises:
        EncoderError: no or unsafe weights, weights that do not fit the configuration, a tokenizer that does
            not fit the weights, a model that cannot encode, or a device, precision or attention that is not
            there.
        MissingExtraError: torch or sentence-transformers is not installed.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        device: str | None = None,
        dtype: str = "auto",
        attention: str = "auto",
        batch_tokens: int | None = None,
        threads: int | None = None,
        pooling: str | None = None,
        max_tokens: int | None = None,
        prompts: Mapping[str, str] | None = None,
        name: str | None = None,
        revision: str = "",
        source: str | None = None,
    ) -> None:
        for package in ("torch", "transformers", "sentence_transformers"):
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError.of(
                    "the backend 'sentence_transformers'", package.replace("_", "-"), "train"
                )
        self._folder = Path(folder)
        settings = read_settings(self._folder)
        routes = module_routes(self._folder)
        folders = {
            side: next((path for kind, path in modules if kind == "Transformer"), self._folder)
            for side, modules in routes.items()
        }
        for path in folders.values():
            checkpoint_tensors(path)  # refuses a pickle before anything opens it
        check_no_pickle(self._folder)
        self._device = choose_device(device)
        limit_tokenizers(threads)
        self._model = self._open(choose_dtype(dtype, self._device), choose_attention(attention, self._device))
        if pooling is not None and pooling != settings.pooling:
            settings = replace(settings, pooling=pooling, dim=_replace_pooling(self._model, pooling))
        self._stages = _stages(self._model)
        reports: dict[Path, LoadReport] = {}
        for side, path in folders.items():
            if path not in reports:
                reports[path] = check_loaded(path, self._stages[side][0].auto_model)
                logger.info("%s: %s", path, reports[path])
            _prepare_tokenizer(path, self._stages[side][0])
        self._report = LoadReport(
            loaded=sum(report.loaded for report in reports.values()),
            heads=tuple(head for report in reports.values() for head in report.heads),
        )
        if not settings.trained and pooling is None:
            logger.warning(
                "%s has no pooling settings: it was not trained for retrieval, and gets mean pooling",
                name or self._folder,
            )
        on_cpu = self._device.type == "cpu"
        if on_cpu:
            import torch

            torch.set_num_threads(thread_budget(threads))
        identity = EncoderIdentity(
            name=name or self._folder.resolve().name,
            revision=revision,
            dim=settings.dim,
            pooling=settings.pooling,
            prompts=settings.prompts,
            max_tokens=settings.max_tokens,
            normalized=settings.normalized,
        )
        self._unhashed = with_changes(
            identity, longest=settings.longest, max_tokens=max_tokens, prompts=prompts
        )
        self._batch_tokens = batch_tokens or (
            DEFAULT_CPU_BATCH_TOKENS if on_cpu else DEFAULT_GPU_BATCH_TOKENS
        )
        length = self._unhashed.max_tokens
        self._limits = {"document": length, "query": min(length, settings.query_tokens or length)}
        self._source = source or str(folder)
        self._lock = threading.Lock()
        self._try()

    @cached_property
    def identity(self) -> EncoderIdentity:
        """What decides its vectors. The first look hashes the weights."""
        return replace(self._unhashed, weights_sha256=weights_sha256(self._folder))

    @property
    def source(self) -> str:
        """What ``load_encoder`` needs to open the same encoder again."""
        return self._source

    def with_prompts(self, prompts: Mapping[str, str]) -> SentenceTransformersEncoder:
        """Return the same encoder with other prompts; both share the model."""
        other = copy.copy(self)
        other._unhashed = replace(self._unhashed, prompts=dict(prompts))
        other.__dict__["identity"] = replace(self.identity, prompts=dict(prompts))  # weights are hashed once
        return other

    @property
    def folder(self) -> Path:
        """Where it was loaded from."""
        return self._folder

    @property
    def report(self) -> LoadReport:
        """What was loaded, and what of the checkpoint was of no use."""
        return self._report

    @property
    def model(self) -> SentenceTransformer:
        """The sentence-transformers model itself."""
        return self._model

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return ``[texts, dim]`` for search queries."""
        return self._encode(texts, "query", None)

    def encode_document(
        self, texts: Sequence[str], *, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Return ``[texts, dim]`` for texts to be found, in the order given."""
        return self._encode(texts, "document", progress)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the length of each text in tokens, special tokens and prompt not counted."""
        check_texts(texts)
        if not texts:
            return []
        with self._lock:
            encoded = self._stages["document"][0].tokenizer(
                list(texts), add_special_tokens=False, truncation=False, verbose=False
            )
        return [len(ids) for ids in encoded["input_ids"]]

    def save_pretrained(self, path: str | Path) -> None:
        """Write a sentence-transformers folder; the weights keep the precision of the checkpoint.

        Raises:
            EncoderError: ``path`` is the encoder's own folder.
        """
        from cmbert_retrieval.encoders.onnx import copy_folder

        if module_paths(self._folder):
            copy_folder(self._folder, Path(path))
        else:
            with quiet_loading():
                self._model.save_pretrained(str(path), create_model_card=False)

    def _open(self, dtype: torch.dtype, attention: str | None) -> SentenceTransformer:
        from sentence_transformers import SentenceTransformer

        # A tensor of another shape is for our own check to report: transformers' message does not name it.
        options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "ignore_mismatched_sizes": True}
        if attention is not None:
            options["attn_implementation"] = attention
        try:
            with quiet_loading():
                model = SentenceTransformer(
                    str(self._folder), device=str(self._device), model_kwargs=options, local_files_only=True
                )
        except Exception as error:  # from transformers and from a model's own code: anything
            raise EncoderError(
                f"{self._folder}: cannot be loaded ({first_line(error)}); expected a sentence-transformers "
                "folder or a text encoder"
            ) from error
        return model.eval()

    def _encode(self, texts: Sequence[str], side: str, progress: Progress | None) -> NDArray[np.float32]:
        import torch

        check_texts(texts)
        vectors = np.empty((len(texts), self._unhashed.dim), np.float32)
        if not texts:
            return vectors
        prompt = self._unhashed.prompts.get(side, "")
        tokenizer = self._stages[side][0].tokenizer
        with self._lock:  # a fast tokenizer keeps its truncation as state
            encoded = tokenizer(
                [prompt + text for text in texts], truncation=True, max_length=self._limits[side]
            )
        for position in (index for index, ids in enumerate(encoded["input_ids"]) if not ids):
            # An empty text of a model without special tokens: one token, as in the onnx encoder.
            for name, values in encoded.items():
                filler = {"input_ids": tokenizer.pad_token_id or 0, "attention_mask": 1}
                values[position] = [filler.get(name, 0)]
        prompt_tokens = self._excluded_tokens(prompt, side)
        for batch in length_sorted_batches([len(ids) for ids in encoded["input_ids"]], self._batch_tokens):
            rows = {name: [values[position] for position in batch] for name, values in encoded.items()}
            features = tokenizer.pad(rows, return_tensors="pt").to(self._device)
            with torch.inference_mode():
                output: dict[str, torch.Tensor] = {**features, **prompt_tokens}
                for stage in self._stages[side]:
                    output = stage(_in_precision_of(stage, output))
            vectors[batch] = output["sentence_embedding"][:, : self._unhashed.dim].float().cpu().numpy()
            if progress is not None:
                progress(len(batch))
        if self._unhashed.normalized:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def _try(self) -> None:
        """Encode two texts, so that what does not fit together is an error now and not in the first batch.

        Raises:
            EncoderError: the model cannot encode, or gives vectors of another length or NaN.
        """
        try:
            texts = ["", "A text to try the model with"]
            vectors = np.stack([self._encode(texts, side, None) for side in SIDES])
        except CmbertError:
            raise
        except Exception as error:  # from torch and from tokenizers: anything
            raise EncoderError(
                f"{self._folder}: the model was loaded, but cannot encode ({first_line(error)}); expected "
                "modules and a tokenizer that fit each other. Fetch or save the whole model again"
            ) from error
        if not np.isfinite(vectors).all():
            raise EncoderError(
                f"{self._folder}: the model gives vectors with NaN or infinity; expected finite ones. Check "
                "its weights, or take dtype='float32'"
            )

    def _excluded_tokens(self, prompt: str, side: str) -> dict[str, int]:
        """Return how many tokens the pooling leaves out, for models that pool without their prompt."""
        from sentence_transformers.sentence_transformer.modules import Pooling

        tokenizer = self._stages[side][0].tokenizer
        pooling = next((module for module in self._stages[side] if isinstance(module, Pooling)), None)
        if not prompt or getattr(pooling, "include_prompt", True):
            return {}
        with self._lock:
            ids = tokenizer(prompt)["input_ids"]
        ends_special = ids and ids[-1] in tokenizer.all_special_ids
        return {"prompt_length": len(ids) - bool(ends_special)}


def _in_precision_of(stage: Any, output: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the output so far as a projection takes it: it stays in float32 beside a model in bfloat16."""
    linear, name = getattr(stage, "linear", None), getattr(stage, "module_input_name", "sentence_embedding")
    return output if linear is None else {**output, name: output[name].to(linear.weight.dtype)}


def first_line(error: Exception) -> str:
    """Return the first line of a message that is not empty, or the kind of error."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _stages(model: SentenceTransformer) -> dict[str, list[Any]]:
    """Return the modules that a query and a document go through; a Router has a row for each."""
    first, *rest = model
    routes = getattr(first, "sub_modules", None)
    return {side: [first, *rest] if routes is None else [*routes[side], *rest] for side in SIDES}


def _prepare_tokenizer(folder: Path, transformer: Any) -> None:
    """Give a tokenizer without padding a token to pad with, and check that it belongs to the model.

    Without its files transformers makes a tokenizer of nothing but special tokens, and says no word.

    Raises:
        EncoderError: it knows no word, or gives ids that the model has no embedding for.
    """
    tokenizer = transformer.tokenizer
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token  # never seen: the attention mask leaves it out
    # Special tokens that transformers adds of its own are seen by no model, or by the trial in _try.
    special = set(tokenizer.all_special_tokens)
    ids = [number for token, number in tokenizer.get_vocab().items() if token not in special]
    if not ids:
        raise EncoderError(
            f"{folder}: its tokenizer has {len(special)} tokens, all of them special; expected a vocabulary. "
            "Fetch the tokenizer's files (tokenizer.json) too"
        )
    rows = None
    with contextlib.suppress(NotImplementedError):  # a model that computes embeddings has no table of them
        rows = getattr(transformer.auto_model.get_input_embeddings(), "num_embeddings", None)
    if rows is not None and max(ids) >= rows:
        raise EncoderError(
            f"{folder}: its tokenizer gives ids up to {max(ids)}, the model has embeddings for "
            f"{rows}; take the tokenizer that belongs to it"
        )


def _replace_pooling(model: SentenceTransformer, pooling: str) -> int:
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling

    modes = pooling.split("+")
    unknown = [mode for mode in modes if mode not in Pooling.POOLING_MODES]
    if unknown:
        raise ConfigError(
            f"pooling is {pooling!r}; expected one of {', '.join(Pooling.POOLING_MODES)}, or some joined by +"
        )
    place = next((index for index, module in enumerate(model) if isinstance(module, Pooling)), None)
    if place is None or any(isinstance(module, Dense) for module in model):
        raise ConfigError(
            f"pooling {pooling!r} was asked for, this model's layers depend on its own; leave it out"
        )
    size = model[place].embedding_dimension
    model[place] = Pooling(size, tuple(modes))
    return int(size) * len(modes)


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep transformers' progress bars and load table away: the load report says what matters."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    others = [logging.getLogger(name) for name in ("sentence_transformers",)]
    levels = [other.level for other in others]
    try:
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        for other in others:
            other.setLevel(logging.ERROR)
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
        for other, level in zip(others, levels, strict=True):
            other.setLevel(level)
