"""The sources of a mixture: opened and checked before any work, and what becomes of each record."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from cmbert_retrieval.corpora import open_corpus
from cmbert_retrieval.corpora.base import Corpus, Cursor
from cmbert_retrieval.corpora.licenses import normalize_license
from cmbert_retrieval.errors import ConfigError, CorpusError
from cmbert_retrieval.pretraining.code_sentences import Above, code_sentences, names_of, tree_of
from cmbert_retrieval.pretraining.frozen import FrozenSplit
from cmbert_retrieval.pretraining.recipe import DataRecipe, PretrainingSource
from cmbert_retrieval.pretraining.report import PROBLEMS
from cmbert_retrieval.pretraining.texts import Part
from cmbert_retrieval.pretraining.words import lower_words, singular
from cmbert_retrieval.types import Document

_LOOKED_AT = 100
"""Records that may be unusable before a source counts as one without documents."""

_LONGEST_LICENSE = 60


class Entry(NamedTuple):
    """A document on its way: not cleaned yet."""

    id: str
    text: str
    part: Part
    license: str = ""


@dataclass(slots=True)
class Batch:
    """Some records of a source, as they become one text shard.

    Attributes:
        entries: the documents.
        counts: of records that are none of them, by the names of ``SourceReport``, and ``read``.
        problems: the first of the unusable records.
        cursor: where reading goes on behind the last of them.
        finished: whether the source ends here.
    """

    entries: list[Entry] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    cursor: Cursor | None = None
    finished: bool = False


class OpenSource:
    """A source that is known to be there, with everything that decides what of it is taken."""

    def __init__(
        self,
        name: str,
        recipe: PretrainingSource,
        held_out: float,
        names: frozenset[str],
        *,
        has_names: bool | None = None,
    ) -> None:
        """Open a source; the first document of it is read.

        Args:
            name: the source's, in the recipe.
            recipe: of the source.
            held_out: share of its documents that are kept for measuring.
            names: folded; what is called so is left out where names are learnt from.
            has_names: whether they are; None where sentences are made of codes.

        Raises:
            ConfigError: the reader, an option, a licence or the collection is not known, or the file of
                ``exclude_ids`` is not there.
            CorpusError: nothing is there, or no document in it.
        """
        self.recipe, self.name = recipe, name
        named = recipe.sentences if has_names is None else has_names
        self._held_out, self._names = held_out, names if named else frozenset()
        self._licenses = _license_names(recipe.licenses, self.name)
        self.excluded_ids: frozenset[str] = frozenset()
        if recipe.exclude_ids is not None:
            self.excluded_ids = read_lines(recipe.exclude_ids, f"source '{self.name}': exclude_ids")
        self.frozen = FrozenSplit(name, recipe)
        self.corpus: Corpus = open_corpus(recipe.reader, recipe.path, **recipe.options)
        self._tree: Mapping[str, Above] | None = None
        document = _first_document(self.corpus, self.name)
        self.frozen.holds_out(document)
        if recipe.sentences and not code_sentences(document, {}):
            raise CorpusError(
                f"source '{self.name}': its first document has no title to make sentences of; tell the "
                "reader where it is (options: title), or leave 'sentences' out"
            )

    def batches(self, after: Cursor | None, characters: int, documents: int) -> Iterator[Batch]:
        """Yield the records behind a cursor, some at a time; the last batch is marked, and may be empty.

        Args:
            after: the cursor of the batch before; None at the beginning.
            characters: a batch with as many is full.
            documents: so is one with as many records.
        """
        batch, size, count = Batch(), 0, 0
        for record in self.corpus.records(after=after):
            batch.cursor = record.cursor
            count += 1
            if record.deleted:
                batch.entries.append(Entry(record.id, "", Part.WITHDRAWN))
            elif record.document is None:
                batch.counts["read"] += 1
                batch.counts["unusable"] += 1
                if len(batch.problems) < PROBLEMS:
                    batch.problems.append(str(record.problem))
            else:
                batch.counts["read"] += 1
                size += self._take(record.document, batch)
            if size >= characters or count >= documents:
                yield batch
                batch, size, count = Batch(cursor=record.cursor), 0, 0
        batch.finished = True
        yield batch

    def _take(self, document: Document, batch: Batch) -> int:
        license_name = self.license_of(document)
        if not self.is_licensed(license_name):
            batch.counts["other_license"] += 1
            return 0
        if excluded := self.exclusion(document):
            batch.counts[excluded] += 1
            # Sentences about two codes are alike by their making: none is a copy of the other.
            part = None if self.recipe.sentences else Part.EXCLUDED
        else:
            part = Part.HELD_OUT if is_in_share(self.name, document.id, self._held_out) else Part.TRAIN
        if part is None:
            return 0
        text = self._text(document)
        batch.entries.append(Entry(document.id, text, part, license_name))
        return len(text)

    def license_of(self, document: Document) -> str:
        """Return a document's licence in our spelling; the recipe's where it names none."""
        return _license_of(document, self.recipe.license)

    def is_licensed(self, name: str) -> bool:
        """Return whether the recipe takes documents of this licence."""
        return self._licenses is None or name.casefold() in self._licenses

    def _text(self, document: Document) -> str:
        if self.recipe.sentences:
            if self._tree is None:
                self._tree = tree_of(one for one in self.corpus_documents() if self.exclusion(one) is None)
            return code_sentences(document, self._tree)
        title = document.title.strip()
        text = self.frozen.without_held_out_lines(document.text)
        # The text of a code begins with its title.
        begins = text.lstrip().startswith(title) and text.lstrip()[len(title) :][:1] in ("", "\n")
        return text if begins or not title else f"{title}\n\n{text}"

    def exclusion(self, document: Document) -> str | None:
        """Return by what a document is excluded, as ``SourceReport`` calls it; None when it is not."""
        if document.id in self.excluded_ids:
            return "excluded_ids"
        if self.frozen.holds_out(document):
            return "excluded_split"
        if self._names and not self._names.isdisjoint(map(folded_name, names_of(document))):
            return "excluded_names"
        return None

    def corpus_documents(self) -> Iterator[Document]:
        """Yield all documents; unusable records are left out, as they are counted elsewhere."""
        for record in self.corpus.records():
            if record.document is not None:
                yield record.document


def open_sources(recipe: DataRecipe) -> list[OpenSource]:
    """Open all sources of a mixture.

    Raises:
        ConfigError, CorpusError: see ``OpenSource``.
    """
    excluded = excluded_names(recipe.exclude_names)
    return [OpenSource(name, source, recipe.held_out, excluded) for name, source in recipe.sources.items()]


def open_lexicon(recipe: DataRecipe) -> list[OpenSource]:
    """Open the sources of the lexicon, of which nothing is held out but what the frozen splits hold out.

    Raises:
        ConfigError, CorpusError: see ``OpenSource``.
    """
    excluded = excluded_names(recipe.exclude_names)
    sources = {
        name: PretrainingSource(**source.model_dump(), sentences=True)
        for name, source in recipe.lexicon.items()
    }
    return [OpenSource(name, source, 0.0, excluded) for name, source in sources.items()]


def is_in_share(group: str, id: str, share: float) -> bool:
    """Return whether a document is in a share of its group, such as a source, by a hash of its id."""
    data = f"{group}\0{id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") / 2**64 < share


def excluded_names(path: str | None) -> frozenset[str]:
    """Return the names of a file, folded, that nothing may be called; none where there is no file.

    Raises:
        ConfigError: it cannot be read.
    """
    if path is None:
        return frozenset()
    return frozenset(map(folded_name, read_lines(path, "data.exclude_names"))) - {""}


def folded_name(name: str) -> str:
    """Return a name without case, plural and signs, as the lexicon sees it."""
    return " ".join(map(singular, lower_words(name)))


def _first_document(corpus: Corpus, name: str) -> Document:
    problem = ""
    for record in islice(corpus.records(), _LOOKED_AT):
        if record.document is not None:
            return record.document
        problem = problem or str(record.problem or "")
    reason = f"its first {_LOOKED_AT} records cannot be used: {problem}" if problem else "no document in it"
    raise CorpusError(f"source '{name}': {reason}")


def _license_of(document: Document, otherwise: str | None) -> str:
    given = document.metadata.get("license")
    if not isinstance(given, str) or not given.strip():
        given = otherwise or ""
    if not given.strip():
        return "unknown"
    normal = normalize_license(given)
    plain = " ".join(given.split())
    return plain if normal == "other" and len(plain) <= _LONGEST_LICENSE and plain.isprintable() else normal


def _license_names(licenses: list[str] | None, name: str) -> frozenset[str] | None:
    """Return the licences that are taken, in our spelling; those outside of Creative Commons in their own.

    Raises:
        ConfigError: one looks like one of Creative Commons and is none.
    """
    if licenses is None:
        return None
    found = set()
    for given in licenses:
        normal = normalize_license(given)
        plain = " ".join(given.split())
        if not plain or (normal == "other" and plain.casefold().startswith(("cc", "creative"))):
            raise ConfigError(
                f"source '{name}': licences: '{given}' is not known; expected names like 'CC BY', 'CC0', or "
                "what documents say themselves, such as 'public domain'"
            )
        found.add((plain if normal == "other" else normal).casefold())
    return frozenset(found)


def read_lines(path: str, what: str) -> frozenset[str]:
    """Return the lines of a file that are not white.

    Raises:
        ConfigError: it cannot be read, or there is none.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"{what}: {path}: cannot be read ({reason})") from None
    lines = frozenset(filter(None, map(str.strip, text.splitlines())))
    if not lines:
        raise ConfigError(f"{what}: {path}: nothing in it; expected one a line")
    return lines


def source_facts(source: OpenSource) -> list[dict[str, Any]]:
    """Return path, checksum and size of what a source reads, as JSON values. Reads its files once."""
    return [
        {"path": one.path, "checksum": one.checksum, "bytes": one.bytes} for one in source.corpus.sources()
    ]
