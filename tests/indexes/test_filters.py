"""Filters: SQLite, tantivy and a naive reading of the metadata select the same documents."""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import build, delete

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.indexes.columns import MAX_TEXT_BYTES
from cmbert_retrieval.indexes.filters import Condition, Filter, parse_filter
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.types import Document

COLUMNS = {"journal": "text", "year": "integer", "weight": "number", "open": "boolean", "seen": "date"}

VALUES: dict[str, list[Any]] = {
    "journal": [
        "BMJ",
        "bmj",
        "",
        " ",
        "Ann. Surg., Ser. B",
        'O\'Brien "quoted" \\ back%slash_',
        "'; DROP TABLE documents; --",
        "é",
        "e\u0301",
        "\U0001f600\u202e",
        "1",
        "1.0",
        "true",
        "x" * MAX_TEXT_BYTES,
        "x" * (MAX_TEXT_BYTES - 1) + "y",
        "a:b AND (c",
        "\n\t",
    ],
    "year": [0, 1, -1, 2**63 - 1, -(2**63), 1999, 2020, 2021, 2**53 + 1, 2**53],
    "weight": [0.0, -0.0, 1.0, 0.1, 0.1 + 0.2, 0.3, -1.5, 1e308, -1e308, 5e-324, 2**53 + 2.0, 70],
    "open": [True, False],
    "seen": [datetime.date(2020, 2, 29), datetime.date(1, 1, 1), datetime.date(9999, 12, 31)],
}
ORDERED = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def _metadata(chance: random.Random) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for name, values in VALUES.items():
        match chance.randrange(4):
            case 0 | 1:
                metadata[name] = chance.choice(values)
            case 2:
                metadata[name] = chance.choices(values, k=chance.randint(0, 3))
            case _:
                if chance.random() < 0.5:
                    metadata[name] = None
    return metadata


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[IndexReader, dict[str, Document]]]:
    """An index of 300 documents of one to three rows, 40 of them deleted, and those that are left."""
    chance = random.Random(7)
    texts = [
        Document(
            id=f"d{number}",
            text="",
            entries=tuple(f"fever {place}" for place in range(1 + number % 3)),
            metadata=_metadata(chance),
        )
        for number in range(300)
    ]
    folder = tmp_path_factory.mktemp("filters") / "index"
    report = build(folder, texts, None, "shard_rows=64", columns=COLUMNS)
    assert (report.documents, report.unusable_values) == (300, 0)
    gone = {f"d{number}" for number in range(0, 300, 8)}
    delete(folder, gone)
    with IndexReader(folder) as reader:
        yield reader, {text.id: text for text in texts if text.id not in gone}


def naive(metadata: Mapping[str, Any], conditions: Mapping[str, Any]) -> bool:
    """Return whether a document passes, as the documentation says it, in the plainest way."""
    for name, wanted in conditions.items():
        found = metadata.get(name)
        found = [] if found is None else found if isinstance(found, list) else [found]
        compare: dict[str, Callable[[Any], bool]] = {
            "eq": lambda value: value in found,  # noqa: B023
            "ne": lambda value: value not in found,  # noqa: B023
            "in": lambda values: any(value in found for value in values),  # noqa: B023
            "not_in": lambda values: all(value not in found for value in values),  # noqa: B023
            "lt": lambda value: any(one < value for one in found),  # noqa: B023
            "le": lambda value: any(one <= value for one in found),  # noqa: B023
            "gt": lambda value: any(one > value for one in found),  # noqa: B023
            "ge": lambda value: any(one >= value for one in found),  # noqa: B023
            "exists": lambda value: bool(found) == value,  # noqa: B023
        }
        if not all(compare[operator](value) for operator, value in wanted.items()):
            return False
    return True


