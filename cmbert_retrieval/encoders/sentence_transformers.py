"""Any sentence-transformers or transformers encoder, on the GPU or the CPU."""

from __future__ import annotations

import contextlib
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
from cmbert_retrieval.encoders.onnx import with_changes
from cmbert_retrieval.encoders.report import LoadReport, check_loaded
from cmbert_retrieval.encoders.settings import module_paths, read_settings
from cmbert_retrieval.encoders.weights import checkpoint_tensors, weights_sha256
from cmbert_retrieval.errors import ConfigError, EncoderError, MissingExtraError
from cmbert_retrieval.threads import thread_budget

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

DEFAULT_CPU_BATCH_TOKENS = 4096
DEFAULT_GPU_BATCH_TOKENS = 65_536
DTYPES = ("auto", "float32", "bfloat16", "float16")
ATTENTIONS = ("auto", "eager", "sdpa", "flash_attention_2")


class SentenceTransformersEncoder:
    """A sentence-transformers folder or a plain checkpoint, run by torch.

    Args:
        folder: with ``config.json`` and safetensors.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; None takes CUDA where there is some.
        dtype: ``auto`` is bfloat16 where the processor computes in it, else float32.
        attention: ``auto`` leaves the choice to transformers (``sdpa`` where the model has it).
        batch_tokens: tokens of a batch, with padding.
        threads: for torch on the CPU, for the whole process; None leaves torch's own.
        pooling: another pooling than the folder's.
        max_tokens: truncate elsewhere than the folder says.
        prompts: other prompts than the folder's.
        name: how users call the model; the folder's name when None.
        revision: the hub commit.
        source: what ``load_encoder`` needs to open this again; the folder when None.

    Raises:
        EncoderError: no or unsafe weights, weights that do not fit the configuration, or a device, precision
        or
            attention that is not there.
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
        self._transformer_folder = next(
            (path for kind, path in module_paths(self._folder) if kind == "Transformer"), self._folder
        )
        checkpoint_tensors(self._transformer_folder)  # refuses a pickle before anything opens it
        self._device = choose_device(device)
        self._model = self._open(choose_dtype(dtype, self._device), choose_attention(attention, self._device))
        if pooling is not None and pooling != settings.pooling:
            settings = replace(settings, pooling=pooling, dim=_replace_pooling(self._model, pooling))
        self._report = check_loaded(self._transformer_folder, self._model[0].auto_model)
        logger.info("%s: %s", self._folder, self._report)
        if not settings.trained and pooling is None:
            logger.warning(
                "%s has no pooling settings: it was not trained for retrieval, and gets mean pooling",
                name or self._folder,
            )
        if threads is not None:
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
        on_cpu = self._device.type == "cpu"
        self._batch_tokens = batch_tokens or (
            DEFAULT_CPU_BATCH_TOKENS if on_cpu else DEFAULT_GPU_BATCH_TOKENS
        )
        self._source = source or str(folder)
        self._lock = threading.Lock()

    @cached_property
    def identity(self) -> EncoderIdentity:
        """What decides its vectors. The first look hashes the weights."""
        return replace(self._unhashed, weights_sha256=weights_sha256(self._folder))

    @property
    def source(self) -> str:
        """What ``load_encoder`` needs to open the same encoder again."""
        return self._source

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
        return self._encode(texts, self._unhashed.prompts.get("query", ""), None)

    def encode_document(
        self, texts: Sequence[str], *, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Return ``[texts, dim]`` for texts to be found, in the order given."""
        return self._encode(texts, self._unhashed.prompts.get("document", ""), progress)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the length of each text in tokens, special tokens and prompt not counted."""
        if not texts:
            return []
        with self._lock:
            encoded = self._model.tokenizer(
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
            with _quiet():
                self._model.save_pretrained(str(path), create_model_card=False)

    def _open(self, dtype: torch.dtype, attention: str | None) -> SentenceTransformer:
        from sentence_transformers import SentenceTransformer

        # A tensor of another shape is for our own check to report: transformers' message does not name it.
        options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "ignore_mismatched_sizes": True}
        if attention is not None:
            options["attn_implementation"] = attention
        try:
            with _quiet():
                model = SentenceTransformer(
                    str(self._folder), device=str(self._device), model_kwargs=options, local_files_only=True
                )
        except Exception as error:  # from transformers and from a model's own code: anything
            first = next(
                (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
            )
            raise EncoderError(
                f"{self._folder}: cannot be loaded ({first}); expected a sentence-transformers folder or a "
                "text encoder"
            ) from error
        return model.eval()

    def _encode(self, texts: Sequence[str], prompt: str, progress: Progress | None) -> NDArray[np.float32]:
        import torch

        if isinstance(texts, str):
            raise ConfigError("got one string; expected a sequence of texts: pass [text]")
        vectors = np.empty((len(texts), self._unhashed.dim), np.float32)
        if not texts:
            return vectors
        tokenizer = self._model.tokenizer
        with self._lock:  # a fast tokenizer keeps its truncation as state
            encoded = tokenizer(
                [prompt + text for text in texts], truncation=True, max_length=self._unhashed.max_tokens
            )
        prompt_tokens = self._excluded_tokens(prompt)
        for batch in length_sorted_batches([len(ids) for ids in encoded["input_ids"]], self._batch_tokens):
            rows = {name: [values[position] for position in batch] for name, values in encoded.items()}
            features = tokenizer.pad(rows, return_tensors="pt").to(self._device)
            with torch.inference_mode():
                output = self._model.forward({**features, **prompt_tokens})["sentence_embedding"]
            vectors[batch] = output[:, : self._unhashed.dim].float().cpu().numpy()
            if progress is not None:
                progress(len(batch))
        if self._unhashed.normalized:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def _excluded_tokens(self, prompt: str) -> dict[str, int]:
        """Return how many tokens the pooling leaves out, for models that pool without their prompt."""
        if not prompt or getattr(self._model[1], "include_prompt", True):
            return {}
        with self._lock:
            ids = self._model.tokenizer(prompt)["input_ids"]
        ends_special = ids and ids[-1] in self._model.tokenizer.all_special_ids
        return {"prompt_length": len(ids) - bool(ends_special)}


def choose_device(device: str | None) -> torch.device:
    """Return the device by that name, or the best when None.

    Raises:
        EncoderError: there is no such device.
    """
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise EncoderError(
            f"device {device!r} is not known to torch; expected cpu, cuda, cuda:N or mps"
        ) from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise EncoderError(
            f"device {device!r} was asked for, torch {torch.__version__} sees {torch.cuda.device_count()} "
            "CUDA devices; "
            "take another device, or leave it out"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise EncoderError(
            "device 'mps' was asked for, torch sees none; take another device, or leave it out"
        )
    return chosen


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 in hardware; elsewhere it is slower than float32."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
        return "amx_bf16" in flags or "avx512_bf16" in flags
    return False


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Return torch's type for a name.

    Raises:
        ConfigError: an unknown name.
        EncoderError: bfloat16 by name where the processor has none, or float16 on the CPU.
    """
    import torch

    if dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    if dtype == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    if (dtype == "bfloat16" and not has_bfloat16(device)) or (dtype == "float16" and device.type == "cpu"):
        raise EncoderError(
            f"dtype {dtype!r} was asked for, which {device} does not compute in; take 'float32' or 'auto'"
        )
    chosen: torch.dtype = getattr(torch, dtype)
    return chosen


def choose_attention(attention: str, device: torch.device) -> str | None:
    """Return the attention to ask transformers for; None leaves it the choice.

    Raises:
        ConfigError: an unknown name.
        EncoderError: FlashAttention by name, without its package or without CUDA.
    """
    if attention not in ATTENTIONS:
        raise ConfigError(f"attention is {attention!r}; expected one of {', '.join(ATTENTIONS)}")
    if attention == "flash_attention_2":
        if importlib.util.find_spec("flash_attn") is None:
            raise EncoderError(
                "attention 'flash_attention_2' needs the package 'flash-attn': "
                "pip install flash-attn --no-build-isolation, or take 'sdpa'"
            )
        if device.type != "cuda":
            raise EncoderError(
                f"attention 'flash_attention_2' needs a CUDA device, this is {device}; take 'sdpa'"
            )
    return None if attention == "auto" else attention


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
def _quiet() -> Iterator[None]:
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
