"""What is wrong with a recipe, a source or a folder is said before any work, in one line without text."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

for package in ("pyarrow", "datasketch", "wordfreq", "transformers"):
    pytest.importorskip(package)

from prepare_samples import prose, recipe, write_jsonl  # noqa: E402

from cmbert_retrieval.errors import CmbertError, ConfigError, CorpusError, StorageError  # noqa: E402
from cmbert_retrieval.pretraining.prepare import prepare  # noqa: E402
from cmbert_retrieval.pretraining.reading import ShardSize  # noqa: E402

pytestmark = pytest.mark.slow  # transformers

SECRET = "qxsecretzo"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Twenty documents that each hold a word that no message may show."""
    return write_jsonl(
        tmp_path / "corpus.jsonl", [{"id": f"d{n}", "text": f"{SECRET} {prose(n)}"} for n in range(20)]
    )


GOOD = json.dumps({"id": "1", "text": SECRET}) + "\n"
BODY = '{"id": "1", "body": "x"}\n'

# case -> what the source's file holds (None: there is none), the source's recipe, the error, what it says
BROKEN: dict[str, tuple[str | None, dict[str, Any], type[CmbertError], str]] = {
    "unknown reader": (GOOD, {"reader": "jsnl"}, ConfigError, "unknown reader 'jsnl'.*mean 'jsonl'"),
    "no file": (None, {}, CorpusError, "broken: no such file|broken'.*no such"),
    "unknown option": (GOOD, {"options": {"txt": "a"}}, ConfigError, "unknown option 'txt'"),
    "empty file": ("", {}, CorpusError, "source 'wrong': no document in it"),
    "no text": (BODY * 9, {}, CorpusError, "broken:1: key 'text' is absent"),
    "no such text": (GOOD, {"options": {"text": "answer"}}, CorpusError, "key 'answer' is absent"),
    "no json": (f"{SECRET}\n" * 200, {}, CorpusError, "first 100 records cannot be used.*broken:1"),
    "no column": (
        f"note_id,text\n1,{SECRET}\n",
        {"reader": "notes", "options": {"text": "note"}},
        CorpusError,
        "no column 'note'; there are: note_id, text",
    ),
    "no ids": (GOOD, {"exclude_ids": "nowhere"}, ConfigError, "exclude_ids: nowhere: cannot be read"),
    "misspelt licence": (GOOD, {"licenses": ["CC BI"]}, ConfigError, "'CC BI' is not known"),
    "unknown collection": (GOOD, {"collection": "x"}, ConfigError, "unknown collection 'x'"),
    "no key of a split": (GOOD, {"collection": "medquad"}, CorpusError, "without 'focus' or 'doc'"),
    "never trained on": (GOOD, {"collection": "bioasq"}, ConfigError, "nothing is trained on 'bioasq'"),
    "no title": (GOOD, {"sentences": True}, CorpusError, "no title to make sentences of"),
}


def broken(folder: Path, case: str) -> tuple[dict[str, Any], type[CmbertError], str]:
    text, values, error, said = BROKEN[case]
    path = folder / ("broken" if values.get("reader") != "notes" else "broken.csv")
    if text is not None:
        path.write_text(text, encoding="utf-8")
    return {"reader": "jsonl", "path": str(path), **values}, error, said


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_source_is_told_before_any_work(tmp_path: Path, corpus: Path, case: str) -> None:
    source, error, said = broken(tmp_path, case)
    sources = {"good": {"reader": "jsonl", "path": str(corpus)}, "wrong": source}
    with pytest.raises(error, match=said) as raised:
        prepare(recipe(sources), tmp_path / "out", processes=1)
    assert SECRET not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", ["unknown reader", "no file", "empty file", "no title"])
def test_a_broken_lexicon_is_told_before_any_work(tmp_path: Path, corpus: Path, case: str) -> None:
    wrong, error, said = broken(tmp_path, case)
    wrong.pop("sentences", None)
    with pytest.raises(error, match=said):
        prepare(
            recipe({"good": {"reader": "jsonl", "path": str(corpus)}}, lexicon={"wrong": wrong}),
            tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


def test_files_of_ids_and_names_must_hold_some(tmp_path: Path, corpus: Path) -> None:
    (tmp_path / "white.txt").write_text("\n \n", encoding="utf-8")
    source = {"reader": "jsonl", "path": str(corpus)}
    with pytest.raises(ConfigError, match=r"exclude_ids: .*white.txt: nothing in it"):
        prepare(recipe({"good": {**source, "exclude_ids": str(tmp_path / "white.txt")}}), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"data.exclude_names: nowhere.txt: cannot be read"):
        prepare(recipe({"good": source}, exclude_names="nowhere.txt"), tmp_path / "out")


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path, corpus: Path) -> None:
    source = {"reader": "jsonl", "path": str(corpus), "licenses": ["CC0"]}
    with pytest.raises(CorpusError, match="nothing is left to train on: of 20 documents, 20 other licence"):
        prepare(recipe({"good": source}), tmp_path / "out", processes=1)


