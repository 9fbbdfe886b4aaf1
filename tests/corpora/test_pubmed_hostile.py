"""PubMed's files as nobody should send them: one line each, nothing lost that could be read, no memory."""

from __future__ import annotations

import gzip
import re
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pubmed_records import article, article_set, deletion

from cmbert_retrieval.corpora.base import Record
from cmbert_retrieval.corpora.pubmed import PubmedCorpus
from cmbert_retrieval.errors import CorpusError


def read(path: Path, data: bytes, **options: int) -> list[Record]:
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return list(PubmedCorpus(path, **options).records())


def found(records: list[Record]) -> list[str]:
    """Return ids, and ``!`` for a record with a problem."""
    return [record.document.id if record.document else "!" for record in records]


def read_until_error(path: Path) -> tuple[list[str], str]:
    records: list[Record] = []
    with pytest.raises(CorpusError) as caught:
        for record in PubmedCorpus(path).records():
            records.append(record)
    return found(records), str(caught.value)


GOOD = article(1), article(3)


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (article(2).replace(b"</Abstract>", b""), r"a\.xml:4: not well-formed XML \(mismatched tag\)"),
        (
            article(2).replace(b"</PubmedArticle>", b""),
            r"a\.xml:4: .*the record does not end before the next one",
        ),
        (article(2).replace(b"Some", b"\nSm\xff\xfe"), r"a\.xml:5: .*not in the encoding"),
        (article(2).replace(b"Some", b"&secret;"), r"a\.xml:4: .*not declared"),
        (article(2).replace(b">2</PMID>", b">two</PMID>"), r"a\.xml:4: no PMID"),
        (article(2).replace(b"MedlineCitation", b"Citation"), r"a\.xml:4: no PMID"),
        (b"<PubmedArticle/>\n", r"a\.xml:4: no PMID"),
        (b"<Surprise>words</Surprise>\n", r"a\.xml:4: something that is no record"),
        (b"words\n", r"a\.xml:4: something that is no record"),
        (article(2).replace(b"<Journal>", b"<x:Journal>"), r"a\.xml:4: not well-formed XML"),
        (deletion(2).replace(b">2<", b">two<"), r"a\.xml:4: a deletion that is no PMID"),
    ],
)
def test_a_broken_record_costs_only_itself(bad: bytes, problem: str, tmp_path: Path) -> None:
    records = read(tmp_path / "a.xml", article_set(GOOD[0], bad, GOOD[1]))
    assert found(records) == ["1", "!", "3"]
    assert re.search(problem, records[1].problem or "")
    assert "Some" not in str(records[1].problem) and "two" not in str(records[1].problem)


def test_an_unfinished_last_record_does_not_swallow_the_end_of_the_set(tmp_path: Path) -> None:
    records = read(tmp_path / "a.xml", article_set(article(1), article(2).replace(b"</PubmedArticle>", b"")))
    assert found(records) == ["1", "!"]


def test_tags_in_comments_and_cdata_are_text(tmp_path: Path) -> None:
    odd = article(2, "@").replace(
        b"@", b"<!-- </PubmedArticle> <PubmedArticle> --><![CDATA[</PubmedArticle>]]>"
    )
    records = read(
        tmp_path / "a.xml", article_set(article(1), b"<!-- " + article(9) + b" -->", odd, article(3))
    )
    assert found(records) == ["1", "2", "3"]
    assert records[1].document is not None and records[1].document.text == "</PubmedArticle>"


