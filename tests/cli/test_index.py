"""``cmbert index``: the life of an index from a shell, its exit codes and what it prints where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import Run, assert_error
from samples import documents


def write(path: Path, numbers: range, *, seed: int = 0) -> Path:
    path.write_text(
        "".join(
            json.dumps({"id": text.id, "title": text.title, "text": text.text, **text.metadata}) + "\n"
            for text in documents(len(numbers), first=numbers.start, seed=seed)
        )
    )
    return path


@pytest.fixture
def index(tmp_path: Path, run: Run, tiny_encoder_path: Path) -> Path:
    source = write(tmp_path / "notes.jsonl", range(12))
    done = run(
        "index", "build", "--from", f"jsonl:{source}", "--out", tmp_path / "index",
        "--encoder", tiny_encoder_path,
        "--set", "columns={year: integer, journal: text}", "--set", "passages.max_tokens=24", "--quiet",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    return tmp_path / "index"


def test_build_says_what_it_made(tmp_path: Path, run: Run, tiny_encoder_path: Path) -> None:
    source = write(tmp_path / "notes.jsonl", range(5))
    done = run(
        "index", "build", "--from", f"jsonl:{source}", "--out", tmp_path / "i", "--encoder", tiny_encoder_path
    )
    assert done.code == 0
    assert done.out.startswith(f"{tmp_path / 'i'}: 5 documents indexed, ")
    assert done.out.count("\n") == 1 and "(commit 1)" in done.out


def test_build_as_json_has_every_count(tmp_path: Path, run: Run) -> None:
    source = write(tmp_path / "notes.jsonl", range(5))
    with source.open("a") as file:
        file.write('{"id": "note-1", "text": "again"}\n{"id": "empty", "text": " "}\nnot json\n')
    done = run(
        "index", "build", "--from", f"jsonl:{source}", "--out", tmp_path / "i", "--encoder", "none", "--json"
    )
    assert done.code == 0
    report = done.json
    assert report["index"] == str(tmp_path / "i")
    assert (report["documents"], report["duplicates"], report["empty"], report["skipped"]) == (5, 1, 1, 1)
    assert report["commit"] == 1 and report["encoded"] == 0
    assert "notes.jsonl:8" in report["examples"]["skipped"][0]


def test_trouble_is_told_on_stderr_and_strict_makes_it_an_error(tmp_path: Path, run: Run) -> None:
    source = write(tmp_path / "notes.jsonl", range(5))
    with source.open("a") as file:
        file.write('{"id": "empty", "text": " "}\nnot json\n')
    build = ("index", "build", "--from", f"jsonl:{source}", "--encoder", "none")
    done = run(*build, "--out", tmp_path / "i")
    assert done.code == 0
    assert "1 record was skipped (first: notes.jsonl:7" in done.err
    assert "1 document without title and text was skipped (first: empty)" in done.err
    assert "skipped" not in done.out
    assert_error(run(*build, "--out", tmp_path / "j", "--strict"), "empty: empty")


def test_info_tells_documents_and_rows(index: Path, run: Run) -> None:
    info = run("index", "info", index, "--json").json
    assert info["documents"] == 12
    assert info["rows"] > 12 and info["dead_rows"] == 0 and info["commit"] == 1
    assert (info["encoder"], info["dim"], info["max_tokens"]) == ("tiny-encoder", 32, 64)
    assert info["columns"] == {"year": "integer", "journal": "text"}
    assert sum(segment["rows"] for segment in info["segments"]) == info["rows"]
    assert info["bytes"] == sum(
        path.stat().st_size
        for path in index.rglob("*")
        if path.is_file()
        and path.parent.name != "commits"
        and path.name not in ("manifest.json", "write.lock")
    )
    assert info["sources"][0]["checksum"].startswith("sha256:")
    plain = run("index", "info", index)
    lines = dict(line.split("\t", 1) for line in plain.out.splitlines())
    assert lines["documents"] == "12" and lines["rows"] == f"{info['rows']:,}"
    assert (plain.code, plain.err) == (0, "")


def test_the_life_of_an_index(index: Path, tmp_path: Path, run: Run) -> None:
    source = write(tmp_path / "more.jsonl", range(10, 15), seed=1)
    added = run("index", "add", index, "--from", f"jsonl:{source}", "--json").json
    assert (added["documents"], added["replaced"], added["commit"]) == (5, 2, 2)
    again = run("index", "add", index, "--from", f"jsonl:{source}", "--json").json
    assert (again["documents"], again["unchanged"], again["commit"]) == (0, 5, 2)
    deleted = run("index", "delete", index, "note-1", "note-2")
    assert deleted.out == f"{index}: 2 documents deleted (commit 3)\n"
    (tmp_path / "ids.txt").write_text("note-3\n\n note-4 \n")
    assert run("index", "delete", index, "--ids", tmp_path / "ids.txt", "--json").json["deleted"] == 2
    info = run("index", "info", index, "--json").json
    assert info["documents"] == 11 and info["dead_rows"] > 0 and len(info["segments"]) == 2
    checked = run("index", "verify", index, "--deep")
    assert (checked.code, checked.err) == (0, "")
    assert checked.out.endswith("are as commit 4 left them\n")
    assert run("index", "optimize", index, "--json").json["commit"] == 5
    info = run("index", "info", index, "--json").json
    assert (info["documents"], info["dead_rows"], len(info["segments"])) == (11, 0, 1)
    result = run("index", "verify", index, "--json").json
    assert (result["commit"], result["rows"], result["problems"]) == (5, info["rows"], [])


def test_damage_is_one_error_line_and_every_problem_on_stdout(index: Path, run: Run) -> None:
    damaged = [*sorted(index.rglob("vectors-*.npy")), index / "segments" / "00000" / "documents.sqlite"]
    for path in damaged:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    done = run("index", "verify", index)
    assert done.code == 1
    assert done.err.count("\n") == 1 and "SHA-256 differs" in done.err
    assert sorted(line.split(":")[0] for line in done.out.splitlines()) == sorted(
        path.relative_to(index).as_posix() for path in damaged
    )
    as_json = run("index", "verify", index, "--json")
    assert as_json.code == 1 and len(as_json.json["problems"]) == len(damaged)


def test_leftovers_are_told_and_are_no_error(index: Path, run: Run) -> None:
    (index / "deleted").mkdir(exist_ok=True)
    (index / "deleted" / "00099.npy").write_bytes(b"x")
    done = run("index", "verify", index)
    assert done.code == 0
    assert "deleted/00099.npy: not part of the index" in done.err


def test_what_cannot_be_done_is_one_line(
    index: Path, tmp_path: Path, run: Run, tiny_encoder_path: Path
) -> None:
    source = write(tmp_path / "x.jsonl", range(1))
    given = f"jsonl:{source}"
    nothing = tmp_path / "nothing"
    for command in (["info"], ["verify"], ["optimize"], ["delete"], ["add", "--from", given]):
        extra = ["a"] if command == ["delete"] else []
        assert_error(
            run("index", command[0], nothing, *extra, *command[1:]), "no index in", "cmbert index build"
        )
    assert not nothing.exists()
    assert_error(
        run("index", "build", "--from", given, "--out", index, "--encoder", "none"), "holds an index already"
    )
    assert_error(
        run("index", "delete", index, "note-1", "nobody"), "1 of 2 ids are not in the index", "'nobody'"
    )
    assert run("index", "delete", index, "nobody", "--missing-ok").code == 0
    assert_error(run("index", "build", "--from", "jsonl:/no/such", "--out", nothing), "/no/such")
    assert_error(run("index", "build", "--from", "word:x", "--out", nothing), "word")
    assert_error(
        run("index", "build", "--from", given, "--out", nothing, "--set", "passages.strid=1"),
        "passages.stride",
    )
    assert_error(
        run("index", "build", "--from", given, "--out", nothing, "--encoder", tmp_path / "no-encoder"),
        "no-encoder",
    )
    assert_error(
        run("index", "add", index, "--from", given, "--encoder", tmp_path / "no-encoder"), "no-encoder"
    )
    assert not nothing.exists()


def test_a_wrong_command_line_exits_with_2(index: Path, run: Run) -> None:
    for args in (
        ["build", "--out", index],
        ["build", "icd10cm", "--from", "jsonl:x", "--out", index],
        ["build", "--from", "jsonl:x"],
        ["delete", index],
        ["add", index],
        ["nothing"],
        ["info", index, "--jsn"],
    ):
        assert_error(run("index", *args), code=2)


def test_another_encoder_is_refused(index: Path, tmp_path: Path, run: Run, tiny_encoder_path: Path) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(tiny_encoder_path, other)
    settings = json.loads((other / "onnx" / "cmbert.json").read_text())
    settings["identity"]["weights_sha256"] = "0" * 64
    (other / "onnx" / "cmbert.json").write_text(json.dumps(settings))
    source = write(tmp_path / "more.jsonl", range(20, 22))
    done = run("index", "add", index, "--from", f"jsonl:{source}", "--encoder", other)
    assert_error(done, "the index was built with 'tiny-encoder'")
    assert run("index", "info", index, "--json").json["commit"] == 1


def test_a_writer_that_is_at_work_is_waited_for_by_the_user(index: Path, run: Run) -> None:
    from cmbert_retrieval.indexes.writer import IndexWriter

    with IndexWriter(index):
        assert_error(run("index", "delete", index, "note-1"), "another process is writing to this index")
        assert run("index", "info", index).code == 0


def test_an_index_of_words_alone(tmp_path: Path, run: Run) -> None:
    source = write(tmp_path / "notes.jsonl", range(5))
    built = run("index", "build", "--from", source, "--out", tmp_path / "i", "--encoder", "none", "--json")
    assert built.json["encoded"] == 0
    info = run("index", "info", tmp_path / "i", "--json").json
    assert (info["encoder"], info["documents"]) == (None, 5)
    more = write(tmp_path / "more.jsonl", range(5, 7))
    assert run("index", "add", tmp_path / "i", "--from", more, "--json").json["documents"] == 2
    assert_error(run("index", "verify", tmp_path / "i", "--deep"), "--deep compares vectors")


@pytest.mark.parametrize(
    "setting", ["encoder.prompts={query: 'query: ', document: ''}", "encoder.max_tokens=32"]
)
def test_an_index_with_its_own_encoder_settings_lives_its_whole_life(
    tmp_path: Path, run: Run, tiny_encoder_path: Path, setting: str
) -> None:
    source = write(tmp_path / "notes.jsonl", range(6))
    done = run(
        "index", "build", "--from", f"jsonl:{source}", "--out", tmp_path / "index",
        "--encoder", tiny_encoder_path, "--set", setting, "--set", "passages.max_tokens=24", "--quiet",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    done = run("search", tmp_path / "index", "heart failure", "--mode", "dense", "--json")
    assert (done.code, done.err) == (0, "") and done.json
    more = write(tmp_path / "more.jsonl", range(6, 9))
    done = run("index", "add", tmp_path / "index", "--from", f"jsonl:{more}", "--json", "--quiet")
    assert (done.code, done.err) == (0, "") and done.json["documents"] == 3
    assert run("index", "verify", tmp_path / "index", "--deep", "--quiet").code == 0


def test_documents_are_added_by_the_encoder_as_the_recipe_runs_it(
    tmp_path: Path, run: Run, tiny_encoder_path: Path
) -> None:
    source = write(tmp_path / "notes.jsonl", range(3))
    more = write(tmp_path / "more.jsonl", range(3, 5))
    build = (
        "index", "build", "--from", f"jsonl:{source}", "--out", tmp_path / "index",
        "--encoder", tiny_encoder_path, "--set", "encoder.dtype=float32", "--set", "encoder.device=cpu",
    )  # fmt: skip
    assert run(*build, "--set", "encoder.backend=onnx", "--quiet").code == 0
    add = ("index", "add", tmp_path / "index", "--from", f"jsonl:{more}", "--quiet")
    # The recipe's backend runs on the CPU only: that it says so shows that both were asked for.
    assert_error(run(*add, "--device", "cuda"), "'onnx'", "cuda", "float32")
    assert run(*add).code == 0
