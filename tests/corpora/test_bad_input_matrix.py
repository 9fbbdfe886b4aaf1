"""Every reader against every fault: documents, problems or one error of one line; no hang, no blow-up."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bad_input
import pytest
from bad_input import BOMBS, FAULTS, MEGABYTES, SAMPLES, SECONDS, SECRET, WITH_AN_EXTRA, outcome, sample
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmbert_retrieval.cli import main
from cmbert_retrieval.corpora import READERS, open_corpus
from cmbert_retrieval.corpora.base import Record
from cmbert_retrieval.errors import CmbertError

LIGHT = [row for row in SAMPLES if row not in WITH_AN_EXTRA]


def became(cells: list[tuple[str, str]], folder: Path) -> list[dict[str, Any]]:
    """Return what became of cells of the table in a process of their own."""
    tests = Path(bad_input.__file__).parents[1]
    process = subprocess.run(
        [sys.executable, bad_input.__file__, str(folder)],
        input=json.dumps(cells),
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*sys.path, str(tests)]),
            "HF_DATASETS_CACHE": str(folder / "cache"),
        },
        capture_output=True,
        text=True,
        timeout=SECONDS * 20,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return [json.loads(line) for line in process.stdout.splitlines()]


def check(results: list[dict[str, Any]]) -> None:
    wrong = [f"{one['row']}, {one['fault']}: {one['broken']}" for one in results if one["broken"]]
    assert not wrong, "\n".join(wrong)
    for one in results:
        assert one["seconds"] < SECONDS, one
        assert one["megabytes"] < MEGABYTES, one


def test_the_table_has_all_readers() -> None:
    assert {one.reader for one in SAMPLES.values()} == set(READERS)
    assert all(SECRET.encode() in SAMPLES[row].data for row in LIGHT)
    assert all(SAMPLES[row].id in SAMPLES[row].data for row in LIGHT)


@pytest.mark.parametrize("half", [0, 1])
def test_no_fault_is_a_traceback_a_hang_or_the_machines_memory(half: int, tmp_path: Path) -> None:
    cells = [(row, fault) for row in LIGHT[half::2] for fault in FAULTS]
    results = became(cells, tmp_path)
    assert [(one["row"], one["fault"]) for one in results] == cells
    check(results)
    for one in results:
        if one["fault"] in ("nothing wrong", "packed", "like an option", "a line end in the name"):
            is_archive = one["row"] == "pmc archive" and one["fault"] == "packed"
            assert is_archive or (one["documents"], one["error"]) > (0, ""), one
            assert not one["error"], one
        if one["fault"] in ("a pipe", "a device", "a link to itself", "noise"):
            assert not one["documents"], one


@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=pytest.mark.slow if " " in row else ()) for row in WITH_AN_EXTRA]
)
def test_readers_that_need_an_extra_pass_the_same_table(row: str, tmp_path: Path) -> None:
    pytest.importorskip("datasets" if row.startswith("datasets") else "pyarrow")
    results = became([(row, fault) for fault in FAULTS], tmp_path)
    assert len(results) == len(FAULTS)
    check(results)


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
def test_four_hundred_packed_megabytes_are_neither_held_nor_waited_for(bomb: str, tmp_path: Path) -> None:
    # One for each way to read a file.
    rows = ["icd10cm", "jsonl", "mesh", "mesh ASCII", "notes", "obographs", "pmc", "pubmed", "trec"]
    if importlib.util.find_spec("datasets"):
        rows.append("datasets")
    results = became([(row, bomb) for row in rows], tmp_path)
    assert len(results) == len(rows)
    check(results)


@pytest.mark.parametrize(
    "fault", ["a third", "noise", "a pipe", "a line end in the name, noise", "packed, a third"]
)
@pytest.mark.parametrize("row", ["icd10cm", "mesh", "notes", "obographs", "pubmed"])
def test_building_from_it_ends_with_one_line(
    row: str, fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    path = FAULTS[fault](sample(row), tmp_path / "in")
    corpus = f"{SAMPLES[row].reader}:{path}"
    out = str(tmp_path / "index")
    code = main(["-q", "index", "build", "--from", corpus, "--encoder", "none", "--out", out, "--strict"])
    error = capsys.readouterr().err
    assert code == 1
    assert error.startswith("cmbert: ") and error.count("\n") == 1
    assert "Traceback" not in error and "--debug" not in error and SECRET not in error


@pytest.mark.parametrize("option", ["text", "id"])
@pytest.mark.parametrize("row", ["notes", "jsonl"])
def test_a_column_that_is_not_there_is_named(row: str, option: str, tmp_path: Path) -> None:
    path = FAULTS["nothing wrong"](sample(row), tmp_path)
    with pytest.raises(CmbertError, match="nowhere"):
        list(open_corpus(row, path, **{option: "nowhere"}).strictly())


def test_a_filter_on_an_undeclared_column_names_those_that_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = FAULTS["nothing wrong"](sample("mesh"), tmp_path)
    index = str(tmp_path / "index")
    assert main(["-q", "index", "build", "--from", f"mesh:{path}", "--encoder", "none", "--out", index]) == 0
    capsys.readouterr()
    assert main(["search", index, "pond", "--filter", "nowhere=1"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "'nowhere' is not a column" in error
    assert all(name in error for name in ("chapter", "kind", "system"))


# --- samples with changes at random ---

MUTATED = (
    "pmc", "pubmed", "mesh", "icd10cm_index", "jsonl", "obographs", "notes", "icd9cm", "hcpcs", "pmc archive",
)  # fmt: skip
change = st.tuples(
    st.sampled_from(["flip", "cut", "double", "splice", "inflate"]),
    st.floats(0, 1),
    st.floats(0, 0.2),
    st.integers(0, 2**32),
)


def mutated(data: bytes, other: bytes, changes: list[tuple[str, float, float, int]]) -> bytes:
    """Return data with bytes flipped, parts cut out, doubled or taken from another sample, numbers grown."""
    for kind, where, share, seed in changes:
        start = int(where * len(data))
        end = min(len(data), start + max(1, int(share * len(data))))
        if kind == "flip" and start < len(data):
            data = data[:start] + bytes([data[start] ^ (1 << seed % 8)]) + data[start + 1 :]
        elif kind == "cut":
            data = data[:start] + data[end:]
        elif kind == "double":
            data = data[:end] + data[start:end] * (1 + seed % 50) + data[end:]
        elif kind == "splice":
            place = seed % (len(other) + 1)
            data = data[:start] + other[place : place + end - start] + data[end:]
        elif kind == "inflate":
            digits = [at for at in range(start, len(data)) if data[at : at + 1].isdigit()][:1]
            grown = random.Random(seed).choice([b"9" * 5, b"9" * 30, b"9" * 5000, b"-1", b"1e999", b"0x7"])
            data = data[: digits[0]] + grown + data[digits[0] :] if digits else data
    return data


def read_and_resume(row: str, data: bytes, seed: int, folder: Path) -> None:
    """Check one changed sample: what it may end with, and that reading goes on behind any record."""
    one = sample(row)
    path = folder / (f"{one.name}.gz" if seed % 3 == 0 and row == "pmc archive" else one.name)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    began = time.monotonic()
    assert outcome(one.reader, path).broken == []
    assert time.monotonic() - began < SECONDS
    try:
        corpus = open_corpus(one.reader, path)
    except CmbertError:
        return
    records, error = read(lambda: corpus.records())
    if records:
        place = seed % len(records)
        after = json.loads(json.dumps(records[place].cursor))
        rest, again = read(lambda: corpus.records(after))
        assert rest == records[place + 1 :]
        assert bool(again) == bool(error)


def read(records: Callable[[], Any]) -> tuple[list[Record], str]:
    found: list[Record] = []
    try:
        found.extend(records())
    except CmbertError as error:
        return found, str(error)
    return found, ""


def run_mutations(row: str, examples: int, folder: Path) -> None:
    before = bad_input.peak_megabytes()

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.lists(change, min_size=1, max_size=5), st.sampled_from(LIGHT), st.integers(0, 10**6))
    def check_one(changes: list[tuple[str, float, float, int]], other: str, seed: int) -> None:
        read_and_resume(row, mutated(sample(row).data, sample(other).data, changes), seed, folder)

    check_one()
    assert bad_input.peak_megabytes() - before < MEGABYTES


@pytest.mark.parametrize("row", MUTATED)
def test_ten_samples_with_changes_at_random_are_read_or_refused(row: str, tmp_path: Path) -> None:
    run_mutations(row, 10, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("row", MUTATED)
def test_a_hundred_samples_with_changes_at_random_are_read_or_refused_and_reading_goes_on(
    row: str, tmp_path: Path
) -> None:
    run_mutations(row, 120, tmp_path)
