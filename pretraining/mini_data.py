"""Lay out the real data as the sources of ``recipes/mini-cpu.yaml`` and ``recipes/mini-contrastive.yaml``.

    python pretraining/mini_data.py --data ../shared/data --out runs/mini/sources

Only what a model that is handed on may be trained on is taken: articles under CC BY or CC0, answers, cases
and visits under CC BY 4.0, abstracts under MIT or CC BY 4.0 or in the public domain, the names of free code
systems and ontologies, and what ``vocabularies.py`` reads. Of visits, dialogues, questions, annotated
abstracts and look-ups the training parts are taken alone; what the frozen splits hold out, ``cmbert pretrain
prepare`` leaves out. Written beside the sources are the ids of articles that test and validation questions
were asked about (``exclude_ids``), and the names that code look-ups ask for (``exclude_names``).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from phrases import common_words, phrases
from vocabularies import chemicals, genes, meanings, processes

from cmbert_retrieval.corpora import open_corpus
from cmbert_retrieval.corpora.jsonl import read_objects
from cmbert_retrieval.corpora.licenses import normalize_license
from cmbert_retrieval.evaluation.datasets import named_set
from cmbert_retrieval.evaluation.literature import article_text
from cmbert_retrieval.pretraining.frozen import held_out_names
from cmbert_retrieval.storage import atomic_file

Row = dict[str, Any]

ORIGINALS = "pmc_oa_bulk_sample"
PLANTS = "europepmc_plant_science/europepmc_plant_science_ccby_cc0.jsonl.gz"
ARTICLES = (
    "pmc_evidence_inference/pmc_fulltext_ccby_cc0.jsonl.gz",
    "europepmc_cprojects/europepmc_cprojects_ccby_cc0.jsonl.gz",
    "plos_allofplos/plos_allofplos_ccby_cc0.jsonl.gz",
    "elife_samples/elife_samples_ccby_cc0.jsonl.gz",
    "craft_jats/craft_jats_ccby_cc0.jsonl.gz",
)
REVIEWS = {"Bannach-Brown_2019": "CC BY 4.0", "Nagtegaal_2019": "CC0"}
OPEN = ("CC BY", "CC0")
PHRASES = 600_000


def rows(path: Path) -> Iterator[Row]:
    """Yield the objects of a JSONL file."""
    for _, values in read_objects(path):
        yield values


def articles(data: Path) -> Iterator[Row]:
    """Yield full articles: title, abstract, sections with their headings."""
    for path in ARTICLES:
        yield from articles_of(data / path)


def plants(data: Path) -> Iterator[Row]:
    """Yield articles of plant science, which have much of the language and little of medicine."""
    yield from articles_of(data / PLANTS)


def articles_of(path: Path) -> Iterator[Row]:
    """Yield the articles of one file."""
    for row in rows(path):
        if row["license"] not in ("CC-BY", "CC0"):
            continue
        yield {
            "_id": row["pmcid"] or row["doi"],
            "title": row["title"] or "",
            "text": article_text(row),
            "license": row["license"],
        }


def citing(data: Path) -> Iterator[Row]:
    """Yield original articles with their references, which the others have lost."""
    for record in open_corpus("pmc", data / ORIGINALS).records():
        document = record.document
        if document is not None and normalize_license(str(document.metadata.get("license"))) in OPEN:
            names = ("license", "pmid", "doi", "references")
            kept = {name: document.metadata[name] for name in names if document.metadata.get(name)}
            yield {"_id": document.id, "title": document.title, "text": document.text, "metadata": kept}


def cited(data: Path) -> Iterator[Row]:
    """Yield the titles of the works that original articles refer to, which are of all of medicine."""
    found = {
        str(reference.get("title") or "")
        for row in citing(data)
        for reference in row["metadata"].get("references", ())
    }
    for number, title in enumerate(sorted(found - {""})):
        yield {"_id": f"cited-{number}", "text": title}


def preprints(data: Path) -> Iterator[Row]:
    """Yield preprints of the year 2020, without titles."""
    for row in rows(data / "cord19_fulltext_2670/fulltext_ccby_cc0.jsonl.gz"):
        yield {"_id": row["_id"], "text": row["text"], "license": row["license"]}


def answers(data: Path) -> Iterator[Row]:
    """Yield answers of the NIH's institutes to questions of patients, each below its question."""
    for row in rows(data / "medquad/medquad.jsonl.gz"):
        if row["answer"].strip():
            names = ("_id", "focus", "doc")
            yield {**{name: row[name] for name in names}, "title": row["question"], "text": row["answer"]}


def abstracts(data: Path) -> Iterator[Row]:
    """Yield abstracts whose title is a question, and what its authors conclude."""
    for row in rows(data / "pubmedqa/pqal.jsonl.gz"):
        if row["split"] == "train":
            yield {
                "_id": row["_id"],
                "title": row["question"],
                "text": "\n".join([*row["contexts"], row["long_answer"]]),
            }


