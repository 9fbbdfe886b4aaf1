"""A name to an encoder."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.encoders.manifest import MANIFEST_FILE, OnnxManifest, is_onnx_folder
from cmbert_retrieval.encoders.named import NAMES, folder_of, full_name
from cmbert_retrieval.encoders.onnx import OnnxEncoder
from cmbert_retrieval.errors import ConfigError, EncoderError
from cmbert_retrieval.hub import Hub

BACKENDS = ("auto", "onnx", "sentence_transformers")
DTYPES = ("auto", "int8", "float32", "bfloat16", "float16")


def load_encoder(
    name: str | Path | None = None,
    *,
    backend: str = "auto",
    device: str | None = None,
    revision: str | None = None,
    cache_folder: str | Path | None = None,
    local_files_only: bool = False,
    token: bool | str | None = None,
    dtype: str = "auto",
    attention: str = "auto",
    batch_tokens: int | None = None,
    threads: int | None = None,
    pooling: str | None = None,
    prompts: Mapping[str, str] | None = None,
    max_tokens: int | None = None,
) -> Encoder:
    """Open an encoder.

    Args:
        name: a folder, a hub id, or None (``default``) for cmbert-mini, which comes with the package;
            ``minilm`` is all-MiniLM-L6-v2, which the extra of that name brings.
        backend: ``onnx`` runs an export on the CPU without torch, ``sentence_transformers`` runs any model;
            ``auto`` takes the export where there is one and nothing was asked for that only torch has.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; None takes the best that the backend has.
        revision: of a hub id: branch, tag or commit.
        cache_folder: where hub downloads go; the hub's own cache when None.
        local_files_only: fetch nothing, ask nobody.
        token: for a private or gated hub id; None for the one that ``hf auth login`` or ``HF_TOKEN`` gave.
        dtype: ``int8`` or ``float32`` for ``onnx``; ``float32``, ``bfloat16`` or ``float16`` for
            ``sentence_transformers``; ``auto`` is the fastest that is there. With backend ``auto``, float32
            runs on torch where the export has none.
        attention: ``sdpa``, ``eager`` or ``flash_attention_2`` (3, 4), for ``sentence_transformers``.
        batch_tokens: tokens of a batch, with padding, for ``sentence_transformers``; None takes what was
            measured to be good. ``onnx`` runs every text by itself.
        threads: for the CPU; None takes ``$CMBERT_THREADS``, or all usable cores. Torch and tokenizers have
            one number for the whole process.
        pooling: another pooling than the model's, for ``sentence_transformers``; an export has one built in.
        prompts: ``query`` and ``document`` prompts instead of the model's, and ``name`` for names of codes.
        max_tokens: truncate elsewhere than the model says.

    Raises:
        ConfigError: an argument has an unknown value.
        EncoderError: there is no such model, it cannot be loaded, or what was asked for by name is not there.
        MissingExtraError: an optional package is needed.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"backend is {backend!r}; expected one of {', '.join(BACKENDS)}")
    if dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    # What was asked for by name decides the backend: an export runs on the CPU only.
    needs_torch = (
        (device is not None and device != "cpu") or attention != "auto" or dtype in ("bfloat16", "float16")
    )
    if backend == "onnx" and needs_torch:
        raise EncoderError(
            f"backend 'onnx' was asked for with device={device!r}, dtype={dtype!r}, attention={attention!r}; "
            "expected the CPU and int8 or float32. "
            "Leave these out, or take backend 'sentence_transformers'"
        )
    wanted = "sentence_transformers" if needs_torch else backend
    where: Any = {"revision": revision, "hub": Hub(cache_folder, local_files_only, token)}
    folder, label, commit, source = _locate(name, backend=wanted, **where)
    if wanted != "sentence_transformers" and pooling is not None and is_onnx_folder(folder):
        exported = OnnxManifest.read(folder / MANIFEST_FILE).identity.pooling
        if exported != pooling:
            if backend == "onnx":
                raise EncoderError(
                    f"backend 'onnx' was asked for with pooling={pooling!r}, but the export has {exported!r} "
                    "built in. Leave it out, or take backend 'sentence_transformers'"
                )
            wanted = "sentence_transformers"
            folder, label, commit, source = _locate(name, backend=wanted, **where)
    if wanted == "auto" and dtype == "float32" and is_onnx_folder(folder):
        if dtype not in OnnxManifest.read(folder / MANIFEST_FILE).files:  # torch has it in any case
            wanted = "sentence_transformers"
            folder, label, commit, source = _locate(name, backend=wanted, **where)
    if wanted == "onnx" or (wanted == "auto" and is_onnx_folder(folder)):
        return OnnxEncoder(
            folder,
            dtype=dtype,
            threads=threads,
            max_tokens=max_tokens,
            prompts=prompts,
            revision=commit,
            source=source,
        )
    from cmbert_retrieval.encoders.sentence_transformers import SentenceTransformersEncoder

    return SentenceTransformersEncoder(
        folder,
        device=device,
        dtype=dtype,
        attention=attention,
        batch_tokens=batch_tokens,
        threads=threads,
        pooling=pooling,
        max_tokens=max_tokens,
        prompts=prompts,
        name=label,
        revision=commit,
        source=source,
    )


def _locate(
    name: str | Path | None,
    *,
    backend: str,
    revision: str | None,
    hub: Hub,
) -> tuple[Path, str | None, str, str]:
    """Return the folder, the name to show (None: the folder's own), the hub commit, and what to remember."""
    ours = full_name(name)
    if ours is not None:
        if revision is not None:
            raise ConfigError(f"revision is {revision!r}; expected none for {ours}, which comes in a package")
        return folder_of(ours), ours, "", ours
    assert name is not None
    if not str(name):  # as a path it would be the working folder
        raise EncoderError("the encoder's name is empty; expected a folder, 'default' or a hub id")
    path = Path(name).expanduser()
    try:
        found_here = path.is_dir()
    except (OSError, ValueError):  # a name too long for the system, or with a NUL
        found_here = False
    if found_here:
        if revision is not None:
            raise ConfigError(f"revision is {revision!r}; expected none for a folder ({path})")
        # Remembered by an index that may be opened from any other folder.
        return path, None, "", str(path.absolute())
    if isinstance(name, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise EncoderError(f"{path}: no such folder; expected an encoder's folder, 'default' or a hub id")
    # A model of the hub has an owner, but for a few old ones; nobody asks there for what was mistyped.
    close = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.8)
    if close and "/" not in name:
        raise EncoderError(f"{name}: no such folder; did you mean '{close[0]}'?")
    from cmbert_retrieval.encoders.hub import fetch_encoder

    found, commit = fetch_encoder(name, backend=backend, revision=revision, hub=hub)
    return found, name, commit, name
