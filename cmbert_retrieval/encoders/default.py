"""The encoder for users who name none: cmbert-mini, which lies in the package with its card."""

from __future__ import annotations

from pathlib import Path

from cmbert_retrieval.encoders.manifest import is_onnx_folder
from cmbert_retrieval.errors import EncoderError

BUNDLED_NAME = "cmbert-mini"


def bundled_folder() -> Path:
    """Return the folder of the bundled encoder: a sentence-transformers one, with ``onnx/``.

    Raises:
        EncoderError: the installation lacks it.
    """
    folder = Path(__file__).parents[1] / "models" / BUNDLED_NAME
    if not is_onnx_folder(folder):
        raise EncoderError(f"{folder}: the bundled encoder is not there; install cmbert-retrieval again")
    return folder