def test_a_folder_of_another_recipe_is_refused_unless_it_is_begun_again(tmp_path: Path, corpus: Path) -> None:
    source = {"reader": "jsonl", "path": str(corpus)}
    out = tmp_path / "out"
    first = prepare(recipe({"good": source}, held_out=0.0), out, processes=1)
    with pytest.raises(ConfigError, match=r"was prepared with another data.minimum_characters.*--restart"):
        prepare(recipe({"good": source}, held_out=0.0, minimum_characters=30), out, processes=1)
    heavier = recipe({"good": {**source, "weight": 3.0}}, held_out=0.0)
    assert prepare(heavier, out, processes=1).sources == first.sources  # decides nothing that is prepared
    with corpus.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"id": "new", "text": prose(99)}) + "\n")
    with pytest.raises(ConfigError, match="another files"):
        prepare(recipe({"good": source}, held_out=0.0), out, processes=1)
    again = prepare(recipe({"good": source}, held_out=0.0), out, processes=1, restart=True)
    assert again.sources[0].kept == first.sources[0].kept + 1


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(tmp_path: Path, corpus: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work", encoding="utf-8")
    for restart in (False, True):
        with pytest.raises(ConfigError, match=r"holds 'thesis.tex' and no prepared.json"):
            prepare(recipe({"good": {"reader": "jsonl", "path": str(corpus)}}), out, restart=restart)
    assert (out / "thesis.tex").read_text(encoding="utf-8") == "years of work"


def test_a_second_process_waits_for_its_turn(tmp_path: Path, corpus: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with (out / "prepare.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="another process is at work in this folder"):
            prepare(recipe({"good": {"reader": "jsonl", "path": str(corpus)}}), out, processes=1)


def test_a_damaged_shard_is_named(tmp_path: Path, corpus: Path) -> None:
    out = tmp_path / "out"
    made = recipe({"good": {"reader": "jsonl", "path": str(corpus)}}, held_out=0.0)

    def stop(phase: str, count: int) -> None:
        if phase == "judging":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(made, out, processes=1, progress=stop)
    (shard,) = (out / "texts").glob("*.arrow")
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(CorpusError, match=rf"{shard.name}: not a text shard .*remove it"):
        prepare(made, out, processes=1)
    shard.unlink()
    assert prepare(made, out, processes=1).sources[0].kept == 20


def test_a_source_that_breaks_off_is_told_and_what_was_read_is_kept(tmp_path: Path) -> None:
    documents = [{"id": f"d{n}", "text": f"{SECRET} {prose(n, 2000)}"} for n in range(60)]
    plain = write_jsonl(tmp_path / "plain.jsonl", documents)
    packed = gzip.compress(plain.read_bytes())
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[: len(packed) * 3 // 4])
    made = recipe({"good": {"reader": "jsonl", "path": str(tmp_path / "cut.jsonl.gz")}})
    for processes in (1, 2):
        with pytest.raises(CorpusError, match=r"cut.jsonl.gz: truncated or damaged gzip data after line \d+"):
            prepare(made, tmp_path / "out", processes=processes, size=ShardSize(30_000, 100))
    assert len(list((tmp_path / "out" / "texts").glob("*.arrow"))) > 3


def test_a_disk_that_is_full_is_told_and_the_same_command_goes_on(tmp_path: Path, corpus: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from prepare_samples import recipe\n"
        "from cmbert_retrieval.pretraining.prepare import prepare\n"
        "largest = int(sys.argv[3])\n"
        "if largest: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))\n"
        "made = recipe({'good': {'reader': 'jsonl', 'path': sys.argv[1]}}, held_out=0.0)\n"
        "prepare(made, Path(sys.argv[2]), processes=1)\n"
    )
    folder = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder.parent), str(folder)])}

    def run(out: Path, largest: int) -> str:
        command = [sys.executable, "-c", program, str(corpus), str(out), str(largest)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done.stderr.strip().splitlines()[-1] if done.returncode else ""

    assert run(tmp_path / "whole", 0) == ""
    for largest in (3_000, 12_000, 20_000):  # the texts, the salience or the tokenizer do not fit
        told = run(tmp_path / "full", largest)
        assert ": cannot be written: " in told and "run the same command again" in told
        assert not (tmp_path / "full" / "prepared.json").exists()
    assert run(tmp_path / "full", 0) == ""
    for path in (tmp_path / "whole").rglob("*"):
        if path.is_file() and path.name != "report.json":
            assert (
                tmp_path / "full" / path.relative_to(tmp_path / "whole")
            ).read_bytes() == path.read_bytes()
    assert not list((tmp_path / "full").rglob("*.tmp"))
