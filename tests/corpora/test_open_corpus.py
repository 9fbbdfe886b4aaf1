from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cmbert_retrieval.corpora import READERS, guess_reader, open_corpus
from cmbert_retrieval.errors import ConfigError, CorpusError

PMC = Path(__file__).parents[1] / "fixtures" / "pmc"


def test_an_unknown_reader_is_an_error_that_names_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown reader 'jsonnl'.*beir, icd10cm, jsonl, pmc, pubmed; did you mean 'jsonl'"
    ):
        open_corpus("jsonnl", PMC)


def test_an_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown option 'include_retract'.*did you mean 'include_retracted'"
    ):
        open_corpus("pmc", PMC, include_retract=False)


def test_path_is_no_option() -> None:
    with pytest.raises(TypeError):
        open_corpus("pmc", PMC, **{"path": "elsewhere"})  # type: ignore[arg-type]


@pytest.mark.parametrize("reader", ["pmc", "pubmed", "jsonl", "beir"])
def test_a_path_where_nothing_is_is_an_error_that_names_it(reader: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere.*no such file or folder"):
        open_corpus(reader, tmp_path / "nowhere")


def test_every_reader_tells_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text("")
    paths = {
        "pmc": PMC,
        "pubmed": PMC.with_name("pubmed"),
        "jsonl": tmp_path / "corpus.jsonl",
        "beir": tmp_path,
        "icd10cm": "",
    }
    assert set(paths) == set(READERS)
    for name, path in paths.items():
        assert open_corpus(name, path).reader == name


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("a.jsonl", "jsonl"),
        ("a.jsonl.gz", "jsonl"),
        ("a.tar.gz", "pmc"),
        ("a.tgz", "pmc"),
        ("a.nxml", "pmc"),
        ("a.XML", "pmc"),
        ("a.xml.gz", "pmc"),
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
    ],
)
def test_the_reader_of_a_folder_is_guessed_by_what_is_in_it(inside: str, reader: str, tmp_path: Path) -> None:
    (tmp_path / inside).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / inside).write_text("")
    assert guess_reader(tmp_path) == reader


def test_what_cannot_be_guessed_is_an_error_that_says_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(CorpusError, match=r"--from READER:.*a\.csv \(beir, icd10cm, jsonl, pmc, pubmed\)"):
        guess_reader(tmp_path / "a.csv")
    with pytest.raises(CorpusError, match="--from READER:"):
        guess_reader(tmp_path)
    with pytest.raises(CorpusError, match="no such file"):
        guess_reader(tmp_path / "nowhere")


def test_importing_readers_and_passages_loads_no_xml_parser() -> None:
    code = (
        "import sys; from cmbert_retrieval.corpora import passages, jsonl, beir;"
        "heavy = ('lxml', 'torch', 'tokenizers', 'faiss', 'onnxruntime', 'pydantic');"
        "sys.exit(any(name in sys.modules for name in heavy))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
