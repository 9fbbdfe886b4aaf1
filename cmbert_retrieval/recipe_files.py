"""What recipes of every kind share: YAML read strictly, overrides put in, and errors that name the key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from cmbert_retrieval.errors import ConfigError

_LARGEST_RECIPE_BYTES = 1 << 20


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, values are taken as they are and never change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


Recipe = TypeVar("Recipe", bound=Section)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a recipe file holds.

    Raises:
        ConfigError: the file cannot be read, is not YAML, has a key twice, or holds no mapping.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST_RECIPE_BYTES:
            raise ConfigError(f"{path}: {size} bytes; a recipe has at most {_LARGEST_RECIPE_BYTES}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from error
    values = _parsed(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: got {_shown(values)}; expected a mapping of keys such as 'source'")
    return values


Prepare = Callable[[dict[str, Any], Path, dict[str, Any]], dict[str, Any]]


def read_extended(path: Path, prepare: Prepare) -> dict[str, Any]:
    """Return the mapping of a recipe file, laid over that of the file which its key ``extends`` names.

    Args:
        path: the file; ``extends`` is relative to it. That file may extend another one in turn.
        prepare: called with what a file says, the file, and what those below it say, before it is laid over
            them.

    Raises:
        ConfigError: as for ``read_yaml``, or files extend each other in a circle.
    """
    layers: dict[Path, dict[str, Any]] = {}
    file: Path | None = path.resolve()
    while file:
        layers[file] = values = read_yaml(file)
        base = values.pop("extends", None)
        if base is not None and not isinstance(base, str):
            raise ConfigError(f"{file}: 'extends' is {_shown(base)}; expected the path of a recipe")
        below = Path(absolute_path(base, file.parent)) if base else None
        if below in layers:
            raise ConfigError(f"{file}: 'extends' leads back to {below}")
        file = below
    merged: dict[str, Any] = {}
    for file, values in reversed(layers.items()):
        merged = _merged(merged, prepare(values, file, merged))
    return merged


def overridden(
    values: Mapping[str, Any],
    overrides: Sequence[str],
    *,
    prepare: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> dict[str, Any]:
    """Return ``values`` with overrides put in, one after the other.

    Args:
        values: as a recipe file has them.
        overrides: ``section.key=value`` each; the value is YAML. Items of a list are named by number, from 0.
        prepare: called with what one override says, as nested mappings, before it is put in.

    Raises:
        ConfigError: an override has another form, or its value is not YAML.
    """
    merged = dict(values)
    for override in overrides:
        dotted, equals, text = override.partition("=")
        keys = dotted.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"override '{override}': expected section.key=value, such as passages.stride=1")
        patch = _parsed(text, f"override '{override}'")
        for key in reversed(keys):
            patch = {key: patch}
        merged = _merged(merged, prepare(patch))
    return merged


def validated(model: type[Recipe], values: Mapping[str, Any], where: str) -> Recipe:
    """Return ``values`` as a checked recipe.

    Raises:
        ConfigError: ``where``, the first wrong key, what was got and what was expected, in one line.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [_problem(model, dict(found)) for found in error.errors(include_url=False)]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    raise ConfigError(f"{where}: {problems[0]}{more}")


def did_you_mean(given: str, known: Sequence[str]) -> str:
    """Return the hint for a mistyped name: a similar one, or its last part in another section, or ""."""
    similar = difflib.get_close_matches(given, known, n=1, cutoff=0.75)
    if not similar:
        last_parts = {name.rpartition(".")[2]: name for name in reversed(known)}
        last = difflib.get_close_matches(given.rpartition(".")[2], list(last_parts), n=1, cutoff=0.75)
        similar = [last_parts[name] for name in last]
    return f"; did you mean '{similar[0]}'?" if similar else ""


def absolute_path(path: str, folder: Path) -> str:
    """Return a path that is relative to ``folder`` as an absolute one; "" stays "".

    Raises:
        ConfigError: it begins with the home of somebody who is not there.
    """
    try:
        return str((folder / Path(path).expanduser()).resolve()) if path else ""
    except RuntimeError as error:  # a "~name" of nobody
        raise ConfigError(f"path '{path}': {str(error).lower()}") from error


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; here they are an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen:
                    problem = f"the key '{key_node.value}' is there twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
                seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


