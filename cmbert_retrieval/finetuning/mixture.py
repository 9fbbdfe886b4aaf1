"""What a stage learns from: rows of prepared pairs and texts, in the shares that the recipe asks for."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import BatchSampler, Dataset

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.finetuning.drawing import PAIRS_NAME, TEXTS_NAME, answered, drawn
from cmbert_retrieval.finetuning.prepare import NEGATIVES, TEXTS, TRAIN, VECTORS
from cmbert_retrieval.finetuning.recipe import FinetuneRecipe
from cmbert_retrieval.finetuning.tables import Table
from cmbert_retrieval.finetuning.training_recipe import StageRecipe

logger = logging.getLogger(__name__)

_TRIES = 20
"""Times the size of a batch that is looked at to fill it without equal texts."""


class Key(NamedTuple):
    """A row of a source.

    Attributes:
        kind: ``PAIRS_NAME`` or ``TEXTS_NAME``.
        source: its number in the recipe.
        row: of its pairs, or of its texts.
    """

    kind: str
    source: int
    row: int


class PairRows:
    """The pairs of a source, with the negatives that a stage takes along."""

    def __init__(
        self, data: Path, name: str, *, negatives: int, seed: int, prompts: tuple[str, str] = ("", "")
    ) -> None:
        """Open them.

        Args:
            data: the folder of prepared pairs.
            name: the source's.
            negatives: of every pair.
            seed: of the negatives that are taken by chance where too few are known.
            prompts: put before anchors, and before positives and negatives.
        """
        self.table = Table(data / TRAIN / f"{name}.arrow")
        self._negatives, self._seed, self._prompts = negatives, seed, prompts
        paths = sorted((data / NEGATIVES / name).glob("*.npy")) if negatives else []
        self._mined = np.concatenate([np.load(path) for path in paths]) if paths else None
        self.anchors = _keys(self.table.values("anchor"), len(self.table))
        self.positives = _keys(self.table.values("positive"), len(self.table))

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.table)

    def keys(self, row: int) -> set[int]:
        """Return what stands for the texts of a row; no two rows of a batch share any."""
        found = {int(self.anchors[row]), int(self.positives[row])}
        if self._negatives:
            given, rows = self._negatives_of(row)
            found |= {_key(text) for text in given} | {int(self.positives[other]) for other in rows}
        return found

    def take(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return pairs as the trainer takes them."""
        sides = [self.table.take(column, rows) for column in ("anchor", "positive")]
        made: list[dict[str, Any]] = [
            {"anchor": anchor, "positive": positive} for anchor, positive in zip(*sides, strict=True)
        ]
        for row, pair in zip(rows, made, strict=True) if self._negatives else ():
            given, others = self._negatives_of(row)
            texts = [*given, *self.table.take("positive", others)]
            pair |= {f"negative_{place}": text for place, text in enumerate(texts, start=1)}
        asked, answered = self._prompts
        return [
            {column: (asked if column == "anchor" else answered) + text for column, text in pair.items()}
            for pair in made
        ]

    def _negatives_of(self, row: int) -> tuple[list[str], list[int]]:
        """Return the texts that came with a pair, and rows whose positives are its further negatives."""
        given: list[str] = self.table.take("negatives", [row])[0][: self._negatives]
        mined = [] if self._mined is None else [int(other) for other in self._mined[row] if other >= 0]
        rows = mined[: self._negatives - len(given)]
        random = np.random.default_rng((self._seed, row))
        known = {int(self.positives[other]) for other in (row, *rows)}
        for other in random.integers(len(self), size=_TRIES * self._negatives).tolist():
            if len(given) + len(rows) == self._negatives:
                break
            if int(self.positives[other]) not in known:
                known.add(int(self.positives[other]))
                rows.append(other)
        while len(given) + len(rows) < self._negatives:  # hardly any other text is there
            rows.append(int(random.integers(len(self))))
        return given, rows


