from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cmbert_retrieval.corpora import READERS, guess_reader, open_corpus
from cmbert_retrieval.errors import ConfigError, CorpusError

NEED_AN_EXTRA = {"parquet", "datasets"}
"""Readers whose own tests, which are slow, open them."""

PMC = Path(__file__).parents[1] / "fixtures" / "pmc"


def test_an_unknown_reader_is_an_error_that_names_the_known_ones_and_the_nearest() -> None:
    names = ", ".join(sorted(READERS))
    with pytest.raises(ConfigError, match=f"unknown reader 'jsonnl'.*{names}; did you mean 'jsonl'"):
        open_corpus("jsonnl", PMC)


def test_an_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown option 'include_retract'.*did you mean 'include_retracted'"
    ):
        open_corpus("pmc", PMC, include_retract=False)


@pytest.mark.parametrize("value", ["64MB", 0, True, 1.5])
def test_a_bound_that_is_no_number_of_bytes_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"reader 'pmc': max_bytes is .*, expected a whole number of bytes"):
        open_corpus("pmc", PMC, max_bytes=value)


def test_path_is_no_option() -> None:
    with pytest.raises(TypeError):
        open_corpus("pmc", PMC, **{"path": "elsewhere"})  # type: ignore[arg-type]


@pytest.mark.parametrize("reader", ["pmc", "pubmed", "jsonl", "beir", "notes", "trec", "parquet"])
def test_a_path_where_nothing_is_is_an_error_that_names_it(reader: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere.*no such file or folder"):
        open_corpus(reader, tmp_path / "nowhere")


def test_every_reader_tells_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text("")
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "a.obo").write_text("")
    paths = {
        "pmc": PMC,
        "pubmed": PMC.with_name("pubmed"),
        "jsonl": tmp_path / "corpus.jsonl",
        "beir": tmp_path,
        "icd10cm": "",
        "notes": tmp_path,
        "trec": tmp_path,
        "hcpcs": tmp_path / "a.obo",
        "icd10cm_index": tmp_path / "a.obo",
        "icd10cm_order": tmp_path / "a.obo",
        "icd10pcs": tmp_path / "a.obo",
        "icd9cm": tmp_path / "a.obo",
        "mesh": tmp_path / "a.obo",
        "ontology": tmp_path / "a.obo",
    }
    assert set(paths) | NEED_AN_EXTRA == set(READERS)
    for name, path in paths.items():
        assert open_corpus(name, path).reader == name


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("a.jsonl", "jsonl"),
        ("a.jsonl.gz", "jsonl"),
        ("a.tar.gz", "pmc"),
        ("a.obo", "ontology"),
        ("a.obo.gz", "ontology"),
        ("a.tgz", "pmc"),
        ("a.nxml", "pmc"),
        ("a.XML", "pmc"),
        ("a.xml.gz", "pmc"),
        ("discharge.csv.gz", "notes"),
        ("radiology.csv", "notes"),
        ("NOTEEVENTS.csv.gz", "notes"),
        ("a.parquet", "parquet"),
        ("a.trec.gz", "trec"),
    ],
)
def test_the_reader_of_a_file_is_guessed_by_its_name(name: str, reader: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("")
    assert guess_reader(tmp_path / name) == reader


@pytest.mark.parametrize(
    ("inside", "reader"),
    [
        ("corpus.jsonl.gz", "beir"),
        ("PMC1.1/PMC1.1.xml", "pmc"),
        ("x.filelist.tar.gz", "pmc"),
        ("sub/a.nxml", "pmc"),
        ("a.xml", "pmc"),
        ("discharge.csv.gz", "notes"),
        ("a.parquet", "parquet"),
        ("dataset_info.json", "datasets"),
        ("dataset_dict.json", "datasets"),
    ],
)
def test_the_reader_of_a_folder_is_guessed_by_what_is_in_it(inside: str, reader: str, tmp_path: Path) -> None:
    (tmp_path / inside).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / inside).write_text("")
    assert guess_reader(tmp_path) == reader


def test_what_cannot_be_guessed_is_an_error_that_says_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(CorpusError, match=rf"--from READER:.*a\.csv \({', '.join(sorted(READERS))}\)"):
        guess_reader(tmp_path / "a.csv")
    with pytest.raises(CorpusError, match="--from READER:"):
        guess_reader(tmp_path)
    with pytest.raises(CorpusError, match="no such file"):
        guess_reader(tmp_path / "nowhere")


def test_importing_readers_and_passages_loads_no_xml_parser() -> None:
    readers = "jsonl, beir, notes, trec, parquet, hf_datasets"
    heavy = [
        "lxml",
        "pyarrow",
        "datasets",
        "pandas",
        "torch",
        "tokenizers",
        "faiss",
        "onnxruntime",
        "pydantic",
    ]
    code = (
        f"import sys; from cmbert_retrieval.corpora import passages, {readers};"
        f"sys.exit(any(name in sys.modules for name in {heavy}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
