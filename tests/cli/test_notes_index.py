"""An index of clinical notes from a shell: built, filtered, added to, and what is wrong told in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cmbert_retrieval.cli import main

HEADER = "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text\n"


def write(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(header + "".join(row + "\n" for row in rows))
    return path


def run(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(arg) for arg in args])
    return code, *capsys.readouterr()


def search(capsys: pytest.CaptureFixture[str], index: Path, query: str, *args: str) -> Any:
    code, out, err = run(capsys, "search", index, query, "--json", *args)
    assert code == 0, err
    found = json.loads(out)
    return [hit["id"] for hit in (found["hits"] if isinstance(found, dict) else found)]


def test_notes_of_mimic_are_found_by_patient_kind_and_day(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = tmp_path / "note"
    write(notes / "discharge.csv", '1-DS-1,1,7,DS,1,2150-01-31 10:00:00,,"Chief Complaint:\nCough, fever\n"')
    write(notes / "radiology.csv", "2-RR-1,2,,RR,1,2151-01-31 10:00:00,,IMPRESSION: Cough explained")
    index = tmp_path / "index"
    assert run(capsys, "index", "build", "--from", notes, "--encoder", "none", "--out", index)[0] == 0
    assert sorted(search(capsys, index, "cough")) == ["1-DS-1", "2-RR-1"]
    assert search(capsys, index, "cough", "--filter", "subject_id=1") == ["1-DS-1"]
    assert search(capsys, index, "cough", "--filter", "note_type=RR") == ["2-RR-1"]
    assert search(capsys, index, "cough", "--filter", "charttime<2151-01-01") == ["1-DS-1"]


def test_what_is_added_is_read_with_the_options_that_the_index_was_built_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = "key;remark\n"
    first = write(tmp_path / "a.csv", "1;cough", header=header)
    more = write(tmp_path / "b.csv", "2;cough", "1;fever", header=header)
    index = tmp_path / "index"
    options = "source.options={id: key, text: remark, separator: ';'}"
    build = ("index", "build", "--from", f"notes:{first}", "--encoder", "none", "--out", index)
    assert run(capsys, *build, "--set", options)[0] == 0
    assert run(capsys, "index", "add", index, "--from", f"notes:{more}")[0] == 0
    assert search(capsys, index, "cough") == ["2"]
    assert search(capsys, index, "fever") == ["1"]


def test_what_is_wrong_is_one_line_that_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "a.csv", "1,Zebedee", header="id,remark\n")
    code, _, err = run(capsys, "index", "build", "--from", f"notes:{source}", "--out", tmp_path / "index")
    assert code == 1
    assert err.count("\n") == 1
    assert "no column 'text' or 'note_text'; there are: id, remark; name it: --set source.options.t" in err
    broken = write(tmp_path / "b.csv", "1,Zebedee", "2,Zebedee,x", header="id,text\n")
    build = ("index", "build", "--from", f"notes:{broken}", "--encoder", "none", "--out", tmp_path / "index")
    code, _, err = run(capsys, *build, "--strict")
    assert code == 1
    assert "b.csv:3: 3 cells, expected 2 as in the first row" in err
    assert "Zebedee" not in err
    assert run(capsys, *build, "--restart")[0] == 0