def covid(data: Path) -> Iterator[Row]:
    """Yield abstracts on coronaviruses, which others have sorted by topic."""
    for row in rows(data / "coronaml_abstracts/annotated_documents.jsonl.gz"):
        if row["abstract"]:
            yield {"_id": row["cord_uid"], "title": row["title"] or "", "text": row["abstract"]}


def reviewed(data: Path) -> Iterator[Row]:
    """Yield abstracts that were looked at for two systematic reviews; others have a licence of their own."""
    for row in rows(data / "systematic_review_abstracts/corpus.jsonl.gz"):
        terms = REVIEWS.get(row["_id"].rpartition("_")[0])
        if terms and row["text"]:
            yield {"_id": row["_id"], "title": row["title"] or "", "text": row["text"], "license": terms}


def annotated(data: Path) -> Iterator[Row]:
    """Yield the abstracts in which diseases and chemicals are marked, without the marks."""
    for path in (
        "bc5cdr_linked/CDR_TrainingSet.PubTator.txt.gz",
        "ncbi_disease_linked/NCBItrainset_corpus.txt.gz",
    ):
        parts: dict[str, dict[str, str]] = {}
        with gzip.open(data / path, "rt", encoding="utf-8") as lines:
            for line in lines:
                if match := _PUBTATOR.match(line):
                    parts.setdefault(match[1], {})[match[2]] = match[3]
        for id_, part in parts.items():
            yield {"_id": id_, "title": part.get("t", ""), "text": part.get("a", "")}


_PUBTATOR = re.compile(r"(\d+)\|([ta])\|(.*)")


def tagged(data: Path) -> Iterator[Row]:
    """Yield the sentences of abstracts in which genes, cells and organs are marked, without the marks."""
    for corpus in ("BC2GM", "AnatEM", "BioNLP11ID", "BioNLP13CG", "BioNLP13PC"):
        path = data / f"ner_mtl_bioinformatics/{corpus}-IOB/train.tsv.gz"
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            sentences = lines.read().split("\n\n")
        for number, sentence in enumerate(sentences):
            words = [line.partition("\t")[0] for line in sentence.strip().split("\n")]
            yield {"_id": f"{corpus}-{number}", "text": _joined(words)}


def _joined(words: list[str]) -> str:
    """Return words as a sentence: without the spaces that a tokeniser put around signs."""
    text = " ".join(words)
    text = re.sub(r"(?<=\w) ([-/]) (?=\w)", r"\1", text)
    text = re.sub(r" ([,;:.?!)\]%])", r"\1", text)
    return re.sub(r"([(\[]) ", r"\1", text)


def chemistry(data: Path) -> Iterator[Row]:
    """Yield abstracts in which reactions of chemicals are marked, without the marks."""
    for row in rows(data / "chr_abstracts/chr_dev.jsonl.gz"):
        yield {name: row[name] for name in ("_id", "title", "text")}


def looked_up(*names: str) -> Callable[[Path], Iterator[Row]]:
    """Return what yields pairs of the training parts of look-ups: what is asked, and what a code says."""

    def pairs(data: Path) -> Iterator[Row]:
        for name in names:
            one = named_set(name, data, split="train")
            titles = {document.id: document.title or document.text for document in one.corpus}
            for id_, grades in one.qrels.items():
                for code in grades:
                    yield {"anchor": one.queries[id_], "positive": titles[code], "document": code}

    return pairs


def cases(data: Path) -> Iterator[Row]:
    """Yield clinical cases, translated from Spanish by a machine; ``split`` is the published one."""
    for row in rows(data / "codiesp/codiesp.jsonl.gz"):
        yield {"_id": row["_id"], "text": row["text_en"], "split": row["split"]}


def visits(data: Path) -> Iterator[Row]:
    """Yield notes of visits, and what was spoken there."""
    for row in rows(data / "aci_bench/aci_bench.jsonl.gz"):
        if row["split"] == "train":
            yield {"_id": f"{row['_id']}-note", "text": row["note"]}
            yield {"_id": f"{row['_id']}-dialogue", "text": row["dialogue"]}
    path = data / "mts_dialog/MTS-Dialog-TrainingSet.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield {"_id": f"mts-{row['ID']}-section", "text": row["section_text"]}
            yield {"_id": f"mts-{row['ID']}-dialogue", "text": row["dialogue"]}


def mesh(data: Path) -> Iterator[Row]:
    """Yield MeSH's descriptors with their entry terms; the parent is the one above in the first tree."""
    descriptors = list(rows(data / "mesh_descriptors/mesh_descriptors.jsonl.gz"))
    owner = {number: row["id"] for row in descriptors for number in row.get("tree_numbers") or ()}
    for row in descriptors:
        above = [number.rpartition(".")[0] for number in row.get("tree_numbers") or ()]
        parent = next((owner[number] for number in above if number in owner), None)
        yield term(row["id"], "mesh", row["name"], row.get("entry_terms"), parent)


def ontology(path: str, system: str, prefix: str = "") -> Callable[[Path], Iterator[Row]]:
    """Return what yields the terms of an ontology with their synonyms and the first term above."""

    def terms(data: Path) -> Iterator[Row]:
        for row in rows(data / path):
            above = (row.get("relations") or {}).get("is_a") or [None]
            parent = above[0] and prefix + above[0]
            yield term(prefix + row["id"], system, row["name"], row.get("synonyms"), parent)

    return terms


