"""Real sources prepared: nothing that the evaluation asks for is in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

for package in ("pyarrow", "datasketch", "wordfreq", "transformers"):
    pytest.importorskip(package)

from prepare_samples import recipe  # noqa: E402

from cmbert_retrieval.corpora.jsonl import JsonlCorpus  # noqa: E402
from cmbert_retrieval.evaluation.datasets import named_set  # noqa: E402
from cmbert_retrieval.evaluation.splits import split_by_hash, split_of_code  # noqa: E402
from cmbert_retrieval.pretraining.frozen import held_out_names  # noqa: E402
from cmbert_retrieval.pretraining.lexicon import Lexicon  # noqa: E402
from cmbert_retrieval.pretraining.prepare import prepare  # noqa: E402
from cmbert_retrieval.pretraining.texts import TextShard  # noqa: E402

pytestmark = pytest.mark.slow


def test_nothing_that_is_asked_for_is_in_what_was_prepared(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(held_out_names(shared_data)), encoding="utf-8")
    terms = shared_data / "ontology_doid" / "doid.jsonl.gz"
    doid = {
        "reader": "jsonl",
        "path": str(terms),
        "options": {"text": "name", "title": "name"},
        "collection": "ontology",
    }
    sources = {
        "articles": {
            "reader": "pmc",
            "path": str(shared_data / "pmc_cloud_sample"),
            "licenses": ["CC BY", "CC0"],
        },
        "medquad": {
            "reader": "jsonl",
            "path": str(shared_data / "medquad" / "medquad.jsonl.gz"),
            "options": {"text": "answer", "title": "question"},
            "license": "CC BY 4.0",
        },
        "icd10cm": {"reader": "icd10cm", "sentences": True},
        "doid": {**doid, "sentences": True},
    }
    made = recipe(
        sources,
        lexicon={"icd10cm": {"reader": "icd10cm"}},
        exclude_names=str(tmp_path / "names.txt"),
        tokenizer={"vocabulary": 1000, "sample_characters": 1_000_000},
        held_out=0.005,
    )
    out = tmp_path / "out"
    report = prepare(made, out)

    articles, medquad = report.sources[:2]
    assert set(articles.licenses) <= {"CC BY", "CC0"}
    assert articles.kept + articles.excluded_split + articles.held_out > 150
    assert medquad.copies_of_excluded > 100  # the same answer is given under many subjects
    for source in report.sources:
        spread = 4 * np.sqrt(
            0.21 / min(source.read, 1000)
        )  # of some sources, categories or subjects are drawn
        assert source.excluded_split / source.read == pytest.approx(0.3, abs=spread)
        assert source.kept > source.held_out

    verdicts = np.load(out / "texts" / "verdicts.npy")
    kept: dict[int, dict[str, str]] = {number: {} for number in range(4)}
    start = 0
    for path in sorted((out / "texts").glob("*.arrow")):
        shard = TextShard(path)
        rows = np.flatnonzero(verdicts[start : start + len(shard)] == 0).tolist()
        kept[int(path.name[:3])].update({shard.id(row): shard.text(row).lower() for row in rows})
        start += len(shard)
    assert all(split_of_code("icd10cm", code) == "train" for code in kept[2])
    assert all(split_by_hash("ontology", term) == "train" for term in kept[3])

    lexicon = Lexicon.load(out / "lexicon.npy")
    lines = {line for texts in kept.values() for text in texts.values() for line in text.split("\n")}
    for name in ("icd10cm-inclusion", "icd10cm-synonyms", "icd9cm-titles", "medquad"):
        questions = {query.lower() for query in named_set(name, shared_data, split="test").queries.values()}
        assert questions.isdisjoint(lines)
        assert not [question for question in questions if question in lexicon]
    # No term of another vocabulary that is kept has one of the names, so no sentence calls it so.
    asked = {q.lower() for q in named_set("icd10cm-synonyms", shared_data, split="test").queries.values()}
    for document in JsonlCorpus(terms, text="name", title="name"):
        if document.id in kept[3]:
            own = {document.title, *document.metadata.get("synonyms", ())}
            assert asked.isdisjoint(name.lower() for name in own)


def test_articles_in_a_bulk_package_come_with_title_and_lines(shared_data: Path, tmp_path: Path) -> None:
    source = {"reader": "pmc", "path": str(shared_data / "pmc_cloud_sample")}
    made = recipe(
        {"articles": source}, salience=False, tokenizer={"vocabulary": 400, "sample_characters": 100_000}
    )
    report = prepare(made, tmp_path / "out")
    total = report.total()
    assert total.tokens > total.words > 300_000
    texts = [TextShard(path) for path in sorted((tmp_path / "out" / "texts").glob("*.arrow"))]
    longest = max((shard.text(row) for shard in texts for row in range(len(shard))), key=len)
    title, blank, *rest = longest.split("\n")
    assert title and blank == "" and len(rest) > 20
