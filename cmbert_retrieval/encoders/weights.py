"""The tensors of a checkpoint, read from its safetensors files with nothing but numpy.

The base install has neither torch nor safetensors, and still has to know whether two folders hold the same
model.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.encoders.modules import module_paths, module_routes, read_json
from cmbert_retrieval.errors import EncoderError

_SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1,
}  # fmt: skip
_STORED = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "|u1", "I8": "|i1"}
"""Types of weights, as numpy reads them. Wider integers are buffers: positions of tokens, and the like."""

_CHUNK = 1 << 22
"""Elements that are converted at a time: hashing needs little memory, however large a tensor is."""

_EMBEDDING_MARKS = ("shared.", "embeddings.", "embed_tokens.", "wte.")
_HEADS = frozenset(
    "cls head decoder lm_head mlm_head classifier score pooler qa_outputs vocab_transform vocab_layer_norm "
    "vocab_projector lm_predictions generator_predictions generator_lm_head discriminator_predictions "
    "mask_predictions".split()
)
_LAYER = re.compile(r"(^|\.)(embeddings|embed_tokens|wte|layers?|blocks?|h)\.")


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies.

    Attributes:
        name: as the checkpoint calls it.
        dtype: safetensors' name of its type.
        shape: its dimensions.
        file: the file that holds it.
        start: offset of its first byte in the file.
        stop: one past its last byte.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    stop: int

    @property
    def is_weight(self) -> bool:
        """Whether it holds weights, and no buffer: floats, or int8, which loading turns into floats."""
        return self.dtype in _STORED

    def values(self, limit: int | None = None) -> Iterator[NDArray[np.float32]]:
        """Yield its values as float32, flat and in pieces; at most ``limit`` of them."""
        raw = (
            np.memmap(self.file, mode="r", offset=self.start, shape=(self.stop - self.start,))
            if self.stop > (self.start)
            else np.empty(0, np.uint8)
        )
        typed = raw.view(_STORED[self.dtype])[:limit]
        for begin in range(0, len(typed), _CHUNK):
            yield self._decoded(typed[begin : begin + _CHUNK])

    def read(self) -> NDArray[Any]:
        """Return a copy in memory, in its shape: int8 as it is, floats as float32.

        Raises:
            EncoderError: it holds something else, or the file has become shorter.
        """
        if not self.is_weight:
            raise EncoderError(
                f"{self.file}: tensor {self.name!r} is in {self.dtype}; expected floats or I8. Fetch the "
                "model again"
            )
        stored = np.dtype(_STORED[self.dtype])
        count = (self.stop - self.start) // stored.itemsize
        try:
            typed = np.fromfile(self.file, stored, count, offset=self.start).reshape(self.shape)
        except (OSError, ValueError) as error:
            raise EncoderError(f"{self.file}: changed while it was read ({error}); open it again") from error
        return typed if self.dtype == "I8" else self._decoded(typed)

    def _decoded(self, piece: NDArray[Any]) -> NDArray[np.float32]:
        if self.dtype == "BF16":  # the upper half of a float32
            return (piece.astype("<u4") << 16).view("<f4")
        if self.dtype == "F8_E4M3":
            values: NDArray[np.float32] = _eight_bit_floats()[piece]
            return values
        return piece.astype("<f4")


@cache
def _eight_bit_floats() -> NDArray[np.float32]:
    """Return the values of all bytes as floats with 4 bits of exponent and 3 of fraction.

    Source: Micikevicius et al., "FP8 Formats for Deep Learning", 2022, table 1 (E4M3).
    """
    byte = np.arange(256)
    exponent, fraction = byte >> 3 & 15, byte & 7
    values = np.where(exponent, (8 + fraction) * 2.0 ** (exponent - 10), fraction * 2.0**-9)
    values[exponent * 8 + fraction == 127] = np.nan
    return np.where(byte < 128, values, -values).astype("<f4")


def read_header(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, without reading their values.

    Raises:
        EncoderError: the file is absent, truncated, or no safetensors file; its header is not to be trusted
            (tensors that overlap, lie outside the file or are not as long as their shape says); or floats of
            other kinds, such as those of 4 bits.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > min(size - 8, 100_000_000):
                raise ValueError("its header is longer than the file")
            header = json.loads(stream.read(length))
        tensors = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            first, last = _counts(entry["data_offsets"])
            shape = _counts(entry["shape"])
            start, stop = 8 + length + first, 8 + length + last
            if entry["dtype"].startswith("F") and entry["dtype"] not in _STORED:
                raise EncoderError(
                    f"{file}: tensor {name!r} is in {entry['dtype']}; expected F64, F32, F16, BF16 or "
                    "F8_E4M3. Save the model in one of these"
                )
            expected = math.prod(shape) * _SIZES.get(entry["dtype"], 0)
            if not start <= stop <= size or (entry["dtype"] in _SIZES and stop - start != expected):
                raise ValueError(f"tensor {name!r} does not lie inside the file")
            tensors[name] = Tensor(name, entry["dtype"], shape, file, start, stop)
        _check_apart(tensors.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EncoderError(f"{file}: not a whole safetensors file ({error}); fetch it again") from error
    return tensors


def _counts(values: Any) -> tuple[int, ...]:
    """Return numbers of a header as they are: no fractions, no negative ones, nothing that becomes one."""
    if not isinstance(values, list) or any(type(value) is not int or value < 0 for value in values):
        raise ValueError("an offset or an extent is no whole number from 0")
    return tuple(values)


def _check_apart(tensors: Iterable[Tensor]) -> None:
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.stop)):
        if tensor.start < end:
            raise ValueError(f"tensor {tensor.name!r} overlaps another one")
        end = tensor.stop


def checkpoint_tensors(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of the transformer in ``folder``, from one file or from several shards.

    Raises:
        EncoderError: there are no safetensors, only a pickle (which can run code when it is opened), or a
        broken file.
    """
    if (folder / "model.safetensors").is_file():
        return read_header(folder / "model.safetensors")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        tensors: dict[str, Tensor] = {}
        for name in sorted(set(read_json(index)["weight_map"].values())):
            if Path(name).name != name:
                raise EncoderError(
                    f"{index}: shard {name!r} is not a plain file name; expected one in the same folder"
                )
            tensors.update(read_header(folder / name))
        return tensors
    _refuse_pickle(folder, "AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER)")
    raise EncoderError(f"{folder}: no weights; expected model.safetensors")


