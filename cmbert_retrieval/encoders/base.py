"""What an encoder is, and how two of them are told apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Progress = Callable[[int], None]
"""Called with the number of texts encoded since the last call."""


@dataclass(frozen=True, slots=True)
class EncoderIdentity:
    """All that decides which vectors an encoder makes. Kept in the manifest of every index.

    Attributes:
        name: how users call the model: a hub id, a bundled name, or a folder's name.
        revision: the hub commit, or "" for a local folder.
        dim: length of a vector.
        pooling: ``mean``, ``cls``, ``lasttoken``, ...
        prompts: ``query`` and ``document`` -> text put in front; absent means none. ``name`` -> what is put
            before both in an index of names of codes and terms, see ``for_names``.
        max_tokens: longer texts are truncated to this many tokens.
        normalized: whether vectors have unit length.
        weights_sha256: over the fp32 weights: names, shapes and bytes, whatever file they came in. The same
            for all backends and precisions of a model.
    """

    name: str
    revision: str
    dim: int
    pooling: str
    prompts: Mapping[str, str] = field(default_factory=dict)
    max_tokens: int = 512
    normalized: bool = True
    weights_sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the identity as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EncoderIdentity:
        """Return the identity that ``to_json`` wrote."""
        return cls(**values)


class Encoder(Protocol):
    """Texts to vectors. Thread-safe: one encoder serves any number of searching threads."""

    @property
    def identity(self) -> EncoderIdentity:
        """What decides its vectors."""

    @property
    def source(self) -> str:
        """What ``load_encoder`` opens again: a bundled name, a hub id or a folder."""

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return ``[texts, dim]`` for search queries."""

    def encode_document(
        self, texts: Sequence[str], *, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Return ``[texts, dim]`` for texts to be found, in the order given.

        Batches are composed within one call, so equal calls give equal bytes for the same thread count.
        """

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the length of each text in tokens, special tokens and the document prompt not counted."""

    def save_pretrained(self, path: str) -> None:
        """Write the encoder as a folder that ``load_encoder`` and sentence-transformers open."""
