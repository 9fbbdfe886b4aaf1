"""Pairs that are there already: columns of a file, and a BEIR folder with judgements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cmbert_retrieval.corpora import open_corpus
from cmbert_retrieval.corpora.beir import read_qrels, read_queries
from cmbert_retrieval.corpora.jsonl import read_objects
from cmbert_retrieval.errors import ConfigError, CorpusError
from cmbert_retrieval.evaluation.splits import BY_HASH, PUBLISHED, TEST_ONLY, published_split, split_by_hash
from cmbert_retrieval.finetuning.data_recipe import PairSource
from cmbert_retrieval.finetuning.pairs import Pair
from cmbert_retrieval.pretraining.frozen import FrozenSplit, collection_of
from cmbert_retrieval.pretraining.sources import read_lines
from cmbert_retrieval.storage import sha256_of

_OPTIONS: dict[str, dict[str, Any]] = {
    "pairs": {"anchor": "anchor", "positive": "positive", "negative": "negative", "document": "document"},
    "judged": {"split": "train", "queries": "", "qrels": "", "grade": 1},
}
"""Reader -> its options with what they are unless given."""


class PairFile:
    """A source whose reader has pairs.

    - ``pairs``: lines of JSON with texts under ``anchor`` and ``positive``, and under ``negative`` a text or
      a list of them; options of these names call the keys otherwise. ``document``, where it is there, says
      which positives are from one document.
    - ``judged``: a BEIR folder. A question of the training part asks for each document that it is judged to
      be answered by (with ``grade`` at least); documents judged 0 are negatives. ``queries`` and ``qrels``
      name other files in the folder.
    """

    def __init__(self, name: str, source: PairSource) -> None:
        """Check a source.

        Raises:
            ConfigError: an option is not known, or nothing may be trained on this set or this part of it.
        """
        known = _OPTIONS[source.reader]
        for option in source.options:
            if option not in known:
                raise ConfigError(
                    f"source '{name}': reader '{source.reader}' has no option '{option}'; it takes "
                    f"{', '.join(known)}"
                )
        if source.licenses is not None:
            raise ConfigError(
                f"source '{name}': a file of pairs does not tell the licences of documents; leave 'licenses' "
                "out, and say 'license'"
            )
        self.name, self._source, self._options = name, source, {**known, **source.options}
        self._collection = collection_of(name, source)
        if self._collection in TEST_ONLY:
            raise ConfigError(
                f"source '{name}': nothing is trained on '{self._collection}', so that figures on it stay "
                "zero-shot; leave it out"
            )
        if source.reader == "judged":
            self._check_part()
        self.excluded_ids: frozenset[str] = frozenset()
        if source.exclude_ids is not None:
            self.excluded_ids = read_lines(source.exclude_ids, f"source '{name}': exclude_ids")

    def _check_part(self) -> None:
        part, grade = str(self._options["split"]), self._options["grade"]
        published = self._collection in PUBLISHED
        split = published_split(str(self._collection), part) if published else part
        if split != "train":
            raise ConfigError(
                f"source '{self.name}': part '{part}' of '{self._collection or self.name}' is for measuring; "
                "expected its training part"
            )
        if isinstance(grade, bool) or not isinstance(grade, int) or grade < 1:
            raise ConfigError(f"source '{self.name}': grade is {grade!r}; expected a whole number from 1")

    def facts(self) -> list[dict[str, Any]]:
        """Return what tells that the files have not changed."""
        path = Path(self._source.path)
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        return [{"path": str(file), "checksum": sha256_of(file)} for file in files if file.is_file()]

    def pairs(self, left_out: Counter[str]) -> Iterator[Pair]:
        """Yield the pairs that may be learnt from, and count documents that give none.

        Raises:
            CorpusError: a file is not there or is not as expected.
        """
        read = self._of_columns if self._source.reader == "pairs" else self._of_judgements
        for pair in read(left_out):
            if pair.document in self.excluded_ids:
                left_out["excluded_ids"] += 1
            else:
                yield pair

    def _of_columns(self, left_out: Counter[str]) -> Iterator[Pair]:
        path, options = Path(self._source.path), self._options
        if not path.is_file():
            raise CorpusError(f"source '{self.name}': {path}: no such file")
        for number, values in read_objects(path):
            where = f"source '{self.name}': {path.name}:{number}"
            texts = [values.get(options[column]) for column in ("anchor", "positive")]
            if not all(isinstance(text, str) and text.strip() for text in texts):
                raise CorpusError(
                    f"{where}: expected texts under '{options['anchor']}' and '{options['positive']}'"
                )
            given = values.get(options["negative"]) or []
            negatives = [given] if isinstance(given, str) else given
            if not isinstance(negatives, list) or not all(isinstance(text, str) for text in negatives):
                raise CorpusError(f"{where}: '{options['negative']}' is neither a text nor a list of texts")
            document = values.get(options["document"])
            if self._collection in BY_HASH:
                if not document:
                    raise CorpusError(
                        f"{where}: no '{options['document']}', which decides what of '{self._collection}' is "
                        "held out"
                    )
                if split_by_hash(str(self._collection), str(document)) != "train":
                    left_out["excluded_split"] += 1
                    continue
            document = str(document or f"{path.name}:{number}")
            yield Pair(str(texts[0]), str(texts[1]), document, "pairs", tuple(negatives))

    def _of_judgements(self, left_out: Counter[str]) -> Iterator[Pair]:
        folder, options = Path(self._source.path), self._options
        qrels = read_qrels(_named(folder, options["qrels"] or f"qrels/{options['split']}.tsv"))
        queries = read_queries(folder / options["queries"] if options["queries"] else folder)
        texts = {query.id: query.text for query in queries}
        found = self._documents({document for judged in qrels.values() for document in judged}, left_out)
        for query, judged in qrels.items():
            if query not in texts:
                raise CorpusError(f"{folder}: a question that is judged is not among the questions")
            negatives = tuple(
                found[answer] for answer, grade in judged.items() if grade <= 0 and answer in found
            )
            for answer, grade in judged.items():
                if grade >= options["grade"] and answer in found:
                    yield Pair(texts[query], found[answer], answer, "judged", negatives)

    def _documents(self, wanted: set[str], left_out: Counter[str]) -> Mapping[str, str]:
        frozen = FrozenSplit(self.name, self._source) if self._collection in BY_HASH else None
        found = {}
        for record in open_corpus("beir", Path(self._source.path)).records():
            document = record.document
            if document is None or document.id not in wanted:
                continue
            wanted.discard(document.id)
            if frozen is not None and frozen.holds_out(document):
                left_out["excluded_split"] += 1
            else:
                found[document.id] = f"{document.title}\n{document.text}".strip()
        left_out["missing"] += len(wanted)
        return found


def _named(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file() and path.with_name(f"{path.name}.gz").is_file():
        return path.with_name(f"{path.name}.gz")
    return path