def selected(reader: IndexReader, where: Filter) -> tuple[list[int], list[int]]:
    """Return the live rows that SQLite and tantivy select."""
    rows = [row for segment in reader.segments for row in segment.documents.rows_matching(where)]
    return np.setdiff1d(rows, reader.dead).tolist(), reader.words.rows_matching(where).tolist()


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=3, unique=True)):
        extra = {
            "text": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4),
            "integer": st.integers(-(2**63), 2**63 - 1),
            "number": st.floats(allow_nan=False, allow_infinity=False),
            "boolean": st.booleans(),
            "date": st.dates(),
        }[COLUMNS[name]]
        value = st.one_of(st.sampled_from(VALUES[name]), extra)
        operators = ["eq", "ne", "in", "not_in", "exists"]
        operators += [] if COLUMNS[name] in ("text", "boolean") else list(ORDERED)
        wanted = {}
        for operator in draw(st.lists(st.sampled_from(operators), min_size=1, max_size=2, unique=True)):
            several = operator in ("in", "not_in")
            wanted[operator] = draw(
                st.booleans() if operator == "exists" else st.lists(value, max_size=5) if several else value
            )
        chosen[name] = wanted
    return chosen


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conditions())
def test_both_engines_select_what_a_naive_reading_selects(
    library: tuple[IndexReader, dict[str, Document]], wanted: dict[str, Any]
) -> None:
    reader, texts = library
    where = parse_filter(wanted, COLUMNS)
    assert where is not None
    stored, indexed = selected(reader, where)
    assert stored == indexed
    found = set(reader.parents(np.array(stored, np.int64)).values())
    assert found == {id_ for id_, text in texts.items() if naive(text.metadata, wanted)}
    assert len(stored) == sum(len(texts[id_].entries) for id_ in found)


@pytest.mark.parametrize("name", COLUMNS)
def test_every_operator_with_every_value_selects_the_same(
    library: tuple[IndexReader, dict[str, Document]], name: str
) -> None:
    reader, texts = library
    operators = ["eq", "ne"] + ([] if COLUMNS[name] in ("text", "boolean") else list(ORDERED))
    for operator in operators:
        for value in VALUES[name]:
            wanted = {name: {operator: value}}
            stored, indexed = selected(reader, parse_filter(wanted, COLUMNS))  # type: ignore[arg-type]
            assert stored == indexed
            expected = {id_ for id_, text in texts.items() if naive(text.metadata, wanted)}
            assert set(reader.parents(np.array(stored, np.int64)).values()) == expected


def test_ten_thousand_values_are_one_filter(library: tuple[IndexReader, dict[str, Document]]) -> None:
    reader, texts = library
    for operator in ("in", "not_in"):
        for name, values in {
            "journal": ["BMJ", *(f"Journal {number}" for number in range(10_000))],
            "year": [1999, *range(10**6, 10**6 + 10_000)],
            "weight": [0.3, *(number / 7 for number in range(100, 10_100))],
        }.items():
            wanted = {name: {operator: values}}
            stored, indexed = selected(reader, parse_filter(wanted, COLUMNS))  # type: ignore[arg-type]
            assert stored == indexed
            found = set(reader.parents(np.array(stored, np.int64)).values())
            assert found == {id_ for id_, text in texts.items() if naive(text.metadata, wanted)}


def test_values_that_look_like_statements_change_nothing(
    library: tuple[IndexReader, dict[str, Document]],
) -> None:
    reader, _ = library
    before = reader.segments[0].documents.query("SELECT count(*) FROM documents").fetchone()
    for value in ("'; DROP TABLE documents; --", '") OR 1=1 --', "*", "c0:BMJ OR year:[* TO *]", "%"):
        stored, indexed = selected(reader, parse_filter({"journal": value}, COLUMNS))  # type: ignore[arg-type]
        expected = [
            id_ for id_, text in library[1].items() if naive(text.metadata, {"journal": {"eq": value}})
        ]
        assert stored == indexed
        assert sorted(set(reader.parents(np.array(stored, np.int64)).values())) == sorted(expected)
    assert reader.segments[0].documents.query("SELECT count(*) FROM documents").fetchone() == before


def test_names_of_columns_never_reach_the_engines(tmp_path: Path) -> None:
    name = "year') OR 1=1 --"
    build(tmp_path / "i", [Document("a", "fever", metadata={name: 1})], None, columns={name: "integer"})
    with IndexReader(tmp_path / "i") as reader:
        for value, rows in ((1, [0]), (2, [])):
            assert selected(reader, parse_filter({name: value}, {name: "integer"})) == (rows, rows)  # type: ignore[arg-type]


