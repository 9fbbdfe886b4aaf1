"""Recipes: what is read, what is refused, and how the refusals read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cmbert_retrieval.config import IndexRecipe, bundled_recipes, load_index_recipe
from cmbert_retrieval.errors import ConfigError

MINIMAL = "source: {reader: jsonl, path: corpus.jsonl}\n"


def write(folder: Path, text: str, name: str = "notes.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(recipe: Path | str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_index_recipe(recipe, overrides=overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_bundled_recipe_loads_and_is_named_after_its_file() -> None:
    assert "icd10cm" in bundled_recipes()
    for name in bundled_recipes():
        assert load_index_recipe(name).name == name


def test_a_minimal_recipe_has_the_documented_defaults(tmp_path: Path) -> None:
    recipe = load_index_recipe(write(tmp_path, MINIMAL))
    assert recipe.name == "notes"
    assert recipe.encoder is not None
    assert recipe.encoder.model is None
    assert recipe.passages is not None
    assert recipe.passages.max_tokens is None
    assert (recipe.vectors.factory, recipe.lexical.analyser) == ("Flat", "english")
    assert (recipe.search.mode, recipe.search.fusion, recipe.search.dense_weight) == (
        "hybrid",
        "bounded",
        0.3,
    )
    assert recipe.columns is None
    assert recipe.shard_rows == 2048


def test_paths_in_a_recipe_are_relative_to_the_recipe_file(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "encoder: {model: ../models/mine}\n")
    recipe = load_index_recipe(path)
    assert recipe.source.path == str(tmp_path.resolve() / "corpus.jsonl")
    assert recipe.encoder is not None
    assert recipe.encoder.model == str(tmp_path.resolve().parent / "models" / "mine")


def test_paths_in_overrides_are_relative_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    recipe = load_index_recipe(write(tmp_path, MINIMAL), overrides=["source.path=other.jsonl"])
    assert recipe.source.path == str(tmp_path.resolve() / "here" / "other.jsonl")


def test_a_hub_id_is_not_taken_for_a_path(tmp_path: Path) -> None:
    recipe = load_index_recipe(write(tmp_path, MINIMAL), overrides=["encoder.model=owner/model"])
    assert recipe.encoder is not None
    assert recipe.encoder.model == "owner/model"


def test_overrides_are_applied_in_order_and_keep_their_neighbours(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "passages: {max_tokens: 200, stride: 1}\n")
    recipe = load_index_recipe(
        path, overrides=["passages.stride=2", "passages.stride=3", "columns.year=integer"]
    )
    assert recipe.passages is not None
    assert (recipe.passages.max_tokens, recipe.passages.stride) == (200, 3)
    assert recipe.columns == {"year": "integer"}


def test_encoder_none_makes_an_index_of_words_that_is_searched_by_words(tmp_path: Path) -> None:
    recipe = load_index_recipe(write(tmp_path, MINIMAL + "encoder: none\npassages: none\n"))
    assert recipe.encoder is None
    assert recipe.passages is None
    assert recipe.search.mode == "lexical"
    again = load_index_recipe(
        write(tmp_path, MINIMAL + "encoder: none\n"), overrides=["encoder.backend=onnx", "search.depth=7"]
    )
    assert again.encoder is not None
    assert again.search.mode == "hybrid"


def test_a_dense_search_without_encoder_is_refused(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, MINIMAL + "encoder: none\nsearch: {mode: dense}\n"))
    assert message.endswith("search.mode 'dense' needs an encoder; this recipe says 'encoder: none'")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("passages: {strid: 1}", "unknown key 'passages.strid'; did you mean 'passages.stride'?"),
        ("stride: 1", "unknown key 'stride'; did you mean 'passages.stride'?"),
        ("encodr: none", "unknown key 'encodr'; did you mean 'encoder'?"),
        ("zzz: 1", "unknown key 'zzz'"),
        (
            "encoder: {prompts: {qury: a}}",
            "unknown key 'encoder.prompts.qury'; expected 'query' or 'document'",
        ),
        ("shard_rows: 4096", "'shard_rows' is 4096 (whole number); expected at most 2048"),
        ("shard_rows: 1.5", "'shard_rows' is 1.5 (number); expected a whole number"),
        ("shard_rows: many", "'shard_rows' is 'many' (text); expected a whole number"),
        ("shard_rows: true", "'shard_rows' is true (boolean); expected a whole number"),
        ("name: 7", "'name' is 7 (whole number); expected text"),
        ("name: ../x", "'name' is '../x' (text); expected text of the form ^[A-Za-z0-9][A-Za-z0-9._-]*$"),
        ("search: {dense_weight: .nan}", "'search.dense_weight' is nan (number); expected at most 1"),
        (
            "search: {mode: dens}",
            "'search.mode' is 'dens'; expected 'hybrid', 'dense' or 'lexical'; did you mean 'dense'?",
        ),
        ("vectors: Flat", "'vectors' is 'Flat' (text); expected a mapping of keys"),
        (
            "lexical: {analyser: ''}",
            "'lexical.analyser' is '' (text); expected text of at least 1 character(s)",
        ),
        (
            "columns: {year: int}",
            "'columns.year' is 'int'; expected 'text', 'integer', 'number', 'boolean' or 'date'; "
            "here it is called 'integer'",
        ),
        (
            "columns: {dept: string}",
            "'columns.dept' is 'string'; expected 'text', 'integer', 'number', 'boolean' or 'date'; "
            "here it is called 'text'",
        ),
        (
            "columns: {dept: texxt}",
            "'columns.dept' is 'texxt'; expected 'text', 'integer', 'number', 'boolean' or 'date'; "
            "did you mean 'text'?",
        ),
        (
            "columns: {dept: zzz}",
            "'columns.dept' is 'zzz'; expected 'text', 'integer', 'number', 'boolean' or 'date'",
        ),
        ("vectors: {}\nvectors: {}", "not valid YAML in line 3 (the key 'vectors' is there twice)"),
        ("a: [", "not valid YAML in line 3 (expected the node content, but found '<stream end>')"),
        ("a: !!python/name:os.system", "not valid YAML in line 2 (could not determine a constructor"),
        ("strid: 1\npasages: 2", "unknown key 'strid'; did you mean 'passages.stride'? (and 1 more)"),
    ],
)
def test_a_wrong_recipe_is_one_line_naming_file_key_got_and_expected(
    tmp_path: Path, text: str, expected: str
) -> None:
    path = write(tmp_path, MINIMAL + text + "\n")
    assert refusal(path).startswith(f"{path}: {expected}")


@pytest.mark.parametrize("override", ["passages.stride", "=1", "a..b=1", ""])
def test_an_override_of_another_form_is_refused(override: str) -> None:
    assert refusal("icd10cm", override) == (
        f"override '{override}': expected section.key=value, such as passages.stride=1"
    )


def test_a_wrong_override_names_the_recipe_and_the_key() -> None:
    assert refusal("icd10cm", "serch.mode=dense") == ("icd10cm: unknown key 'serch'; did you mean 'search'?")
    assert "not valid YAML" in refusal("icd10cm", "columns={")


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "name: x\n")
    assert refusal(path) == f"{path}: the key 'source' is missing"
    assert refusal(write(tmp_path, "")).endswith("got null; expected a mapping of keys such as 'source'")
    assert refusal(write(tmp_path, "- a\n")).endswith("expected a mapping of keys such as 'source'")


def test_an_unknown_recipe_names_the_bundled_ones(tmp_path: Path) -> None:
    assert "did you mean 'icd10cm'?" in refusal("icd10")
    assert "no such recipe file; the bundled ones are 'icd10cm'" in refusal(tmp_path / "absent.yaml")


def test_a_recipe_that_is_no_text_or_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"name: \xff\xfe")
    assert refusal(path) == f"{path}: not UTF-8 text (byte 6)"
    path.write_bytes(b"#" * (2 << 20))
    assert "a recipe has at most" in refusal(path)


def test_deep_nesting_is_an_error_and_no_crash(tmp_path: Path) -> None:
    assert "not valid YAML" in refusal(write(tmp_path, "a: " + "[" * 100_000))


def test_json_brings_back_an_equal_recipe(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "encoder: none\npassages: {max_tokens: 128}\ncolumns: {year: integer}\n")
    for recipe in (load_index_recipe(path), load_index_recipe("icd10cm")):
        values = json.loads(json.dumps(recipe.to_json()))
        assert IndexRecipe.from_json(values) == recipe
        assert IndexRecipe.from_json(values).to_json() == values


def test_a_corpus_alone_makes_a_recipe_with_a_name_fit_for_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = IndexRecipe.for_corpus("pmc", "data/oa comm.xml.tar.gz", overrides=["passages.stride=1"])
    assert recipe.name == "oa-comm"
    assert recipe.source.path == str(tmp_path.resolve() / "data" / "oa comm.xml.tar.gz")
    assert recipe.passages is not None
    assert recipe.passages.stride == 1
    assert IndexRecipe.for_corpus("icd10cm").name == "icd10cm"
    assert IndexRecipe.for_corpus("icd10cm").source.path == ""
    assert IndexRecipe.for_corpus("pmc", "data", name="mine").name == "mine"


def test_a_recipe_never_changes() -> None:
    recipe = load_index_recipe("icd10cm")
    with pytest.raises(ValueError, match="frozen"):
        recipe.name = "other"


def test_encoder_options_are_everything_but_the_model() -> None:
    recipe = load_index_recipe("icd10cm", overrides=["encoder={model: m, threads: 2}"])
    assert recipe.encoder is not None
    options = recipe.encoder.options()
    assert options["threads"] == 2
    assert options["backend"] == "auto"
    assert "model" not in options


def test_every_field_is_documented_right_below_it() -> None:
    missing = []
    models = [IndexRecipe]
    while models:
        model = models.pop()
        for name, field in model.model_fields.items():
            if not field.description:
                missing.append(f"{model.__name__}.{name}")
            default = field.default
            if hasattr(default, "model_fields_set"):
                models.append(type(default))
    assert missing == []


def test_the_package_itself_loads_no_pydantic() -> None:
    script = "import sys, cmbert_retrieval, cmbert_retrieval.fusion; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
