"""The modules that a model folder lists, read without loading the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cmbert_retrieval.errors import EncoderError

MODULES = ("Transformer", "Pooling", "Dense", "Normalize")
"""Types of sentence-transformers modules whose settings, weights and export are understood."""

SIDES = ("query", "document")


def read_json(path: Path) -> Any:
    """Return the JSON in ``path``.

    Raises:
        EncoderError: the file cannot be read, or holds no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise EncoderError(
            f"{path}: cannot be read as JSON ({error}); fetch or export the model again"
        ) from error


def optional_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``; empty where there is no file.

    Raises:
        EncoderError: the file cannot be read, or holds something else.
    """
    content = read_json(path) if path.is_file() else {}
    if not isinstance(content, dict):
        raise EncoderError(f"{path}: expected a JSON object, got a {type(content).__name__}")
    return content


def module_routes(folder: Path) -> dict[str, list[tuple[str, Path]]]:
    """Return the modules, by type and folder, that a ``query`` and that a ``document`` go through.

    One list twice, but for models of two encoders (a Router): one for each side, and what follows for both.

    Raises:
        EncoderError: ``modules.json`` is no list of modules, one lies outside the folder, is of a type that
            is not supported, or is code of the model's own, which is never run.
    """
    listed = folder / "modules.json"
    content = read_json(listed) if listed.is_file() else []
    if not isinstance(content, list):
        raise EncoderError(f"{listed}: expected a list of modules, got a {type(content).__name__}")
    if not all(isinstance(module, dict) and {"path", "type"} <= module.keys() for module in content):
        raise EncoderError(f"{listed}: expected a path and a type of every module")
    named = [(str(module["type"]), str(module["path"])) for module in content]
    routed = bool(named) and _is_router(named[0][0])
    rest = [_module(folder, listed, *module) for module in named[routed:]]
    if not routed:
        return {side: rest for side in SIDES}
    config = folder / named[0][1] / "router_config.json"
    _check_inside(folder, listed, config.parent)
    content = read_json(config)
    try:
        structure, types = content["structure"], content["types"]
        routes = {
            str(side): [(str(types[path]), str(Path(named[0][1], path))) for path in paths]
            for side, paths in structure.items()
        }
        mapped = content["parameters"].get("route_mappings")
    except (KeyError, TypeError, AttributeError) as error:
        raise EncoderError(
            f"{config}: not the settings of a Router ({error}); fetch the model again"
        ) from error
    if set(routes) != set(SIDES) or mapped:
        raise EncoderError(
            f"{config}: its routes are {', '.join(sorted(routes))}{' by a mapping' if mapped else ''}; "
            "expected query and document. Take a model of these"
        )
    return {side: [*(_module(folder, config, *module) for module in routes[side]), *rest] for side in SIDES}


def module_paths(folder: Path) -> list[tuple[str, Path]]:
    """Return type and folder of each sentence-transformers module; none for a plain checkpoint.

    Raises:
        EncoderError: see ``module_routes``.
    """
    routes = module_routes(folder)
    return list(dict.fromkeys([*routes["query"], *routes["document"]]))


def is_two_models(folder: Path) -> bool:
    """Return whether queries and documents have an encoder each."""
    routes = module_routes(folder)
    return routes["query"] != routes["document"]


def _is_router(kind: str) -> bool:
    return kind.startswith("sentence_transformers.") and kind.endswith(".Router")


def _module(folder: Path, listed: Path, full_kind: str, path: str) -> tuple[str, Path]:
    if not full_kind.startswith("sentence_transformers."):
        raise EncoderError(
            f"{listed}: module type {full_kind!r} is code of the model's own, which is not run; "
            "expected one of sentence_transformers"
        )
    kind = full_kind.rsplit(".", 1)[-1]
    if kind not in MODULES:
        raise EncoderError(
            f"{listed}: modules of type {kind} are not supported here; expected {', '.join(MODULES)}, or "
            "first a Router of these for queries and documents. Take a model made of these"
        )
    _check_inside(folder, listed, folder / path)
    return kind, folder / path


def _check_inside(folder: Path, listed: Path, path: Path) -> None:
    if not path.resolve().is_relative_to(folder.resolve()):
        raise EncoderError(f"{listed}: module path {str(path)!r} leaves the folder; expected one inside it")


def pools_without_prompt(folder: Path) -> bool:
    """Return whether a pooling leaves the tokens of the prompt out (``include_prompt`` is false).

    Raises:
        EncoderError: the settings of a module cannot be read.
    """
    return any(
        optional_json(path / "config.json").get("include_prompt", True) is False
        for kind, path in module_paths(folder)
        if kind == "Pooling"
    )
