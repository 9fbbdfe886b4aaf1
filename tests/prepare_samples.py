"""Small sources for the preparation of text, with invented words so that whatever leaks can be looked for."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cmbert_retrieval.pretraining.recipe import PretrainRecipe

COMMON = "the patient was seen with pain of left knee and swelling after fall no fever given rest ice".split()


def invented(number: int) -> str:
    """Return a word that nobody uses, another one for each number."""
    letters = []
    for _ in range(4):
        number, letter = divmod(number, 26)
        letters.append(chr(ord("a") + letter))
    return f"qx{''.join(letters)}zo"


def prose(seed: int, words: int = 80) -> str:
    """Return sentences of common words, the same for a seed."""
    generator = np.random.default_rng(seed)
    return " ".join(
        generator.choice([*COMMON, *(invented(17_000 + seed * 20 + n) for n in range(20))], words)
    )


def write_jsonl(path: Path, documents: Iterable[Mapping[str, Any]]) -> Path:
    """Write one object a line."""
    path.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    return path


def write_notes(path: Path, notes: Iterable[tuple[str, str, str]]) -> Path:
    """Write notes of (note_id, subject_id, text)."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["note_id", "subject_id", "text"])
        writer.writerows(notes)
    return path


def write_icd10cm(path: Path, codes: Iterable[tuple[str, str, str]]) -> Path:
    """Write a tabular list of categories: (code, title, inclusion term)."""
    entries = "".join(
        f"<diag><name>{code}</name><desc>{title}</desc><inclusionTerm><note>{term}</note></inclusionTerm></diag>"
        for code, title, term in codes
    )
    path.write_text(
        '<?xml version="1.0"?><ICD10CM.tabular><version>2026</version><chapter><name>1</name>'
        '<desc>Gnomes (A00-Z99)</desc><section id="A00-Z99"><desc>All of them (A00-Z99)</desc>'
        f"{entries}</section></chapter></ICD10CM.tabular>",
        encoding="utf-8",
    )
    return path


def write_obo(path: Path, terms: Iterable[tuple[str, str, str, str]]) -> Path:
    """Write an ontology: (id, name, exact synonym, another database's id or "")."""
    stanzas = [
        f'[Term]\nid: {number}\nname: {name}\nsynonym: "{synonym}" EXACT []\n'
        + (f"xref: {xref}\n" if xref else "")
        for number, name, synonym, xref in terms
    ]
    path.write_text("format-version: 1.2\nontology: gnome\n\n" + "\n".join(stanzas), encoding="utf-8")
    return path


def recipe(sources: dict[str, dict[str, Any]], **data: Any) -> PretrainRecipe:
    """Return a recipe of these sources, with a tokenizer of 300 entries."""
    values = {"tokenizer": {"vocabulary": 300}, "held_out": 0.2, **data, "sources": sources}
    masking = {} if values.get("salience", True) else {"salience": 0.0}
    return PretrainRecipe.model_validate(
        {"name": "test", "data": values, "masking": masking, "phases": [{"tokens": 1000}]}
    )
