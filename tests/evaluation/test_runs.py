"""Run and qrels files, written and read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmbert_retrieval.corpora.beir import read_qrels
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.evaluation.runs import read_run, write_qrels, write_run

IDS = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=8)


@given(
    run=st.dictionaries(
        IDS,
        st.dictionaries(IDS, st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5),
        min_size=1,
        max_size=3,
    ),
    packed=st.booleans(),
)
def test_a_run_comes_back_as_it_was_written(
    run: dict[str, dict[str, float]], packed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("run") / ("run.trec.gz" if packed else "run.trec")
    write_run(path, run, tag="ours")
    assert read_run(path) == run


def test_a_run_file_has_trecs_six_columns_best_first(tmp_path: Path) -> None:
    write_run(tmp_path / "run.trec", {"q1": {"b": 0.5, "a": 1.25}}, tag="ours")
    assert (tmp_path / "run.trec").read_text() == "q1 Q0 a 1 1.25 ours\nq1 Q0 b 2 0.5 ours\n"


def test_qrels_come_back_as_they_were_written(tmp_path: Path) -> None:
    qrels = {"q1": {"a": 2, "b": 0}, "q2": {"c": 1}}
    for name in ("qrels.txt", "qrels.txt.gz"):
        write_qrels(tmp_path / name, qrels)
        assert read_qrels(tmp_path / name) == qrels


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty; expected lines of query, Q0"),
        (b"\n\n", "empty"),
        (b"q1 a 1.0\n", r"run:1: 3 columns, expected query, Q0, document, rank, score and tag"),
        (b"q Q0 a 1 1.0 t\nq Q0 b 2 high t\n", "run:2: the fifth column is no finite number"),
        (b"q Q0 a 1 nan t\n", "run:1: the fifth column is no finite number"),
        (b"q Q0 a 1 1.0 t\nq Q0 a 2 0.5 t\n", "run:2: this document was ranked for this query before"),
        (b"q Q0 \xff 1 1.0 t\n", "run:1: invalid UTF-8"),
        (b"q" * 70_000, "run:1: longer than a line of a run can be"),
    ],
)
def test_a_file_that_is_no_run_is_an_error_with_its_line(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "run").write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        read_run(tmp_path / "run")


def test_a_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="a folder, expected a run file"):
        read_run(tmp_path)