def procedures(data: Path) -> Iterator[Row]:
    """Yield the codes of ICD-10-PCS."""
    with gzip.open(data / "icd10pcs/icd10pcs_codes.tsv.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            code, _, title = line.rstrip("\n").partition("\t")
            yield term(code, "icd10pcs", title)


def supplies(data: Path) -> Iterator[Row]:
    """Yield the codes of HCPCS Level II."""
    for row in rows(data / "hcpcs_level2/hcpcs_2020.jsonl.gz"):
        yield term(row["code"], "hcpcs", row["long"])


def asked(data: Path) -> Iterator[Row]:
    """Yield phrases by chance; see ``phrases.py``."""
    entries = list(meanings())
    pools = (
        (3, common_words(text for _, meaning, sentences in entries for text in (meaning, *sentences))),
        (2, sorted({words[0] for words, *_ in entries})),
        (1, [symbol for symbol, *_ in genes()]),
        (1, [name for name in chemicals() if len(name) <= MOST_CHARACTERS]),
        (1, [name for name in processes() if len(name) <= MOST_CHARACTERS]),
    )
    texts = (
        sentence
        for source in (articles, answers, plants)
        for row in source(data)
        for sentence in _SENTENCE_END.split(row["text"])
    )
    for number, phrase in enumerate(phrases(texts, pools, PHRASES)):
        yield {"_id": f"phrase-{number}", "text": phrase}


MOST_CHARACTERS = 32
"""Of a name in a phrase."""


def english(_: Path) -> Iterator[Row]:
    """Yield what words of English mean, with and without the words, and sentences with them."""
    for number, (words, meaning, sentences) in enumerate(meanings()):
        said = f"{', '.join(words)}: {meaning}" if number % 2 else meaning
        for place, text in enumerate([said, *sentences]):
            yield {"_id": f"{number}-{place}", "text": text}


def gene_names(_: Path) -> Iterator[Row]:
    """Yield genes: their names, and their symbols in turns alone and with the name."""
    for symbol, name, others in genes():
        yield term(symbol, "hgnc", f"{name} ({symbol})" if len(symbol) % 2 else name, [symbol, *others])


def names_alone(names: Callable[[], Iterator[str]]) -> Callable[[Path], Iterator[Row]]:
    """Return what yields names, each as a text of its own."""

    def texts(_: Path) -> Iterator[Row]:
        for number, name in enumerate(names()):
            yield {"_id": str(number), "text": name}

    return texts


_SENTENCE_END = re.compile(r"(?<=[.?!])\s+")


def term(
    id: str, system: str, title: str, synonyms: list[str] | None = None, parent: str | None = None
) -> Row:
    """Return a code as the reader of JSONL takes it."""
    metadata = {"system": system, "synonyms": synonyms or [], "parent": parent}
    kept = {name: value for name, value in metadata.items() if value}
    return {"_id": id, "title": title, "text": title, "metadata": kept}


def asked_about(data: Path) -> Iterator[str]:
    """Yield the articles that test and validation questions were asked about."""
    for part in ("test", "validation"):
        lines = (data / f"pmc_evidence_inference/qrels.{part}.tsv").read_text(encoding="utf-8").splitlines()
        yield from sorted({line.split("\t")[1] for line in lines[1:]})


SOURCES: dict[str, Callable[[Path], Iterator[Row]]] = {
    "articles": articles,
    "plants": plants,
    "citing": citing,
    "cited": cited,
    "preprints": preprints,
    "answers": answers,
    "abstracts": abstracts,
    "covid": covid,
    "reviewed": reviewed,
    "annotated": annotated,
    "tagged": tagged,
    "chemistry": chemistry,
    "cases": cases,
    "visits": visits,
    "mesh": mesh,
    "mondo": ontology("ontology_mondo/mondo.jsonl.gz", "mondo", "MONDO:"),
    "doid": ontology("ontology_doid/doid.jsonl.gz", "doid"),
    "icd10pcs": procedures,
    "hcpcs": supplies,
    "synonyms": looked_up("icd10cm-synonyms"),
    "lookups": looked_up("icd9cm-titles", "icd10cm-external-cause", "icd10cm-neoplasm", "hcpcs-short"),
    "phrases": asked,
    "english": english,
    "genes": gene_names,
    "chemicals": names_alone(chemicals),
    "processes": names_alone(processes),
}


def main() -> None:
    """Write all sources."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of real data")
    parser.add_argument("--out", type=Path, default=Path("runs/mini/sources"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, lines in {
        "asked-about.txt": asked_about(arguments.data),
        "names.txt": held_out_names(arguments.data),
    }.items():
        with atomic_file(arguments.out / name) as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
    for name, source in SOURCES.items():
        count = 0
        with atomic_file(arguments.out / f"{name}.jsonl") as file:
            for row in source(arguments.data):
                file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
                count += 1
        sys.stderr.write(f"{name}: {count:,} documents\n")


if __name__ == "__main__":
    main()
