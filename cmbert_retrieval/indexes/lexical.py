"""Words: BM25 over rows with tantivy."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tantivy
from numpy.typing import NDArray

from cmbert_retrieval.errors import ConfigError, IndexCorruptError
from cmbert_retrieval.indexes.advice import run_verify
from cmbert_retrieval.indexes.columns import Value
from cmbert_retrieval.indexes.filters import Condition, Filter
from cmbert_retrieval.indexes.links import LinkFolder
from cmbert_retrieval.storage import link_tree

logger = logging.getLogger(__name__)

ANALYSERS = ("english", "plain")
WRITER_HEAP_BYTES = 32_000_000
_DELETED_AT_ONCE = 4096
MAX_QUERY_TERMS = 1024
"""Terms of a query that are looked at: the rarest, which tell most."""
# tantivy adds up a row's terms in an order that depends on its segments; rounding hides the last bits.
_SCORE_DECIMALS = 4
_MOST_OF_A_TERM = 2.2
"""Times its rarity: what tantivy's BM25 (k1 1.2) gives a term that comes endlessly often."""

_FIELD_KINDS = {
    "text": "text",
    "integer": "integer",
    "boolean": "integer",
    "date": "integer",
    "number": "float",
}


def build_analyser(name: str) -> tantivy.TextAnalyzer:
    """Return the analyser that turns text into terms.

    ``english`` folds case and accents, drops stop words and stems; ``plain`` only folds.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in ANALYSERS:
        raise ConfigError(f"unknown analyser '{name}'; known: {', '.join(ANALYSERS)}")
    builder = (
        tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
        .filter(tantivy.Filter.remove_long(256))
        .filter(tantivy.Filter.lowercase())
        .filter(tantivy.Filter.ascii_fold())
    )
    if name == "english":
        builder = builder.filter(tantivy.Filter.stopword("english")).filter(tantivy.Filter.stemmer("english"))
    return builder.build()


def build_schema(columns: Mapping[str, str]) -> tantivy.Schema:
    """Return the tantivy schema: the row number, the words, and one field a declared column."""
    builder = tantivy.SchemaBuilder()
    # Signed on purpose: deleting by term on an unsigned field deletes nothing and says so to nobody.
    builder.add_integer_field("row", indexed=True, fast=True)
    builder.add_text_field("words", tokenizer_name="words", index_option="position")
    for number, kind in enumerate(columns.values()):
        name = f"c{number}"
        match _FIELD_KINDS[kind]:
            case "text":
                builder.add_text_field(name, tokenizer_name="raw", index_option="basic", fast=True)
            case "integer":
                builder.add_integer_field(name, indexed=True, fast=True)
            case _:
                builder.add_float_field(name, indexed=True, fast=True)
    return builder.build()


class LexicalWriter:
    """Adds rows to, and removes rows from, a tantivy folder that no reader has seen yet."""

    def __init__(self, folder: Path, columns: Mapping[str, str], analyser: str) -> None:
        """Open ``folder`` for writing, or begin it there."""
        self._folder = folder
        self._columns = list(columns.values())
        folder.mkdir(parents=True, exist_ok=True)
        self._index = tantivy.Index(build_schema(columns), path=str(folder))
        self._index.register_tokenizer("words", build_analyser(analyser))
        # One thread: rows stay in order and memory stays within the heap.
        self._writer = self._index.writer(heap_size=WRITER_HEAP_BYTES, num_threads=1)

    def add(self, row: int, text: str, values: Iterable[tuple[int, Value]]) -> None:
        """Add a row with its text and ``(column number, stored value)`` pairs."""
        document = tantivy.Document()
        document.add_integer("row", row)
        document.add_text("words", text)
        for number, value in values:
            match _FIELD_KINDS[self._columns[number]]:
                case "text":
                    document.add_text(f"c{number}", str(value))
                case "integer":
                    document.add_integer(f"c{number}", int(value))
                case _:
                    document.add_float(f"c{number}", float(value))
        self._writer.add_document(document)

    def delete(self, rows: Iterable[int]) -> None:
        """Remove rows that earlier commits added."""
        numbers = [int(row) for row in rows]
        # Many at a time: tantivy keeps a kilobyte for each deletion until the commit.
        for start in range(0, len(numbers), _DELETED_AT_ONCE):
            chunk = numbers[start : start + _DELETED_AT_ONCE]
            query = tantivy.Query.term_set_query(self._index.schema, "row", chunk)
            self._writer.delete_documents_by_query(query)

    def finish(self, live_rows: int) -> None:
        """Commit, wait for merges, and leave only the files that the index needs.

        Raises:
            IndexCorruptError: the folder does not hold ``live_rows`` rows afterwards.
        """
        self._writer.commit()
        self._writer.wait_merging_threads()
        self._index.reload()
        found = self._index.searcher().num_docs
        if found != live_rows:
            raise IndexCorruptError(
                f"{self._folder}: holds {found} rows, expected {live_rows}; {run_verify(self._folder)}"
            )
        del self._writer, self._index
        for lock in self._folder.glob(".tantivy-*.lock"):
            lock.unlink()


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Turn what tantivy raises over a damaged folder into one error.

    Raises:
        IndexCorruptError: the folder, and tantivy's first line.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
    except BaseException as error:
        # Rust's panics are no Exceptions, and their class can be had from nowhere.
        if type(error).__name__ != "PanicException":
            raise
        reason = "a damaged file"
    else:
        return
    raise IndexCorruptError(f"{folder}: {reason}; {run_verify(folder)}")


class LexicalReader:
    """Searches a tantivy folder. Safe to use from several threads."""

    def __init__(self, folder: Path, columns: Mapping[str, str], analyser: str) -> None:
        """Open ``folder`` without writing to it.

        Raises:
            IndexCorruptError: it is missing or damaged.
        """
        self._folder = folder
        self._kinds = list(columns.values())
        self._analyser = build_analyser(analyser)
        with _reading(folder):
            self._links = LinkFolder()
        try:
            with _reading(folder):
                self._links.link(folder)
                self._index = tantivy.Index.open(str(self._links.path))
                self._index.register_tokenizer("words", self._analyser)
                self._schema = self._index.schema
                self._searcher = self._index.searcher()
        except BaseException:
            self._links.close()
            raise

    def __len__(self) -> int:
        return int(self._searcher.num_docs)

    def close(self) -> None:
        """Remove the private folder of links."""
        self._links.close()

    def terms(self, text: str) -> Counter[str]:
        """Return the terms of a text and how often each occurs."""
        return Counter(self._analyser.analyze(text))

    def rarity(self, term: str) -> float:
        """Return how much a term tells about a row, as BM25 weighs it; terms that occur nowhere tell most."""
        rows = len(self)
        with _reading(self._folder):
            with_term = min(rows, int(self._searcher.doc_freq("words", term)))  # it still counts the dead
        return math.log(1 + (rows - with_term + 0.5) / (with_term + 0.5))

    def best_score(self, text: str) -> float:
        """Return what no row can surpass as an answer to a text: all its words, each endlessly often."""
        return sum(count * self.rarity(term) for term, count in self.terms(text).items()) * _MOST_OF_A_TERM

    def _rarest(self, terms: Counter[str]) -> Counter[str]:
        if len(terms) <= MAX_QUERY_TERMS:
            return terms
        rows_with = {term: int(self._searcher.doc_freq("words", term)) for term in terms}
        found = [term for term in terms if rows_with[term]]
        found.sort(key=lambda term: (rows_with[term], -terms[term], term))
        if len(found) > MAX_QUERY_TERMS:
            logger.warning(
                "a query of %d different terms is searched without its %d most common ones; "
                "split it to have all of them count",
                len(terms),
                len(found) - MAX_QUERY_TERMS,
            )
        return Counter({term: terms[term] for term in found[:MAX_QUERY_TERMS]})

    def search(
        self, text: str, k: int, where: Filter | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return BM25 scores and rows, by score, then row.

        Args:
            text: any text; it is never parsed as a query language. Of more than ``MAX_QUERY_TERMS`` different
                terms that occur at all, the most common ones are left out, and their number is logged.
            k: how many; rows that score as the k-th does come along, so more may be returned.
            where: only rows whose documents pass.
        """
        with _reading(self._folder):
            return self._search(self._rarest(self.terms(text)), k, where)

    def _search(
        self, terms: Counter[str], k: int, where: Filter | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if not terms or k < 1:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        parts = []
        for term, count in terms.items():
            query = tantivy.Query.term_query(self._schema, "words", term, "freq")
            parts.append(
                (tantivy.Occur.Should, tantivy.Query.boost_query(query, count) if count > 1 else query)
            )
        query = tantivy.Query.boolean_query(parts)
        if where is not None:
            # A filter must not add to the score, so its constant score is multiplied by nought.
            silent = tantivy.Query.boost_query(tantivy.Query.const_score_query(self._filter(where), 1.0), 0.0)
            query = tantivy.Query.boolean_query([(tantivy.Occur.Must, query), (tantivy.Occur.Must, silent)])
        limit, total = k + 16, len(self)
        while True:
            limit = min(limit, max(total, 1))  # tantivy reserves memory for as many
            hits = self._searcher.search(query, limit, count=False).hits
            scores = np.round(np.array([score for score, _ in hits], dtype=np.float64), _SCORE_DECIMALS)
            if len(hits) < limit or limit >= total or scores[-1] < scores[k - 1]:
                break
            limit *= 4  # the border lies among equal scores: take them all
        rows = np.array(
            self._searcher.fast_field_values("row", [address for _, address in hits]), dtype=np.int64
        )
        order = np.lexsort((rows, -scores))
        if len(order) > k:  # of the scores behind the k-th, only some may have been fetched
            order = order[scores[order] >= scores[order[k - 1]]]
        return scores[order].astype(np.float32), rows[order]

    def rows_matching(self, where: Filter) -> NDArray[np.int64]:
        """Return the live rows whose documents pass the filter, in order."""
        return self._all_rows(self._filter(where))

    def rows(self) -> NDArray[np.int64]:
        """Return all live rows, in order."""
        return self._all_rows(tantivy.Query.all_query())

    def _all_rows(self, query: tantivy.Query) -> NDArray[np.int64]:
        with _reading(self._folder):
            found = self._searcher.search(query, max(len(self), 1), count=False).hits
            rows = self._searcher.fast_field_values("row", [address for _, address in found])
        return np.sort(np.array(rows, dtype=np.int64))

    def _filter(self, where: Filter) -> tantivy.Query:
        must = [(tantivy.Occur.Must, tantivy.Query.all_query())]
        for condition in where.conditions:
            negated = condition.operator in ("ne", "not_in") or (
                condition.operator == "exists" and not condition.values[0]
            )
            occur = tantivy.Occur.MustNot if negated else tantivy.Occur.Must
            must.append((occur, self._condition(condition)))
        return tantivy.Query.boolean_query(must)

    def _condition(self, condition: Condition) -> tantivy.Query:
        field = f"c{condition.number}"
        kind = _FIELD_KINDS[self._kinds[condition.number]]
        values = condition.values
        match condition.operator:
            case "exists":
                return tantivy.Query.exists_query(field)
            case "lt" | "le" | "gt" | "ge":
                types = {"integer": tantivy.FieldType.Integer, "float": tantivy.FieldType.Float}
                inclusive = condition.operator.endswith("e")
                if condition.operator.startswith("l"):
                    return tantivy.Query.range_query(
                        self._schema, field, types[kind], upper_bound=values[0], include_upper=inclusive
                    )
                return tantivy.Query.range_query(
                    self._schema, field, types[kind], lower_bound=values[0], include_lower=inclusive
                )
            case _:
                return self._any_of(field, values)

    def _any_of(self, field: str, values: Sequence[Any]) -> tantivy.Query:
        if not values:
            return tantivy.Query.empty_query()
        return tantivy.Query.term_set_query(self._schema, field, list(values))


def begin_lexical(previous: Path | None, folder: Path) -> None:
    """Make ``folder`` begin as what ``previous`` holds, sharing its immutable files."""
    if previous is not None:
        link_tree(previous, folder)
