"""Evaluation sets: documents, queries and judgements, by name, from a BEIR or TREC folder, or from files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from cmbert_retrieval.corpora import READERS, guess_reader, open_corpus
from cmbert_retrieval.corpora.base import Corpus
from cmbert_retrieval.corpora.beir import read_qrels, read_queries
from cmbert_retrieval.corpora.topics import read_topics
from cmbert_retrieval.errors import ConfigError, CorpusError
from cmbert_retrieval.recipe_files import did_you_mean
from cmbert_retrieval.types import Qrels, Query


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """What a system is asked, and what it should have answered.

    Attributes:
        name: fit for a folder.
        corpus: the documents.
        queries: query id -> text; those that are judged.
        qrels: query id -> document id -> grade.
        split: the part of the set, ``test`` unless something is being tuned.
        license: of documents and judgements, as their publisher states it.
        about: one line: what is looked for in what.
        index: recipe settings that the documents ask for, ``section.key=value`` each.
    """

    name: str
    corpus: Corpus
    queries: Mapping[str, str]
    qrels: Qrels
    split: str = "test"
    license: str = ""
    about: str = ""
    index: tuple[str, ...] = ()


NAMED = {
    "scifact": "literature:scifact",
    "nfcorpus": "literature:nfcorpus",
    "med": "literature:med",
    "bioasq": "literature:bioasq",
    "medquad": "literature:medquad",
    "pmc-evidence": "literature:pmc_evidence",
    "pmc-fulltext": "literature:pmc_fulltext",
    "icd10cm-inclusion": "code_lookups:icd10cm_inclusion",
    "icd10cm-external-cause": "code_lookups:icd10cm_external_cause",
    "icd10cm-neoplasm": "code_lookups:icd10cm_neoplasm",
    "icd10cm-synonyms": "code_lookups:icd10cm_synonyms",
    "icd9cm-titles": "code_lookups:icd9cm_titles",
    "hcpcs-short": "code_lookups:hcpcs_short",
    "hpo-lay": "code_lookups:hpo_lay",
}
"""Set's name -> ``module:function`` in this package; the function takes the data folder and the split."""


def named_set(name: str, data: Path | None, *, split: str = "test") -> EvaluationSet:
    """Return one of the sets of ``NAMED``.

    Args:
        name: its name.
        data: the folder that holds the sets' folders; None where nothing but this package is needed.
        split: ``test``, or ``validation`` or ``train`` where the set has them, for tuning.

    Raises:
        ConfigError: the name is not known, or a data folder is needed and none was given.
        CorpusError: the set's files are not there, or are not as expected.
    """
    if name not in NAMED:
        raise ConfigError(
            f"unknown set '{name}'; named sets are {', '.join(NAMED)}; "
            f"another one is given as a BEIR folder or as files{did_you_mean(name, list(NAMED))}"
        )
    module, _, function = NAMED[name].partition(":")
    make: Callable[[Path | None, str], EvaluationSet] = getattr(
        import_module(f"cmbert_retrieval.evaluation.{module}"), function
    )
    return checked(make(data, split))


def beir_folder(path: Path, *, name: str = "", split: str = "test") -> EvaluationSet:
    """Return a BEIR folder: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/SPLIT.tsv``, each also gzipped.

    Raises:
        CorpusError: a file is missing or is not as expected.
    """
    corpus = open_corpus("beir", path)
    judged = _first(path / "qrels", (f"{split}.tsv", f"{split}.tsv.gz", f"{split}.csv", f"{split}.txt"))
    qrels = read_qrels(judged)
    return from_parts(name or path.resolve().name, corpus, read_queries(path), qrels, split=split)


def from_files(
    name: str,
    corpus: str,
    queries: Path,
    qrels: Path,
    *,
    topics: Sequence[str] = ("title",),
    split: str = "test",
    license: str = "",
    about: str = "",
) -> EvaluationSet:
    """Return a set made of files.

    Args:
        name: fit for a folder.
        corpus: ``READER:PATH``, or a path whose reader can be told from its name.
        queries: JSON lines (``.jsonl``, ``.json``) with ``_id`` (or ``id``) and ``text``; any other file is
            one of TREC topics.
        qrels: TREC's four columns, or BEIR's three.
        topics: the parts of TREC topics that are asked, joined in this order.
        split: what the queries are.
        license: of documents and judgements.
        about: one line: what is looked for in what.

    Raises:
        CorpusError: a file is missing or is not as expected.
    """
    reader, colon, path = corpus.partition(":")
    if not colon or reader not in READERS:
        reader, path = guess_reader(corpus), corpus
    return from_parts(
        name,
        open_corpus(reader, path),
        _queries(queries, topics),
        read_qrels(qrels),
        split=split,
        license=license,
        about=about,
    )


def _queries(path: Path, topics: Sequence[str]) -> Iterator[Query]:
    name = path.name.lower().removesuffix(".gz")
    if path.is_dir() or name.endswith((".jsonl", ".json")):
        return read_queries(path)
    return read_topics(path, fields=topics)


def from_parts(
    name: str,
    corpus: Corpus,
    queries: Iterable[Query] | Mapping[str, str],
    qrels: Qrels,
    *,
    split: str = "test",
    license: str = "",
    about: str = "",
    index: tuple[str, ...] = (),
) -> EvaluationSet:
    """Return a set of these parts; of the queries, those that are judged.

    Raises:
        CorpusError: a judged query has no text, or nothing is judged.
    """
    texts = queries if isinstance(queries, Mapping) else {query.id: query.text for query in queries}
    judged = {id_: texts[id_] for id_ in qrels if id_ in texts}
    return checked(EvaluationSet(name, corpus, judged, qrels, split, license, about, index))


def judged_texts(rows: Iterable[tuple[str, str, str]]) -> tuple[dict[str, str], Qrels]:
    """Return queries and judgements of rows of query id, text and relevant document.

    Equal texts (but for case and white space) are one query with the first id: whoever types them means the
    same thing, and each document that is right for one of them is right.
    """
    ids: dict[str, str] = {}
    queries: dict[str, str] = {}
    qrels: Qrels = {}
    for id_, text, document in rows:
        known = ids.setdefault(" ".join(text.casefold().split()), id_)
        queries.setdefault(known, text)
        qrels.setdefault(known, {})[document] = 1
    return queries, qrels


def checked(one: EvaluationSet) -> EvaluationSet:
    """Return the set, with all that is judged having a text.

    Raises:
        CorpusError: it has not, or nothing is judged.
    """
    if not one.qrels:
        raise CorpusError(f"{one.name}: nothing is judged in the split '{one.split}'")
    if missing := [id_ for id_ in one.qrels if not one.queries.get(id_, "").strip()]:
        raise CorpusError(
            f"{one.name}: {len(missing):,} judged queries have no text ('{missing[0]}' is the first); "
            "queries and judgements are of different editions"
        )
    return one


def data_file(data: Path | None, *names: str) -> Path:
    """Return the first of these files that is in the data folder.

    Raises:
        ConfigError: no data folder was given.
        CorpusError: none of them is there.
    """
    if data is None:
        raise ConfigError(
            f"{names[0]} is needed: say where the folder of evaluation sets is, by --data DIR or CMBERT_DATA "
            "(make eval: DATA=DIR); eval/README.md says what it holds, and eval/examples/beir.yaml is for "
            "collections as BEIR ships them"
        )
    return _first(data, names)


def _first(folder: Path, names: Iterable[str]) -> Path:
    names = tuple(names)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise CorpusError(f"{folder}: no {' or '.join(names)} there")
