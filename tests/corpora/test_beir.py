from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from cmbert_retrieval.corpora.beir import BeirCorpus, read_qrels, read_queries
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.types import Query


def test_a_folder_is_read_gzipped_or_not(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(b'{"_id": "d1", "title": "T", "text": "x"}\n'))
    (tmp_path / "queries.jsonl").write_text(
        '{"_id": "q1", "text": "one?"}\n\n{"_id": "q2", "text": "two?"}\n'
    )
    assert [document.id for document in BeirCorpus(tmp_path)] == ["d1"]
    assert list(read_queries(tmp_path)) == [Query("q1", "one?"), Query("q2", "two?")]
    assert list(read_queries(tmp_path / "queries.jsonl")) == list(read_queries(tmp_path))


def test_a_folder_without_a_corpus_or_queries_is_an_error_that_names_them(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no corpus\.jsonl or corpus\.jsonl\.gz in this folder"):
        BeirCorpus(tmp_path)
    with pytest.raises(CorpusError, match=r"no queries\.jsonl"):
        list(read_queries(tmp_path))


@pytest.mark.parametrize("line", ['{"_id": "q 2", "text": "x"}', '{"_id": "q2"}', "{", '{"text": "x"}'])
def test_a_line_that_is_no_query_is_an_error_with_file_and_line(line: str, tmp_path: Path) -> None:
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "one?"}\n' + line)
    with pytest.raises(CorpusError, match=r"^queries\.jsonl:2: "):
        list(read_queries(tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td1\t1\n",
        "query-id,corpus-id,score\nq1,d1,2\nq1,d2,0\nq2,d1,1\n",
        "q1\td1\t2\nq1\td2\t0\nq2\td1\t1\n",
        "q1,d1,2\nq1,d2,0\nq2,d1,1\n",
        "q1 0 d1 2\nq1 0 d2 0\nq2 0 d1 1\n",
        "q1\t0\td1\t2\n\nq1\t0\td2\t0.0\nq2\t0\td1\t1\nq2\t0\td1\t1\n",
    ],
)
def test_qrels_are_read_in_the_formats_of_beir_and_trec(text: str, tmp_path: Path) -> None:
    (tmp_path / "qrels.tsv").write_text(text)
    (tmp_path / "qrels.tsv.gz").write_bytes(gzip.compress(text.encode()))
    expected = {"q1": {"d1": 2, "d2": 0}, "q2": {"d1": 1}}
    assert read_qrels(tmp_path / "qrels.tsv") == expected
    assert read_qrels(tmp_path / "qrels.tsv.gz") == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("q1 0 d1 2\nq1 d2 0\n", "qrels:2: 3 columns, expected TREC's query, iteration, document and grade"),
        ("query-id\tcorpus-id\tscore\nq1\td1\n", "qrels:2: 2 columns, expected query, document and grade"),
        ("1\t0\t7\n", "qrels:1: 3 columns, expected TREC's query, iteration, document and grade"),
        ("q1 0 d1 high\n", "qrels:1: the grade is no whole number"),
        ("q1 0 d1 0.5\n", "qrels:1: the grade is no whole number"),
        ("q1 0 d1 nan\n", "qrels:1: the grade is no whole number"),
        ("q1 0 d1 1\nq1 0 d1 2\n", "qrels:2: this pair was judged differently before"),
    ],
)
def test_broken_qrels_are_errors_with_file_and_line(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text(text)
    with pytest.raises(CorpusError) as caught:
        read_qrels(tmp_path / "qrels")
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
    "text",
    [
        "\nquery-id\tscore\tcorpus-id\nquery1\t2\td1\n",
        "query1 0 d1 2\n",
        "query1\td1\t2\n",
        "query_id,doc_id,relevance\nquery1,d1,2\n",
    ],
)
def test_qrels_go_by_the_names_in_their_header_and_queries_may_be_called_query(
    text: str, tmp_path: Path
) -> None:
    (tmp_path / "qrels").write_text(text)
    assert read_qrels(tmp_path / "qrels") == {"query1": {"d1": 2}}


def test_lines_of_qrels_that_end_in_no_usual_way_or_not_at_all_are_errors(tmp_path: Path) -> None:
    (tmp_path / "qrels").write_bytes(b"q1 0 d1 2\rq2 0 d2 1\r")
    with pytest.raises(CorpusError, match="qrels:1: lines end with CR alone"):
        read_qrels(tmp_path / "qrels")
    (tmp_path / "qrels").write_bytes(b"q1 0 d1 2\n" + b"x" * 2**21)
    with pytest.raises(CorpusError, match="qrels:2: longer than"):
        read_qrels(tmp_path / "qrels")
