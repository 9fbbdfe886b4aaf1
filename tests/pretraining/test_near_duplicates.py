"""Duplicates: equal texts, nearly equal ones, and which of them stays."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")
datasketch = pytest.importorskip("datasketch")

from prepare_samples import prose  # noqa: E402

from cmbert_retrieval.pretraining.duplicates import (  # noqa: E402
    Verdict,
    bands,
    digest,
    judge,
    shingles,
    signature,
)
from cmbert_retrieval.pretraining.texts import Part, TextRow, TextShard, write_texts  # noqa: E402
from cmbert_retrieval.pretraining.words import lower_words  # noqa: E402

pytestmark = pytest.mark.slow  # pyarrow and datasketch

PERMUTATIONS = 128


def shard(path: Path, texts: list[tuple[str, str, Part]]) -> TextShard:
    rows = [
        TextRow(
            number,
            text if part <= Part.HELD_OUT else "",
            part,
            "",
            len(text.split()),
            digest(text),
            signature(lower_words(text), PERMUTATIONS),
        )
        for number, text, part in texts
    ]
    write_texts(path, rows, {}, permutations=PERMUTATIONS)
    return TextShard(path)


def verdicts(
    tmp_path: Path, *sources: list[tuple[str, str, Part]], similarity: float | None = 0.8
) -> list[str]:
    shards = [[shard(tmp_path / f"{number}.arrow", texts)] for number, texts in enumerate(sources)]
    return [Verdict(value).name for part in judge(shards, similarity) for value in part]


def changed(text: str, words: int) -> str:
    """Return a text of 80 words with some of them, far from each other, changed."""
    parts = text.split()
    for number in range(words):
        parts[number * 11] = f"other{number}"
    return " ".join(parts)


def test_the_first_of_equal_texts_stays_whatever_its_source(tmp_path: Path) -> None:
    a, b = prose(1), prose(2)
    found = verdicts(
        tmp_path,
        [("1", a, Part.TRAIN), ("2", b, Part.HELD_OUT)],
        [("3", f"  {a.upper()}\n", Part.HELD_OUT), ("4", b, Part.TRAIN), ("5", prose(3), Part.TRAIN)],
        similarity=None,
    )
    assert found == ["KEPT", "KEPT", "EXACT", "EXACT", "KEPT"]


def test_nearly_equal_texts_go_and_others_stay(tmp_path: Path) -> None:
    text = prose(1)
    rows = [("1", text), ("2", changed(text, 1)), ("3", changed(text, 8)), ("4", prose(2))]
    assert verdicts(tmp_path, [(number, text, Part.TRAIN) for number, text in rows]) == [
        "KEPT",
        "NEAR",
        "KEPT",
        "KEPT",
    ]


def test_copies_of_what_is_excluded_go_though_they_come_first(tmp_path: Path) -> None:
    text, other = prose(1), prose(2)
    found = verdicts(
        tmp_path,
        [("1", text, Part.TRAIN), ("2", changed(other, 1), Part.TRAIN), ("3", prose(3), Part.TRAIN)],
        [("4", text, Part.EXCLUDED), ("5", other, Part.EXCLUDED), ("6", other, Part.TRAIN)],
    )
    assert found == ["COPY", "COPY", "KEPT", "ABSENT", "ABSENT", "COPY"]


def test_what_a_source_takes_back_goes_but_not_what_comes_after(tmp_path: Path) -> None:
    found = verdicts(
        tmp_path,
        [("1", prose(1), Part.TRAIN), ("1", "", Part.WITHDRAWN), ("1", prose(2), Part.TRAIN)],
        [("1", prose(3), Part.TRAIN)],
    )
    assert found == ["WITHDRAWN", "ABSENT", "KEPT", "KEPT"]
    # What is withdrawn is no reason to drop a copy of it.
    found = verdicts(
        tmp_path,
        [("1", prose(1), Part.TRAIN), ("1", "", Part.WITHDRAWN), ("2", prose(1), Part.TRAIN)],
    )
    assert found == ["WITHDRAWN", "ABSENT", "KEPT"]


def test_a_signature_estimates_how_much_is_shared() -> None:
    generator = np.random.default_rng(0)
    for shared in (0, 1000, 3000, 4000):
        common = generator.integers(0, 10**9, 4100).astype(str).tolist()
        one = common[:shared] + generator.integers(0, 10**9, 4100 - shared).astype(str).tolist()
        other = common[:shared] + generator.integers(0, 10**9, 4100 - shared).astype(str).tolist()
        sets = [set(zip(*(words[n:] for n in range(5)), strict=False)) for words in (one, other)]
        exact = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
        estimated = np.mean(signature(one, 512) == signature(other, 512))
        assert estimated == pytest.approx(exact, abs=4 * np.sqrt(0.25 / 512))


def test_short_texts_have_one_shingle_and_empty_ones_none() -> None:
    assert len(shingles([])) == 0
    assert len(shingles(["a"])) == len(shingles(list("abcde"))) == 1
    assert len(shingles(list("abcdef"))) == 2
    assert shingles(["a", "b"]).tolist() != shingles(["b", "a"]).tolist()


def test_bands_find_what_the_index_of_datasketch_finds(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    texts: list[str] = []
    for number in range(400):
        # Copies of copies, from hardly changed to hardly the same.
        old = texts[generator.integers(len(texts))] if texts and generator.random() < 0.6 else prose(number)
        texts.append(changed(old, int(generator.integers(0, 8))) + f" {number}")
    made = shard(tmp_path / "0.arrow", [(str(n), text, Part.TRAIN) for n, text in enumerate(texts)])
    (found,) = judge([[made]], 0.8)

    count, width = bands(0.8, PERMUTATIONS)
    index = datasketch.MinHashLSH(num_perm=PERMUTATIONS, params=(count, width))
    expected = []
    for row, values in enumerate(made.signatures):
        minhash = datasketch.MinHash(num_perm=PERMUTATIONS, hashvalues=values, scheme="affine32")
        alike = [other for other in index.query(minhash) if np.mean(made.signatures[other] == values) >= 0.8]
        expected.append(Verdict.NEAR if alike else Verdict.KEPT)
        if not alike:
            index.insert(row, minhash)
    assert found.tolist() == expected
    assert 50 < expected.count(Verdict.NEAR) < 300


def test_documents_made_after_one_template_are_judged_in_no_time(tmp_path: Path) -> None:
    template = prose(1, 100)
    generator = np.random.default_rng(2)
    texts = []
    for number in range(3000):
        words = template.split()
        for place in generator.choice(100, 3, replace=False).tolist():
            words[place] = f"own{number}{place}"
        texts.append((str(number), " ".join(words), Part.TRAIN))
    made = shard(tmp_path / "0.arrow", texts)
    began = time.perf_counter()
    (found,) = judge([[made]], 0.9)
    assert time.perf_counter() - began < 5  # each with each would be 4.5 million comparisons
    assert np.count_nonzero(found == Verdict.KEPT) > 2000


def test_shards_may_be_empty(tmp_path: Path) -> None:
    assert judge([], 0.8) == []
    assert verdicts(tmp_path, [], [("1", prose(1), Part.TRAIN)], []) == ["KEPT"]
    assert verdicts(tmp_path, []) == []
