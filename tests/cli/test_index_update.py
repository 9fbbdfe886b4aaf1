"""``cmbert index update``: what it prints where, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import Run, assert_error
from pubmed_records import article, deletion, write


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [
        write(tmp_path / "pubmed26n0001.xml.gz", *(article(n, f"one {n}") for n in range(1, 6))),
        write(tmp_path / "pubmed26n0002.xml.gz", article(2, "two"), article(6, "two"), deletion(3, 4, 5)),
        write(tmp_path / "pubmed26n0003.xml.gz", article(7, "three")),
    ]


@pytest.fixture
def index(tmp_path: Path, run: Run, files: list[Path]) -> Path:
    done = run("index", "build", "--from", files[0], "--out", tmp_path / "i", "--encoder", "none", "--quiet")
    assert (done.code, done.err) == (0, "")
    return tmp_path / "i"


def test_an_update_says_what_it_did_and_the_second_time_that_nothing_changed(
    index: Path,
    run: Run,
    files: list[Path],
) -> None:
    done = run("index", "update", index, files[2], files[1])
    assert done.code == 0
    assert done.out.splitlines() == [
        f"{files[1]}: 2 documents added, 2 rows, 3 deleted (commit 2)",
        f"{files[2]}: 1 document added, 1 row (commit 3)",
    ]
    assert "1 document replaced an earlier revision\n" in done.err
    again = run("index", "update", index, files[1], files[2])
    assert (again.code, again.err) == (0, "")
    assert again.out.splitlines() == [f"{path}: was applied already; nothing changed" for path in files[1:]]
    assert run("index", "info", index, "--json").json["documents"] == 4


def test_the_json_of_an_update_has_a_report_a_file(
    index: Path,
    run: Run,
    files: list[Path],
) -> None:
    run("index", "update", index, files[1], "--quiet")
    done = run("index", "update", index, *files[1:], "--json", "--quiet").json
    assert (done["index"], done["commit"]) == (str(index), 3)
    assert [(one["file"], one["applied"], one.get("documents")) for one in done["files"]] == [
        (str(files[1]), False, None),
        (str(files[2]), True, 1),
    ]


def test_what_does_not_follow_is_one_line_and_exit_code_1_unless_forced(
    index: Path,
    run: Run,
    files: list[Path],
) -> None:
    assert_error(run("index", "update", index, files[2]), "pubmed26n0002 has not been applied", "--force")
    assert run("index", "update", index, files[2], "--force", "--quiet").code == 0
    assert_error(run("index", "update", index, files[1]), "older than pubmed26n0003", "--force")
    assert_error(run("index", "update", index, "nowhere.xml"), "no such file")


def test_an_index_of_notes_is_sent_to_index_add(tmp_path: Path, run: Run, files: list[Path]) -> None:
    notes = tmp_path / "notes.jsonl"
    notes.write_text(json.dumps({"id": "1", "text": "a note"}))
    run("index", "build", "--from", f"jsonl:{notes}", "--out", tmp_path / "n", "--encoder", "none", "--quiet")
    assert_error(
        run("index", "update", tmp_path / "n", files[1]), "by the reader 'jsonl'", "cmbert index add"
    )


def test_headings_types_languages_and_retractions_can_be_filtered_on(tmp_path: Path, run: Run) -> None:
    source = Path(__file__).parents[1] / "fixtures" / "pubmed" / "pubmed26n0001.xml"
    out = tmp_path / "i"
    run("index", "build", "--from", f"pubmed:{source}", "--out", out, "--encoder", "none", "--quiet")
    for filter_, ids in (
        ("mesh=Xenopus", ["90000001"]),
        ("mesh_major=Humans", []),
        ("language=eng", ["90000001", "90000003", "90000004"]),
        ("is_retracted=true", ["90000002", "90000004"]),
        ("year<2000", ["90000001"]),
        ("types=Review", ["90000003"]),
    ):
        found = run("search", out, "salt water", "--filter", filter_, "--json", "--mode", "lexical").json
        assert sorted(hit["id"] for hit in (found["hits"] if isinstance(found, dict) else found)) == ids
