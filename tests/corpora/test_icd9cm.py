"""ICD-9-CM and the GEMs: small files against what was written into them, and the real mappings."""

from __future__ import annotations

import gzip
import logging
from collections import Counter
from pathlib import Path

import pytest
from code_systems import GEM, ICD9_DX, ICD9_SG

from cmbert_retrieval.corpora.gems import GemRow, read_gem
from cmbert_retrieval.corpora.icd9cm import Icd9cmCorpus, dotted_icd9
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.types import Document


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "CMS32_DESC_LONG_DX.txt").write_text(ICD9_DX, encoding="utf-8")
    (tmp_path / "CMS32_DESC_LONG_SG.txt").write_text(ICD9_SG, encoding="utf-8")
    (tmp_path / "CMS32_DESC_SHORT_DX.txt").write_text("0010  Crckd hat\n", encoding="utf-8")
    (tmp_path / "2018_I9gem.txt").write_text(GEM, encoding="utf-8", newline="")
    (tmp_path / "gem_i9pcs.txt").write_text("0010 0G10AZZ 10000\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def codes(folder: Path) -> dict[str, Document]:
    return {document.id: document for document in Icd9cmCorpus(folder).strictly()}


def test_dots_are_put_in_by_kind_of_code(codes: dict[str, Document]) -> None:
    assert list(codes) == ["001.0", "001.1", "042", "E000.0", "V01.0", "999.99", "00.10", "60.5", "99.99"]
    assert dotted_icd9("0010") == "001.0"
    assert dotted_icd9("0010", is_procedure=True) == "00.10"
    assert dotted_icd9("E001") == "E001"


def test_diagnoses_and_procedures_are_told_apart_by_their_columns(codes: dict[str, Document]) -> None:
    assert codes["001.0"].title == "Cracked hat"
    assert codes["00.10"].title == "Gluing of hat"
    assert codes["60.5"].metadata["kind"] == "procedure"
    assert codes["042"].metadata["kind"] == "code"


def test_a_code_has_its_names_chapter_and_category(codes: dict[str, Document]) -> None:
    metadata = codes["001.0"].metadata
    assert metadata["names"] == {"long": ["Cracked hat"], "short": ["Crckd hat"]}
    assert (metadata["system"], metadata["release"], metadata["category"]) == ("icd9cm", "32", "001")
    assert metadata["chapter_title"] == "Infectious and parasitic diseases"
    assert codes["001.1"].entries == ("Chip of hat",)
    assert [codes[code].metadata["chapter"] for code in ("V01.0", "E000.0", "999.99", "60.5", "00.10")] == [
        "V",
        "E",
        "17",
        "11",
        "0",
    ]


def test_mappings_keep_what_the_flags_say(codes: dict[str, Document]) -> None:
    exact = {"approximate": False, "combination": False, "scenario": 0, "choice_list": 0, "system": "icd10cm"}
    assert codes["001.0"].metadata["mappings"] == [{"code": "G00.0", **exact}]
    first, second = codes["001.1"].metadata["mappings"]
    assert first == {
        "code": "G00.101A",
        "system": "icd10cm",
        "approximate": True,
        "combination": True,
        "scenario": 1,
        "choice_list": 2,
    }
    assert second["code"] == "G00.102"
    assert codes["042"].metadata["mappings"] == [{"no_map": True}]
    assert codes["00.10"].metadata["mappings"][0] == {
        **exact,
        "code": "0G10AZZ",
        "system": "icd10pcs",
        "approximate": True,
    }
    assert "mappings" not in codes["V01.0"].metadata


def test_mappings_of_codes_without_a_title_are_counted(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        list(Icd9cmCorpus(folder))
    assert "mappings of 1 code without a title" in caplog.text


def test_a_single_file_is_read_with_a_gem_of_its_own(folder: Path) -> None:
    (folder / "mine").mkdir()
    path = (folder / "CMS32_DESC_LONG_DX.txt").rename(folder / "mine" / "dx.txt")
    documents = list(Icd9cmCorpus(path, gem=str(folder / "2018_I9gem.txt")))
    assert documents[0].metadata["mappings"][0]["code"] == "G00.0"
    assert documents[0].metadata["names"]["short"] == []
    assert "mappings" not in next(iter(Icd9cmCorpus(path))).metadata
    sources = [Path(source.path).name for source in Icd9cmCorpus(path, gem=str(folder)).sources()]
    assert sources[:3] == ["dx.txt", "2018_I9gem.txt", "gem_i9pcs.txt"]


def test_rows_of_a_gem_are_read_as_they_stand(folder: Path) -> None:
    rows = list(read_gem(folder / "2018_I9gem.txt"))
    assert rows[1] == GemRow("0011", "G00101A", True, False, True, 1, 2, 2)
    assert rows[3] == GemRow("042", "", True, True, False, 0, 0, 4)
    back = folder / "2018_I10gem.txt"
    back.write_text("A000    0010  00000\n", encoding="utf-8")
    assert list(read_gem(back)) == [GemRow("A000", "0010", False, False, False, 0, 0, 1)]


def test_a_line_that_is_none_of_a_gem_is_an_error_with_its_number(folder: Path) -> None:
    path = folder / "gem.txt"
    path.write_text("0010 A000 00000\nSmith, John\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"gem\.txt:2: no line of a GEM file: expected") as caught:
        list(read_gem(path))
    assert "Smith" not in str(caught.value)


def test_unusable_and_repeated_lines_are_problems_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "dx.txt"
    path.write_text(
        "0010  Cracked hat\nSmith, John\n0010  Cracked hat\nX99   none\n0012  Boot\n", encoding="utf-8"
    )
    records = list(Icd9cmCorpus(path).records())
    assert [str(r.problem).partition(": ")[0] for r in records if r.problem] == [
        "dx.txt:2",
        "dx.txt:3",
        "dx.txt:4",
    ]
    assert [r.document.id for r in records if r.document] == ["001.0", "001.2"]


def test_a_folder_without_titles_or_gems_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "dx.txt").write_text(ICD9_DX, encoding="utf-8")
    with pytest.raises(CorpusError, match=r"no titles of ICD-9-CM in this folder; expected"):
        Icd9cmCorpus(tmp_path)
    with pytest.raises(CorpusError, match=r"no GEM file in this folder"):
        Icd9cmCorpus(tmp_path / "dx.txt", gem=str(tmp_path))


@pytest.mark.slow
def test_the_real_mappings_give_each_code_the_titles_and_targets_of_another_reading(
    shared_data: Path, tmp_path: Path
) -> None:
    with gzip.open(
        shared_data / "icd9cm_and_gems" / "icd9cm_to_icd10cm_gem.tsv.gz", "rt", encoding="utf-8"
    ) as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines][1:]
    rows = [row for row in rows if row[0] and row[2] and row[4].isdigit() and len(row[4]) == 5]
    titles = {row[0].replace(".", ""): row[1] for row in rows}
    dx, gem = tmp_path / "dx.txt", tmp_path / "2018_I9gem.txt"
    dx.write_text("".join(f"{code:<5} {title}\n" for code, title in titles.items()), encoding="utf-8")
    gem.write_text(
        "".join(f"{row[0].replace('.', ''):<5} {row[2].replace('.', ''):<7} {row[4]}\n" for row in rows),
        encoding="utf-8",
    )
    documents = list(Icd9cmCorpus(dx, gem=str(gem)).strictly())
    assert {document.id for document in documents} == {row[0] for row in rows}
    got = Counter(
        (document.id, mapping["code"], mapping["approximate"])
        for document in documents
        for mapping in document.metadata["mappings"]
        if "code" in mapping
    )
    assert got == Counter((row[0], row[2], row[4][0] == "1") for row in rows if row[4][1] == "0")
