"""The last stages: words of the text are counted, and documents become token shards with a weight a token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.pretraining.lexicon import Lexicon
from cmbert_retrieval.pretraining.processes import in_processes
from cmbert_retrieval.pretraining.reading import JudgedShard, Notify
from cmbert_retrieval.pretraining.salience import Salience, count_words
from cmbert_retrieval.pretraining.shards import TokenDocument, TokenShards, write_shard
from cmbert_retrieval.pretraining.texts import Part, TextShard
from cmbert_retrieval.pretraining.token_marks import Marker
from cmbert_retrieval.pretraining.words import lower_words
from cmbert_retrieval.storage import fsync_file, fsync_folder, writing

LEXICON, SALIENCE = "lexicon.npy", "salience.npy"

_TOKENIZED_AT_ONCE = 64
_BORDER = "\0"
_LARGEST_TABLE = 2_000_000


@dataclass(frozen=True, slots=True)
class TokenTask:
    """A token shard to be made.

    Attributes:
        path: where it is written.
        source: number of its source in the mixture.
        parts: text shards, and the rows of each that are taken.
    """

    path: Path
    source: int
    parts: Sequence[tuple[Path, NDArray[np.intp]]]


def kept_texts(shards: Sequence[JudgedShard]) -> Iterator[str]:
    """Yield the texts that are for training, in the order of the sources."""
    for shard in shards:
        yield from TextShard(shard.path).texts(shard.rows(Part.TRAIN))


def corpus_word_counts(shards: Sequence[JudgedShard], processes: int, notify: Notify) -> Counter[str]:
    """Return how often each word stands in the text for training.

    A table of more than two million words loses those that were seen once: they say nothing.
    """
    counts: Counter[str] = Counter()
    tasks = [(shard.path, shard.rows(Part.TRAIN)) for shard in shards]
    for found in in_processes(_count, tasks, processes):
        counts.update(found)
        if len(counts) > _LARGEST_TABLE:
            counts = Counter({word: count for word, count in counts.items() if count > 1})
        notify("words", sum(found.values()))
    return counts


def _count(tool: None, task: tuple[Path, NDArray[np.intp]]) -> Counter[str]:
    path, rows = task
    counts: Counter[str] = Counter()
    for text in TextShard(path).texts(rows):
        count_words(counts, lower_words(text))
    return counts


def save_whole(save: Callable[[Path], None], path: Path) -> None:
    """Have a ``.npy`` file written so that it appears whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    temporary = path.with_name(f"{path.stem}.writing.npy")
    with writing(path):
        save(temporary)
        fsync_file(temporary)
        temporary.replace(path)
        fsync_folder(path.parent)


def token_tasks(shards: Sequence[JudgedShard], train: Path, held_out: Path) -> list[TokenTask]:
    """Return the token shards of a preparation: for training one a text shard, held-out text one a source."""
    tasks = [
        TokenTask(train / f"{number:05d}.arrow", shard.source, [(shard.path, shard.rows(Part.TRAIN))])
        for number, shard in enumerate(shards)
    ]
    for source in sorted({shard.source for shard in shards}):
        parts = [(shard.path, shard.rows(Part.HELD_OUT)) for shard in shards if shard.source == source]
        tasks.append(TokenTask(held_out / f"{source:05d}.arrow", source, parts))
    return tasks


def write_tokens(tasks: Sequence[TokenTask], folder: Path, *, processes: int, notify: Notify) -> None:
    """Make the token shards that are not there yet.

    Args:
        tasks: all of them.
        folder: the prepared data: tokenizer, lexicon and salience are read from there.
        processes: that work at the same time; the files are the same for any number.
        notify: told ``tokens``, and ``resumed_tokens`` of an earlier run.
    """
    there = {task.path for task in tasks if task.path.exists()}
    missing = [task for task in tasks if task.path not in there]
    if there:
        notify("resumed_tokens", sum(count_tokens([task for task in tasks if task.path in there]).values()))
    if missing:
        make_tool = partial(TokenTool.open, folder)
        for count in in_processes(_write, missing, processes, make_tool):
            notify("tokens", count)


def count_tokens(tasks: Sequence[TokenTask]) -> Counter[int]:
    """Return source -> tokens of these shards."""
    counts: Counter[int] = Counter()
    for task in tasks:
        counts[task.source] += int(TokenShards([task.path]).lengths.sum())
    return counts


@dataclass(frozen=True, slots=True)
class TokenTool:
    """What turns texts into tokens with marks."""

    tokenizer: Any
    marker: Marker

    @classmethod
    def open(cls, folder: Path) -> TokenTool:
        """Read the parts of prepared data. Needs ``tokenizers``, and no transformers, which takes seconds."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # "[MASK]" in a text is text
        lexicon = Lexicon.load(folder / LEXICON)
        return cls(tokenizer, Marker(lexicon, Salience.load(folder / SALIENCE)))

    def documents(self, source: int, shard: TextShard, rows: NDArray[np.intp]) -> Iterator[TokenDocument]:
        """Yield rows of a text shard as tokens."""
        for start in range(0, len(rows), _TOKENIZED_AT_ONCE):
            some = rows[start : start + _TOKENIZED_AT_ONCE].tolist()
            texts = [shard.text(row) for row in some]
            encodings = self.tokenizer.encode_batch(texts, add_special_tokens=False)
            offsets = [np.array(one.offsets, dtype=np.int64).reshape(-1, 2) for one in encodings]
            for row, encoding, marks in zip(some, encodings, self._mark(texts, offsets), strict=True):
                yield TokenDocument(shard.id(row), source, np.array(encoding.ids, dtype=np.int64), marks)

    def _mark(self, texts: list[str], offsets: list[NDArray[np.int64]]) -> list[NDArray[np.uint8]]:
        """Mark texts as one, in which no word and no term crosses a border: twice as fast for short ones."""
        starts = np.cumsum([0, *(len(text) + len(_BORDER) for text in texts[:-1])])
        shifted = [part + start for part, start in zip(offsets, starts.tolist(), strict=True)]
        marks = self.marker.mark(_BORDER.join(texts), np.concatenate(shifted))
        return np.split(marks, np.cumsum([len(part) for part in offsets])[:-1])


def _write(tool: TokenTool, task: TokenTask) -> int:
    count = 0

    def documents() -> Iterator[TokenDocument]:
        nonlocal count
        for path, rows in task.parts:
            if len(rows):
                for document in tool.documents(task.source, TextShard(path), rows):
                    count += len(document.input_ids)
                    yield document

    write_shard(task.path, documents(), vocabulary=tool.tokenizer.get_vocab_size())
    return count
