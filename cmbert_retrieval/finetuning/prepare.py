"""Preparing what a fine-tuning run learns from: sources to files of pairs and texts, in resumable stages.

The folder::

    pairs.json           the recipe of the data, versions, checksums: written last, when all is there
    preparing.json       before: what the preparation was begun with
    train/ held_out/     pairs of each source
    texts/               texts of each source that a teacher is asked about, each once
    report.md report.json

A source is made as a whole; killed, the same command goes on with the source that it was at.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmbert_retrieval import __version__
from cmbert_retrieval.errors import CorpusError, MissingExtraError
from cmbert_retrieval.finetuning.citations import CitedArticles
from cmbert_retrieval.finetuning.judged import read_pairs
from cmbert_retrieval.finetuning.overlap import Overlaps
from cmbert_retrieval.finetuning.pairs import Pair, Surroundings, make_pairs, texts_of
from cmbert_retrieval.finetuning.recipe import PAIR_FILES, FinetuneRecipe, PairDataRecipe, PairSource
from cmbert_retrieval.finetuning.report import (
    REPORT_JSON,
    REPORT_MARKDOWN,
    OverlapReport,
    PairsReport,
    Report,
)
from cmbert_retrieval.pretraining.cleaning import clean_text
from cmbert_retrieval.pretraining.code_sentences import tree_of
from cmbert_retrieval.pretraining.sources import OpenSource, excluded_names, source_facts
from cmbert_retrieval.pretraining.workfolder import WorkFolder, write_json
from cmbert_retrieval.storage import atomic_file, make_folder, sha256_of
from cmbert_retrieval.types import Document

if TYPE_CHECKING:
    import pyarrow

COMPLETE = "pairs.json"
TRAIN, HELD_OUT, TEXTS = "train", "held_out", "texts"
FORMAT = 1

_CITED = "cited.sqlite"
_ROWS = 10_000
_FEWEST_CHARACTERS = 3
_OF_CODES = frozenset(("names", "parents"))
"""Kinds of pairs that are made of the names of codes and terms."""

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
        recipe: of which ``data`` is used.
        out: the folder to make, or to go on with. Complete, nothing is done.
        progress: told a source and how many more of its documents are done.
        restart: throw away what an earlier run made of another recipe.

    Raises:
        ConfigError: something in the recipe is wrong, or the folder is of another recipe.
        CorpusError: a source is not there or cannot be read on, or no pair and no text is left.
        MissingExtraError: pyarrow is not installed.
        StorageError: something cannot be written, or another process prepares this folder.
    """
    data = recipe.data
    _check_packages()
    sources = [_Source(name, source, data) for name, source in data.sources.items()]
    make_folder(out)
    work = WorkFolder(
        out,
        "preparing.json",
        COMPLETE,
        (TRAIN, HELD_OUT, TEXTS, _CITED, REPORT_JSON, REPORT_MARKDOWN),
        "pairs",
    )
    with work.alone():
        if restart:
            work.clear()
        pins = {
            "format": FORMAT,
            "data": data.model_dump(mode="json"),
            "files": {source.name: source.facts() for source in sources},
            "version": __version__,
        }
        if work.begin(pins):
            return Report.from_json(json.loads((out / REPORT_JSON).read_bytes()))
        for folder in (TRAIN, HELD_OUT, TEXTS):
            make_folder(out / folder)
        report = _made(sources, data, out, progress)
        with atomic_file(out / REPORT_MARKDOWN) as file:
            file.write(report.to_markdown().encode())
        write_json(out / REPORT_JSON, report.to_json())
        work.finish(pins)
    return report