@pytest.mark.parametrize("name", ["a.xml", "a.xml.gz"])
def test_a_file_that_ends_too_early_keeps_what_was_whole(name: str, tmp_path: Path) -> None:
    data = article_set(*(article(number, "%x" % number**150) for number in range(100, 300)))
    packed = gzip.compress(data) if name.endswith(".gz") else data
    half = packed[: len(packed) // 2]
    (tmp_path / name).write_bytes(half)
    readable = zlib.decompressobj(31).decompress(half) if name.endswith(".gz") else half
    ids, message = read_until_error(tmp_path / name)
    assert ids == [str(number) for number in range(100, 100 + readable.count(b"</PubmedArticle>"))]
    assert 50 < len(ids) < 150
    assert re.match(rf"{name}:\d+: .* after {len(ids)} records; fetch the file again$", message)
    assert f"{name}:{len(ids) + 3}:" in message


def test_a_file_that_ends_between_two_records_is_not_whole(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(article_set(*GOOD).replace(b"</PubmedArticleSet>", b""))
    ids, message = read_until_error(tmp_path / "a.xml")
    assert ids == ["1", "3"] and "the closing tag of the set is missing" in message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "begins with no XML element, expected <PubmedArticleSet>"),
        (b"PMID- 1\nTI  - A title\n", "begins with no XML element"),
        (b"<html><body>Error 404</body></html>", "begins with <html>"),
        (b"<article><front/></article>", "begins with <article>"),
        (article_set(article(1)).decode().encode("utf-16"), "in UTF-16"),
        (article_set(article(1), head=b'<?xml version="1.0" encoding="utf-32"?>'), "in UTF-16 or UTF-32"),
        (
            article_set(article(1), head=b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'),
            "declares entities; refused",
        ),
        (b"<PubmedArticleSet>" + b" " * 2**17, "no record within 65,536 bytes"),
        (b"<PubmedArticleSet>" + b"<!-- -->" * 2**14, "no record within 65,536 bytes"),
        (b"<PubmedArticleSet><!-- " + b"-" * 2**17, "no record within 65,536 bytes"),
        (b"<PubmedArticleSet><!-- ", "ends within a comment or a tag"),
        (b"<PubmedArticleSet><PubmedArticle>", "ends within a record"),
        (b"<PubmedArticleSet><PubmedArticle", "ends too early"),
    ],
)
def test_what_is_no_file_of_pubmed_is_an_error_of_one_line(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=message) as caught:
        read(tmp_path / "a.xml", data, max_bytes=65_536)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("a.xml")


def test_gzip_data_that_are_none_or_damaged_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.xml.gz"
    path.write_bytes(b"<PubmedArticleSet>")
    with pytest.raises(CorpusError, match=r"a\.xml\.gz: truncated or damaged gzip data"):
        list(PubmedCorpus(path).records())
    path.write_bytes(gzip.compress(article_set(*GOOD)) + b"rubbish")
    assert read_until_error(path)[0] == ["1", "3"]


@pytest.mark.parametrize("size", [3_000, 300_000, 3_000_000])
def test_a_record_that_is_too_large_is_passed_over(size: int, tmp_path: Path) -> None:
    records = read(
        tmp_path / "a.xml.gz", article_set(GOOD[0], article(2, "x" * size), GOOD[1]), max_bytes=2_000
    )
    assert found(records) == ["1", "!", "3"]
    assert records[1].problem == (
        "a.xml.gz:4: larger than 2,000 bytes when unpacked; raise the option max_bytes to read it"
    )


def test_memory_does_not_grow_with_the_file_nor_with_what_is_packed_into_it(tmp_path: Path) -> None:
    long = article(2, "x" * 50_000_000)
    path = tmp_path / "a.xml.gz"
    path.write_bytes(gzip.compress(article_set(*GOOD, long, *(article(n) for n in range(4, 5000))), 1))
    tracemalloc.start()
    count = sum(1 for _ in PubmedCorpus(path, max_bytes=100_000).records())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 4999
    assert peak < 6 * 2**20


def test_elements_within_elements_end_in_a_problem(tmp_path: Path) -> None:
    deep = article(2, "@").replace(b"@", b"<i>" * 5_000 + b"</i>" * 5_000)
    records = read(tmp_path / "a.xml", article_set(GOOD[0], deep, GOOD[1]))
    assert found(records) == ["1", "!", "3"]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_files_give_records_problems_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = article_set(article(1), deletion(4, 5), article(2), article(3))
    mutated = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(mutated)))
        end = min(len(mutated), start + data.draw(st.integers(0, 60)))
        parts = st.sampled_from([b"", b"<", b">", b"&", b"\0", b"\xff", b"<!--", b"]]>", b"</PubmedArticle>"])
        mutated[start:end] = data.draw(parts)
    path = tmp_path_factory.mktemp("mutated") / "a.xml"
    path.write_bytes(bytes(mutated))
    records: list[Record] = []
    try:
        for record in PubmedCorpus(path).records():
            records.append(record)
    except CorpusError as error:
        assert "\n" not in str(error)
    assert len(records) < 60
    for record in records:
        assert "\n" not in (record.problem or "")
        assert [record.document is not None, record.problem is not None, record.deleted].count(True) == 1
