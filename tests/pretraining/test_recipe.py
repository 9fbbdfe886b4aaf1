"""Recipes of pretraining: what they say, whose folder their paths are relative to, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.pretraining.recipe import load_pretrain_recipe

TEXT = """
data:
  sources:
    articles: {reader: pmc, path: ../articles, weight: 2.0, exclude_ids: ids.txt}
    codes: {reader: icd10cm, sentences: true}
    web: {reader: datasets, path: org/name}
  lexicon:
    diseases: {reader: ontology, path: doid.obo}
  tokenizer: {model: ./tokenizer}
phases:
  - {tokens: 1000, context: 128}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "mine.yaml").write_text(TEXT)
    return folder / "mine.yaml"


def test_paths_are_relative_to_the_recipe(recipe: Path, tmp_path: Path) -> None:
    made = load_pretrain_recipe(recipe)
    assert made.name == "mine"
    assert made.data.sources["articles"].path == str(tmp_path / "articles")
    assert made.data.sources["articles"].exclude_ids == str(tmp_path / "recipes/ids.txt")
    assert made.data.sources["codes"].path == ""
    assert made.data.sources["web"].path == "org/name"
    assert made.data.lexicon["diseases"].path == str(tmp_path / "recipes/doid.obo")
    assert made.data.tokenizer.model == str(tmp_path / "recipes/tokenizer")


def test_a_recipe_says_what_differs_from_the_one_it_extends(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "mine-uniform.yaml").write_text(
        "extends: recipes/mine.yaml\n"
        "data: {sources: {articles: {path: here}, more: {reader: jsonl, path: more.jsonl}}}\n"
        "masking: {method: uniform}\n"
    )
    (tmp_path / "longer.yaml").write_text("extends: mine-uniform.yaml\nphases: {0: {tokens: 2000}}\n")
    base, made = load_pretrain_recipe(recipe), load_pretrain_recipe(tmp_path / "longer.yaml")
    assert (made.name, made.masking.method) == ("longer", "uniform")
    assert (made.phases[0].tokens, made.phases[0].context) == (2000, 128)
    sources = made.data.sources
    assert sources["articles"].path == str(tmp_path / "here")
    assert sources["articles"].exclude_ids == base.data.sources["articles"].exclude_ids
    assert sources["more"].path == str(tmp_path / "more.jsonl")
    assert sources["web"].path == "org/name"


@pytest.mark.parametrize(
    ("extends", "message"),
    [
        ("[a.yaml]", r"own.yaml: 'extends' is \['a.yaml'\] \(list\); expected the path of a recipe"),
        ("nowhere.yaml", "nowhere.yaml: cannot be read"),
        ("own.yaml", "own.yaml: 'extends' leads back to .*own.yaml"),
        ("other.yaml", "other.yaml: 'extends' leads back to .*own.yaml"),
    ],
)
def test_what_cannot_be_extended_is_named(tmp_path: Path, extends: str, message: str) -> None:
    (tmp_path / "own.yaml").write_text(f"extends: {extends}\n")
    (tmp_path / "other.yaml").write_text("extends: own.yaml\n")
    with pytest.raises(ConfigError, match=message):
        load_pretrain_recipe(tmp_path / "own.yaml")


def test_paths_of_overrides_are_relative_to_where_one_stands(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = load_pretrain_recipe(
        recipe,
        overrides=["data.sources.articles.path=here", "model.checkpoint=answerdotai/ModernBERT-base",
                   "data.sources.web.path=other/name"],
    )  # fmt: skip
    assert made.data.sources["articles"].path == str(tmp_path / "here")
    assert made.data.sources["articles"].weight == 2.0
    assert made.data.sources["web"].path == "other/name"
    assert made.model.checkpoint == "answerdotai/ModernBERT-base"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.sources.articles.pth=x", r"unknown key 'data\.sources\.articles\.pth'; did you mean '.*path'"),
        ("masking.first_rat=0.2", r"unknown key 'masking\.first_rat'; did you mean 'masking\.first_rate'"),
        ("masking.first_rate=1.5", r"'masking\.first_rate' is 1\.5 \(number\); expected .*less than 1"),
        ("phases=[]", "'phases' is .*at least 1 item"),
        (
            "phases=[{tokens: 10, warmup: 0.9, decay: 0.2}]",
            "warmup 0.9 and decay 0.2 are more than the whole",
        ),
        ("data.salience=false", "masking.salience is 0.25, but data.salience is false"),
        ("model.heads=7", "hidden_size 768 is no multiple of heads 7"),
        ("training.optimizer=adam", "'training.optimizer' is 'adam'; expected .*did you mean 'adamw'"),
    ],
)
def test_a_wrong_key_or_value_is_named(recipe: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load_pretrain_recipe(recipe, overrides=[override])
    assert str(error.value).startswith(str(recipe))


def test_a_recipe_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such recipe file"):
        load_pretrain_recipe(tmp_path / "absent.yaml")
