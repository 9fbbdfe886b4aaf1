"""An exported encoder on the CPU: onnxruntime and tokenizers, no torch."""

from __future__ import annotations

import contextlib
import copy
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.encoders.base import EncoderIdentity, Progress
from cmbert_retrieval.encoders.batching import equal_length_batches
from cmbert_retrieval.encoders.compact import graph_weights, weights_file
from cmbert_retrieval.encoders.fingerprint import check_fingerprint
from cmbert_retrieval.encoders.manifest import (
    GRAPH_FILES,
    MANIFEST_FILE,
    OnnxManifest,
    is_onnx_folder,
)
from cmbert_retrieval.encoders.modules import pools_without_prompt
from cmbert_retrieval.encoders.names import NAME
from cmbert_retrieval.encoders.settings import read_settings
from cmbert_retrieval.encoders.texts import beginning, check_texts
from cmbert_retrieval.encoders.workers import Workers
from cmbert_retrieval.errors import ConfigError, EncoderError
from cmbert_retrieval.threads import limit_tokenizers, thread_budget

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_TOLD_EVERY = 32
"""Texts between two calls of ``progress``, at least."""

_BATCH_TOKENS = 512
"""Of texts that run together, where the graph takes several: 32 of 12 tokens take a third less time each than
4; more gain nothing."""

_CHARACTERS = 10
"""Characters a token of the beginning of a long text that is tokenised first; most texts have 4 to 6."""

_LONG_TOKENS = 2_048
"""Longer texts run one at a time: onnxruntime keeps the attention of a layer, which grows with their square
(12 heads x 8,192 x 8,192 x 4 bytes = 3.2 GB), and every thread would keep one."""


