"""A hub id to an encoder's folder, fetching one form of the weights and never a pickle.

``load_encoder("org/model")`` and ``Retriever.from_pretrained("org/model", index="icd10cm")`` come here when
no folder of that name is there. Two downloads make an encoder: its settings (JSON, tokenizer), which say what
it is, then either our own export (``onnx/``, which runs without torch) or the safetensors of all its modules,
for a Router those of both models. Both come from one commit. Code in the repository is never fetched, nor
are weights in other forms.

A commit that is in the cache whole is opened without a connection; so is whatever the cache holds when
``local_files_only`` is given or ``HF_HUB_OFFLINE=1`` is set.
"""

from __future__ import annotations

from pathlib import Path

from cmbert_retrieval.encoders.compact import weights_file
from cmbert_retrieval.encoders.manifest import MANIFEST_FILE, OnnxManifest, is_onnx_folder
from cmbert_retrieval.encoders.modules import module_paths, optional_json
from cmbert_retrieval.errors import EncoderError
from cmbert_retrieval.hub import Hub, HubError, Repository, find_repository

ENCODER_FILES = ("modules.json", "config.json", "config_sentence_transformers.json", "router_config.json")
"""What an encoder's folder has at least one of."""

_SETTINGS = ("*.json", "*.txt", "*.model", "*.jinja", "README.md")
_PICKLES = (".bin", ".pt", ".ckpt")


def fetch_encoder(name: str, *, backend: str, revision: str | None, hub: Hub) -> tuple[Path, str]:
    """Return the folder of a hub model and its commit, fetching what is not there yet.

    Args:
        name: an id of the hub.
        backend: our own export is fetched where there is one, unless this is ``sentence_transformers``.
        revision: branch, tag or commit; None for the main branch.
        hub: how the hub is asked.

    Raises:
        EncoderError: no such model or revision, no connection, not fetched yet and offline; or it is no
            encoder, or one with its weights in a pickle only.
    """
    try:
        repository = find_repository(name, revision, hub, with_files=True)
        _check_kind(name, repository)
        folder = repository.fetch(_SETTINGS, _has_settings)
        if backend != "sentence_transformers" and is_onnx_folder(folder):
            compact = bool(OnnxManifest.read(folder / MANIFEST_FILE).weights)
            shared = _weight_patterns(folder) if compact else []
            folder = repository.fetch((*_SETTINGS, "onnx/*.onnx", *shared), _has_export)
        else:
            folder = repository.fetch((*_SETTINGS, *_weight_patterns(folder)), _has_weights)
    except HubError as error:
        raise EncoderError(
            f"'{name}' is no folder here, and {error} (expected a folder, 'default' or a hub id)"
        ) from error
    return folder, repository.commit


def _check_kind(name: str, repository: Repository) -> None:
    if not repository.has(*ENCODER_FILES):
        if repository.has("manifest.json"):
            raise EncoderError(
                f"'{name}' is an index, expected an encoder; search it: Retriever.from_pretrained('{name}')"
            )
        if repository.files is not None:
            raise EncoderError(f"'{name}': the repository holds no encoder (no config.json, no modules.json)")
    files = repository.files or ()
    pickles = [file for file in files if file.endswith(_PICKLES) and "/" not in file]
    if pickles and not any(file.endswith((".safetensors", ".onnx")) for file in files):
        raise EncoderError(
            f"'{name}': its weights are a pickle ({pickles[0]}), which can run code when it is opened; "
            "expected safetensors. Look for a revision with them, or convert it where you trust it"
        )


def _has_settings(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ENCODER_FILES)


def _has_export(folder: Path) -> bool:
    """Tell whether all graphs of an export are there, with their weights, and its tokenizer."""
    manifest = OnnxManifest.read(folder / MANIFEST_FILE)
    names = [f"onnx/{name}" for name in manifest.files.values()]
    names.append(manifest.tokenizer)
    found = all((folder / name).is_file() for name in names)
    return found and (not manifest.weights or weights_file(folder).is_file())


def _weight_folders(folder: Path) -> list[Path]:
    modules = module_paths(folder) or [("Transformer", folder)]
    return [path for kind, path in modules if kind in ("Transformer", "Dense")]


def _weight_patterns(folder: Path) -> list[str]:
    """Return what matches the weights of all modules, and not those of other checkpoints beside them."""
    within = [path.relative_to(folder).as_posix() for path in _weight_folders(folder)]
    return [f"{'' if path == '.' else path + '/'}model*.safetensors" for path in within]


def _has_weights(folder: Path) -> bool:
    return all(_module_has_weights(path) for path in _weight_folders(folder))


def _module_has_weights(folder: Path) -> bool:
    """Tell whether weights are there; a pickle will do: who opens it says what is wrong with it."""
    shards = optional_json(folder / "model.safetensors.index.json").get("weight_map")
    names = set(shards.values()) if isinstance(shards, dict) else {"model.safetensors"}
    if all((folder / str(name)).is_file() for name in names):
        return True
    return any(path.suffix in _PICKLES for path in folder.glob("*"))