def _made(sources: Sequence[_Source], data: PairDataRecipe, out: Path, progress: Notify) -> Report:
    overlaps = Overlaps.of(data.overlap)
    cited = None
    if any("citing-cited" in source.recipe.pairs for source in sources):
        cited = CitedArticles(out / _CITED)
        for source in sources:
            if source.recipe.pairs:
                cited.add(source.documents(Counter(), Counter()))
    taken: set[bytes] = set()  # pairs of all sources
    told: set[bytes] = set()  # texts of all sources
    reports = []
    for source in sources:
        done = out / TEXTS / f"{source.name}.json"
        if done.exists():
            values = json.loads(done.read_bytes())
            overlaps.found.update(values.pop("overlaps"))
            reports.append(PairsReport(**values))
            _remember(out, source.name, taken, told)
            continue
        before = overlaps.found.copy()
        one = _Making(source, data, overlaps, taken, told, cited)
        report = one.write(out, partial(progress, source.name))
        write_json(done, {**asdict(report), "overlaps": dict(overlaps.found - before)})
        reports.append(report)
    if cited is not None:
        cited.close()
        (out / _CITED).unlink()
    if not any(report.pairs or report.texts for report in reports):
        raise CorpusError("no pair and no text is left to learn from; take more sources, or exclude less")
    found = [OverlapReport(*row) for row in overlaps.rows()]
    return Report(reports, found, overlaps.words)


class _Source:
    """A source that is known to be there."""

    def __init__(self, name: str, recipe: PairSource, data: PairDataRecipe) -> None:
        self.name, self.recipe = name, recipe
        self.of_codes = not _OF_CODES.isdisjoint(recipe.pairs)
        self._open: OpenSource | None = None
        if recipe.reader not in PAIR_FILES:
            opened = recipe.model_copy(update={"sentences": True}) if self.of_codes else recipe
            self._open = OpenSource(name, opened, data.held_out, excluded_names(data.exclude_names))

    def facts(self) -> list[dict[str, Any]]:
        """Return what tells that the source has not changed."""
        if self._open is not None:
            return source_facts(self._open)
        path = Path(self.recipe.path)
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        return [{"path": str(file), "checksum": sha256_of(file)} for file in files if file.is_file()]

    def documents(self, left_out: Counter[str], licenses: Counter[str]) -> Iterator[Document]:
        """Yield the documents that may be learnt from, and count the others."""
        assert self._open is not None
        for record in self._open.corpus.records():
            document = record.document
            if document is None:
                left_out["unusable"] += not record.deleted
                continue
            license_name = self._open.license_of(document)
            if not self._open.is_licensed(license_name):
                left_out["other_license"] += 1
            elif reason := self._open.exclusion(document):
                left_out[reason] += 1
            else:
                licenses[license_name] += 1
                yield document

    def is_held_out(self, id: str) -> bool:
        """Return whether the pairs of a document are kept for measuring."""
        return self._open is not None and self._open.is_held_out(id)