# YAML 1.1 takes 3e-4 for text, for want of a dot; YAML 1.2 and people take it for a number.
_UniqueKeyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _parsed(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{where}: not valid YAML{line} ({error.problem})") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{where}: not valid YAML ({str(error).splitlines()[0]})") from error


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, list) and isinstance(value, dict) and value:
            merged[key] = _with_items(key, old, value)
        else:
            merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _with_items(key: str, items: list[Any], above: Mapping[str, Any]) -> list[Any]:
    """Return a list with some of its items changed: ``sources.0.path=...`` names the first one."""
    changed = list(items)
    for place, value in ((str(place), value) for place, value in above.items()):
        if not (place.isascii() and place.isdigit() and int(place) < len(items)):
            raise ConfigError(
                f"'{key}.{place}': '{key}' is a list of {len(items)}; expected the number of an item, from 0"
            )
        changed[int(place)] = _merged({place: changed[int(place)]}, {place: value})[place]
    return changed


_TYPES_ELSEWHERE = {
    **dict.fromkeys(("string", "str", "keyword", "varchar", "char", "category"), "text"),
    **dict.fromkeys(("int", "long", "bigint"), "integer"),
    **dict.fromkeys(("float", "double", "real", "numeric", "decimal"), "number"),
    **dict.fromkeys(("bool", "flag"), "boolean"),
    **dict.fromkeys(("datetime", "timestamp", "time"), "date"),
}

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping of keys",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
    "string_pattern_mismatch": "text of the form {pattern}",
    "string_too_short": "text of at least {min_length} character(s)",
    "string_too_long": "text of at most {max_length} character(s)",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
}


def _problem(model: type[Section], found: dict[str, Any]) -> str:
    """Return pydantic's finding in our words: the key, what was got, what was expected."""
    parts = [str(part) for part in found["loc"]]
    kind, value, details = found["type"], found["input"], found.get("ctx", {})
    if parts[-1:] == ["[key]"]:  # pydantic's mark for a key of a mapping
        expected = details.get("expected", "text")
        return f"unknown key '{'.'.join(parts[:-1])}'; expected {expected}"
    dotted = ".".join(parts)
    if kind == "extra_forbidden":
        return f"unknown key '{dotted}'{did_you_mean(dotted, _known_keys(model))}"
    if kind == "missing":
        return f"the key '{dotted}' is missing"
    if kind == "value_error":
        return str(details["error"])
    if kind == "invalid_key":
        return f"the key {_shown(parts[-1])} is no text; put it in quotes"
    expected = _EXPECTED.get(kind, str(found["msg"])).format(**details)
    if kind == "literal_error" and isinstance(value, str):
        return f"'{dotted}' is {value[:60]!r}; expected {expected}{_meant(value, expected)}"
    return f"'{dotted}' is {_shown(value)}; expected {expected}"


def _meant(value: str, expected: str) -> str:
    """Return the hint for one of some words; other languages call the types of columns otherwise."""
    words = re.findall(r"'([^']+)'", expected)
    other = _TYPES_ELSEWHERE.get(value.lower(), "")
    if other in words:
        return f"; here it is called '{other}'"
    close = difflib.get_close_matches(value.lower(), words, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _known_keys(model: type[Section], prefix: str = "") -> list[str]:
    known = []
    for name, field in model.model_fields.items():
        known.append(prefix + name)
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, Section):
                known += _known_keys(part, f"{prefix}{name}.")
    return known


def _shown(value: object) -> str:
    """Return a value and its type as YAML knows them, short enough for one line."""
    if value is None:
        return "null"
    names = {
        bool: "boolean",
        int: "whole number",
        float: "number",
        str: "text",
        dict: "mapping",
        list: "list",
    }
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    if len(shown) > 60:
        shown = f"{shown[:57]}..."
    return f"{shown} ({names.get(type(value), type(value).__name__)})"
