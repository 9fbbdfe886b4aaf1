"""A declared column that no document has is told at the end of a build, with the key that may be meant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samples import add, build, documents

from cmbert_retrieval.config import IndexRecipe
from cmbert_retrieval.corpora import open_corpus
from cmbert_retrieval.indexes.columns import similar_key
from cmbert_retrieval.indexes.report import Report
from cmbert_retrieval.indexes.writer import IndexWriter
from cmbert_retrieval.types import Document

PMC = Path(__file__).parent.parent / "fixtures/pmc"


def texts(*metadata: Mapping[str, Any]) -> list[Document]:
    return [Document(f"d{number}", "Some text.", metadata=values) for number, values in enumerate(metadata)]


def test_the_column_and_the_similar_key_are_named(tmp_path: Path) -> None:
    report = build(tmp_path / "i", documents(5), None, columns={"yaer": "integer", "journal": "text"})
    assert report.empty_columns == 1
    assert report.lines() == [
        "1 declared column has no usable value in any document: filters find nothing "
        "(first: 'yaer' (did you mean 'year'? then build anew))"
    ]
    assert Report.from_json(report.to_json()) == report


def test_a_column_that_one_document_has_is_not_named(tmp_path: Path) -> None:
    found = build(tmp_path / "i", texts({}, {}, {"rare": "yes"}), None, columns={"rare": "text"})
    assert found.empty_columns == 0


def test_a_column_without_usable_values_is_named_and_nothing_else_suggested(tmp_path: Path) -> None:
    found = build(tmp_path / "i", texts({"day": "soon", "days": 3}), None, columns={"day": "date"})
    assert (found.unusable_values, found.empty_columns) == (1, 1)
    assert found.examples["empty_columns"] == ["'day'"]


def test_keys_are_looked_for_beyond_the_first_documents(tmp_path: Path) -> None:
    late = texts(*({} for _ in range(1500)), *({"year": 2000} for _ in range(1500)))
    found = build(tmp_path / "i", late, None, columns={"yaer": "integer"})
    assert found.examples["empty_columns"] == ["'yaer' (did you mean 'year'? then build anew)"]


def test_documents_with_any_number_of_keys_are_looked_at_in_bounds(tmp_path: Path) -> None:
    hostile = texts({f"key {number}": 1 for number in range(100_000)}, {"x" * 1_000_000: 1, "year": 2000})
    found = build(tmp_path / "i", hostile, None, columns={"yaer": "integer"})
    assert found.examples["empty_columns"] == ["'yaer'"]
    found = build(tmp_path / "j", hostile[1:], None, columns={"yaer": "integer"})
    assert found.examples["empty_columns"] == ["'yaer' (did you mean 'year'? then build anew)"]


def test_an_addition_without_a_column_is_no_trouble(tmp_path: Path) -> None:
    build(tmp_path / "i", documents(3), None)
    assert add(tmp_path / "i", texts({}), None).empty_columns == 0


def test_what_a_reader_declares_may_be_absent_and_what_is_asked_for_comes_beside_it(tmp_path: Path) -> None:
    recipe = IndexRecipe.for_corpus("pmc", PMC, overrides=["encoder=none", "columns.ward=text"])
    corpus = open_corpus("pmc", PMC)
    with IndexWriter(tmp_path / "i") as writer:
        report = writer.build(corpus, recipe, None)
        columns = writer._manifest().columns  # type: ignore[union-attr]
    assert dict(columns) == {**corpus.columns, "ward": "text"}
    assert report.examples["empty_columns"] == ["'ward'"]


def test_the_most_similar_key_wins_whatever_its_case() -> None:
    assert similar_key("Dept", ["dept", "department"]) == "dept"
    assert similar_key("dept", ["dept", "depth"]) == ""
    assert similar_key("ward", ["year"]) == ""