@pytest.mark.parametrize("typed", ["10.1000/RIGHT(5)ab", "10.1000/right(5)AB", "10.1000/Right(5)Ab"])
def test_a_doi_is_found_in_any_case_and_shown_as_it_was_published(tmp_path: Path, typed: str) -> None:
    columns = {"doi": "text", "journal": "text"}
    documents = [
        Document("a", "fever", metadata={"doi": "10.1000/Right(5)Ab", "journal": "BMJ"}),
        Document("b", "fever", metadata={"doi": ["10.1000/other", "10.1000/RIGHT(5)AB"]}),
        Document("c", "fever", metadata={"doi": "10.1000/another"}),
    ]
    build(tmp_path / "i", documents, None, columns=columns)
    wanted: list[tuple[Any, list[int]]] = [
        (typed, [0, 1]),
        ({"ne": typed}, [2]),
        ({"in": [typed, "10.1000/Another"]}, [0, 1, 2]),
        ({"not_in": [typed]}, [2]),
        ({"exists": True}, [0, 1, 2]),
    ]
    with IndexReader(tmp_path / "i") as reader:
        for doi, rows in wanted:
            where = parse_filter({"doi": doi}, columns)
            assert where is not None and selected(reader, where) == (rows, rows)
        where = parse_filter("journal=bmj", columns)
        assert where is not None and selected(reader, where) == ([], [])
        assert [document.metadata["doi"] for document in reader.documents()] == [
            document.metadata["doi"] for document in documents
        ]


def test_a_doi_in_an_index_that_keeps_its_case_is_found_as_it_stands_there(tmp_path: Path) -> None:
    columns = {"DOI": "text"}  # no special name: its values are stored as those of 'doi' once were
    build(tmp_path / "i", [Document("a", "fever", metadata={"DOI": "10.1000/Right"})], None, columns=columns)
    with IndexReader(tmp_path / "i") as reader:
        where = parse_filter("doi=10.1000/Right", {"doi": "text"})
        assert where is not None and selected(reader, where) == ([0], [0])


# --- what users write ---


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("year>=2020", {"year": {"ge": 2020}}),
        ("year<=2020", {"year": {"le": 2020}}),
        ("year > 2020", {"year": {"gt": 2020}}),
        (" year<2020 ", {"year": {"lt": 2020}}),
        ("year=2020", {"year": 2020}),
        ("year==2020", {"year": 2020}),
        ("year!=2020", {"year": {"ne": 2020}}),
        ("year=2020,2021", {"year": [2020, 2021]}),
        ("year!=2020, 2021", {"year": {"not_in": [2020, 2021]}}),
        ("journal=BMJ,JAMA", {"journal": ["BMJ", "JAMA"]}),
        ("journal=Ann Surg", {"journal": "Ann Surg"}),
        ("journal=a=b", {"journal": "a=b"}),
        ("journal=p<0.05", {"journal": "p<0.05"}),
        ("journal=", {"journal": ""}),
        ("open=true", {"open": True}),
        ("seen>2020-02-29", {"seen": {"gt": datetime.date(2020, 2, 29)}}),
        ("weight<1e-3", {"weight": {"lt": 0.001}}),
        (["year>=2020", "year<2022"], {"year": {"ge": 2020, "lt": 2022}}),
        (("year>=2020",), {"year": {"ge": 2020}}),
        ("journal = line\nbreak", {"journal": "line\nbreak"}),
        ('journal="Diabetes, Obesity & Metabolism"', {"journal": "Diabetes, Obesity & Metabolism"}),
        ('journal!="A, B"', {"journal": {"ne": "A, B"}}),
        ('journal="Ann. Surg., Ser. B", BMJ ,"C"', {"journal": ["Ann. Surg., Ser. B", "BMJ", "C"]}),
        ('journal!=BMJ,"A, B"', {"journal": {"not_in": ["BMJ", "A, B"]}}),
        ('journal="the ""Red"" Journal"', {"journal": 'the "Red" Journal'}),
        ('journal="  "', {"journal": "  "}),
        ('journal="",BMJ', {"journal": ["", "BMJ"]}),
        ("journal=BMJ,", {"journal": ["BMJ", ""]}),
        ('journal=O\'Brien "quoted"', {"journal": 'O\'Brien "quoted"'}),
        ('year="2020"', {"year": 2020}),
    ],
)
def test_an_expression_means_what_the_mapping_means(text: Any, same: dict[str, Any]) -> None:
    assert parse_filter(text, COLUMNS) == parse_filter(same, COLUMNS)


