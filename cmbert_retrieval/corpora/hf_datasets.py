"""Hugging Face datasets, streamed: local folders and hub ids. Needs the package ``datasets``."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cmbert_retrieval.corpora.base import Corpus, Cursor, Record, Source
from cmbert_retrieval.corpora.fields import Fields, json_value, report_left_out
from cmbert_retrieval.corpora.files import (
    MAX_BYTES,
    UnusableError,
    files_below,
    listing_source,
    too_large,
)
from cmbert_retrieval.corpora.hf_files import check_arrow_files, check_files
from cmbert_retrieval.errors import ConfigError, CorpusError, MissingExtraError

if TYPE_CHECKING:
    from datasets import IterableDataset

_LONGEST_REASON = 200
_Split: TypeAlias = "tuple[IterableDataset, int | None]"  # with its number of rows, where that is told


class DatasetsCorpus(Corpus):
    """One split of a dataset, streamed row by row. Needs the extra ``data``.

    The path is a folder (one that ``save_to_disk`` wrote, or one of data files that ``load_dataset`` reads)
    or a hub id such as ``org/name``. Hub datasets are read over the network as they are streamed, pinned to
    the commit that was there when they were opened; with ``HF_HUB_OFFLINE=1`` only what the cache of
    ``datasets`` holds is read. No code that comes with a dataset is ever run.

    A row is an id, a text (a string, or a list of sentences), perhaps a title, and metadata, as a line of
    JSON is for ``JsonlCorpus``.
    """

    reader = "datasets"

    def __init__(
        self,
        path: str | Path,
        *,
        split: str = "",
        config: str = "",
        revision: str = "",
        id: str = "",
        text: str = "text",
        title: str = "title",
        metadata: str | Sequence[str] = "rest",
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Open a dataset; its splits and columns are looked up, no row is read where they are declared.

        Args:
            path: a folder, or a hub id. What begins with ``.``, ``~`` or ``/`` is always a folder.
            split: which one; may be left out where there is one only.
            config: name of the dataset's configuration; ``""``: the default one.
            revision: branch, tag or commit of a hub dataset; ``""``: its main branch.
            id: column of the id; ``""`` takes ``_id``, else ``id``.
            text: column of the text.
            title: column of the title; ``title`` may be absent.
            metadata: ``rest`` takes the column ``metadata`` if it holds objects, and every other column of
                values or lists of values; a list takes these columns; any other word is the one column of
                objects to take.
            max_bytes: texts longer than this are a problem. A folder's JSON with longer lines than this and
                64 MiB is refused, a larger JSON file that is not JSON lines, and CSV with longer cells.

        Raises:
            MissingExtraError: ``datasets`` is not installed.
            CorpusError: there is no such dataset, split or column, it is not cached and the hub not reached,
                or a file of a folder is damaged or nested too deeply.
            ConfigError: an option has a wrong value.
        """
        if importlib.util.find_spec("datasets") is None:
            raise MissingExtraError.of("reading Hugging Face datasets", "datasets", "data")
        for option, value in (("split", split), ("config", config), ("revision", revision)):
            if not isinstance(value, str):
                raise ConfigError(f"option '{option}': got {value!r}, expected a text")
        self._given = str(path)
        self._fields = Fields(id=id, text=text, title=title, metadata=metadata, noun="column")
        self._max_bytes = max_bytes
        if not self._given:
            raise CorpusError("the path is missing; expected a folder, or a hub id such as org/name")
        self._folder = Path(path).expanduser() if _is_local(self._given) else None
        if self._folder is not None and not self._folder.is_dir():
            problem = "not a folder" if self._folder.exists() else "no such folder"
            raise CorpusError(f"{self._given!r}: {problem}; expected one, or a hub id such as org/name")
        if self._folder is not None and revision:
            raise ConfigError("option 'revision' is for hub ids; this dataset is a folder")
        splits, self._commit = self._open(config, revision)
        self._dataset, self._total = splits[self._chosen(split, splits)]
        self._names = self._columns()
        self._fields.check(self._names, self._given)

    def _open(self, config: str, revision: str) -> tuple[Mapping[str, _Split], str]:
        """Return the splits by name, and the commit of a hub dataset."""
        import datasets

        # Otherwise the package tells a server which dataset was opened.
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
        try:
            if self._folder is not None and _is_saved(self._folder):
                found = datasets.load_from_disk(str(self._folder))
                if not isinstance(found, datasets.DatasetDict):
                    found = {str(found.split or "all"): found}
                for part in found.values():
                    check_arrow_files(str(file["filename"]) for file in part.cache_files)
                return {str(n): (part.to_iterable_dataset(), len(part)) for n, part in found.items()}, ""
            where = str(self._folder.resolve()) if self._folder is not None else self._given
            builder = datasets.load_dataset_builder(where, config or None, revision=revision or None)
            if self._folder is not None:
                check_files(builder, longest=max(self._max_bytes, MAX_BYTES))
            streams, told = builder.as_streaming_dataset(), builder.info.splits or {}
            splits = {n: (part, getattr(told.get(n), "num_examples", None)) for n, part in streams.items()}
            return splits, str(builder.hash or "")
        except UnusableError as error:
            raise CorpusError(f"'{self._given}' cannot be read ({error})") from None
        except Exception as error:  # the package lets through whatever the readers below it raise
            what = "cannot be opened"
            if self._folder is None:
                what = "is no folder here, and the hub did not give it"
                if datasets.config.HF_HUB_OFFLINE:
                    what = "is no folder here, and not in the cache; HF_HUB_OFFLINE forbids to ask the hub"
            raise CorpusError(f"'{self._given}' {what} ({_reason(error)})") from None

    def _chosen(self, split: str, splits: Mapping[str, _Split]) -> str:
        if split in splits:
            return split
        if not split and len(splits) == 1:
            return next(iter(splits))
        got = f"no split '{split}'" if split else "several splits"
        names = ", ".join(splits) or "none"
        advice = "name one: --set source.options.split=NAME"
        raise CorpusError(f"'{self._given}': {got}; there are: {names}; {advice}")

    def _columns(self) -> list[str]:
        names = self._dataset.column_names
        if names is None:
            names = list(next(iter(self._rows(self._dataset)), {}))
        return list(names)

    def records(self, after: Cursor | None = None) -> Iterator[Record]:
        """Yield a row a record, behind ``after``: a cursor holds the place in the form of ``datasets``.

        Raises:
            CorpusError: the data cannot be read on. The message tells the kind of error only: those of the
                readers below quote values.
        """
        # A new stream each time: one that was told a place would begin there for ever.
        dataset = self._dataset.select_columns(self._fields.wanted(self._names))
        if dataset.features:
            dataset = dataset.decode(False)  # images and sounds stay bytes, which are no metadata
        number = 0
        if after is not None:
            number = int(after["row"])
            dataset.load_state_dict(dict(after["state"]))
        left_out: Counter[str] = Counter()
        for row in self._rows(dataset):
            number += 1
            cursor = {"row": number, "state": dataset.state_dict()}
            try:
                values = json_value(row)
                document = self._fields.document(values, left_out)
                if len(document.text) > self._max_bytes:
                    raise UnusableError(too_large(self._max_bytes))
            except UnusableError as error:
                problem = f"{self._given}: row {number}: {error}"
                yield Record(cursor, None, problem, self._fields.known_id(row))
            else:
                yield Record(cursor, document)
        report_left_out(self._given, left_out, "column")

    def _rows(self, dataset: IterableDataset) -> Iterator[dict[str, Any]]:
        rows = iter(dataset)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except Exception as error:  # see _open
                kind = type(error).__name__
                raise CorpusError(
                    f"'{self._given}': cannot be read on ({kind}); are all its files whole?"
                ) from None
            yield row

    def sources(self) -> list[Source]:
        """Return the folder with a checksum over names and sizes, or the hub id with its commit."""
        if self._folder is None:
            return [Source(self._given, f"revision:{self._commit}", 0)]
        return [listing_source(self._given, self._folder, files_below(self._folder))]

    def total(self) -> int | None:
        """Return the number of rows where the dataset tells it."""
        return self._total


def _is_local(path: str) -> bool:
    """Tell whether ``path`` stands for a folder; what looks like an id (``org/name``) does if it exists."""
    if path.startswith((".", "~", "/")) or path.count("/") > 1:
        return True
    return Path(path).exists()


def _is_saved(folder: Path) -> bool:
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."