class OnnxEncoder:
    """An encoder folder's ``onnx/`` part, run by onnxruntime.

    A text has one vector, whatever is encoded with it and however many threads there are. Most integer graphs
    quantise the activations of a whole batch with one scale, so in batches a vector would depend on the texts
    that share its batch (cosines of 0.98 were seen): there every text is run by itself, as many at a time as
    there are threads. A graph that has fixed scales, and says so by taking any number of texts, gets texts of
    one length together. Nothing is padded.

    Args:
        folder: made by ``cmbert export``.
        dtype: ``int8``, ``float32``, or ``auto`` for the smallest there.
        threads: texts that are run at the same time; see ``thread_budget``.
        revision: the hub commit that the folder is.
        source: what ``load_encoder`` needs to open this again; the folder when None.
        max_tokens: truncate elsewhere than the folder says.
        prompts: other prompts than the folder's.

    Raises:
        EncoderError: the folder has no export, a file is missing or broken, the dtype was not exported, or
            the model beside the export is another one by now.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        dtype: str = "auto",
        threads: int | None = None,
        revision: str = "",
        source: str | None = None,
        max_tokens: int | None = None,
        prompts: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = Path(folder)
        if not is_onnx_folder(self._folder):
            raise EncoderError(
                f"{self._folder}: no onnx/cmbert.json; expected an exported encoder. "
                "Make one with: cmbert export FOLDER --out DIR"
            )
        self._manifest = OnnxManifest.read(self._folder / MANIFEST_FILE)
        check_fingerprint(self._folder, self._manifest.sources)
        identity = replace(self._manifest.identity, revision=revision or self._manifest.identity.revision)
        longest = identity.max_tokens if max_tokens is None else read_settings(self._folder).longest
        self._identity = with_changes(identity, longest=longest, max_tokens=max_tokens, prompts=prompts)
        if self._identity.prompts and pools_without_prompt(self._folder):
            raise EncoderError(
                f"{self._folder}: its pooling leaves the prompt out (include_prompt is false), which an "
                "export cannot do; use backend 'sentence_transformers', or leave the prompts out"
            )
        self._source = str(folder) if source is None else source
        self._graph = self._choose_graph(dtype)
        self._workers = Workers(thread_budget(threads))
        limit_tokenizers(threads)
        # Kept as long as the session, which may compute in their memory.
        self._weights = self._read_weights()
        self._session = open_session(self._graph, self._weights)
        self._inputs = {node.name for node in self._session.get_inputs()}
        self._takes_several = takes_several(self._session)
        self._tokenizer = self._open_tokenizer(truncate=True)

    @property
    def identity(self) -> EncoderIdentity:
        """What decides its vectors."""
        return self._identity

    @property
    def source(self) -> str:
        """What ``load_encoder`` needs to open the same encoder again."""
        return self._source

    def with_prompts(self, prompts: Mapping[str, str]) -> OnnxEncoder:
        """Return the same encoder with other prompts; both share session and threads."""
        other = copy.copy(self)
        other._identity = replace(self._identity, prompts=dict(prompts))
        return other

    @property
    def graph(self) -> Path:
        """The file that runs."""
        return self._graph

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return ``[texts, dim]`` for search queries."""
        return self._encode(texts, self._identity.prompts.get("query", ""), None)

    def encode_document(
        self, texts: Sequence[str], *, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Return ``[texts, dim]`` for texts to be found, in the order given."""
        return self._encode(texts, self._identity.prompts.get("document", ""), progress)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the length of each text in tokens, special tokens and prompt not counted."""
        check_texts(texts)
        encodings = self._counter.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding) for encoding in encodings]

    def save_pretrained(self, path: str | Path) -> None:
        """Copy the folder; ``load_encoder`` and sentence-transformers open the copy."""
        copy_folder(self._folder, Path(path))

    @cached_property
    def _counter(self) -> Tokenizer:
        # A tokenizer of its own: switching truncation off and on would reach into other threads' calls.
        return self._open_tokenizer(truncate=False)

    def _choose_graph(self, dtype: str) -> Path:
        files = self._manifest.files
        if dtype == "auto":
            chosen = next((kind for kind in GRAPH_FILES if kind in files), None)
        else:
            chosen = dtype if dtype in files else None
        if chosen is None:
            raise EncoderError(
                f"{self._folder / 'onnx'}: no graph in {dtype!r}; there is "
                f"{', '.join(sorted(files)) or 'none'}. "
                "Export the model again, or take another dtype"
            )
        path = self._folder / "onnx" / files[chosen]
        if not path.is_file():
            raise EncoderError(f"{path}: absent, though onnx/cmbert.json names it; export the model again")
        return path

    def _read_weights(self) -> dict[str, NDArray[Any]]:
        weights = self._manifest.weights
        return graph_weights(weights_file(self._folder), weights) if weights else {}

    def _open_tokenizer(self, *, truncate: bool) -> Tokenizer:
        from tokenizers import Tokenizer

        path = self._folder / self._manifest.tokenizer
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing narrower
            raise EncoderError(f"{path}: cannot be opened ({error}); export the model again") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if truncate:
            tokenizer.enable_truncation(self._identity.max_tokens)
        return tokenizer

    def _encode(self, texts: Sequence[str], prompt: str, progress: Progress | None) -> NDArray[np.float32]:
        check_texts(texts)
        vectors = np.empty((len(texts), self._identity.dim), np.float32)
        if not texts:
            return vectors
        ids = self._token_ids([prompt + text for text in texts] if prompt else texts)
        share = -(-len(ids) // self._workers.threads)  # no thread is left without work
        batches = equal_length_batches(
            [len(row) for row in ids], _BATCH_TOKENS, texts=share if self._takes_several else 1
        )
        rows = [[ids[position] for position in batch] for batch in batches]
        untold = 0
        for batch, found in zip(batches, self._workers.map(self._run, rows), strict=True):
            vectors[batch] = found
            untold += len(batch)
            if progress is not None and untold >= _TOLD_EVERY:
                progress(untold)
                untold = 0
        if progress is not None and untold:
            progress(untold)
        if self._identity.normalized:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def _token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the texts' tokens, cut at the limit, without tokenising all of those that are far longer."""
        limit = self._identity.max_tokens
        begun = [beginning(text, limit * _CHARACTERS) for text in texts]
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(begun)]
        short = [
            position
            for position, row in enumerate(ids)
            if len(row) < limit and len(begun[position]) < len(texts[position])
        ]
        whole = self._tokenizer.encode_batch_fast([texts[position] for position in short])
        for position, encoding in zip(short, whole, strict=True):
            ids[position] = encoding.ids
        return [row or [self._manifest.pad_id] for row in ids]

    def _run(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        ids = np.array(rows, np.int64)
        texts, tokens = ids.shape
        with self._workers.alone if tokens > _LONG_TOKENS else contextlib.nullcontext():
            given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            (output,) = self._session.run(
                ["embeddings"], {name: values for name, values in given.items() if name in self._inputs}
            )
        if output.shape != (texts, self._identity.dim):
            raise EncoderError(
                f"{self._graph}: gave vectors of shape {output.shape}, expected "
                f"{(texts, self._identity.dim)}; export the model again"
            )
        return np.asarray(output, np.float32)


def takes_several(session: Any) -> bool:
    """Return whether a graph takes several texts, of equal length, and gives each the vector it has alone."""
    (ids,) = (node for node in session.get_inputs() if node.name == "input_ids")
    return len(session.get_inputs()) == 1 and not isinstance(ids.shape[0], int)


def open_session(graph: Path, weights: Mapping[str, NDArray[Any]]) -> Any:
    """Return an onnxruntime session on the CPU that runs each call on the thread that makes it.

    Args:
        graph: the file.
        weights: those that the graph names and does not hold. They must live as long as the session.

    Raises:
        EncoderError: the graph cannot be opened, or needs other weights than these.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors come as exceptions; their copies on stderr are in the way
    try:
        if weights:
            values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
            options.add_external_initializers(list(weights), values)
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors share no narrower base
        raise EncoderError(
            f"{graph}: onnxruntime cannot open it ({error}); export the model again"
        ) from error


def copy_folder(folder: Path, out: Path) -> None:
    """Copy an encoder's folder, without what a download left there.

    Raises:
        EncoderError: ``out`` is the folder itself, or in it.
    """
    if out.resolve().is_relative_to(folder.resolve()):
        raise EncoderError(f"{out}: is in the encoder's own folder; expected another one to write to")
    shutil.copytree(
        folder, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".cache", ".git*", "*.lock")
    )


def with_changes(
    identity: EncoderIdentity,
    *,
    longest: int,
    max_tokens: int | None,
    prompts: Mapping[str, str] | None,
) -> EncoderIdentity:
    """Return the identity with a user's own length and prompts in it.

    Raises:
        ConfigError: ``max_tokens`` is more than the model takes, or leaves no room for a word; or a prompt is
            no text, or for something else than queries and documents.
    """
    if max_tokens is not None:
        if not 2 < max_tokens <= longest:
            raise ConfigError(
                f"max_tokens is {max_tokens}; expected 3 to {longest}, for which the model has positions"
            )
        identity = replace(identity, max_tokens=max_tokens)
    if prompts is None:
        return identity
    unknown = [name for name in prompts if name not in ("query", "document", NAME)]
    if unknown:
        raise ConfigError(f"prompts has the key {unknown[0]!r}; expected 'query', 'document' or '{NAME}'")
    for name, text in prompts.items():
        if not isinstance(text, str):
            raise ConfigError(f"the {name} prompt is a {type(text).__name__}; expected a string")
    return replace(identity, prompts={name: text for name, text in prompts.items() if text})
