"""What is typed wrongly at first: each message says what was got, what is expected, and what to type."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Run, assert_error

from cmbert_retrieval import Retriever
from cmbert_retrieval.corpora import READERS, open_corpus
from cmbert_retrieval.corpora.describe import describe_reader, describe_readers
from cmbert_retrieval.corpora.icd10cm import Icd10cmCorpus
from cmbert_retrieval.corpora.licenses import KNOWN, license_set

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    lines = [{"id": f"n{n}", "text": f"heart attack {n}", "year": 2000 + n, "dept": "icu"} for n in range(3)]
    path = tmp_path / "notes.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "notes.csv"
    path.write_text("key,remark\n1,fever since Monday\n2,cough\n")
    return path


def build(run: Run, source: str, out: Path, *options: str) -> None:
    done = run("index", "build", "--from", source, "--encoder", "none", "--out", out, "--quiet", *options)
    assert (done.code, done.err) == (0, ""), done.err


# --- what is read ---


def test_a_mistyped_column_is_told_at_the_end_of_the_build(notes: Path, tmp_path: Path, run: Run) -> None:
    command = ("index", "build", "--from", f"jsonl:{notes}", "--encoder", "none", "--out", tmp_path / "i")
    done = run(*command, "--set", "columns.yaer=integer", "--json")
    assert done.code == 0
    assert done.json["examples"]["empty_columns"] == ["'yaer' (did you mean 'year'? then build anew)"]
    done = run(*command[:-1], tmp_path / "j", "--set", "columns.yaer=integer")
    assert "1 declared column has no usable value in any document: filters find nothing" in done.err
    assert "'yaer' (did you mean 'year'?" in done.err


@pytest.mark.parametrize("wrong", [{"id": "key"}, {"text": "remark"}, {"id": "key", "text": "remrak"}])
def test_a_table_with_other_columns_says_what_to_type_everywhere(
    table: Path, tmp_path: Path, run: Run, wrong: dict[str, str]
) -> None:
    given = [word for name, value in wrong.items() for word in ("--set", f"source.options.{name}={value}")]
    missing = "text" if "id" in wrong else "id"
    hint = "did you mean 'remark'? " if len(wrong) > 1 else ""
    build(run, f"notes:{table}", tmp_path / "there", "--set", "source.options={id: key, text: remark}")
    for command in (
        ("index", "build", "--encoder", "none", "--out", tmp_path / "i", "--from", f"notes:{table}"),
        ("index", "add", tmp_path / "there", "--from", f"notes:{table}", "--set", "source.options.id=''",
         "--set", "source.options.text=''"),
        ("corpus", "stats", f"notes:{table}"),
        ("corpus", "convert", f"notes:{table}", "--to", tmp_path / "o.jsonl"),
    ):  # fmt: skip
        done = run(*command, *given)
        assert_error(done, f"name it: --set source.options.{missing}=COLUMN")
        assert f"there are: key, remark; {hint}name it: --set source" in done.err


def test_what_a_message_says_to_type_works_in_every_command(table: Path, tmp_path: Path, run: Run) -> None:
    typed = ("--set", "source.options.id=key", "--set", "source.options.text=remark")
    build(run, f"notes:{table}", tmp_path / "i", *typed)
    assert run("corpus", "stats", f"notes:{table}", *typed, "--json").json["documents"] == 2
    done = run("corpus", "convert", f"notes:{table}", *typed, "--to", tmp_path / "o.jsonl", "--json")
    assert (done.code, done.json["documents"]) == (0, 2)
    build(run, f"jsonl:{tmp_path / 'o.jsonl'}", tmp_path / "j")
    added = run("index", "add", tmp_path / "j", "--from", f"notes:{table}", *typed, "--json")
    assert (added.code, added.json["unchanged"] + added.json["replaced"]) == (0, 2)


@pytest.mark.parametrize("setting", ["passages.stride=1", "source.path=x", "id=key", "source.options=3"])
def test_only_options_of_the_reader_are_set_where_nothing_else_is(
    table: Path, run: Run, setting: str
) -> None:
    assert_error(run("corpus", "stats", f"notes:{table}", "--set", setting), "--set source.options", "as in")


@pytest.mark.parametrize("reader", sorted(READERS))
def test_every_reader_without_a_path_says_the_same(tmp_path: Path, run: Run, reader: str) -> None:
    if reader == "icd10cm":  # brings its own
        assert open_corpus(reader, "").total()
        return
    done = run("index", "build", "--from", reader, "--encoder", "none", "--out", tmp_path / "i")
    assert_error(
        done, f"reader '{reader}': the path is missing; expected {reader}:PATH, or for a recipe: --set s"
    )


def test_a_recipe_whose_source_is_not_here_says_how_to_name_it(tmp_path: Path, run: Run, notes: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("source: {reader: jsonl, path: nowhere}\nencoder: none\n")
    done = run("index", "build", recipe, "--out", tmp_path / "i")
    assert_error(done, "mine.yaml: what it reads is not there", "say where it is: --set source.path=PATH")
    recipe.write_text("source: {reader: jsonl}\nencoder: none\n")
    assert_error(run("index", "build", recipe, "--out", tmp_path / "i"), "--set source.path=PATH")
    done = run("index", "build", recipe, "--out", tmp_path / "i", "--set", f"source.path={notes}")
    assert done.code == 0


@pytest.mark.parametrize(
    ("name", "meant"), [("pmc-oaa", "pmc-oa"), ("pubmd", "pubmed"), ("icd10", "icd10cm")]
)
def test_the_script_that_builds_indexes_knows_the_recipes_beside_it(
    tmp_path: Path, name: str, meant: str
) -> None:
    command = [sys.executable, str(ROOT / "indexes/build.py"), name, "--out", str(tmp_path / "i")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"cmbert: no recipe '{name}'; there are articles-words-only, icd10cm, pmc-oa"
    )
    assert done.stderr.endswith(f"did you mean '{meant}'?\n")


# --- a first build that fails ---


def test_the_corrected_command_needs_no_restart(notes: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "new/index"
    command = ("index", "build", "--from", f"jsonl:{notes}", "--encoder", "none", "--out", out)
    failed = run(*command, "--set", "source.options.text=body", "--quiet")
    assert_error(failed, "nothing to index", "cmbert corpus readers jsonl")
    assert not out.parent.exists()
    for asking in (("index", "verify", out), ("index", "info", out)):
        assert_error(run(*asking), "no index in", "cmbert index build")
    assert run(*command).code == 0


# --- filters ---


def test_a_filter_on_an_undeclared_column_says_how_to_declare_it(
    notes: Path, tmp_path: Path, run: Run
) -> None:
    build(run, f"jsonl:{notes}", tmp_path / "i", "--set", "columns.year=integer")
    done = run("search", tmp_path / "i", "heart", "--filter", "dept=icu")
    assert_error(
        done, "declared columns: year", "rebuild with --set columns.dept=text (or integer, number, bo"
    )
    assert_error(run("search", tmp_path / "i", "heart", "--filter", "a b=c"), "columns.NAME=text")
    build(
        run, f"jsonl:{notes}", tmp_path / "j", "--set", "columns.year=integer", "--set", "columns.dept=text"
    )
    assert run("search", tmp_path / "j", "heart", "--filter", "dept=icu").out.count("\n") == 3


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("year=>2001", "year>=2001"),
        ("year=<2001", "year<=2001"),
        ("year = > 2001", "year>=2001"),
        ("year==>2001", None),
        ("year=!2001", "year!=2001"),
    ],
)
def test_turned_operators_are_turned_back(
    notes: Path, tmp_path: Path, run: Run, typed: str, meant: str | None
) -> None:
    build(run, f"jsonl:{notes}", tmp_path / "i", "--set", "columns.year=integer")
    done = run("search", tmp_path / "i", "heart", "--filter", typed)
    assert_error(done, f"did you mean '{meant}'?" if meant else "filter on 'year' (integer)")
    if meant:
        assert run("search", tmp_path / "i", "heart", "--filter", meant).code == 0


def test_a_value_that_begins_like_an_operator_is_quoted(tmp_path: Path, run: Run) -> None:
    source = tmp_path / "doses.jsonl"
    source.write_text(
        '{"id": "1", "text": "pain", "dose": ">5 mg"}\n{"id": "2", "text": "pain", "dose": "5"}\n'
    )
    build(run, f"jsonl:{source}", tmp_path / "i", "--set", "columns.dose=text")
    done = run("search", tmp_path / "i", "pain", "--filter", "dose=>5 mg")
    assert_error(done, 'goes in quotes: dose=">5 mg"')
    done = run("search", tmp_path / "i", "pain", "--filter", 'dose=">5 mg"', "--json")
    assert [hit["id"] for hit in done.json] == ["1"]


# --- fetching ---


def test_a_licence_that_is_none_is_named_as_it_was_typed(tmp_path: Path, run: Run) -> None:
    done = run("corpus", "fetch", "pmc", "--all", "--to", tmp_path / "x", "--license", "CC9")
    assert_error(done, "licence 'CC9' is not known; expected one of CC0, CC-BY, ", "did you mean 'CC0'?")
    assert "licenses" not in done.err
    assert len(license_set(KNOWN) or ()) == len(KNOWN)


def test_words_of_libraries_do_not_reach_the_user(tmp_path: Path, run: Run) -> None:
    done = run("corpus", "fetch", "pcm", "--all", "--to", tmp_path)
    assert_error(done, "'publisher': 'pcm' is not one of 'pmc', 'pubmed' (see", code=2)
    assert "Value error" not in done.err
    done = run("search", tmp_path, "x", "-k", "ten")
    assert_error(done, "'-k': expected a whole number (see", code=2)
    done = run("corpus", "fetch", "pmc", "--all", "--to", tmp_path, "--timeout", "long")
    assert_error(done, "'--timeout': expected a number (see", code=2)


# --- searching ---


def test_a_question_in_the_place_of_the_index_is_told_what_comes_first(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, notes: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["heart attack"], ["heart", "attack"], ["what", "helps", "against", "colds"]):
        done = run("search", *words)
        assert_error(done, 'the index comes first: cmbert search my-index "heart at')
    build(run, f"jsonl:{notes}", tmp_path / "i")
    assert_error(run("search", "i"), "say what to look for, behind the index: cmbert search i QUERY", code=2)


def test_codes_for_words_that_no_code_has_are_said_to_be_the_nearest_only(
    tmp_path: Path, run: Run, tiny_encoder_path: Path
) -> None:
    block = [document for document in Icd10cmCorpus() if document.metadata["block"] == "I20-I25"]
    Retriever.from_documents(
        block, encoder=tiny_encoder_path, path=tmp_path / "i", columns=Icd10cmCorpus.columns
    ).close()
    note = "no name of a code has a word of this: these are only the nearest by meaning\n"
    codes = ("codes", "--index", tmp_path / "i", "-k", "3")
    done = run(*codes, "blorf zzqx")
    assert (done.code, done.err, done.out.count("\n")) == (0, note, 3)
    done = run(*codes, "blorf zzqx", "--json")
    assert len(done.json) == 3 and done.err == note
    for known in ("heart attack", "infarction blorf", "I21", "i21.4"):
        assert run(*codes, known).err == ""
    assert run(*codes, "blorf zzqx", "--mode", "dense").err == ""  # was asked for


# --- readers ---


def test_every_option_of_every_reader_is_listed_with_its_default_and_explained(run: Run) -> None:
    listed = run("corpus", "readers")
    assert listed.code == 0
    lines = dict(line.split("\t", 1) for line in listed.out.splitlines())
    assert sorted(lines) == sorted(READERS)
    assert "include_retracted=true, licenses=null" in lines["pmc"]
    assert 'id="", text=text, title=title' in lines["jsonl"]
    for found in describe_readers():
        assert found.reads.endswith(".") and found.path, found
        assert all(option.meaning for option in found.options), found
    shown = run("corpus", "readers", "notes")
    assert [line.split("\t")[0] for line in shown.out.splitlines()] == [
        option.name for option in describe_reader("notes").options
    ]
    assert "--set source.options.NAME=VALUE" in shown.err
    assert_error(run("corpus", "readers", "note"), "did you mean 'notes'?")
    assert {one["name"] for one in run("corpus", "readers", "--json").json} == set(READERS)


def test_defaults_that_are_listed_can_be_typed(notes: Path, table: Path, run: Run) -> None:
    note = table.with_suffix(".txt")
    note.write_text("Fever since Monday.")
    lines = dict(line.split("\t", 1) for line in run("corpus", "readers").out.splitlines())
    for source in (f"jsonl:{notes}", f"notes:{note}"):
        options = lines[source.partition(":")[0]].split("\t")[1].split(", ")
        typed = [word for option in options for word in ("--set", f"source.options.{option}")]
        assert len(options) > 4 and run("corpus", "stats", source, *typed).code == 0


# --- filters that nothing passes ---


def test_a_value_that_no_document_has_is_said_with_what_may_have_been_meant(
    notes: Path, tmp_path: Path, run: Run
) -> None:
    records = [
        {"id": "a", "text": "weight loss", "kind": "review-article", "license": "CC BY"},
        {"id": "b", "text": "weight gain", "kind": "letter", "license": "CC0"},
    ]
    source = tmp_path / "kinds.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    out = tmp_path / "kinds"
    columns = ("--set", "columns.kind=text", "--set", "columns.license=text")
    assert (
        run("index", "build", "--from", f"jsonl:{source}", "--encoder", "none", "--out", out, *columns).code
        == 0
    )

    def found(*filters: str) -> tuple[list[str], str]:
        done = run("search", out, "weight", *(part for each in filters for part in ("--filter", each)))
        assert done.code == 0
        return [line.split("\t")[2] for line in done.out.splitlines()], done.err

    ids, said = found("kind=review")
    assert ids == []
    assert said.endswith("no document has kind=review; did you mean 'kind=review-article'?\n")
    assert found("kind=Letter")[1].endswith("no document has kind=Letter; did you mean 'kind=letter'?\n")
    assert found("kind=erratum")[1].endswith("; no document has kind=erratum\n")
    assert found("kind=letter", "license=CC BY")[1].endswith("matches and passes the filter\n")
    # A licence is typed as people type it.
    for typed in ("CC BY", "CC-BY", "cc by", "ccby"):
        assert found(f"license={typed}")[0] == ["a"]
        assert found(f"license!={typed}")[0] == ["b"]
    assert sorted(found("license=cc0,CC-BY")[0]) == ["a", "b"]


def test_an_operator_that_is_none_is_said(notes: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "index"
    assert run("index", "build", "--from", f"jsonl:{notes}", "--encoder", "none", "--out", out).code == 0
    assert_error(
        run("search", out, "x", "--filter", "year>>1"), "'>>' is no operator; there are = != > >= < <="
    )
