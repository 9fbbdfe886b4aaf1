"""``cmbert mine``: negatives for pairs in a file."""

from __future__ import annotations

import json
from pathlib import Path

from commands import Run, assert_error

TOPICS = ("heart attack", "kidney stone", "lung cancer")


def test_pairs_of_a_file_get_negatives(run: Run, tmp_path: Path, tiny_encoder_path: Path) -> None:
    rows = [
        {"anchor": f"question {number} about {topic}", "positive": f"answer {number} about {topic}"}
        for topic in TOPICS for number in range(5)
    ]  # fmt: skip
    rows[0]["negative"] = "one that came with it"
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "mined.jsonl"
    done = run("mine", str(tmp_path / "pairs.jsonl"), "--out", str(out), "--encoder", str(tiny_encoder_path),
               "--count", "2", "--margin", "1", "--mode", "lexical")  # fmt: skip
    assert done.code == 0, done.err
    assert done.out.strip() == str(out)
    assert "15 pairs: of" in done.err
    mined = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["anchor"] for row in mined] == [row["anchor"] for row in rows]
    positives = {row["positive"] for row in rows}
    assert mined[0]["negative"][0] == "one that came with it"
    for row in mined[1:]:
        assert row["positive"] not in row["negative"]
        assert 1 <= len(row["negative"]) <= 2 and set(row["negative"]) <= positives


def test_where_every_right_answer_is_known_none_is_too_near(
    run: Run, tmp_path: Path, tiny_encoder_path: Path
) -> None:
    rows = [{"anchor": f"{topic}, other name", "positive": topic} for topic in TOPICS]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "mined.jsonl"
    done = run("mine", str(tmp_path / "pairs.jsonl"), "--out", str(out), "--encoder", str(tiny_encoder_path),
               "--margin", "0.01", "--complete", "--mode", "dense")  # fmt: skip
    assert done.code == 0, done.err
    assert " 0 too near" in done.err
    mined = [json.loads(line) for line in out.read_text().splitlines()]
    assert all(len(row["negative"]) == 2 for row in mined)


def test_a_file_of_something_else_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    done = run("mine", str(tmp_path / "other.jsonl"), "--out", str(tmp_path / "out.jsonl"))
    assert_error(done, "other.jsonl:1: expected texts under 'anchor' and 'positive'")
    assert not (tmp_path / "out.jsonl").exists()
