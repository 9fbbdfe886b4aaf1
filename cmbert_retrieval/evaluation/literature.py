"""Sets of questions about the literature, read from the folders in which they are kept.

Each function takes the folder of evaluation sets and a split; its docstring says what is asked of what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cmbert_retrieval.corpora.beir import read_qrels, read_queries
from cmbert_retrieval.corpora.jsonl import JsonlCorpus, read_objects
from cmbert_retrieval.corpora.memory import MemoryCorpus
from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.evaluation.datasets import EvaluationSet, data_file, from_parts, judged_texts
from cmbert_retrieval.evaluation.splits import published_split, split_by_hash
from cmbert_retrieval.types import Document

# Collections of abstracts are indexed a document a row, as everybody does who publishes figures on them.
_WHOLE = ("passages=none",)


def scifact(data: Path | None, split: str) -> EvaluationSet:
    """Claims -> abstracts that support or refute them (SciFact as BEIR has it: 300 test claims).

    Source: Wadden et al., "Fact or Fiction: Verifying Scientific Claims", EMNLP 2020.
    """
    part = {"test": "dev", "train": "train"}.get(split)
    if part is None:
        raise ConfigError(f"scifact has no split '{split}'; expected test or train")
    folder = data_file(data, "scifact/corpus.jsonl.gz", "scifact/corpus.jsonl").parent
    return from_parts(
        "scifact",
        JsonlCorpus(data_file(folder, "corpus.jsonl.gz", "corpus.jsonl")),
        read_queries(data_file(folder, f"queries.{part}.jsonl.gz", f"queries.{part}.jsonl")),
        read_qrels(data_file(folder, f"qrels.{part}.cited.tsv")),
        split=published_split("scifact", part),
        license="CC BY 4.0 (claims), ODC-By 1.0 (abstracts)",
        about="claims -> abstracts that support or refute them",
        index=_WHOLE,
    )


def nfcorpus(data: Path | None, split: str) -> EvaluationSet:
    """Questions of lay people about nutrition -> abstracts, in three grades (NFCorpus; 323 test queries).

    Source: Boteva et al., "A Full-Text Learning to Rank Dataset for Medical Information Retrieval", ECIR
    2016.
    """
    folder = data_file(data, "nfcorpus_preprocessed/corpus.jsonl.gz").parent
    return from_parts(
        "nfcorpus",
        JsonlCorpus(folder / "corpus.jsonl.gz"),
        read_queries(data_file(folder, "queries.beir_case_preserved.jsonl.gz")),
        read_qrels(data_file(folder, f"beir_qrels.{split}.csv.gz")),
        split=published_split("nfcorpus", split),
        license="academic use only",
        about="lay questions about nutrition -> abstracts (stop words were removed from these)",
        index=_WHOLE,
    )


def med(data: Path | None, split: str) -> EvaluationSet:
    """Information needs -> MEDLINE abstracts (the MED collection of SMART: 30 queries)."""
    _test_only("med", split)
    folder = data_file(data, "med_medline1033/corpus.jsonl.gz").parent
    return from_parts(
        "med",
        JsonlCorpus(folder / "corpus.jsonl.gz"),
        read_queries(folder / "queries.jsonl"),
        read_qrels(folder / "qrels.tsv"),
        license="free for research",
        about="information needs -> MEDLINE abstracts",
        index=_WHOLE,
    )


def bioasq(data: Path | None, split: str) -> EvaluationSet:
    """Questions of experts -> the snippets of abstracts that answer them (BioASQ, golden answers).

    Source: Tsatsaronis et al., "An overview of the BIOASQ large-scale biomedical semantic indexing and
    question answering competition", BMC Bioinformatics 2015.
    """
    _test_only("bioasq", split)
    folder = data_file(data, "bioasq_golden/snippet_corpus.jsonl.gz").parent
    return from_parts(
        "bioasq",
        JsonlCorpus(folder / "snippet_corpus.jsonl.gz"),
        read_queries(folder / "questions.jsonl.gz"),
        read_qrels(folder / "snippet_qrels.tsv"),
        license="CC BY 2.5",
        about="experts' questions -> snippets that answer them",
        index=_WHOLE,
    )


def medquad(data: Path | None, split: str) -> EvaluationSet:
    """Consumers' questions -> their answers by institutes of the NIH (MedQuAD). Split by subject.

    Source: Ben Abacha & Demner-Fushman, "A question-entailment approach to question answering", BMC
    Bioinformatics 2019.
    """
    documents = []
    asked = []
    for number, values in read_objects(data_file(data, "medquad/medquad.jsonl.gz")):
        if not values["answer"].strip():
            continue
        id_ = f"{values['_id']}@{number}"  # its own ids come more than once
        documents.append(Document(id_, values["answer"], metadata={"source": values["source"]}))
        if split_by_hash("medquad", values["focus"] or values["doc"]) == split:
            asked.append((id_, values["question"], id_))
    queries, qrels = judged_texts(asked)
    return from_parts(
        "medquad",
        MemoryCorpus(documents),
        queries,
        qrels,
        split=split,
        license="CC BY 4.0",
        about="consumers' questions -> answers of NIH institutes",
    )


def pmc_evidence(data: Path | None, split: str) -> EvaluationSet:
    """An outcome ("pain at six months") -> the randomised trials that report it (Evidence Inference).

    Only the outcome is asked for: with intervention and comparator, words alone find the article. Every
    article that reports the same outcome is right, whichever split its own question is in.

    Source: DeYoung et al., "Evidence Inference 2.0: More Data, Better Models", BioNLP 2020.
    """
    folder = data_file(data, f"{_TRIALS}/{_OUTCOMES}").parent
    files = ("pmc_fulltext_ccby_cc0.jsonl.gz", "pmc_fulltext_other_licences.jsonl.gz")
    documents = [
        Document(values["pmcid"], values.get("abstract") or "", values["title"])
        for name in files
        for _, values in read_objects(data_file(folder, name))
    ]
    return _outcomes(
        "pmc-evidence",
        documents,
        folder,
        split,
        license="MIT (questions), each article's own",
        about="outcomes alone -> titles and abstracts of the trials that report them",
        index=_WHOLE,
    )


def pmc_fulltext(data: Path | None, split: str) -> EvaluationSet:
    """The same outcomes -> whole articles under CC BY or CC0: what one vector of an article's beginning, or
    the best of its passages, finds of what stands anywhere in it.

    Source: as ``pmc_evidence``.
    """
    folder = data_file(data, f"{_TRIALS}/{_OUTCOMES}").parent
    documents = [
        Document(values["pmcid"], article_text(values), values["title"])
        for _, values in read_objects(data_file(folder, "pmc_fulltext_ccby_cc0.jsonl.gz"))
    ]
    return _outcomes(
        "pmc-fulltext",
        documents,
        folder,
        split,
        license="MIT (questions), CC BY or CC0 (articles)",
        about="outcomes alone -> whole articles of the trials that report them",
    )


def article_text(values: Mapping[str, Any]) -> str:
    """Return abstract and sections of an article: a heading above its paragraphs, a blank line between."""
    sections = ["\n".join(filter(None, [part["h"], *part["p"]])) for part in values["sections"]]
    return "\n\n".join(filter(None, [values.get("abstract"), *sections]))


_TRIALS, _OUTCOMES = "pmc_evidence_inference", "ico_queries.jsonl.gz"


def _outcomes(
    name: str,
    documents: Sequence[Document],
    folder: Path,
    split: str,
    *,
    license: str,
    about: str,
    index: tuple[str, ...] = (),
) -> EvaluationSet:
    """Return the outcomes that are asked for in a split, and which of these articles report them."""
    known = {document.id for document in documents}
    prompts = [
        (
            str(values["_id"]),
            values["outcome"],
            values["pmcid"],
            published_split("pmc_evidence", values["split"]),
        )
        for _, values in read_objects(folder / _OUTCOMES)
        if values["split"] and values["outcome"].strip() and values["pmcid"] in known
    ]
    # A query of this split first, so that its id is kept; then whatever else answers the same words.
    prompts.sort(key=lambda prompt: prompt[3] != split)
    queries, qrels = judged_texts((id_, outcome, pmcid) for id_, outcome, pmcid, _ in prompts)
    own = {id_ for id_, _, _, part in prompts if part == split}
    return from_parts(
        name,
        MemoryCorpus(documents),
        queries,
        {id_: grades for id_, grades in qrels.items() if id_ in own},
        split=split,
        license=license,
        about=about,
        index=index,
    )


def _test_only(name: str, split: str) -> None:
    if split != "test":
        raise ConfigError(
            f"'{name}' has no split '{split}': nothing is trained or tuned on it; expected test"
        )
