"""An index of clinical notes from a shell: built, filtered, added to, and what is wrong told in one line."""

from __future__ import annotations

from pathlib import Path

from commands import Run, assert_error

HEADER = "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text\n"


def write(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(header + "".join(row + "\n" for row in rows))
    return path


def search(run: Run, index: Path, query: str, *args: str) -> list[str]:
    done = run("search", index, query, "--json", *args)
    assert done.code == 0, done.err
    return [hit["id"] for hit in done.json]


def test_notes_of_mimic_are_found_by_patient_kind_and_day(tmp_path: Path, run: Run) -> None:
    notes = tmp_path / "note"
    write(notes / "discharge.csv", '1-DS-1,1,7,DS,1,2150-01-31 10:00:00,,"Chief Complaint:\nCough, fever\n"')
    write(notes / "radiology.csv", "2-RR-1,2,,RR,1,2151-01-31 10:00:00,,IMPRESSION: Cough explained")
    index = tmp_path / "index"
    assert run("index", "build", "--from", notes, "--encoder", "none", "--out", index).code == 0
    assert sorted(search(run, index, "cough")) == ["1-DS-1", "2-RR-1"]
    assert search(run, index, "cough", "--filter", "subject_id=1") == ["1-DS-1"]
    assert search(run, index, "cough", "--filter", "note_type=RR") == ["2-RR-1"]
    assert search(run, index, "cough", "--filter", "charttime<2151-01-01") == ["1-DS-1"]


def test_what_is_added_is_read_with_the_options_that_the_index_was_built_with(
    tmp_path: Path, run: Run
) -> None:
    header = "key;remark\n"
    first = write(tmp_path / "a.csv", "1;cough", header=header)
    more = write(tmp_path / "b.csv", "2;cough", "1;fever", header=header)
    index = tmp_path / "index"
    options = "source.options={id: key, text: remark, separator: ';'}"
    build = ("index", "build", "--from", f"notes:{first}", "--encoder", "none", "--out", index)
    assert run(*build, "--set", options).code == 0
    assert run("index", "add", index, "--from", f"notes:{more}").code == 0
    assert search(run, index, "cough") == ["2"]
    assert search(run, index, "fever") == ["1"]


def test_what_is_wrong_is_one_line_that_says_what_to_do(tmp_path: Path, run: Run) -> None:
    source = write(tmp_path / "a.csv", "1,Zebedee", header="id,remark\n")
    done = run("index", "build", "--from", f"notes:{source}", "--out", tmp_path / "index")
    assert_error(
        done, "no column 'text' or 'note_text'; there are: id, remark; name it: --set source.options.t"
    )
    broken = write(tmp_path / "b.csv", "1,Zebedee", "2,Zebedee,x", header="id,text\n")
    build = ("index", "build", "--from", f"notes:{broken}", "--encoder", "none", "--out", tmp_path / "index")
    done = run(*build, "--strict")
    assert done.code == 1
    assert "b.csv:3: 3 cells, expected 2 as in the first row" in done.err
    assert "Zebedee" not in done.err
    assert run(*build, "--restart").code == 0
