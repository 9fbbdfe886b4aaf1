"""Pairs that are there already: columns of a file, and a BEIR folder with judgements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cmbert_retrieval.corpora import open_corpus
from cmbert_retrieval.corpora.beir import read_qrels, read_queries
from cmbert_retrieval.corpora.jsonl import read_objects
from cmbert_retrieval.errors import ConfigError, CorpusError
from cmbert_retrieval.evaluation.splits import PUBLISHED, TEST_ONLY, published_split
from cmbert_retrieval.finetuning.pairs import Pair
from cmbert_retrieval.finetuning.recipe import PairSource

_OPTIONS: dict[str, dict[str, Any]] = {
    "pairs": {"anchor": "anchor", "positive": "positive", "negative": "negative", "document": "document"},
    "judged": {"split": "train", "queries": "", "qrels": "", "grade": 1},
}
"""Reader -> its options with what they are unless given."""


def read_pairs(name: str, source: PairSource) -> Iterator[Pair]:
    """Yield the pairs of a source whose reader has them.

    - ``pairs``: lines of JSON with texts under ``anchor`` and ``positive``, and under ``negative`` a text or
      a list of them; options of these names call the keys otherwise. ``document``, where it is there, says
      which positives are from one document.
    - ``judged``: a BEIR folder. A question of the training part asks for each document that it is judged to
      be answered by (with ``grade`` at least); documents judged 0 are negatives.

    Raises:
        ConfigError: an option is not known, or nothing may be trained on this set or this part of it.
        CorpusError: a file is not there or is not as expected.
    """
    known = _OPTIONS[source.reader]
    for option in source.options:
        if option not in known:
            raise ConfigError(
                f"source '{name}': reader '{source.reader}' has no option '{option}'; it takes "
                f"{', '.join(known)}"
            )
    options = {**known, **source.options}
    collection = source.collection or name.replace("-", "_").casefold()
    if collection in TEST_ONLY:
        raise ConfigError(f"source '{name}': nothing is trained on '{collection}'; leave it out")
    if source.reader == "pairs":
        yield from _of_columns(name, Path(source.path), options)
    else:
        if collection in PUBLISHED and published_split(collection, str(options["split"])) != "train":
            raise ConfigError(
                f"source '{name}': part '{options['split']}' of '{collection}' is for measuring; "
                "expected its training part"
            )
        yield from _of_judgements(Path(source.path), options)


def _of_columns(name: str, path: Path, options: Mapping[str, Any]) -> Iterator[Pair]:
    for number, values in read_objects(path):
        texts = [values.get(options[column]) for column in ("anchor", "positive")]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise CorpusError(
                f"source '{name}': {path.name}:{number}: expected texts under '{options['anchor']}' and "
                f"'{options['positive']}'"
            )
        given = values.get(options["negative"]) or []
        negatives = [given] if isinstance(given, str) else given
        if not isinstance(negatives, list) or not all(isinstance(text, str) for text in negatives):
            raise CorpusError(
                f"source '{name}': {path.name}:{number}: '{options['negative']}' is neither a text nor a "
                "list of texts"
            )
        document = str(values.get(options["document"]) or f"{path.name}:{number}")
        yield Pair(str(texts[0]), str(texts[1]), document, "pairs", tuple(negatives))


def _of_judgements(folder: Path, options: Mapping[str, Any]) -> Iterator[Pair]:
    qrels = read_qrels(_named(folder, str(options["qrels"]), f"qrels/{options['split']}.tsv"))
    queries = read_queries(Path(options["queries"]) if options["queries"] else folder)
    texts = {query.id: query.text for query in queries}
    wanted = {document for judged in qrels.values() for document in judged}
    found = {
        record.document.id: f"{record.document.title}\n{record.document.text}".strip()
        for record in open_corpus("beir", folder).records()
        if record.document is not None and record.document.id in wanted
    }
    for query, judged in qrels.items():
        if query not in texts:
            raise CorpusError(f"{folder}: a question that is judged is not among the questions")
        negatives = tuple(found[answer] for answer, grade in judged.items() if grade <= 0 and answer in found)
        for answer, grade in judged.items():
            if grade >= int(options["grade"]) and answer in found:
                yield Pair(texts[query], found[answer], answer, "judged", negatives)


def _named(folder: Path, given: str, otherwise: str) -> Path:
    path = Path(given) if given else folder / otherwise
    if not path.is_file() and path.with_name(f"{path.name}.gz").is_file():
        return path.with_name(f"{path.name}.gz")
    return path