@pytest.mark.parametrize("several", [["a", "b"], ("a", "b"), {"a", "b"}, frozenset({"a", "b"})])
def test_any_collection_means_one_of_them(several: Any) -> None:
    for given_ in ({"journal": several}, {"journal": {"in": several}}):
        where = parse_filter(given_, COLUMNS)
        assert where is not None
        assert (where.conditions[0].operator, sorted(map(str, where.conditions[0].values))) == (
            "in",
            ["a", "b"],
        )


@pytest.mark.parametrize("nothing", [None, {}, [], ()])
def test_no_condition_is_no_filter(nothing: Any) -> None:
    assert parse_filter(nothing, COLUMNS) is None


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"jurnal": "BMJ"}, "'jurnal' is not a column of this index; did you mean 'journal'\\? declared"),
        ({"author": "x"}, "is not a column of this index; declared columns: journal, year, weight, op"),
        ({"year": {"after": 2020}}, "unknown operator 'after'; known: eq, ne, in"),
        ({"year": "next"}, "filter on 'year' \\(integer\\): "),
        ({"year": [2020, "x"]}, "filter on 'year' \\(integer\\): "),
        ({"year": 2020.5}, "a fraction, expected integer"),
        ({"year": 2**64}, "does not fit 64 bits"),
        ({"year": None}, "NoneType, expected integer"),
        ({"year": True}, "a boolean, expected integer"),
        ({"year": {"in": 2020}}, "'in' takes a list"),
        ({"year": {"in": "2020"}}, "'in' takes a list"),
        ({"year": {"exists": 1}}, "'exists' takes true or false"),
        ({"journal": {"ge": "B"}}, "'ge' needs a number or a date, the column is text"),
        ({"open": {"lt": True}}, "needs a number or a date, the column is boolean"),
        ({"open": "perhaps"}, "not true or false"),
        ({"weight": float("nan")}, "not finite"),
        ({"seen": "yesterday"}, "not a date like 2026-01-31"),
        ({"journal": "half \ud800"}, "filter on 'journal'"),
        ({"journal": "a\0b"}, "filter on 'journal'"),
        ({"journal": "x" * (MAX_TEXT_BYTES + 1)}, "longer than 8192 bytes"),
        ("year", "filter 'year': expected COLUMN=VALUE"),
        ("", "expected COLUMN=VALUE"),
        ("=2020", "expected COLUMN=VALUE"),
        ("year~2020", "expected COLUMN=VALUE"),
        ([5], "expected COLUMN=VALUE"),
        (5, "expected"),
        ('journal="A, B', "a quoted value must end with a quote"),
        ('journal= "A" B', "a quoted value must end with a quote"),
        ('journal=C,"A" B', "a quoted value must end with a quote"),
        ('journal="', "a quoted value must end with a quote"),
        ([("year", "ge", 2020)], "expected COLUMN=VALUE"),
    ],
)  # fmt: skip
def test_a_filter_that_cannot_be_meant_is_refused_with_what_to_write(given_: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_filter(given_, COLUMNS)
    assert "\n" not in str(caught.value)


def test_without_declared_columns_the_error_says_so() -> None:
    with pytest.raises(ConfigError, match="declared columns: none"):
        parse_filter("year=2020", {})


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_a_filter_or_a_clear_error(text: str) -> None:
    try:
        where = parse_filter(text, COLUMNS)
    except ConfigError:
        return
    assert where is not None and isinstance(where.conditions[0], Condition)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["eq", "in", "x"]), inner)
        ),
        max_leaves=5,
    ),
    st.sampled_from(list(COLUMNS)),
)
def test_any_value_is_a_filter_or_a_clear_error(value: Any, name: str) -> None:
    try:
        where = parse_filter({name: value}, COLUMNS)
    except ConfigError:
        return
    assert where is None or all(condition.kind == COLUMNS[name] for condition in where.conditions)


def test_a_filter_is_kept_as_a_value() -> None:
    first, second = (parse_filter({"journal": "BMJ", "year": {"ge": 2020}}, COLUMNS) for _ in range(2))
    assert first == second and hash(first) == hash(second)
    assert json.dumps(first.to_sql())  # type: ignore[union-attr]
