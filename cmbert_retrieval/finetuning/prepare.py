"""Preparing what a fine-tuning run learns from: sources to files of pairs and texts, in resumable stages.

The folder::

    pairs.json           the recipe of the data, versions, checksums: written last, when all is there
    preparing.json       before: what the preparation was begun with
    train/ held_out/     pairs of each source
    texts/               texts of each source that a teacher is asked about, each once
    report.md report.json
    vectors/ negatives/  what a teacher said of the texts, and what was mined: see ``stages.py``

A source is made as a whole; killed, the same command goes on with the source that it was at.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from cmbert_retrieval import __version__
from cmbert_retrieval.errors import ConfigError, CorpusError, MissingExtraError
from cmbert_retrieval.finetuning.citations import CitedArticles
from cmbert_retrieval.finetuning.data_recipe import PairDataRecipe
from cmbert_retrieval.finetuning.overlap import Overlaps
from cmbert_retrieval.finetuning.pairs import Pair, Surroundings, cut_at_sentence, make_pairs, texts_of
from cmbert_retrieval.finetuning.recipe import FinetuneRecipe
from cmbert_retrieval.finetuning.report import (
    REPORT_JSON,
    REPORT_MARKDOWN,
    OverlapReport,
    PairsReport,
    Report,
)
from cmbert_retrieval.finetuning.sources import FinetuningSource
from cmbert_retrieval.finetuning.tables import PAIR_COLUMNS, TEXT_COLUMNS, TableWriter, read_rows
from cmbert_retrieval.finetuning.telegrams import telegram
from cmbert_retrieval.pretraining.cleaning import clean_text
from cmbert_retrieval.pretraining.code_sentences import tree_of
from cmbert_retrieval.pretraining.sources import excluded_names, folded_name, is_in_share
from cmbert_retrieval.pretraining.workfolder import WorkFolder, hash_of, write_json
from cmbert_retrieval.storage import atomic_file, make_folder

COMPLETE = "pairs.json"
TRAIN, HELD_OUT, TEXTS = "train", "held_out", "texts"
VECTORS, NEGATIVES = "vectors", "negatives"
FORMAT = 1

_CITED = "cited.sqlite"
_PARTS = (TRAIN, HELD_OUT, TEXTS, VECTORS, NEGATIVES, _CITED, REPORT_JSON, REPORT_MARKDOWN)
_FEWEST_CHARACTERS = 3
_TELEGRAM_CHARACTERS = 60
"""Shorter texts, as names are, have hardly a function word."""
_PACKAGES = ("pyarrow", "datasets", "accelerate", "sentence_transformers", "torch")

Notify = Callable[[str, int], None]
"""Told a source and how many more of its documents are done."""


def prepare(
    recipe: FinetuneRecipe,
    out: Path,
    *,
    progress: Notify = lambda source, count: None,
    restart: bool = False,
) -> Report:
    """Prepare the pairs and texts of a recipe.

    Args:
        recipe: of which ``data`` is used; texts are written where there is a teacher.
        out: the folder to make, or to go on with. Complete, nothing is done.
        progress: told a source and how many more of its documents are done.
        restart: throw away what an earlier run made of another recipe.

    Raises:
        ConfigError: something in the recipe is wrong, or the folder is of another recipe.
        CorpusError: a source is not there or cannot be read on, or no pair and no text is left.
        MissingExtraError: a package is missing.
        StorageError: something cannot be written, or another process prepares this folder.
    """
    data = recipe.data
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError.of("fine-tuning", package.replace("_", "-"), "pretrain")
    sources = [FinetuningSource(name, source, data) for name, source in data.sources.items()]
    make_folder(out)
    work = WorkFolder(out, "preparing.json", COMPLETE, _PARTS, "pairs")
    with work.alone():
        if restart:
            work.clear()
        pins = {**pinned(recipe), "files": {source.name: source.facts() for source in sources}}
        pins["excluded_ids"] = {source.name: hash_of(source.excluded_ids) for source in sources}
        names = excluded_names(data.exclude_names)
        pins["excluded_names"] = hash_of(names)
        if work.begin(pins):
            return Report.from_json(json.loads((out / REPORT_JSON).read_bytes()))
        for folder in (TRAIN, HELD_OUT, TEXTS):
            make_folder(out / folder)
        report = _made(sources, recipe, names, out, progress)
        with atomic_file(out / REPORT_MARKDOWN) as file:
            file.write(report.to_markdown().encode())
        write_json(out / REPORT_JSON, report.to_json())
        work.finish(pins)
    return report


def pinned(recipe: FinetuneRecipe) -> dict[str, Any]:
    """Return what of a recipe decides what is prepared, as JSON values."""
    values = recipe.data.model_dump(mode="json")
    for source in values["sources"].values():
        del source["weight"]  # decides how often rows are seen, later
    return {
        "format": FORMAT,
        "version": __version__,
        "data": values,
        "order": list(values["sources"]),  # of equal pairs the first one stays
        "texts": recipe.teacher is not None,
    }


def check_prepared(recipe: FinetuneRecipe, data: Path) -> None:
    """Raise ``ConfigError`` unless a folder holds what was prepared for a recipe, without reading sources."""
    path = data / COMPLETE
    if not path.is_file():
        raise ConfigError(f"{data}: no {COMPLETE}; run first: cmbert finetune prepare RECIPE --out {data}")
    WorkFolder(data, "preparing.json", COMPLETE, _PARTS, "pairs").begin(pinned(recipe))


def _made(
    sources: Sequence[FinetuningSource],
    recipe: FinetuneRecipe,
    names: frozenset[str],
    out: Path,
    progress: Notify,
) -> Report:
    sieve = _Sieve(recipe.data, Overlaps.of(recipe.data.overlap), names)
    cited = _cited(sources, out / _CITED)
    reports = []
    for source in sources:
        done = out / TEXTS / f"{source.name}.json"
        if done.exists():
            values = json.loads(done.read_bytes())
            sieve.remember(out, source.name, values.pop("found"), values.pop("copies"))
            reports.append(PairsReport(**values))
            continue
        found, copies = sieve.overlaps.found.copy(), sieve.overlaps.copies.copy()
        making = _Making(source, recipe.data, sieve, cited, tells=recipe.teacher is not None)
        report = making.write(out, partial(progress, source.name))
        counts = {
            "found": dict(sieve.overlaps.found - found),
            "copies": dict(sieve.overlaps.copies - copies),
        }
        write_json(done, {**asdict(report), **counts})
        reports.append(report)
    if cited is not None:
        cited.close()
        (out / _CITED).unlink()
    if not any(report.pairs or report.texts for report in reports):
        raise CorpusError("no pair and no text is left to learn from; take more sources, or exclude less")
    overlaps = sieve.overlaps
    found_in = [
        OverlapReport(name, **asdict(overlaps.sizes[name]), found=overlaps.found[name],
                      copies=overlaps.copies[name])
        for name in overlaps.sets
    ]  # fmt: skip
    return Report(reports, found_in, overlaps.words)


def _cited(sources: Sequence[FinetuningSource], path: Path) -> CitedArticles | None:
    if not any("citing-cited" in source.recipe.pairs for source in sources):
        return None
    cited = CitedArticles(path)
    for source in sources:
        if source.file is None and not source.of_codes:
            cited.add(
                (document, not reason and not source.is_held_out(document.id))
                for document, reason in source.documents()
                if document is not None
            )
    return cited


class _Sieve:
    """Takes pairs and texts once, and none that is held out or measured on."""

    def __init__(self, data: PairDataRecipe, overlaps: Overlaps, names: frozenset[str]) -> None:
        self.overlaps = overlaps
        self._data, self._names = data, names
        self._taken: set[bytes] = set()
        self._told: set[bytes] = set()

    def pair(self, pair: Pair) -> tuple[Pair | None, str]:
        """Return a pair as it is learnt from, or None and why it is not."""
        anchor = clean_text(pair.anchor)
        positive = cut_at_sentence(clean_text(pair.positive), self._data.text_characters)
        key = _digest(anchor, positive)
        if len(anchor) > self._data.anchor_characters:
            return None, "long_anchor"
        if min(len(anchor), len(positive)) < _FEWEST_CHARACTERS:
            return None, "short"
        if anchor.casefold() == positive.casefold():
            return None, "same"
        if key in self._taken:
            return None, "duplicate"
        if self._is_named(anchor) or self._is_named(positive):
            return None, "excluded_names"
        if self.overlaps.of_text(anchor) or self.overlaps.of_text(positive):
            return None, "overlap"
        self._taken.add(key)
        negatives = (cut_at_sentence(clean_text(text), self._data.text_characters) for text in pair.negatives)
        kept = [text for text in negatives if text and text != positive and not self.overlaps.of_text(text)]
        return pair._replace(anchor=anchor, positive=positive, negatives=tuple(kept)), ""

    def text(self, text: str) -> tuple[str | None, str]:
        """Return a text as the teacher is asked about it, or None and why it is not."""
        text = cut_at_sentence(clean_text(text), self._data.text_characters)
        key = _digest(text)
        if len(text) < _FEWEST_CHARACTERS or key in self._told or self._is_named(text):
            return None, ""
        if self.overlaps.of_text(text):
            return None, "overlap"
        self._told.add(key)
        return text, ""

    def remember(self, out: Path, name: str, found: dict[str, int], copies: dict[str, int]) -> None:
        """Take what an earlier run made of a source."""
        self.overlaps.found.update(found)
        self.overlaps.copies.update(copies)
        for part in (TRAIN, HELD_OUT):
            for row in read_rows(out / part / f"{name}.arrow"):
                self._taken.add(_digest(row["anchor"], row["positive"]))
        for row in read_rows(out / TEXTS / f"{name}.arrow"):
            self._told.add(_digest(row["text"]))

    def _is_named(self, text: str) -> bool:
        return bool(self._names) and folded_name(text) in self._names


class _Making:
    """The pairs and texts of one source on their way into files."""

    def __init__(
        self,
        source: FinetuningSource,
        data: PairDataRecipe,
        sieve: _Sieve,
        cited: CitedArticles | None,
        *,
        tells: bool,
    ) -> None:
        self._source, self._data, self._sieve = source, data, sieve
        self._cited, self._tells = cited, tells
        self._report = PairsReport(source.name)
        self._left_out: Counter[str] = Counter()
        self._licenses: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()

    def write(self, out: Path, notify: Callable[[int], None]) -> PairsReport:
        """Write all files of the source, and return what became of it."""
        name, report = f"{self._source.name}.arrow", self._report
        with (
            TableWriter(out / TRAIN / name, PAIR_COLUMNS) as train,
            TableWriter(out / HELD_OUT / name, PAIR_COLUMNS) as held_out,
            TableWriter(out / TEXTS / name, TEXT_COLUMNS) as texts,
        ):
            for pairs, more, license_name, is_held_out in self._groups():
                notify(1)
                kept = [made for pair in pairs if (made := self._kept(pair)) is not None]
                for pair in kept:
                    (held_out if is_held_out else train).add(pair._asdict())
                if is_held_out:
                    report.held_out += len(kept)
                    continue
                self._kinds.update(pair.kind for pair in kept)
                told = 0
                sides = (text for pair in kept for text in (pair.anchor, pair.positive))
                for text in [*more, *sides] if self._tells else ():
                    told += self._tell(text, texts)
                report.texts += told
                self._licenses[license_name] += bool(kept or told)
        report.left_out, report.licenses = dict(+self._left_out), dict((+self._licenses).most_common())
        report.kinds, report.dropped = dict(self._kinds), dict(self._dropped)
        return report

    def _kept(self, pair: Pair) -> Pair | None:
        made, reason = self._sieve.pair(pair)
        if reason:
            self._dropped[reason] += 1
        return made

    def _tell(self, text: str, texts: TableWriter) -> int:
        """Write a text that the teacher is asked about; return how many came of it."""
        made, reason = self._sieve.text(text)
        self._report.texts_overlap += reason == "overlap"
        if made is None:
            return 0
        texts.add({"text": made})
        short, _ = self._sieve.text(telegram(made)) if self._is_telegram(made) else (None, "")
        if short is None:
            return 1
        texts.add({"text": short})
        return 2

    def _is_telegram(self, text: str) -> bool:
        return len(text) >= _TELEGRAM_CHARACTERS and is_in_share("telegram", text, self._data.telegrams)

    def _groups(self) -> Iterator[tuple[list[Pair], list[str], str, bool]]:
        """Yield pairs and further texts of a document, its licence, and whether they are held out."""
        source, recipe = self._source, self._source.recipe
        if source.file is not None:
            license_name = recipe.license or "unknown"
            for pair in source.file.pairs(self._left_out):
                yield [pair], [], license_name, source.is_held_out(pair.document)
            return
        tree = tree_of(source.free_documents()) if "parents" in recipe.pairs else None
        around = Surroundings(
            recipe.each, recipe.text_sentences, self._data.text_characters, tree, self._cited
        )
        for document, reason in source.documents():
            if document is None:
                self._left_out[reason] += 1
                continue
            self._report.documents += 1
            if not reason and not source.of_codes:
                copied = self._sieve.overlaps.of_document(document.title, document.text)
                reason = "copies" if copied else ""
            if reason:
                self._left_out[reason] += 1
                continue
            pairs = [pair for kind in recipe.pairs for pair in make_pairs(document, kind, around)]
            texts = list(texts_of(document, around, names_only=source.of_codes)) if recipe.texts else []
            yield pairs, texts, source.license_of(document), source.is_held_out(document.id)


def _digest(*texts: str) -> bytes:
    data = "\0".join(texts).casefold().encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=8).digest()
