"""The splits are frozen: these tests fail when anything moves from one side to the other."""

from __future__ import annotations

import hashlib
from itertools import product
from string import ascii_uppercase, digits

import pytest

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.evaluation.splits import (
    BY_HASH,
    TEST_SHARE,
    VALIDATION_SHARE,
    published_split,
    split_by_hash,
    split_of_code,
)


def test_the_split_of_every_collection_is_the_frozen_one() -> None:
    keys = [f"key {number}" for number in range(2_000)]
    text = "".join(f"{name}:{split_by_hash(name, key)}\n" for name, key in product(sorted(BY_HASH), keys))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "b37c5945d413167d"


def test_the_split_of_every_category_of_icd10cm_is_the_frozen_one() -> None:
    categories = ["".join(parts) for parts in product(ascii_uppercase, digits, digits)]
    text = "".join(f"{code}:{split_of_code('icd10cm', code)}\n" for code in categories)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "923b2e25d2641c2d"


def test_shares_are_as_said() -> None:
    found = [split_by_hash("pubmed", str(number)) for number in range(20_000)]
    assert found.count("test") / len(found) == pytest.approx(TEST_SHARE, abs=0.01)
    assert found.count("validation") / len(found) == pytest.approx(VALIDATION_SHARE, abs=0.01)


def test_a_code_lies_where_its_category_lies_however_it_is_written() -> None:
    for code in ("S72", "S72.0", "S72.001A", "s72001a", " S72.0 "):
        assert split_of_code("icd10cm", code) == split_by_hash("icd10cm", "S72")


def test_a_split_does_not_depend_on_case_or_white_space() -> None:
    assert split_by_hash("medquad", " Kidney  Stones ") == split_by_hash("medquad", "kidney stones")


def test_collections_are_divided_independently() -> None:
    keys = [str(number) for number in range(2_000)]
    both = sum(split_by_hash("pmc", key) == split_by_hash("pubmed", key) == "test" for key in keys)
    assert both / len(keys) == pytest.approx(TEST_SHARE**2, abs=0.02)


def test_published_splits_are_kept_and_sets_for_tests_alone_stay_that() -> None:
    assert published_split("scifact", "dev") == "test"
    assert published_split("nfcorpus", "dev") == "validation"
    assert published_split("bioasq", "anything") == "test"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: split_by_hash("pubmedd", "1"), "no split of 'pubmedd'; expected one of cpt, hcpcs"),
        (lambda: split_by_hash("medquad", "  "), "split by the subject of a question.*got an empty key"),
        (lambda: split_of_code("mesh", "D000001"), "'mesh' is no code system"),
        (lambda: split_of_code("icd10cm", "A0"), "'A0' has no category"),
        (lambda: published_split("scifact", "tset"), "no published split 'tset'.*its parts are train, dev"),
        (lambda: published_split("imdb", "test"), "known sets are codiesp, nfcorpus"),
    ],
)
def test_what_has_no_split_is_an_error(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        call()
