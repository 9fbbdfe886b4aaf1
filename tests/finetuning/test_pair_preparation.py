"""Preparing pairs: every document and pair is accounted for, nothing held out gets in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

from prepare_samples import write_icd10cm, write_jsonl

from cmbert_retrieval.errors import ConfigError, CorpusError
from cmbert_retrieval.evaluation.splits import split_by_hash, split_of_code
from cmbert_retrieval.finetuning.prepare import prepare
from cmbert_retrieval.finetuning.recipe import FinetuneRecipe
from cmbert_retrieval.finetuning.report import Report
from cmbert_retrieval.finetuning.sources import FinetuningSource
from cmbert_retrieval.finetuning.tables import read_rows

pytestmark = pytest.mark.slow  # pyarrow

CODES = [f"{letter}{number:02d}" for letter in "AB" for number in range(40)]
FREE = [code for code in CODES if split_of_code("icd10cm", code) == "train"]


def recipe(sources: dict[str, dict[str, Any]], **data: Any) -> FinetuneRecipe:
    values = {
        "name": "tiny",
        "data": {"held_out": 0.0, **data, "sources": sources},
        "teacher": {},
        "model": {"checkpoint": "none"},
        "stages": [{"pairs": 1}],
    }
    return FinetuneRecipe.model_validate(values)


def rows(out: Path, name: str, part: str = "train") -> list[dict[str, Any]]:
    return list(read_rows(out / part / f"{name}.arrow"))


def articles(folder: Path, count: int = 30, name: str = "articles", **more: Any) -> dict[str, Any]:
    documents = [
        {"_id": f"d{number}", "title": f"Title number {number} of the articles",
         "text": f"Paragraph {number} says enough about its own subject to be found by people.", **more}
        for number in range(count)
    ]  # fmt: skip
    return {"reader": "jsonl", "path": str(write_jsonl(folder / f"{name}.jsonl", documents)),
            "pairs": ["title-text"]}  # fmt: skip


def codes(folder: Path) -> dict[str, Any]:
    path = write_icd10cm(
        folder / "tabular.xml",
        [(code, f"Disorder of gnome {code}", f"Gnome's complaint {code}") for code in CODES],
    )
    return {"reader": "icd10cm", "path": str(path), "pairs": ["names"], "texts": True}


def test_pairs_and_texts_are_written_and_counted(tmp_path: Path) -> None:
    made = recipe({"articles": {**articles(tmp_path), "texts": True, "license": "CC BY 4.0"}})
    report = prepare(made, tmp_path / "out")
    pairs = rows(tmp_path / "out", "articles")
    assert len(pairs) == 30 == report.sources[0].pairs
    assert pairs[4]["anchor"] == "Title number 4 of the articles"
    assert pairs[4]["positive"].startswith("Paragraph 4 says")
    assert (pairs[4]["document"], pairs[4]["kind"], pairs[4]["negatives"]) == ("d4", "title-text", [])
    texts = [row["text"] for row in rows(tmp_path / "out", "articles", "texts")]
    assert len(set(texts)) == len(texts) == report.sources[0].texts
    assert {pairs[4]["anchor"], pairs[4]["positive"]} <= set(texts)
    assert report.sources[0].licenses == {"CC BY": 30}
    assert Report.from_json(json.loads((tmp_path / "out/report.json").read_text())) == report
    assert "| articles | 30 | 30 |" in (tmp_path / "out/report.md").read_text()


def test_a_share_of_the_longer_texts_comes_as_telegrams_too(tmp_path: Path) -> None:
    source = {**articles(tmp_path, count=200), "texts": True}
    found: dict[float, set[str]] = {}
    for share in (0.0, 0.25, 1.0):
        out = tmp_path / str(share)
        report = prepare(recipe({"articles": source}, telegrams=share), out)
        texts = [row["text"] for row in rows(out, "articles", "texts")]
        assert len(set(texts)) == len(texts) == report.sources[0].texts
        found[share] = set(texts)
    assert found[0.0] < found[0.25] < found[1.0]
    assert "paragraph 7 says subject found people" in found[1.0]
    assert "title number 7 articles" not in found[1.0]  # too short to have lost much
    quarter, whole = (len(found[share] - found[0.0]) for share in (0.25, 1.0))
    assert 200 <= whole <= 600 and 0.15 < quarter / whole < 0.4


def test_codes_of_held_out_categories_and_excluded_names_give_nothing(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text(f"gnome's complaint {FREE[0].lower()}\n")
    report = prepare(recipe({"icd10cm": codes(tmp_path)}, exclude_names=str(names)), tmp_path / "out")
    found = {row["document"] for row in rows(tmp_path / "out", "icd10cm")}
    assert found == set(FREE[1:])
    told = " ".join(row["text"] for row in rows(tmp_path / "out", "icd10cm", "texts"))
    assert not [code for code in CODES if code not in found and code in told]
    assert report.sources[0].left_out["excluded_names"] == 1
    assert report.sources[0].left_out["excluded_split"] >= len(CODES) - len(FREE)


def test_every_pair_that_is_dropped_has_a_reason(tmp_path: Path) -> None:
    given = [
        {"anchor": "What is gout?", "positive": "A disease of the joints."},
        {"anchor": "What is gout?", "positive": "A disease of the joints."},
        {"anchor": "Same text", "positive": "same text"},
        {"anchor": "?", "positive": "Too short a question."},
        {"anchor": "long " * 100, "positive": "Nobody asks like that."},
        {"anchor": "What is <b> &amp; c?", "positive": "Cleaned.", "negative": "Not this one."},
    ]
    path = write_jsonl(tmp_path / "pairs.jsonl", given)
    report = prepare(recipe({"own": {"reader": "pairs", "path": str(path)}}), tmp_path / "out")
    source = report.sources[0]
    assert source.dropped == {"duplicate": 1, "same": 1, "short": 1, "long_anchor": 1}
    kept = rows(tmp_path / "out", "own")
    assert [row["anchor"] for row in kept] == ["What is gout?", "What is <b> & c?"]
    assert kept[1]["negatives"] == ["Not this one."]


def test_pairs_that_overlap_an_evaluation_set_are_dropped(tmp_path: Path) -> None:
    import gzip

    folder = tmp_path / "data/med_medline1033"
    folder.mkdir(parents=True)
    measured = (
        "Crystalline lens proteins of vertebrates were compared by electrophoresis, chromatography and mice."
    )
    with gzip.open(folder / "corpus.jsonl.gz", "wt") as file:
        file.write(json.dumps({"_id": "1", "text": measured}) + "\n")
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "lens proteins"}\n')
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t1\n")
    source = articles(tmp_path)
    with Path(source["path"]).open("a") as lines:
        lines.write(json.dumps({"_id": "copy", "title": "A copy", "text": f"As we said. {measured}"}) + "\n")
    overlap = {"data": str(tmp_path / "data"), "sets": ["med"], "words": 8}
    report = prepare(recipe({"articles": {**source, "texts": True}}, overlap=overlap), tmp_path / "out")
    assert report.sources[0].dropped == {"overlap": 1}
    assert report.overlaps[0].found == 1 + report.sources[0].texts_overlap > 1
    assert "copy" not in {row["document"] for row in rows(tmp_path / "out", "articles")}
    assert not [row for row in rows(tmp_path / "out", "articles", "texts") if measured in row["text"]]


def test_documents_of_an_evaluation_set_give_nothing_at_all(tmp_path: Path) -> None:
    import gzip

    folder = tmp_path / "data/med_medline1033"
    folder.mkdir(parents=True)
    with gzip.open(folder / "corpus.jsonl.gz", "wt") as file:
        file.write(json.dumps({"_id": "1", "title": "Soluble lens proteins of rabbits", "text": "A"}) + "\n")
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "lens proteins"}\n')
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t1\n")
    path = write_jsonl(
        tmp_path / "a.jsonl",
        [{"_id": "d1", "title": "Soluble lens proteins of rabbits", "text": "Some other paragraph of it."},
         {"_id": "d2", "title": "Something else altogether", "text": "A paragraph about that."}],
    )  # fmt: skip
    source = {"reader": "jsonl", "path": str(path), "pairs": ["title-text"], "texts": True}
    overlap = {"data": str(tmp_path / "data"), "sets": ["med"]}
    report = prepare(recipe({"a": source}, overlap=overlap), tmp_path / "out")
    assert report.sources[0].left_out == {"copies": 1}
    assert {row["document"] for row in rows(tmp_path / "out", "a")} == {"d2"}
    assert not [row for row in rows(tmp_path / "out", "a", "texts") if "paragraph of it" in row["text"]]
    assert report.overlaps[0].copies == 1


def test_cited_articles_that_may_not_be_learnt_from_are_not_even_named(tmp_path: Path) -> None:
    names = [f"A long title of the cited article number {number}" for number in range(3)]
    documents = [
        {"_id": f"PMC{number}", "title": name, "metadata": {"pmid": str(number)},
         "text": f"What the cited article {number} found out in the end."}
        for number, name in enumerate(names)
    ]  # fmt: skip
    text = " ".join(f"This sentence is about article {n} and cites it here [{n + 1}]." for n in range(3))
    references = [{"id": f"B{number}", "pmid": str(number), "title": names[number]} for number in range(3)]
    documents.append({"_id": "PMC9", "title": "Citing", "text": text, "metadata": {"references": references}})
    path = write_jsonl(tmp_path / "a.jsonl", documents)
    excluded = tmp_path / "excluded.txt"
    excluded.write_text("PMC1\n")
    source = {"reader": "jsonl", "path": str(path), "options": {"metadata": "metadata"},
              "pairs": ["citing-cited"], "exclude_ids": str(excluded)}  # fmt: skip
    prepare(recipe({"own": source}), tmp_path / "out")
    found = {row["positive"].split("\n")[0] for row in rows(tmp_path / "out", "own")}
    assert found == {names[0], names[2]}


def test_files_of_pairs_keep_to_what_is_held_out(tmp_path: Path) -> None:
    given = [
        {"anchor": f"question {n}", "positive": f"answer {n}", "document": f"subject {n}"} for n in range(60)
    ]
    path = str(write_jsonl(tmp_path / "pairs.jsonl", given))
    excluded = tmp_path / "excluded.txt"
    excluded.write_text("subject 3\n")
    own = {"reader": "pairs", "path": path, "exclude_ids": str(excluded)}
    report = prepare(recipe({"own": own}), tmp_path / "out")
    assert report.sources[0].left_out == {"excluded_ids": 1}
    report = prepare(recipe({"own": {**own, "collection": "medquad"}}), tmp_path / "frozen")
    free = {row["document"] for row in rows(tmp_path / "frozen", "own")}
    assert free == {
        f"subject {n}" for n in range(60) if n != 3 and split_by_hash("medquad", f"subject {n}") == "train"
    }
    with pytest.raises(ConfigError, match="unknown collection 'bioask'; did you mean 'bioasq'"):
        prepare(recipe({"own": {**own, "collection": "bioask"}}), tmp_path / "other")
    with pytest.raises(ConfigError, match="leave 'licenses' out"):
        prepare(recipe({"own": {**own, "licenses": ["CC0"]}}), tmp_path / "other")


def test_documents_that_are_kept_for_measuring_give_no_training_text(tmp_path: Path) -> None:
    made = recipe({"articles": {**articles(tmp_path, 200), "texts": True}}, held_out=0.3)
    report = prepare(made, tmp_path / "out")
    held_out = rows(tmp_path / "out", "articles", "held_out")
    assert len(held_out) == report.sources[0].held_out > 20
    told = {row["text"] for row in rows(tmp_path / "out", "articles", "texts")}
    assert not told & {row["positive"] for row in held_out}
    assert len(held_out) + len(rows(tmp_path / "out", "articles")) == 200


def test_a_preparation_that_was_killed_goes_on_with_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {
        "articles": {**articles(tmp_path), "texts": True},
        "again": {**articles(tmp_path, 40, "again"), "texts": True},
    }
    whole = prepare(recipe(sources), tmp_path / "whole")
    read = FinetuningSource.documents

    def broken(self: Any) -> Any:
        if self.name == "again":
            raise KeyboardInterrupt
        return read(self)

    with monkeypatch.context() as patch:
        patch.setattr(FinetuningSource, "documents", broken)
        with pytest.raises(KeyboardInterrupt):
            prepare(recipe(sources), tmp_path / "out")
    assert not (tmp_path / "out/pairs.json").exists()
    assert prepare(recipe(sources), tmp_path / "out") == whole
    for part in ("train", "texts"):
        for name in sources:
            assert rows(tmp_path / "out", name, part) == rows(tmp_path / "whole", name, part)
    assert whole.sources[1].pairs == 10  # the others are in the first source


def test_a_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    prepare(recipe({"articles": articles(tmp_path)}), tmp_path / "out")
    other = recipe({"articles": articles(tmp_path)}, text_characters=99)
    with pytest.raises(ConfigError, match=r"prepared with another data\.text_characters"):
        prepare(other, tmp_path / "out")
    assert prepare(other, tmp_path / "out", restart=True).sources[0].pairs == 30


def test_nothing_is_trained_on_what_is_for_measuring_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is trained on 'bioasq'"):
        prepare(recipe({"bioasq": articles(tmp_path)}), tmp_path / "out")
    path = write_jsonl(tmp_path / "pairs.jsonl", [{"anchor": "abc", "positive": "def"}])
    with pytest.raises(ConfigError, match="nothing is trained on 'med'"):
        prepare(recipe({"med": {"reader": "pairs", "path": str(path)}}), tmp_path / "other")


def test_sources_without_any_pair_are_an_error(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "untitled.jsonl", [{"_id": "1", "text": "Text without a title."}])
    source = {"reader": "jsonl", "path": str(path), "pairs": ["names"], "license": "CC0"}
    with pytest.raises(CorpusError):
        prepare(recipe({"a": source}), tmp_path / "out")


def test_judgements_of_a_training_part_are_pairs(tmp_path: Path) -> None:
    from samples import write_beir

    folder = write_beir(tmp_path / "beir")
    (folder / "qrels").mkdir(exist_ok=True)
    lines = {line for path in (folder / "qrels").glob("*") for line in path.read_text().splitlines()[1:]}
    judged = sorted(lines)
    assert judged
    (folder / "qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(judged) + "\n")
    report = prepare(recipe({"own": {"reader": "judged", "path": str(folder)}}), tmp_path / "out")
    positive = [line for line in judged if int(line.split("\t")[2]) > 0]
    assert report.sources[0].pairs + sum(report.sources[0].dropped.values()) == len(positive)
    assert rows(tmp_path / "out", "own")[0]["kind"] == "judged"


def test_the_testing_part_of_a_published_set_is_refused(tmp_path: Path) -> None:
    source = {"reader": "judged", "path": str(tmp_path), "options": {"split": "test"}}
    with pytest.raises(ConfigError, match="part 'test' of 'nfcorpus' is for measuring"):
        prepare(recipe({"nfcorpus": source}), tmp_path / "out")
    with pytest.raises(ConfigError, match="has no option 'spilt'; it takes split, queries, qrels, grade"):
        prepare(recipe({"own": {**source, "options": {"spilt": "train"}}}), tmp_path / "other")
