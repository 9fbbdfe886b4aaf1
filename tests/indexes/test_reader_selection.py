"""What a reader tells of single rows and documents, over an index with two segments and dead revisions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from samples import COLUMNS, add, build, delete, documents

from cmbert_retrieval.indexes.filters import parse_filter
from cmbert_retrieval.indexes.reader import IndexReader


@pytest.fixture
def revised(tmp_path: Path) -> Path:
    """Twenty documents; five come again with another year, and one is gone."""
    texts = documents(20)
    build(tmp_path / "index", texts, None)
    newer = [
        replace(old, text=f"{old.text} Again.", metadata={**old.metadata, "year": 1990}) for old in texts[:5]
    ]
    add(tmp_path / "index", newer, None)
    delete(tmp_path / "index", [texts[7].id])
    return tmp_path / "index"


@pytest.mark.parametrize("condition", ["year=1990", "year>=2010", "journal=BMJ", "year!=1990"])
def test_of_several_revisions_only_the_live_one_decides_what_matches(revised: Path, condition: str) -> None:
    where = parse_filter(condition, COLUMNS)
    assert where is not None
    with IndexReader(revised) as reader:
        ids = [f"note-{number}" for number in range(25)]
        live = {document.id: document.metadata for document in reader.documents()}
        passes = {
            "year=1990": lambda found: found["year"] == 1990,
            "year>=2010": lambda found: found["year"] >= 2010,
            "journal=BMJ": lambda found: found["journal"] == "BMJ",
            "year!=1990": lambda found: found["year"] != 1990,
        }[condition]
        assert reader.matching(ids, where) == {id_ for id_, found in live.items() if passes(found)}
        assert reader.matching(ids[:3], where) <= set(ids[:3])
        assert reader.matching([], where) == set()


def test_texts_of_rows_are_those_that_were_indexed(revised: Path) -> None:
    with IndexReader(revised) as reader:
        rows = np.concatenate([reader.live_rows(segment) for segment in reader.segments])
        texts = reader.texts(rows)
        assert list(texts) == rows.tolist()
        assert texts == {row: reader.row(row)[0].text for row in rows.tolist()}
        assert reader.texts(rows[:0]) == {}


def test_a_rarer_term_tells_more(revised: Path) -> None:
    with IndexReader(revised) as reader:
        counts: dict[str, int] = {}
        rows = np.concatenate([reader.live_rows(segment) for segment in reader.segments])
        for text in reader.texts(rows).values():
            for term in reader.words.terms(text):
                counts[term] = counts.get(term, 0) + 1
        common, rare = max(counts, key=lambda term: counts[term]), min(counts, key=lambda term: counts[term])
        assert counts[common] > counts[rare]
        assert reader.words.rarity("nowhere") >= reader.words.rarity(rare) > reader.words.rarity(common) > 0