def check_no_pickle(folder: Path) -> None:
    """Check that no module of an encoder has its weights in a pickle, which sentence-transformers would open.

    Raises:
        EncoderError: one has; it is named.
    """
    for kind, path in module_paths(folder):
        if kind != "Transformer" and not (path / "model.safetensors").is_file():
            _refuse_pickle(path, "SentenceTransformer(FOLDER).save_pretrained(NEW_FOLDER)")


def _refuse_pickle(folder: Path, conversion: str) -> None:
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.ckpt") for path in folder.glob(pattern))
    if pickles:
        raise EncoderError(
            f"{folder}: its weights are a pickle ({pickles[0]}), which can run code when it is opened; "
            f"expected model.safetensors. Convert it where you trust it: {conversion}"
        )


def canonical_names(names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Tell an encoder's own tensors from the heads beside it.

    The same encoder is ``embeddings.x`` when it is saved alone, ``bert.embeddings.x`` or
    ``model.embeddings.x`` when it is saved below a head.

    Returns:
        canonical name -> name in the checkpoint, for the encoder; and the names of heads, sorted.
    """
    names = list(names)
    prefix = _common_prefix(names)
    encoder: dict[str, str] = {}
    heads: list[str] = []
    for name in names:
        bare = name[len(prefix) :]
        inside = name.startswith(prefix)
        # What looks like a layer is never taken for a head, wherever it stands: it has to be missed when it
        # is unused.
        if inside and bare.split(".", 1)[0] not in _HEADS:
            encoder[_modern(bare)] = name
        elif _LAYER.search(name) and not (inside and bare.startswith("pooler.")):
            encoder[name] = name
        else:
            heads.append(name)
    return encoder, sorted(heads)


def _common_prefix(names: Iterable[str]) -> str:
    found: list[str] = []
    for name in names:
        for mark in _EMBEDDING_MARKS:
            at = f".{name}".find(f".{mark}")
            if at >= 0:
                found.append(name[:at])
                break
    return min(found, key=lambda prefix: (len(prefix), prefix), default="")


def _modern(name: str) -> str:
    # TensorFlow's names for the parts of a layer norm, still found in converted checkpoints.
    return re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))


def weights_sha256(folder: Path) -> str:
    """Return the SHA-256 of the encoder's weights as float32: sorted names, shapes, values.

    The same for a model saved alone or below a head, in one file or many, and for whatever was exported from
    it. Heads and buffers of integers do not count; the weights of further modules (a projection behind the
    pooling) do, and those of both sides of a model of two encoders.

    Raises:
        EncoderError: there are no readable safetensors.
    """
    check_no_pickle(folder)
    routes = module_routes(folder)
    if routes["query"] == routes["document"]:
        return hash_tensors(_route_tensors(folder, routes["document"]))
    return hash_tensors(
        {
            f"{side}:{name}": tensor
            for side, modules in routes.items()
            for name, tensor in _route_tensors(folder, modules).items()
        }
    )


def _route_tensors(folder: Path, modules: list[tuple[str, Path]]) -> dict[str, Tensor]:
    transformer = next((path for name, path in modules if name == "Transformer"), folder)
    tensors = checkpoint_tensors(transformer)
    names, _ = canonical_names(tensors)
    parts: dict[str, Tensor] = {name: tensors[original] for name, original in names.items()}
    for order, (kind, path) in enumerate(modules):
        if (
            kind != "Transformer"
            and (path / "model.safetensors").is_file()
            and path.resolve() != folder.resolve()
        ):
            parts |= {
                f"{order}:{kind}.{name}": tensor
                for name, tensor in read_header(path / "model.safetensors").items()
            }
    return parts


def hash_tensors(parts: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over tensors by name: each one's name, shape and float32 values."""
    digest = hashlib.sha256()
    for name in sorted(parts):
        tensor = parts[name]
        if not tensor.is_weight:
            continue  # buffers of positions: no weights, and not in every version of a checkpoint
        digest.update(json.dumps([name, list(tensor.shape)]).encode())
        for piece in tensor.values():
            digest.update(np.ascontiguousarray(piece).data)
    return digest.hexdigest()
