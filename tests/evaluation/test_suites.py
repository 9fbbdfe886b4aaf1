"""Suites, expected scores and the table of the README."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from samples import write_beir

from cmbert_retrieval.cli import main
from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.evaluation.expected import compare, load_expected
from cmbert_retrieval.evaluation.harness import Results, Score
from cmbert_retrieval.evaluation.report import BEGIN, END, table, with_table
from cmbert_retrieval.evaluation.runs import read_run
from cmbert_retrieval.evaluation.suites import load_suite, narrowed

ROOT = Path(__file__).parents[2]


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite of one small set, with words alone."""
    monkeypatch.setenv("CMBERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CMBERT_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    write_beir(tmp_path / "data" / "zinc")
    path = tmp_path / "eval" / "suites" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(
        "data: ../../data\nsets: [{name: zinc, beir: zinc}]\nsystems: {words: {mode: lexical}}\n"
        "marks: {zinc: {words: 0.5}}\n"
    )
    return path


def test_a_suite_writes_runs_values_judgements_and_results(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(suite), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == "zinc\twords\t1.0000\t1.0000\t1.0000\t0.1000\t1.0000\t1\tno\n"
    assert list(read_run(tmp_path / "out/zinc/words/run.trec.gz")["q1"]) == ["d2"]
    values = json.loads((tmp_path / "out/zinc/words/per_query.jsonl").read_text())
    assert values == {"query": "q1", "nDCG@10": 1, "R@100": 1, "MRR@10": 1, "P@10": 0.1, "Judged@10": 1}
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["sets"]["zinc"]["documents"] == 3
    assert results["scores"][0]["values"]["nDCG@10"] == 1.0


def test_what_is_accepted_passes_the_check_and_a_lower_score_fails_it(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(suite), "--check"]) == 1
    assert "no expected scores there; --accept writes what was measured" in capsys.readouterr().err
    assert main(["eval", str(suite), "--accept"]) == 0
    file = tmp_path / "eval/expected/mine.yaml"
    assert load_expected(file).scores[0].mark == 0.5
    capsys.readouterr()
    assert main(["eval", str(suite), "--check"]) == 0
    assert "ok     zinc  words  nDCG@10 1.0000, expected 1.0000 ± 0.005\n" in capsys.readouterr().out
    (tmp_path / "data/zinc/qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    assert main(["eval", str(suite), "--check"]) == 1
    printed = capsys.readouterr()
    assert "FAIL   zinc  words  nDCG@10 0.0000, expected 1.0000" in printed.out
    assert printed.err.splitlines()[-1].startswith("cmbert: 1 of 1 scores are not as ")


def test_scores_that_were_not_measured_again_stay(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(suite), "--accept"]) == 0
    suite.write_text(
        suite.read_text().replace("systems: {", "systems: {more: {mode: lexical, tolerance: 0.1}, ")
    )
    assert main(["eval", str(suite), "--accept", "--only", "words"]) == 1
    assert "has no score of 'more' on 'zinc', which was not measured" in capsys.readouterr().err
    (tmp_path / "data/zinc/qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    assert main(["eval", str(suite), "--accept", "--only", "more"]) == 0
    scores = load_expected(tmp_path / "eval/expected/mine.yaml").scores
    assert [(one.system, one.score, one.tolerance) for one in scores] == [
        ("more", 0, 0.1),
        ("words", 1, 0.005),
    ]


def test_a_run_from_elsewhere_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.trec").write_text("1 Q0 a 1 2.0 x\n1 Q0 b 2 1.0 x\n")
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n1\tb\t1\n2\ta\t1\n")
    files = ["--run", str(tmp_path / "run.trec"), "--qrels", str(tmp_path / "qrels.tsv")]
    assert main(["eval", *files, "--measure", "MRR@10"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "MRR@10\t0.2500\n"
    assert "1 query without results, counted as 0 (2)" in printed.err


def test_a_run_of_another_set_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.trec").write_text("1 Q0 a 1 2.0 x\n")
    (tmp_path / "qrels.txt").write_text("PLAIN-1 0 a 1\n")
    files = ["--run", str(tmp_path / "run.trec"), "--qrels", str(tmp_path / "qrels.txt")]
    assert main(["eval", *files]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "('1' is the first) is judged in" in printed.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["eval", "run"], "say what to measure: a suite"),
        (["eval", "smokee"], "or a bundled one: smoke; did you mean 'smoke'?"),
        (["eval", "nowhere.yaml"], "nowhere.yaml: no such suite"),
        (["eval", "--run", "a"], "give a suite, or --run FILE with --qrels FILE"),
        (["eval", "smoke", "--measure", "AP"], "--measure goes with --run"),
        (["eval", "smoke", "--only", "dense"], "'dense' is no set or system of 'smoke'"),
        (["eval", "smoke", "--set", "measures=[nDGC@10]"], "unknown measure 'nDGC@10'"),
        (["eval", "smoke", "--data", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sets: [zinc]\nsystems: {a: {}}\n", "a system has either 'mode' .* or 'baseline'"),
        ("sets: [zinc]\nsystems: {a: {mode: lexicall}}\n", "'systems.a.mode' is 'lexicall'"),
        ("sets: []\nsystems: {a: {mode: lexical}}\n", "sets"),
        ("sets: [{name: z, corpus: c}]\nsystems: {a: {mode: lexical}}\n", "set 'z': give beir, or corpus"),
        ("sets: [{name: z, beir: b, qrels: q}]\nsystems: {a: {mode: lexical}}\n", "set 'z': give beir"),
        ("sets: [z]\nsystem: {}\nsystems: {a: {mode: lexical}}\n", "unknown key 'system'; did you mean"),
        ("sets: [z]\nsystems: {a: {mode: lexical}}\nmarks: {y: {a: 1.0}}\n", "marks.y: no such set"),
    ],
)
def test_a_suite_that_says_something_else_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_suite(tmp_path / "suite.yaml")


def results(**scores: float) -> Results:
    made = tuple(Score("s", system, {"nDCG@10": value}, 1, 1, "no", 0.0) for system, value in scores.items())
    return Results("mine", "test", made, {}, {})


@pytest.mark.parametrize(
    ("got", "word"),
    [
        (0.5, "ok"),
        (0.51, "ok"),
        (0.49, "ok"),
        (0.4899, "close"),
        (0.47, "close"),
        (0.4699, "FAIL"),
        (0.9, "close"),
    ],
)
def test_a_verdict_is_ok_close_or_fail(got: float, word: str, tmp_path: Path) -> None:
    row = "{set: s, system: a, queries: 1, score: 0.5, tolerance: 0.01, trained_on_set: 'no'}"
    (tmp_path / "e.yaml").write_text(f"suite: mine\nmeasure: nDCG@10\ncommand: x\nscores: [{row}]\n")
    (verdict,) = compare(results(a=got), load_expected(tmp_path / "e.yaml"))
    assert verdict.word == word
    missing, extra = compare(results(b=got), load_expected(tmp_path / "e.yaml"))
    assert (missing.word, extra.word) == ("FAIL", "FAIL")


def test_only_what_is_named_is_measured() -> None:
    suite = load_suite(ROOT / "eval/suites/abstracts.yaml")
    assert narrowed(suite, ["med"]).set_names() == ["med"]
    assert list(narrowed(suite, ["med"]).systems) == list(suite.systems)
    assert list(narrowed(suite, ["lexical", "bm25s"]).systems) == ["lexical", "bm25s"]


def test_every_suite_has_expected_scores_for_all_of_its_systems_and_sets() -> None:
    files = sorted((ROOT / "eval/suites").glob("*.yaml"))
    assert files
    for file in files:
        suite, expected = load_suite(file), load_expected(ROOT / "eval/expected" / file.name)
        pairs = [(name, system) for name in suite.set_names() for system in suite.systems]
        assert [(score.set, score.system) for score in expected.scores] == pairs, file.name


def test_the_bundled_suite_is_the_one_in_the_folder() -> None:
    assert load_suite("smoke") == load_suite(ROOT / "eval/suites/smoke.yaml")


def test_the_table_of_the_readme_is_made_of_the_expected_scores() -> None:
    suites = [load_expected(file) for file in sorted((ROOT / "eval/expected").glob("*.yaml"))]
    page = (ROOT / "README.md").read_text()
    assert with_table(page, suites) == page, "run: cmbert eval report eval/expected --page README.md"


def test_the_table_shows_the_best_and_what_is_missed(tmp_path: Path) -> None:
    rows = "".join(
        f"- {{set: s, system: {system}, queries: 1200, score: {score}, tolerance: 0, trained_on_set: '{said}'"
        f", mark: 0.6}}\n"
        for system, score, said in (("a", 0.5, "no"), ("b", 0.75, "yes"))
    )
    (tmp_path / "e.yaml").write_text(f"suite: mine\nmeasure: nDCG@10\ncommand: x\nscores:\n{rows}")
    shown = table([load_expected(tmp_path / "e.yaml")])
    assert shown.splitlines()[-1] == "| s | 1,200 | 0.500 (misses 0.600) | **0.750** | yes |"
    assert with_table(f"x\n{BEGIN}\nold\n{END}\ny", [load_expected(tmp_path / "e.yaml")]).count("old") == 0
    with pytest.raises(ConfigError, match="the page has no lines"):
        with_table("x", [])


@pytest.mark.slow
def test_the_smoke_suite_needs_nothing_and_comes_to_what_is_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CMBERT_CACHE", str(tmp_path / "cache"))
    assert main(["eval", "smoke", "--check", "--out", str(tmp_path / "out")]) == 0
    assert "ok     icd10cm-inclusion  lexical" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("only", [["lexical"], ["bm25s", "bm25s stemmed"], ["med"]])
def test_abstracts_come_to_what_is_expected(
    only: list[str], shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [word for name in only for word in ("--only", name)]
    suite = str(ROOT / "eval/suites/abstracts.yaml")
    code = main(["eval", suite, "--data", str(shared_data), "--out", str(tmp_path), "--check", *options])
    lines = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith(("ok ", "close ", "FAIL "))
    ]
    assert code == 0, lines
    assert all(line.startswith("ok") for line in lines)


def test_the_example_of_beir_folders_is_a_suite() -> None:
    suite = load_suite(str(ROOT / "eval/examples/beir.yaml"))
    assert {each.name: each.beir for each in suite.sets} == {"scifact": "scifact", "nfcorpus": "nfcorpus"}