class TextRows:
    """The texts of a source with the teacher's vectors."""

    def __init__(self, data: Path, name: str, *, prompt: str = "") -> None:
        """Open them.

        Args:
            data: the folder of prepared pairs.
            name: the source's.
            prompt: put before them.

        Raises:
            ConfigError: the teacher has not been asked.
        """
        self.table, self._prompt = Table(data / TEXTS / f"{name}.arrow"), prompt
        self._path = path = data / VECTORS / f"{name}.npy"
        if not path.is_file():
            raise ConfigError(f"{path}: no vectors of a teacher; run: cmbert finetune prepare")
        mapped: Literal["r"] | None = "r" if len(self.table) else None  # nothing cannot be mapped
        self.vectors: NDArray[np.float16] = np.load(path, mmap_mode=mapped)
        if len(self.vectors) != len(self.table):
            raise ConfigError(
                f"{path}: {len(self.vectors)} vectors, {len(self.table)} texts; remove it and run: "
                "cmbert finetune prepare"
            )

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.table)

    def check(self, rows: Sequence[int]) -> None:
        """Raise ``ConfigError`` unless the teacher was asked about all of some rows."""
        missing = int((~answered(self.vectors, np.array(rows))).sum())
        if missing:
            raise ConfigError(
                f"{self._path}: {missing} of the {len(rows)} texts that a stage draws have no vector, since "
                "other stages were prepared; run: cmbert finetune prepare"
            )

    def take(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return texts with their vectors, as the trainer takes them."""
        vectors = torch.from_numpy(self.vectors[list(rows)].astype(np.float32))
        texts = self.table.take("text", rows)
        return [
            {"text": self._prompt + text, "label": vector}
            for text, vector in zip(texts, vectors, strict=True)
        ]


class StageRows(Dataset[dict[str, Any]]):  # type: ignore[misc]
    """All rows of a stage, by ``Key``."""

    def __init__(self, parts: Mapping[str, Mapping[int, PairRows | TextRows]]) -> None:
        """Take them by kind and number of the source."""
        self._parts = parts

    def __len__(self) -> int:
        """Return the number of rows."""
        return sum(len(part) for parts in self._parts.values() for part in parts.values())

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """Return one row."""
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[Key]) -> list[dict[str, Any]]:
        """Return the rows of a batch, which are of one kind."""
        made: list[dict[str, Any]] = [{}] * len(keys)
        for source in dict.fromkeys(key.source for key in keys):
            places = [place for place, key in enumerate(keys) if key.source == source]
            rows = self._parts[keys[0].kind][source].take([keys[place].row for place in places])
            for place, row in zip(places, rows, strict=True):
                made[place] = {**row, "dataset_name": keys[0].kind}
        return made


class StageBatches(BatchSampler):  # type: ignore[misc]
    """The batches of a stage in order: whole ones of one kind, of which each process takes its part."""

    def __init__(self, batches: Sequence[Sequence[Key]], *, rank: int, processes: int) -> None:
        """Take the batches of all processes."""
        self.sampler, self.batch_size, self.drop_last = range(len(batches)), 1, True
        self._batches, self._rank, self._processes = batches, rank, processes

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self._batches)

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield this process's part of every batch."""
        for batch in self._batches:
            yield list(batch[self._rank :: self._processes])


def open_stage(
    recipe: FinetuneRecipe, number: int, data: Path
) -> tuple[StageRows, list[list[Key]], dict[str, int]]:
    """Return the rows of a stage, its batches in order, and how many rows of each source are in them.

    Texts of all sources share batches. Pairs come in batches of one source, so that negatives are near; what
    is left of each fills batches of several sources. No text comes twice in a batch of pairs.

    Args:
        recipe: of the run.
        number: of the stage, from 0.
        data: the folder of prepared pairs.

    Raises:
        ConfigError: there is nothing of what the stage asks for, or not enough for one batch.
    """
    stage = recipe.stages[number]
    names = list(recipe.data.sources)
    parts: dict[str, dict[int, Any]] = {}
    batches: list[list[Key]] = []
    if stage.texts:
        prompt = recipe.model.document_prompt
        texts = {place: TextRows(data, name, prompt=prompt) for place, name in enumerate(names)}
        parts[TEXTS_NAME] = texts
        batches += _text_batches(recipe, stage, number, texts)
    if stage.pairs:
        pairs = {
            place: PairRows(
                data, name, negatives=stage.negatives, seed=recipe.seed, prompts=recipe.prompts_of(name)
            )
            for place, name in enumerate(names)
        }
        parts[PAIRS_NAME] = pairs
        batches += _pair_batches(recipe, stage, number, pairs)
    order = np.random.default_rng((recipe.seed, number, 2)).permutation(len(batches))
    counts = dict.fromkeys(names, 0)
    for batch in batches:
        for key in batch:
            counts[names[key.source]] += 1
    return StageRows(parts), [batches[place] for place in order.tolist()], counts


def distinct_batches(
    rows: Sequence[Key], size: int, keys: Callable[[Key], set[int]]
) -> tuple[list[list[Key]], list[Key]]:
    """Return batches in which no two rows share a key, and the rows that are left.

    A row that does not fit into a batch waits for the next one.
    """
    waiting = deque(rows)
    batches: list[list[Key]] = []
    while len(waiting) >= size:
        batch: list[Key] = []
        seen: set[int] = set()
        passed: list[Key] = []
        while waiting and len(batch) < size and len(passed) < _TRIES * size:
            row = waiting.popleft()
            found = keys(row)
            if seen.isdisjoint(found):
                seen |= found
                batch.append(row)
            else:
                passed.append(row)
        waiting.extendleft(reversed(passed))
        if len(batch) < size:
            waiting.extend(batch)
            break
        batches.append(batch)
    return batches, list(waiting)


def _text_batches(
    recipe: FinetuneRecipe, stage: StageRecipe, number: int, parts: Mapping[int, TextRows]
) -> list[list[Key]]:
    rows = []
    for source, drawn_rows in drawn(recipe, number, TEXTS_NAME, list(map(len, parts.values()))):
        parts[source].check(drawn_rows)
        rows += [Key(TEXTS_NAME, source, row) for row in drawn_rows]
    order = np.random.default_rng((recipe.seed, number, 0)).permutation(len(rows)).tolist()
    size = stage.text_batch
    batches = [[rows[place] for place in order[at : at + size]] for at in range(0, len(rows), size)]
    whole = [batch for batch in batches if len(batch) == size]
    if not whole:
        raise ConfigError(f"stage {number + 1}: {len(rows)} texts are less than a batch of {size}")
    return whole


def _pair_batches(
    recipe: FinetuneRecipe, stage: StageRecipe, number: int, parts: Mapping[int, PairRows]
) -> list[list[Key]]:
    def keys(key: Key) -> set[int]:
        return parts[key.source].keys(key.row)

    batches: list[list[Key]] = []
    left: list[Key] = []
    for source, drawn_rows in drawn(recipe, number, PAIRS_NAME, list(map(len, parts.values()))):
        rows = [Key(PAIRS_NAME, source, row) for row in drawn_rows]
        made, rest = distinct_batches(rows, stage.pair_batch, keys)
        batches += made
        left += rest
    order = np.random.default_rng((recipe.seed, number, 1)).permutation(len(left)).tolist()
    made, left = distinct_batches([left[place] for place in order], stage.pair_batch, keys)
    batches += made
    if left:
        logger.info("stage %d: %d pairs are in no batch: too few without equal texts", number + 1, len(left))
    if not batches:
        raise ConfigError(
            f"stage {number + 1}: {len(left)} pairs without equal texts are less than a batch of "
            f"{stage.pair_batch}"
        )
    return batches


def _keys(texts: Iterator[str], count: int) -> NDArray[np.int64]:
    return np.fromiter(map(_key, texts), dtype=np.int64, count=count)


def _key(text: str) -> int:
    data = " ".join(text.casefold().split()).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)
