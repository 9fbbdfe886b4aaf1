"""The card of a fine-tuned encoder, written from what happened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cmbert_retrieval.encoders.named import full_name
from cmbert_retrieval.finetuning.recipe import FinetuneRecipe
from cmbert_retrieval.finetuning.report import Report
from cmbert_retrieval.pretraining.callbacks import HELD_OUT_TABLE, TRAINING_TABLE
from cmbert_retrieval.pretraining.card import card_table, how_it_was_made, last_row

ROWS = "rows.json"
"""How many rows of each source were in the batches of a stage."""

_MADE_BY = ("cmbert-retrieval", "torch", "transformers", "sentence-transformers")

_USE = """```python
from cmbert_retrieval import Retriever

retriever = Retriever.from_documents(documents, encoder="FOLDER")
retriever.search("a question", k=5)
```

`SentenceTransformer("FOLDER")` opens the same folder.
"""

_LIMITS = """## Limits

Vectors say what texts are about, not whether they are true, and not whether they apply to a patient. They
repeat what stands in the sources, mistakes and prejudice included, and were made for English. The model is no
medical device. It was not made by the authors of the paper whose method it follows.
"""


def model_card(recipe: FinetuneRecipe, report: Report, stages: Sequence[Path]) -> str:
    """Return the card of a model.

    Args:
        recipe: of the run.
        report: of the pairs and texts.
        stages: the folders of the stages so far, with their tables.
    """
    start = "random weights"
    if recipe.model.checkpoint is not None:
        start = _name(recipe.model.checkpoint)
    elif recipe.model.embeddings == "teacher":
        start = "the token embeddings of its teacher and random layers"
    header: dict[str, Any] = {
        "language": "en",
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "modernbert", "biomedical", "clinical"],
    }
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n",
        f"# {recipe.name}\n",
        f"A ModernBERT that turns biomedical texts and questions into vectors, begun with {start}"
        f"{_teacher(recipe)}.\n",
        _USE,
        "## Data\n",
        _sources(report),
        _overlap(report),
        "## Training\n",
        card_table(
            ["stage", "texts", "pairs", "rows in batches", "steps", "learning rate", "last loss"],
            _stages(recipe, stages),
        ),
        *_measured(stages),
        _LIMITS,
        *how_it_was_made(recipe, _MADE_BY),
    ]
    return "\n".join(parts)


def _teacher(recipe: FinetuneRecipe) -> str:
    if recipe.teacher is None:
        return ""
    models = [recipe.teacher.model, *filter(None, [recipe.teacher.beside])]
    return ", taught by " + " and ".join(full_name(model) or _name(model) for model in models)


def _name(model: str) -> str:
    """Return a hub id, or the name of a folder; that of its run where the folder is called ``model``."""
    path = Path(model)
    if not path.is_absolute():
        return model
    return path.parent.parent.name if path.name == "model" else path.name


def _sources(report: Report) -> str:
    rows = [
        (source.name, f"{source.pairs:,}", f"{source.texts:,}", ", ".join(source.licenses) or "not stated")
        for source in report.sources
        if source.pairs or source.texts
    ]
    return card_table(["source", "pairs", "texts", "licences"], rows)


def _overlap(report: Report) -> str:
    if not report.overlaps:
        return "Overlap with evaluation sets was not looked for.\n"
    names = ", ".join(one.name.partition(":")[0] for one in report.overlaps)
    found = sum(one.found for one in report.overlaps)
    return (
        f"Texts that share {report.words} words in a row with what is measured on {names} were left out "
        f"({found:,}).\n"
    )


def _stages(recipe: FinetuneRecipe, folders: Sequence[Path]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for number, (stage, folder) in enumerate(zip(recipe.stages, folders, strict=False), start=1):
        last = last_row(folder / TRAINING_TABLE) or {"step": "", "loss": ""}
        seen = json.loads((folder / ROWS).read_bytes()) if (folder / ROWS).exists() else {}
        rows.append(
            (str(number), f"{stage.texts:,}", f"{stage.pairs:,}", f"{sum(seen.values()):,}", last["step"],
             f"{stage.learning_rate:g}", last["loss"])
        )  # fmt: skip
    return rows


def _measured(folders: Sequence[Path]) -> list[str]:
    found = [last for folder in folders if (last := last_measured(folder))]
    if not found:
        return []
    rows = [(name, f"{value:.3f}") for name, value in found[-1].items()]
    return [
        "## Measured while it was trained\n",
        "`pairs_SOURCE`: share of held-out questions that find their own text first among those of the "
        "source; other names: nDCG@10 of parts of evaluation sets that are for tuning.\n",
        card_table(["measure", "at the end"], rows),
    ]


def last_measured(folder: Path) -> dict[str, float]:
    """Return what was measured last in a stage: measure -> value; nothing where nothing was."""
    last = last_row(folder / HELD_OUT_TABLE) or {}
    return {name: float(value) for name, value in last.items() if name != "step"}
