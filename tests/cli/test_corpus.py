"""``cmbert corpus``: fetching from a shell, ended at bad moments, too; what is in a corpus; other formats."""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import Run
from publishers import Handler, Publisher, md5, serving, status
from pubmed_records import article, deletion, write

from cmbert_retrieval.corpora import open_corpus

BIG = random.Random(3).randbytes(3_000_000)


@pytest.fixture
def server() -> Iterator[Publisher]:
    with serving(Publisher()) as publisher:
        yield publisher


def contents(folder: Path) -> dict[str, bytes]:
    return {
        name: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not (name := path.relative_to(folder).as_posix()).startswith(".fetch/")
    }


# --- fetch ---


def test_fetch_says_what_it_did_and_what_comes_next(server: Publisher, run: Run, tmp_path: Path) -> None:
    for number in range(1, 6):
        server.add_article(number, license="CC BY-NC" if number == 2 else "CC BY")
    to = tmp_path / "my pmc"
    fetch = (
        "corpus",
        "fetch",
        "pmc",
        "--all",
        "--license",
        "CC0,CC-BY",
        "--to",
        to,
        "--base-url",
        server.url,
    )
    done = run(*fetch)
    assert done.code == 0
    assert done.out.startswith(f"{to}: 4 articles fetched (")
    assert "MB), 0 already there, 1 left out with the licence CC BY-NC (by bucket listing of" in done.out
    assert f"next: cmbert index build --from 'pmc:{to}' --out '{to}-index'\n" in done.err
    again = run(*fetch, "--json")
    report = json.loads(again.out)
    assert (report["fetched"], report["already_there"], report["failed"]) == (0, 4, 0)
    assert report["left_out"] == {"with the licence CC BY-NC": 1}


