"""A hub id to a folder, fetching no more than one form of the weights."""

from __future__ import annotations

from pathlib import Path

from cmbert_retrieval.encoders.onnx import is_onnx_folder
from cmbert_retrieval.errors import EncoderError

_SETTINGS = ["*.json", "*.txt", "*.model", "*.jinja", "README.md"]
_ELSEWHERE = ["openvino/*", "coreml/*", "tflite/*"]


def fetch_encoder(
    name: str,
    *,
    backend: str,
    revision: str | None = None,
    cache_folder: str | Path | None = None,
    local_files_only: bool = False,
) -> tuple[Path, str]:
    """Return the folder of a hub model and its commit, fetching what is not there yet.

    Our own export is fetched where there is one and the backend may be ``onnx``, otherwise the safetensors:
    never both, and never a pickle. ``HF_HUB_OFFLINE`` is honoured.

    Raises:
        EncoderError: no such model, no connection, or not fetched yet and offline.
    """
    first = _snapshot(name, _SETTINGS, revision, cache_folder, local_files_only)
    commit = first.name
    exported = backend != "sentence_transformers" and is_onnx_folder(first)
    weights = ["onnx/*.onnx"] if exported else ["*.safetensors"]
    # The commit that the settings came from: a branch may move between two calls.
    return _snapshot(name, [*_SETTINGS, *weights], commit, cache_folder, local_files_only), commit


def _snapshot(
    name: str,
    patterns: list[str],
    revision: str | None,
    cache_folder: str | Path | None,
    local_files_only: bool,
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                cache_dir=cache_folder,
                local_files_only=local_files_only,
                allow_patterns=patterns,
                ignore_patterns=_ELSEWHERE,
            )
        )
    except LocalEntryNotFoundError as error:
        raise EncoderError(
            f"'{name}' is no folder here, and the hub's cache does not hold it; expected a folder, 'default' "
            "or a hub id. A hub id needs a connection (and HF_HUB_OFFLINE not set) the first time"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = next(
            (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
        )
        raise EncoderError(
            f"'{name}' is no folder here, and the hub did not give it ({reason}); expected a folder, "
            "'default' or a hub id"
        ) from error
