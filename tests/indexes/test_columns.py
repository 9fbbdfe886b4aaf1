"""Declared columns: which values they take, and as what they are stored."""

from __future__ import annotations

import datetime
import math
from typing import Any

import numpy as np
import pytest

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.indexes.columns import MAX_TEXT_BYTES, TYPES, check_columns, encode_all, encode_value

DAY = datetime.date(2026, 1, 31).toordinal()

GOOD = [
    ("text", "BMJ", "BMJ"),
    ("text", "", ""),
    ("text", "Journal d'été \U0001f600", "Journal d'été \U0001f600"),
    ("text", 12, "12"),
    ("text", 1.5, "1.5"),
    ("text", "x" * MAX_TEXT_BYTES, "x" * MAX_TEXT_BYTES),
    ("integer", 2020, 2020),
    ("integer", "2020", 2020),
    ("integer", " -7 ", -7),
    ("integer", 3.0, 3),
    ("integer", np.int64(5), 5),
    ("integer", 2**63 - 1, 2**63 - 1),
    ("integer", -(2**63), -(2**63)),
    ("number", 1, 1.0),
    ("number", "1e3", 1000.0),
    ("number", np.float32(0.5), 0.5),
    ("number", 5e-324, 5e-324),
    ("boolean", True, 1),
    ("boolean", 0, 0),
    ("boolean", "True", 1),
    ("boolean", "false", 0),
    ("boolean", np.bool_(True), 1),
    ("date", "2026-01-31", DAY),
    ("date", "2026-01-31T23:59:59Z", DAY),
    ("date", "2026-01-31 08:00", DAY),
    ("date", datetime.date(2026, 1, 31), DAY),
    ("date", datetime.datetime(2026, 1, 31, 23), DAY),
    ("date", "0001-01-01", 1),
]

BAD = [
    ("text", None),
    ("text", True),
    ("text", ["a"]),
    ("text", {"a": 1}),
    ("text", "x" * (MAX_TEXT_BYTES + 1)),
    ("text", "é" * (MAX_TEXT_BYTES // 2 + 1)),
    ("text", "half \ud800 a pair"),
    ("text", "a\0b"),
    ("integer", "secret"),
    ("integer", ""),
    ("integer", 2.5),
    ("integer", "2.5"),
    ("integer", math.nan),
    ("integer", math.inf),
    ("integer", True),
    ("integer", 2**63),
    ("integer", -(2**63) - 1),
    ("integer", "9" * 5000),
    ("integer", b"5"),
    ("number", "secret"),
    ("number", math.nan),
    ("number", -math.inf),
    ("number", "inf"),
    ("number", 10**400),
    ("number", False),
    ("boolean", "perhaps"),
    ("boolean", 2),
    ("boolean", 1.0),
    ("boolean", None),
    ("date", "secret"),
    ("date", "2026-02-30"),
    ("date", "2026-01-31secret"),
    ("date", 2026),
    ("date", True),
    ("date", ""),
]


@pytest.mark.parametrize(("kind", "value", "stored"), GOOD)
def test_a_value_of_the_columns_type_is_stored(kind: str, value: Any, stored: Any) -> None:
    got = encode_value(kind, value)
    assert got == stored
    assert type(got) is type(stored)


@pytest.mark.parametrize(("kind", "value"), BAD)
def test_a_value_of_another_type_is_refused_in_words_that_do_not_repeat_it(kind: str, value: Any) -> None:
    with pytest.raises((ValueError, OverflowError)) as caught:
        encode_value(kind, value)
    assert str(caught.value)
    assert "secret" not in str(caught.value) and "9999" not in str(caught.value)
    assert len(str(caught.value)) < 100


def test_negative_zero_is_zero() -> None:
    assert math.copysign(1, float(encode_value("number", -0.0))) == 1
    assert math.copysign(1, float(encode_value("number", "-0"))) == 1


def test_types_keep_their_order_when_stored() -> None:
    days = [encode_value("date", text) for text in ("1899-12-31", "1900-01-01", "2026-01-31", "9999-12-31")]
    assert days == sorted(days)


def test_lists_give_a_value_each_and_what_does_not_fit_comes_with_its_problem() -> None:
    columns = {"year": "integer", "journal": "text"}
    metadata = {"journal": ("BMJ", None, "JAMA"), "year": [2020, "secret"], "other": 1}
    found = list(encode_all(columns, metadata))
    assert [(number, value) for number, value, problem in found if not problem] == [
        (0, 2020),
        (1, "BMJ"),
        (1, "JAMA"),
    ]
    problems = [problem for _, value, problem in found if value is None]
    assert len(problems) == 2
    assert problems[0].startswith("column 'year'") and problems[1].startswith("column 'journal'")


@pytest.mark.parametrize("several", [["a", "b"], ("a", "b"), {"a", "b"}, frozenset({"a", "b"})])
def test_any_collection_is_several_values(several: Any) -> None:
    assert sorted(str(value) for _, value, _ in encode_all({"kind": "text"}, {"kind": several})) == ["a", "b"]


def test_an_unknown_type_and_an_empty_name_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"column 'year': type 'int' is not one of text, integer"):
        check_columns({"year": "int"})
    with pytest.raises(ConfigError, match="empty name"):
        check_columns({" ": "text"})
    assert check_columns({kind: kind for kind in TYPES}) == {kind: kind for kind in TYPES}
