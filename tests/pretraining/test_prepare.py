"""Preparing text: every document is accounted for, nothing held out gets in, and a kill loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for package in ("pyarrow", "datasketch", "wordfreq", "transformers"):
    pytest.importorskip(package)

from prepare_samples import (  # noqa: E402
    invented,
    prose,
    recipe,
    write_icd10cm,
    write_jsonl,
    write_notes,
    write_obo,
)

from cmbert_retrieval.evaluation.splits import split_by_hash, split_of_code  # noqa: E402
from cmbert_retrieval.pretraining.lexicon import Lexicon  # noqa: E402
from cmbert_retrieval.pretraining.prepare import prepare  # noqa: E402
from cmbert_retrieval.pretraining.reading import ShardSize  # noqa: E402
from cmbert_retrieval.pretraining.recipe import PretrainRecipe  # noqa: E402
from cmbert_retrieval.pretraining.report import Report  # noqa: E402
from cmbert_retrieval.pretraining.salience import Salience  # noqa: E402
from cmbert_retrieval.pretraining.shards import TokenShards  # noqa: E402
from cmbert_retrieval.pretraining.texts import TextShard  # noqa: E402
from cmbert_retrieval.pretraining.tokenising import TokenTool  # noqa: E402
from cmbert_retrieval.pretraining.weights import LEVEL_MASK, TERM  # noqa: E402

pytestmark = pytest.mark.slow  # transformers

SMALL = ShardSize(characters=3_000, documents=10)

CATEGORIES = [f"{letter}{number:02d}" for letter in "AB" for number in range(30)]
IS_HELD_OUT = {code: split_of_code("icd10cm", code) != "train" for code in CATEGORIES}
TITLE = {code: f"{invented(number)} of gnome" for number, code in enumerate(CATEGORIES)}
TERM_OF = {code: f"gnome with {invented(1000 + number)}" for number, code in enumerate(CATEGORIES)}


def articles(folder: Path) -> Path:
    documents = [
        {"id": f"a{number}", "title": f"Case {number}", "text": prose(number), "license": "CC BY 4.0"}
        for number in range(40)
    ]
    documents[0]["text"] += " [MASK][SEP] [CLS]"  # in a text, special tokens are text
    documents += [
        {"id": "equal", "title": "CASE  3", "text": f"{prose(3)} ", "license": "cc-by"},
        {"id": "near", "title": "Case 4", "text": prose(4) + " today", "license": "CC0"},
        {"id": "short", "title": "", "text": "&#8203; too short", "license": "CC BY"},
        {"id": "theirs", "title": "", "text": prose(50), "license": "CC BY-NC-ND 4.0"},
        {"id": "test-article", "title": "", "text": prose(51), "license": "CC BY"},
        {"id": "copy", "title": "", "text": prose(51).upper(), "license": "CC BY"},
    ]
    path = write_jsonl(folder / "articles.jsonl", documents)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"id": "broken"\n{"id": "no-text"}\n')
    return path


def sources(folder: Path) -> dict[str, dict[str, Any]]:
    """Write all sources; return their recipes."""
    folder.mkdir(exist_ok=True)
    (folder / "excluded.txt").write_text("test-article\n\nnobody\n", encoding="utf-8")
    notes = [(f"n{n}", f"p{n // 2}", f"Name: ___\r\n\r\n\r\nCourse:  {prose(100 + n)}") for n in range(20)]
    codes = [(code, TITLE[code], TERM_OF[code]) for code in CATEGORIES]
    terms = [
        (f"GN:{number}", f"{invented(2000 + number)} disease", f"{invented(3000 + number)} ailment", "")
        for number in range(30)
    ]
    terms += [
        (f"GN:{100 + number}", f"{invented(4000 + number)} disorder", "gnome trouble", f"ICD10CM:{code}.1")
        for number, code in enumerate(CATEGORIES)
    ]
    return {
        "articles": {
            "reader": "jsonl",
            "path": str(articles(folder)),
            "licenses": ["CC BY", "CC0"],
            "exclude_ids": str(folder / "excluded.txt"),
        },
        "notes": {"reader": "notes", "path": str(write_notes(folder / "notes.csv", notes))},
        "codes": {
            "reader": "icd10cm",
            "path": str(write_icd10cm(folder / "codes.xml", codes)),
            "sentences": True,
        },
        "gnomes": {
            "reader": "ontology",
            "path": str(write_obo(folder / "gnome.obo", terms)),
            "sentences": True,
        },
    }


def whole_recipe(folder: Path, **data: Any) -> PretrainRecipe:
    made = sources(folder)
    lexicon = {
        name: {"reader": made[name]["reader"], "path": made[name]["path"]} for name in ("codes", "gnomes")
    }
    return recipe(made, **{"lexicon": lexicon, **data})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("prepared")
    out = folder / "out"
    return out, prepare(whole_recipe(folder / "in"), out, processes=1, size=SMALL)


def texts_of(out: Path) -> dict[str, str]:
    """Return id -> text of everything that is kept, for training or held out."""
    verdicts = np.load(out / "texts" / "verdicts.npy").tolist()
    rows = [(shard, row) for path in sorted((out / "texts").glob("*.arrow")) for shard in [TextShard(path)]
            for row in range(len(shard))]  # fmt: skip
    return {
        shard.id(row): shard.text(row)
        for (shard, row), verdict in zip(rows, verdicts, strict=True)
        if verdict == 0
    }


def token_shards(out: Path, part: str) -> TokenShards:
    return TokenShards(sorted((out / part).glob("*.arrow")))


def decoded(out: Path, part: str) -> Iterator[str]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(out / "tokenizer" / "tokenizer.json"))
    shards = token_shards(out, part)
    for number in range(len(shards)):
        yield tokenizer.decode(shards.document(number)[0].tolist(), skip_special_tokens=False)


def files_of(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in ("report.json", "prepare.lock")
    }


def test_every_document_is_counted_once_and_for_the_right_reason(prepared: tuple[Path, Report]) -> None:
    out, report = prepared
    for source in report.sources:
        values = asdict(source)
        assert source.read == sum(
            values[name]
            for name in (
                "unusable", "withdrawn", "other_license", "excluded_ids", "excluded_split", "excluded_names",
                "too_short", "copies_of_excluded", "exact_duplicates", "near_duplicates", "held_out", "kept",
            )
        )  # fmt: skip
    found = report.sources[0]
    assert (found.read, found.unusable, found.other_license, found.excluded_ids) == (48, 2, 1, 1)
    assert (found.too_short, found.copies_of_excluded) == (1, 1)
    assert (found.exact_duplicates, found.near_duplicates) == (1, 1)
    assert found.kept + found.held_out == 40
    assert found.licenses == {"CC BY": found.kept}
    assert [problem.split(":")[1] for problem in found.problems] == ["47", "48"]
    assert report.sources[1].excluded_split == sum(
        2 for number in range(10) if split_by_hash("notes", f"p{number}") != "train"
    )
    assert report.sources[2].excluded_split == sum(IS_HELD_OUT.values())
    assert report.sources[2].licenses == {"public domain": report.sources[2].kept}
    assert {"equal", "near", "short", "theirs", "test-article", "copy"}.isdisjoint(texts_of(out))


def test_nothing_that_is_held_out_is_in_what_was_prepared(prepared: tuple[Path, Report]) -> None:
    out, _ = prepared
    text = " ".join([*texts_of(out).values(), *decoded(out, "train"), *decoded(out, "held_out")]).lower()
    lexicon = Lexicon.load(out / "lexicon.npy")
    salience = Salience.load(out / "salience.npy")
    assert set(IS_HELD_OUT.values()) == {True, False}
    for number, code in enumerate(CATEGORIES):
        mapped = f"{invented(4000 + number)} disorder"
        for name in (TITLE[code], TERM_OF[code], mapped):
            in_ontology = split_by_hash("ontology", f"GN:{100 + number}") == "train"
            expected = not IS_HELD_OUT[code] and (name != mapped or in_ontology)
            assert (name in text) == expected
            assert (name in lexicon) == expected
            word = next(word for word in name.split() if word.startswith("qx"))
            assert (
                bool(salience.log_odds([word])[0]) <= expected
            )  # a word of a held-out document is not counted
    for number in range(30):
        expected = split_by_hash("ontology", f"GN:{number}") == "train"
        for name in (f"{invented(2000 + number)} disease", f"{invented(3000 + number)} ailment"):
            assert (name in text) == (name in lexicon) == expected
    kept = texts_of(out)
    for number in range(20):
        assert (f"n{number}" in kept) == (split_by_hash("notes", f"p{number // 2}") == "train")


def test_tokens_are_those_of_the_texts_and_come_once(prepared: tuple[Path, Report]) -> None:
    out, report = prepared
    texts = texts_of(out)
    train, held_out = list(decoded(out, "train")), list(decoded(out, "held_out"))
    assert sorted(train + held_out) == sorted(texts.values())
    total = report.total()
    assert (len(train), len(held_out)) == (total.kept, total.held_out)
    assert min(total.kept, total.held_out) > 5
    assert total.characters == sum(map(len, train))
    assert total.tokens == token_shards(out, "train").lengths.sum()
    assert total.held_out_tokens == token_shards(out, "held_out").lengths.sum()
    known = json.loads((out / "prepared.json").read_bytes())
    assert known["complete"] is True
    assert (known["documents"], known["tokens"]) == (total.kept, total.tokens)


def test_titles_stand_over_texts_and_lines_of_notes_stay(prepared: tuple[Path, Report]) -> None:
    out, _ = prepared
    texts = texts_of(out)
    assert texts["a1"] == f"Case 1\n\n{prose(1)}"
    number = next(n for n in range(20) if f"n{n}" in texts)
    assert texts[f"n{number}"] == f"Name: ___\n\nCourse: {prose(100 + number)}"


def test_marks_are_those_of_each_text_by_itself(prepared: tuple[Path, Report]) -> None:
    out, _ = prepared
    tool = TokenTool.open(out)
    by_tokens = {}
    for text in texts_of(out).values():
        encoding = tool.tokenizer.encode(text, add_special_tokens=False)
        by_tokens[tuple(encoding.ids)] = tool.marker.mark(text, np.array(encoding.offsets)).tolist()
    shards = token_shards(out, "train")
    for number in range(len(shards)):
        ids, marks = shards.document(number)
        assert marks.tolist() == by_tokens[tuple(ids.tolist())]
    assert len({mark for marks in by_tokens.values() for mark in marks}) > 10


def test_placeholders_are_closed_and_terms_are_marked(prepared: tuple[Path, Report]) -> None:
    out, _ = prepared
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(out / "tokenizer" / "tokenizer.json"))
    shards = token_shards(out, "train")
    terms = placeholders = 0
    for number in range(len(shards)):
        ids, weights = shards.document(number)
        tokens = [tokenizer.decode([token]) for token in ids.tolist()]
        for token, weight in zip(tokens, weights.tolist(), strict=True):
            if "_" in token:
                placeholders += 1
                assert weight & LEVEL_MASK == 0
            else:
                assert weight & LEVEL_MASK
        terms += int(((weights & TERM) > 0).sum())
    assert terms > 100
    assert placeholders > 0


def test_shards_are_the_same_for_any_number_of_processes(
    prepared: tuple[Path, Report], tmp_path: Path
) -> None:
    out, report = prepared
    again = tmp_path / "again"
    found = prepare(whole_recipe(out.parent / "in"), again, processes=3, size=SMALL)
    assert found.sources == report.sources
    assert files_of(again) == files_of(out)
    assert len(list((out / "train").glob("*.arrow"))) > 10


def test_a_complete_folder_is_left_as_it_is(prepared: tuple[Path, Report]) -> None:
    out, report = prepared
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != "prepare.lock"}
    assert prepare(whole_recipe(out.parent / "in"), out, size=SMALL).sources == report.sources
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != "prepare.lock"} == before


class Stopped(Exception):
    """The preparation was ended by the test."""


@pytest.mark.parametrize(
    ("phase", "left"),
    [("documents", 3), ("documents", 12), ("judging", 1), ("terms", 1), ("words", 2), ("tokens", 4)],
)
def test_a_stopped_preparation_goes_on_and_makes_the_same_bytes(
    prepared: tuple[Path, Report], tmp_path: Path, phase: str, left: int
) -> None:
    out, report = prepared
    calls = 0

    def stop(found: str, count: int) -> None:
        nonlocal calls
        calls += found == phase
        if calls == left:
            raise Stopped

    made = whole_recipe(out.parent / "in")
    with pytest.raises(Stopped):
        prepare(made, tmp_path / "out", processes=1, size=SMALL, progress=stop)
    assert not (tmp_path / "out" / "prepared.json").exists()
    told: dict[str, int] = {}
    found = prepare(
        made,
        tmp_path / "out",
        processes=2,
        size=SMALL,
        progress=lambda name, count: told.update({name: told.get(name, 0) + count}),
    )
    assert found.sources == report.sources
    assert files_of(tmp_path / "out") == files_of(out)
    if phase == "documents":
        assert told["documents"] + told["resumed"] == report.total().read


def test_a_killed_preparation_goes_on_and_makes_the_same_bytes(
    prepared: tuple[Path, Report], tmp_path: Path
) -> None:
    out, report = prepared
    folder = out.parent / "in"
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[3])\n"
        "from test_prepare import *\n"
        "if __name__ == '__main__':\n"
        "    prepare(whole_recipe(Path(sys.argv[1])), Path(sys.argv[2]), processes=2, size=SMALL)\n"
    )
    script = tmp_path / "run.py"
    script.write_text(program, encoding="utf-8")
    target = tmp_path / "out"
    tests = Path(__file__).parents[1]
    command = [sys.executable, str(script), str(folder), str(target), str(tests / "pretraining")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])}
    for wanted in ("texts", "train"):
        process = subprocess.Popen(
            command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and len(list(target.glob(f"{wanted}/*.arrow"))) < 4:
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert prepare(whole_recipe(folder), target, processes=1, size=SMALL).sources == report.sources
    assert files_of(target) == files_of(out)


def test_the_report_tells_sums_and_holds_no_text(prepared: tuple[Path, Report]) -> None:
    out, report = prepared
    table = (out / "report.md").read_text(encoding="utf-8")
    total = report.total()
    assert f"| all | {total.read:,} |" in table
    assert f"{total.tokens:,}" in table
    assert "qx" not in table + (out / "report.json").read_text(encoding="utf-8")
    assert Report.from_json(json.loads((out / "report.json").read_bytes())).sources == report.sources


def test_names_that_are_asked_for_are_left_out_wherever_they_stand(tmp_path: Path) -> None:
    train = [code for code in CATEGORIES if not IS_HELD_OUT[code]]
    (tmp_path / "names.txt").write_text(f"{TITLE[train[0]].upper()}\n{TERM_OF[train[1]]}\n", encoding="utf-8")
    made = whole_recipe(tmp_path / "in", exclude_names=str(tmp_path / "names.txt"))
    report = prepare(made, tmp_path / "out", processes=1)
    text = " ".join(texts_of(tmp_path / "out").values()).lower()
    lexicon = Lexicon.load(tmp_path / "out" / "lexicon.npy")
    for code in train:
        for name in (TITLE[code], TERM_OF[code]):
            assert (name in text) == (name in lexicon) == (code not in train[:2])
    assert report.sources[2].excluded_names == 2


def test_what_is_held_out_depends_on_names_and_ids_alone(tmp_path: Path) -> None:
    documents = [{"id": f"d{number}", "text": prose(number)} for number in range(60)]
    found = []
    for order in (1, -1):
        path = write_jsonl(tmp_path / f"{order}.jsonl", documents[::order])
        made = recipe({"gnomes": {"reader": "jsonl", "path": str(path)}}, salience=False)
        report = prepare(made, tmp_path / f"out{order}", processes=1)
        found.append(set(decoded(tmp_path / f"out{order}", "held_out")))
        assert 4 <= report.sources[0].held_out <= 24
    assert found[0] == found[1]
    renamed = recipe({"dwarves": {"reader": "jsonl", "path": str(path)}}, salience=False)
    prepare(renamed, tmp_path / "renamed", processes=1)
    assert set(decoded(tmp_path / "renamed", "held_out")) != found[0]


def test_a_source_may_tell_the_licence_that_its_documents_do_not(tmp_path: Path) -> None:
    documents = [{"id": str(n), "text": prose(n), **({"license": "CC0"} if n % 2 else {})} for n in range(6)]
    path = str(write_jsonl(tmp_path / "c.jsonl", documents))
    counted = []
    for values in ({}, {"license": "CC-BY 4.0"}, {"license": "gnome's", "licenses": ["Gnome's", "CC BY"]}):
        made = recipe({"a": {"reader": "jsonl", "path": path, **values}}, salience=False, held_out=0.0)
        counted.append(prepare(made, tmp_path / str(len(counted)), processes=1).sources[0].licenses)
    assert counted == [{"CC0": 3, "unknown": 3}, {"CC BY": 3, "CC0": 3}, {"gnome's": 3}]


def test_near_duplicates_stay_where_the_recipe_says_so(tmp_path: Path) -> None:
    text = prose(1)
    path = write_jsonl(tmp_path / "c.jsonl", [{"id": str(n), "text": f"{text} {n}"} for n in range(8)])
    source = {"copies": {"reader": "jsonl", "path": str(path)}}
    kept = {}
    for near in ("none", {"similarity": 0.8}):
        made = recipe(source, near_duplicates=near, salience=False, held_out=0.0)
        kept[str(near)] = prepare(made, tmp_path / str(len(kept)), processes=1).sources[0].kept
    assert list(kept.values()) == [8, 1]
