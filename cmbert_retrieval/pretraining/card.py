"""The README.md of a pretrained model, written from what happened."""

from __future__ import annotations

import csv
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from cmbert_retrieval.pretraining.accuracy import RANKS
from cmbert_retrieval.pretraining.callbacks import HELD_OUT_TABLE, TRAINING_TABLE
from cmbert_retrieval.pretraining.recipe import MaskingRecipe, PretrainRecipe
from cmbert_retrieval.recipe_files import Section
from cmbert_retrieval.wording import markdown_table

CARD = "README.md"

_MADE_BY = ("cmbert-retrieval", "torch", "transformers")

_LIMITS = """## Limits

A masked language model: it fills in words, and is the start of something that is fine-tuned. Its vectors were
not trained for search. It repeats what stands in its sources, mistakes and prejudice included. It is no
medical device, and was not made by the authors of the paper whose method it follows (arXiv 2504.03964).
"""


def model_card(recipe: PretrainRecipe, report: Mapping[str, Any], phases: Sequence[Path]) -> str:
    """Return the text of a card: data with licences, recipe, what was measured, limits.

    Args:
        recipe: what was done.
        report: that of the prepared data.
        phases: the folders of the phases so far, with their tables.
    """
    import yaml

    header: dict[str, Any] = {
        "language": "en",
        "library_name": "transformers",
        "pipeline_tag": "fill-mask",
        "tags": ["modernbert", "biomedical", "clinical"],
    }
    if recipe.model.checkpoint is not None and not Path(recipe.model.checkpoint).is_absolute():
        header["base_model"] = recipe.model.checkpoint
    start = "random weights" if recipe.model.checkpoint is None else _name(recipe.model.checkpoint)
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n",
        f"# {recipe.name}\n",
        f"A ModernBERT, pretrained from {start} by masked language modelling with "
        f"{recipe.masking.method} masking ({recipe.masking.first_rate:.0%} of the tokens at the beginning, "
        f"{recipe.masking.last_rate:.0%} at the end{_weights(recipe.masking)}).\n",
        "## Data\n",
        _sources(report),
        "## Training\n",
        card_table(
            ["phase", "context", "tokens", "steps", "learning rate", "last loss"], _phases(recipe, phases)
        ),
        "## Held-out text\n",
        "Share of hidden tokens that are among the first 1, 5, 10 and 25 guesses, in documents that were "
        "kept apart, of which 15 % is hidden: token by token, and words and terms as a whole. Terms are the "
        "tokens of names in code systems and ontologies.\n",
        card_table(["phase", "tokens", "hidden", "counted", "@1", "@5", "@10", "@25"], _held_out(phases)),
        _LIMITS,
        *how_it_was_made(recipe, _MADE_BY),
    ]
    return "\n".join(parts)


def how_it_was_made(recipe: Section, packages: Sequence[str]) -> list[str]:
    """Return the end of a card: the recipe, and the versions of packages."""
    import yaml

    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return [
        "## Recipe\n",
        f"```yaml\n{yaml.safe_dump(_public(recipe), sort_keys=False)}```\n",
        f"Made by {versions}, Python {platform.python_version()}.\n",
    ]


def _name(path: str) -> str:
    return Path(path).name if Path(path).is_absolute() else path


def _public(recipe: Section) -> dict[str, Any]:
    """Return a recipe as JSON values, without the folders of the machine that it ran on."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [without(inner) for inner in value]
        return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

    public: dict[str, Any] = without(recipe.model_dump(mode="json"))
    return public


def _weights(masking: MaskingRecipe) -> str:
    if masking.method != "token-aware":
        return ""
    boost, power = masking.boost, masking.salience
    return f"; terms weigh {boost:g} times as much, words their odds to the power {power:g}"


def _sources(report: Mapping[str, Any]) -> str:
    rows = [
        (
            source["name"],
            f"{source['kept']:,}",
            f"{source['tokens']:,}",
            ", ".join(source["licenses"]) or "not stated",
        )
        for source in report["sources"]
    ]
    return card_table(["source", "documents", "tokens", "licences"], rows)


def _phases(recipe: PretrainRecipe, phases: Sequence[Path]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for number, (phase, folder) in enumerate(zip(recipe.phases, phases, strict=False), start=1):
        last = last_row(folder / TRAINING_TABLE)
        rows.append(
            (
                str(number),
                f"{phase.context:,}",
                f"{int(last['tokens']):,}" if last else "",
                f"{int(last['step']):,}" if last else "",
                f"{phase.learning_rate:g}",
                f"{float(last['loss']):.3f}" if last else "",
            )
        )
    return rows


def _held_out(phases: Sequence[Path]) -> list[tuple[str, ...]]:
    rows = []
    for number, folder in enumerate(phases, start=1):
        last = last_row(folder / HELD_OUT_TABLE)
        if last:
            for way, hidden in (("", "tokens"), ("units_", "words")):
                for part, counted in (("", "all"), ("terms_", "terms")):
                    shares = [f"{float(last[f'{way}{part}accuracy@{rank}']):.3f}" for rank in RANKS]
                    rows.append((str(number), f"{int(last['tokens']):,}", hidden, counted, *shares))
    return rows


def last_row(path: Path) -> dict[str, str] | None:
    """Return the last line of a table, or None."""
    if not path.exists():
        return None
    with path.open(newline="") as file:
        return next(reversed(list(csv.DictReader(file))), None)


def card_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as part of a card."""
    return "".join(f"{line}\n" for line in markdown_table(columns, rows))