def test_fetch_of_what_is_not_there_names_it_and_ends_with_1(
    server: Publisher, run: Run, tmp_path: Path
) -> None:
    server.add_article(1)
    ids = tmp_path / "ids.txt"
    ids.write_text("PMC1\nPMC2\n")
    done = run("corpus", "fetch", "pmc", "--ids", ids, "--to", tmp_path / "pmc", "--base-url", server.url)
    assert done.code == 1
    assert "1 article fetched" in done.out and "1 failed" in done.out
    assert "PMC2: PMC's cloud service has no such article\n" in done.err
    assert (tmp_path / "pmc/.fetch/failed.txt").read_text().startswith("PMC2  # ")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["pmc"], 2, "exactly one of --ids FILE, --since DATE and --all"),
        (["pmc", "--all", "--since", "2026-01-01"], 2, "exactly one of --ids FILE, --since DATE and --all"),
        (["pubmed", "--ids", "ids.txt"], 1, "'ids.txt': no such file or folder"),
        (["pubmed", "--all", "--license", "CC0"], 1, "so --license cannot choose among them"),
        (["pubmed", "--ids", "ids.txt", "--license", "CC0"], 1, "so --license cannot choose among them"),
        (["pmc", "--all", "--license", "free"], 1, "'free' is not known"),
        (["europepmc", "--all"], 2, "'europepmc' is not one of 'pmc', 'pubmed'"),
        (["pmc", "--since", "yesterday"], 1, "'yesterday' is no date; expected one like 2026-01-31"),
        (["pmc", "--all"], 1, "HF_HUB_OFFLINE is set, so nothing is fetched"),
        (["pubmed", "--since", "2026-01-31"], 1, "HF_HUB_OFFLINE is set, so nothing is fetched"),
    ],
)
def test_a_wrong_fetch_is_one_line(
    run: Run, tmp_path: Path, arguments: list[str], code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = run("corpus", "fetch", *arguments, "--to", tmp_path / "to")
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("cmbert: ") and done.err.count("\n") == 1 and words in done.err
    assert not (tmp_path / "to").exists()


def slowly(handler: Handler) -> None:
    """Send the file, or the rest of it, in a second or two."""
    data = handler.data or b""
    first = int((handler.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
    handler.send_response(206 if first else 200)
    handler.send_header("Content-Length", str(len(data) - first))
    handler.send_header("ETag", f'"{md5(data)}"')
    if first:
        handler.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
    handler.end_headers()
    try:
        for begin in range(first, len(data), 100_000):
            handler.wfile.write(data[begin : begin + 100_000])
            time.sleep(0.05)
    except OSError:
        handler.close_connection = True


def start(*arguments: str | Path, largest_file: int | None = None) -> subprocess.Popen[str]:
    def limited() -> None:
        assert largest_file is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    return subprocess.Popen(
        [sys.executable, "-m", "cmbert_retrieval", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
        preexec_fn=limited if largest_file is not None else None,
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end and process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_fetch_that_is_ended_in_the_middle_of_a_file_goes_on_there(
    server: Publisher, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    path = server.add_pubmed("updatefiles", 4, BIG)
    server.faults[path] = [slowly]
    to = tmp_path / "pubmed"
    command = ("corpus", "fetch", "pubmed", "--since", "2026-01-01", "--to", to, "--base-url", server.url)
    part = to / ".fetch/pubmed26n0004.xml.gz.part"
    process = start(*command)
    wait_for(lambda: part.exists() and part.stat().st_size > 500_000, process)
    process.send_signal(sent)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (code, "")
    if sent == signal.SIGINT:
        assert err == "cmbert: stopped; run the same command again to go on\n"
    assert contents(to) == {}
    got = part.stat().st_size
    assert 500_000 < got < len(BIG)
    finished = start(*command)
    out, err = finished.communicate(timeout=60)
    assert finished.returncode == 0, err
    assert contents(to) == {"pubmed26n0004.xml.gz": BIG}
    assert server.ranges_of(path) == ["", f"bytes={got}-"]
    assert sorted(path.name for path in (to / ".fetch").iterdir()) == ["lock", "state.sqlite"]


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(server: Publisher, tmp_path: Path) -> None:
    path = server.add_pubmed("updatefiles", 4, BIG)
    server.add_pubmed("updatefiles", 5, gzip.compress(b"small"))
    to = tmp_path / "pubmed"
    command = ("corpus", "fetch", "pubmed", "--since", "2026-01-01", "--to", to, "--base-url", server.url)
    process = start(*command, "--connections", "1", largest_file=1_000_000)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err.startswith("cmbert: ") and err.count("\n") == 1, err
    assert ".fetch/pubmed26n0004.xml.gz.part: cannot be written: " in err and "make room, then run" in err
    process = start(*command)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert contents(to)["pubmed26n0004.xml.gz"] == BIG
    assert server.ranges_of(path) == ["", "bytes=1000000-"]


@pytest.mark.slow
def test_a_fetch_of_many_articles_that_is_killed_again_and_again_ends_as_an_unbroken_one(
    server: Publisher, tmp_path: Path
) -> None:
    for number in range(1, 401):
        name = server.add_article(number, text=f"Words of {number}. " * 200)
        server.faults[f"{name}/{name}.xml"] = [lambda handler: (time.sleep(0.1), handler.give())] * 10
    server.add_inventory()
    to = tmp_path / "pmc"
    command = ("corpus", "fetch", "pmc", "--all", "--to", to, "--base-url", server.url)
    draw = random.Random(5)
    kills = 0
    for _ in range(8):
        process = start(*command)
        try:
            process.communicate(timeout=1.0 + draw.random())
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
        # What is in its place is whole at any time, and can be read.
        there = contents(to) if to.exists() else {}
        assert there == {name: server.files[name] for name in there if not name.endswith(".tmp")} | {
            name: data for name, data in there.items() if name.endswith(".tmp")
        }
        if any(name.endswith(".xml") for name in there):
            assert all(record.problem is None for record in open_corpus("pmc", to).records())
    assert kills >= 3
    process = start(*command)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    expected = {key: data for key, data in server.files.items() if not key.startswith("inventory")}
    assert {name: data for name, data in contents(to).items() if not name.endswith(".tmp")} == expected
    fetched = [path for path in server.asked() if path.endswith(".xml")]
    assert len(fetched) <= 400 + kills * 4  # at most what was under way came twice


def test_quiet_says_nothing_but_the_result(server: Publisher, run: Run, tmp_path: Path) -> None:
    server.add_article(1)
    server.faults["metadata/PMC1.1.json"] = [status(503)]
    done = run("corpus", "fetch", "pmc", "--all", "--to", tmp_path / "p", "--base-url", server.url, "--quiet")
    assert done.code == 0 and done.out.count("\n") == 1
    assert done.err == f"next: cmbert index build --from pmc:{tmp_path / 'p'} --out {tmp_path / 'p'}-index\n"


# --- stats and convert ---


def write_notes(path: Path) -> Path:
    lines = [
        {"_id": "a", "title": "One", "text": "three short words", "year": 2020, "license": "cc-by-4.0"},
        {"_id": "b", "text": "  ", "metadata": {"year": "2021", "is_retracted": True}},
        {"_id": "c", "text": "Größe 1\u2028µm", "metadata": {"year": "someday", "license": "all mine"}},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"_id": "d"}\nnot json\n')
    return path


def test_stats_count_what_is_in_a_corpus(run: Run, tmp_path: Path) -> None:
    source = write_notes(tmp_path / "notes.jsonl")
    done = run("corpus", "stats", f"jsonl:{source}", "--json")
    assert done.code == 0
    assert json.loads(done.out) == {
        "documents": 3, "empty": 1, "words": 6, "characters": 17 + 2 + 10, "words_longest": 3,
        "words_mean": 2.0, "sections": {}, "licenses": {"CC BY": 1, "(unknown)": 1, "other": 1},
        "years": {"(unknown)": 1, "2020": 1, "2021": 1}, "retracted": 1, "deletions": 0, "unusable": 2,
        "problems": ["notes.jsonl:4: key 'text' is absent, expected a string or a list of strings",
                     "notes.jsonl:5: not well-formed JSON (column 1)"],
    }  # fmt: skip
    table = run("corpus", "stats", source)
    assert (
        "documents\t3\n" in table.out
        and "licence: CC BY\t1\n" in table.out
        and "year: 2020\t1\n" in table.out
    )
    assert "notes.jsonl:5: not well-formed JSON" in table.err


def test_stats_of_articles_count_their_sections(run: Run) -> None:
    fixture = Path(__file__).parents[1] / "fixtures" / "pmc"
    found = json.loads(run("corpus", "stats", f"pmc:{fixture}", "--json").out)
    documents = list(open_corpus("pmc", fixture))
    assert found["documents"] == len(documents) > 0
    assert found["words"] == sum(len(document.text.split()) for document in documents)
    assert sum(found["sections"].values()) == sum(len(document.sections) for document in documents)


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "folder"])
def test_convert_writes_what_the_readers_read_back(run: Run, tmp_path: Path, name: str) -> None:
    source = write_notes(tmp_path / "notes.jsonl")
    done = run("corpus", "convert", f"jsonl:{source}", "--to", tmp_path / "new" / name)
    path = tmp_path / "new" / name
    path = path / "corpus.jsonl" if name == "folder" else path
    assert done.code == 0
    assert done.out == f"{path}: 3 documents written\n"
    assert done.err.count("; skipped\n") == 2
    reader = "beir" if name == "folder" else "jsonl"
    converted = list(open_corpus(reader, tmp_path / "new" / name).strictly())
    assert converted == list(open_corpus("jsonl", source))
    before = path.read_bytes()
    if name.endswith(".gz"):
        assert before[:8] == b"\x1f\x8b\x08\0\0\0\0\0"  # neither a name nor a time
    run("corpus", "convert", f"jsonl:{source}", "--to", tmp_path / "new" / name)
    assert path.read_bytes() == before


def test_convert_keeps_the_file_before_when_it_fails(run: Run, tmp_path: Path) -> None:
    source = write_notes(tmp_path / "notes.jsonl")
    out = tmp_path / "out.jsonl"
    out.write_text("before")
    done = run("corpus", "convert", f"jsonl:{source}", "--to", out, "--strict")
    assert done.code == 1 and "notes.jsonl:4: key 'text' is absent" in done.err
    assert out.read_text() == "before" and {path.name for path in tmp_path.iterdir()} == {
        "notes.jsonl",
        "out.jsonl",
    }
    wrong = run("corpus", "convert", f"jsonl:{source}", "--to", tmp_path / "out.csv")
    assert wrong.code == 1 and "expected a name with .jsonl or .jsonl.gz, or a folder" in wrong.err


def test_convert_onto_its_own_source_gives_it_back(run: Run, tmp_path: Path) -> None:
    source = write_notes(tmp_path / "notes.jsonl")
    before = list(open_corpus("jsonl", source))
    assert run("corpus", "convert", f"jsonl:{source}", "--to", source).code == 0
    assert list(open_corpus("jsonl", source).strictly()) == before


def test_deletions_are_counted_apart_from_what_cannot_be_read(run: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "pubmed26n0001.xml", article(1), article(2), deletion(1, 7))
    counted = run("corpus", "stats", f"pubmed:{source}", "--json")
    found = json.loads(counted.out)
    assert (found["documents"], found["deletions"], found["unusable"], found["problems"]) == (2, 2, 0, [])
    assert "deletions\t2\n" in run("corpus", "stats", f"pubmed:{source}").out
    done = run("corpus", "convert", f"pubmed:{source}", "--to", tmp_path / "out.jsonl", "--strict")
    assert done.code == 0
    assert "2 deletions not carried out" in done.err
    assert "None" not in counted.err + done.err
    assert [document.id for document in open_corpus("jsonl", tmp_path / "out.jsonl")] == ["1", "2"]
