"""Recipes of fine-tuning: those that are there load, and what does not fit is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.finetuning.recipe import load_finetune_recipe

RECIPES = Path(__file__).parents[2] / "pretraining/recipes"
NAMES = [path.stem for path in RECIPES.glob("*.yaml") if "stages" in yaml.safe_load(path.read_text())]

PLAIN: dict[str, Any] = {
    "data": {"sources": {"a": {"reader": "jsonl", "path": "a.jsonl", "pairs": ["title-text"]}}},
    "model": {"checkpoint": "org/name"},
    "stages": [{"pairs": 100}],
}


def load(folder: Path, *settings: str, **changes: Any) -> Any:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**PLAIN, **changes}))
    return load_finetune_recipe(path, overrides=settings)


def test_the_recipes_of_the_project_are_known() -> None:
    assert {"mini-contrastive", "base-contrastive-8gpu", "pmc-patients-par-8gpu"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_recipes_load(name: str) -> None:
    made = load_finetune_recipe(RECIPES / f"{name}.yaml")
    assert made.name == name
    for source in made.data.sources.values():
        assert not source.path or Path(source.path).is_absolute()


def test_nothing_that_the_shipped_model_may_not_learn_from_is_in_its_recipe() -> None:
    made = load_finetune_recipe(RECIPES / "mini-contrastive.yaml")
    for name, source in made.data.sources.items():
        assert name not in ("scifact", "nfcorpus", "bioasq", "med", "hpo", "mtsamples")
        assert source.license or source.licenses, name


@pytest.mark.parametrize("name", NAMES)
def test_recipes_with_literature_or_codes_look_for_what_is_measured(name: str) -> None:
    made = load_finetune_recipe(RECIPES / f"{name}.yaml")
    if all(source.reader == "judged" for source in made.data.sources.values()):
        return
    looked_for = {given.partition(":")[0] for given in made.data.overlap.sets}
    assert {"scifact", "nfcorpus", "med", "bioasq", "pmc-evidence", "icd10cm-synonyms"} <= looked_for
    assert made.data.exclude_names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": [{"texts": 10}]}, "there is no 'teacher'"),
        ({"stages": [{}]}, "neither from 'texts' nor from 'pairs'"),
        ({"teacher": {}, "stages": [{"texts": 9, "tokens": 32}]}, "reads less of a text than its teacher"),
        ({"teacher": {}, "model": {"tokenizer": "a/b", "embeddings": "teacher"}}, "need its tokenizer"),
        ({"model": {"tokenizer": "a/b", "matryoshka": [768]}}, "expected lengths below 768"),
        ({"data": {"sources": {"a/b": PLAIN["data"]["sources"]["a"]}}}, "a/b"),
        ({"model": {}}, "has no tokenizer; name one: model.tokenizer"),
        ({"model": {"tokenizer": "teacher"}}, "there is no 'teacher'"),
        ({"model": {"checkpoint": "a/b", "name_prompt": "name: "}}, "go together; give both or neither"),
        ({"model": {"checkpoint": "a/b", "name_sources": ["b"]}}, "names 'b', and no source is called so"),
        ({"stages": []}, "stages"),
        (
            {"stages": [{"pairs": 9, "warmup": 0.5, "decay": 0.6}]},
            "0.5 and decay 0.6 are more than the whole",
        ),
        (
            {"whitening": {"sources": ["a"]}, "model": {"tokenizer": "a/b", "matryoshka": [64]}},
            "whitening mixes all numbers of a vector",
        ),
        ({"whitening": {"sources": ["b"]}}, "whitening.sources names 'b', and no source is called so"),
        ({"stage": []}, "unknown key 'stage'; did you mean 'stages'"),
        ({"measured": {"sets": ["scifact:test"]}}, "expected NAME:validation or NAME:train"),
        ({"data": {"sources": {"a": {"reader": "jsonl"}}}}, "neither 'pairs' nor 'texts'"),
        ({"data": {"sources": {"a": {"reader": "pairs", "pairs": ["names"]}}}}, "has its pairs already"),
        ({"data": {"sources": {"a": {"reader": "jsonl", "pairs": ["title"]}}}}, "did you mean 'title-text'"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, **changes)
    assert message in str(caught.value)


def test_paths_are_relative_to_the_recipe_and_settings_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    made = load(
        tmp_path, "data.overlap.data=data", teacher={"model": "./teacher"}, measured={"data": "sets"},
        model={
            "checkpoint": "./model", "tokenizer": "org/tokenizer", "averaged_with": ["./other", "org/third"]
        },
    )  # fmt: skip
    assert made.data.sources["a"].path == str(tmp_path / "a.jsonl")
    assert made.teacher.model == str(tmp_path / "teacher")
    assert made.model.checkpoint == str(tmp_path / "model")
    assert made.model.tokenizer == "org/tokenizer"
    assert made.model.averaged_with == [str(tmp_path / "other"), "org/third"]
    assert made.measured.data == str(tmp_path / "sets")
    assert made.data.overlap.data == "/data"


def test_none_switches_teacher_and_negatives_off(tmp_path: Path) -> None:
    made = load(tmp_path, teacher="none", negatives="none")
    assert made.teacher is None and made.negatives is None