class _Making:
    """The pairs and texts of one source on their way into files."""

    def __init__(
        self,
        source: _Source,
        data: PairDataRecipe,
        overlaps: Overlaps,
        taken: set[bytes],
        told: set[bytes],
        cited: CitedArticles | None,
    ) -> None:
        self._source, self._data, self._overlaps = source, data, overlaps
        self._taken, self._told, self._cited = taken, told, cited
        self.report = PairsReport(source.name)
        self._kinds: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()

    def write(self, out: Path, notify: Callable[[int], None]) -> PairsReport:
        """Write all files of the source, and return what became of it."""
        name = f"{self._source.name}.arrow"
        left_out: Counter[str] = Counter()
        licenses: Counter[str] = Counter()
        with (
            Table(out / TRAIN / name, PAIR_COLUMNS) as train,
            Table(out / HELD_OUT / name, PAIR_COLUMNS) as held_out,
            Table(out / TEXTS / name, TEXT_COLUMNS) as texts,
        ):
            for pairs, others, is_held_out in self._groups(left_out, licenses, notify):
                for pair in filter(None, map(self._kept, pairs)):
                    if is_held_out:
                        self.report.held_out += 1
                        held_out.add(pair._asdict())
                        continue
                    self._kinds[pair.kind] += 1
                    train.add(pair._asdict())
                    others = [*others, pair.anchor, pair.positive]
                if not is_held_out:
                    for text in filter(None, map(self._new, others)):
                        self.report.texts += 1
                        texts.add({"text": text})
        self.report.left_out, self.report.licenses = dict(left_out), dict(licenses.most_common())
        self.report.kinds, self.report.dropped = dict(self._kinds), dict(self._dropped)
        return self.report

    def _groups(
        self, left_out: Counter[str], licenses: Counter[str], notify: Callable[[int], None]
    ) -> Iterator[tuple[list[Pair], list[str], bool]]:
        """Yield pairs and further texts of a document, and whether they are held out."""
        source = self._source
        if source.recipe.reader in PAIR_FILES:
            for pair in read_pairs(source.name, source.recipe):
                notify(1)
                licenses[source.recipe.license or "unknown"] += 1
                yield [pair], [], False
            return
        tree = None
        if "parents" in source.recipe.pairs:
            tree = tree_of(source.documents(Counter(), Counter()))
        around = Surroundings(source.recipe.each, self._data.text_characters, tree, self._cited)
        for document in source.documents(left_out, licenses):
            notify(1)
            self.report.documents += 1
            pairs = [pair for kind in source.recipe.pairs for pair in make_pairs(document, kind, around)]
            texts = []
            if source.recipe.texts:
                texts = list(texts_of(document, around, names_only=source.of_codes))
            yield pairs, texts, source.is_held_out(document.id)

    def _kept(self, pair: Pair) -> Pair | None:
        anchor, positive = clean_text(pair.anchor), clean_text(pair.positive)
        made = pair._replace(
            anchor=anchor, positive=positive, negatives=tuple(map(clean_text, pair.negatives))
        )
        key = _digest(anchor, positive)
        if len(anchor) > self._data.anchor_characters:
            reason = "long_anchor"
        elif min(len(anchor), len(positive)) < _FEWEST_CHARACTERS:
            reason = "short"
        elif anchor.casefold() == positive.casefold():
            reason = "same"
        elif key in self._taken:
            reason = "duplicate"
        elif self._overlaps.of_text(anchor) or self._overlaps.of_text(positive):
            reason = "overlap"
        else:
            self._taken.add(key)
            return made
        self._dropped[reason] += 1
        return None

    def _new(self, text: str) -> str | None:
        text = clean_text(text)
        key = _digest(text)
        if len(text) < _FEWEST_CHARACTERS or key in self._told:
            return None
        self._told.add(key)
        if self._overlaps.of_text(text):
            self.report.texts_overlap += 1
            return None
        return text


def _digest(*texts: str) -> bytes:
    data = "\0".join(texts).casefold().encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=8).digest()


def _remember(out: Path, name: str, taken: set[bytes], told: set[bytes]) -> None:
    for part in (TRAIN, HELD_OUT):
        for row in read_rows(out / part / f"{name}.arrow"):
            taken.add(_digest(row["anchor"], row["positive"]))
    for row in read_rows(out / TEXTS / f"{name}.arrow"):
        told.add(_digest(row["text"]))


PAIR_COLUMNS = {"anchor": "string", "positive": "string", "document": "string", "kind": "string",
                "negatives": "list"}  # fmt: skip
TEXT_COLUMNS = {"text": "string"}


class Table:
    """Rows to an Arrow stream, some thousand at a time; the file appears when it is whole."""

    def __init__(self, path: Path, columns: dict[str, str]) -> None:
        import pyarrow

        kinds = {"string": pyarrow.string(), "list": pyarrow.list_(pyarrow.string())}
        self._schema: pyarrow.Schema = pyarrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
        self._file = atomic_file(path)
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Table:
        import pyarrow

        self._writer = pyarrow.ipc.new_stream(self._file.__enter__(), self._schema)
        return self

    def add(self, row: dict[str, Any]) -> None:
        """Take a row."""
        self._rows.append(row)
        if len(self._rows) == _ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        self._writer.write_table(pyarrow.Table.from_pylist(self._rows, self._schema))
        self._rows = []

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self._flush()
        self._writer.close()
        self._file.__exit__(*error)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, some thousand of them in memory at a time."""
    import pyarrow

    with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as reader:
        for batch in reader:
            yield from batch.to_pylist()


def _check_packages() -> None:
    import importlib.util

    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError.of("preparing pairs", "pyarrow", "pretrain")
