"""Words: BM25 against a naive implementation, any text as a query, filters that cost no score."""

from __future__ import annotations

import gc
import math
import os
import random
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import WORDS

from cmbert_retrieval.errors import ConfigError, IndexCorruptError
from cmbert_retrieval.indexes.filters import parse_filter
from cmbert_retrieval.indexes.lexical import MAX_QUERY_TERMS, LexicalReader, LexicalWriter, begin_lexical

COLUMNS = {"group": "integer"}

Make = Callable[..., LexicalReader]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Index texts, ``{row: text}`` a commit, and open the result; row % 10 is the column ``group``."""
    opened: list[LexicalReader] = []

    def make_reader(
        *commits: dict[int, str], dead: Sequence[int] = (), analyser: str = "english"
    ) -> LexicalReader:
        folder, live = None, 0
        for number, texts in enumerate(commits):
            previous, folder = folder, tmp_path / f"words-{len(opened)}-{number}"
            begin_lexical(previous, folder)
            writer = LexicalWriter(folder, COLUMNS, analyser)
            for row, text in texts.items():
                writer.add(row, text, [(0, row % 10)])
            live += len(texts)
            writer.finish(live)
        if dead:
            previous, folder = folder, tmp_path / f"words-{len(opened)}-dead"
            begin_lexical(previous, folder)
            writer = LexicalWriter(folder, COLUMNS, analyser)
            writer.delete(dead)
            writer.finish(live - len(dead))
        assert folder is not None
        opened.append(LexicalReader(folder, COLUMNS, analyser))
        return opened[-1]

    yield make_reader
    for reader in opened:
        reader.close()


def texts_of(count: int, *, seed: int = 0, first: int = 0) -> dict[int, str]:
    chance = random.Random(seed)
    return {
        row: " ".join(chance.choices(WORDS, k=chance.randint(1, 60))) for row in range(first, first + count)
    }


def quantised(length: int) -> int:
    """Return a length as Lucene's one-byte norm keeps it: exact up to 40, then with 3 significant bits."""
    if length < 40:
        return length
    bits = (length - 24).bit_length() - 4
    return (((length - 24) >> bits) << bits) + 24


def naive_bm25(query: Counter[str], texts: dict[int, Counter[str]]) -> dict[int, float]:
    average = sum(sum(terms.values()) for terms in texts.values()) / len(texts)
    scores: dict[int, float] = {}
    for term, count in query.items():
        containing = sum(1 for terms in texts.values() if terms[term])
        idf = math.log(1 + (len(texts) - containing + 0.5) / (containing + 0.5))
        for row, terms in texts.items():
            if terms[term]:
                norm = 1.2 * (1 - 0.75 + 0.75 * quantised(sum(terms.values())) / average)
                scores[row] = scores.get(row, 0.0) + count * idf * 2.2 * terms[term] / (terms[term] + norm)
    return scores


@pytest.mark.parametrize("analyser", ["english", "plain"])
def test_scores_are_those_of_a_naive_bm25(make: Make, analyser: str) -> None:
    texts = texts_of(300)
    reader = make(texts, analyser=analyser)
    terms = {row: reader.terms(text) for row, text in texts.items()}
    for query in (
        "acute kidney",
        "heart heart stroke",
        "patients",
        "dose trial cohort placebo mortality dose",
    ):
        expected = naive_bm25(reader.terms(query), terms)
        scores, rows = reader.search(query, 300)
        assert sorted(rows.tolist()) == sorted(expected)
        np.testing.assert_allclose(scores, [expected[row] for row in rows.tolist()], rtol=1e-5, atol=1e-4)


def test_scores_do_not_depend_on_segments_or_order_of_adding(make: Make) -> None:
    texts = texts_of(400)
    rows = list(texts)
    random.Random(1).shuffle(rows)
    parts = [{row: texts[row] for row in rows[start : start + 57]} for start in range(0, 400, 57)]
    whole, split = make(texts), make(*parts)
    assert len(whole) == len(split) == 400
    for query in (
        "acute renal failure",
        "heart",
        "dose trial cohort placebo mortality relapse risk women men",
    ):
        one, other = whole.search(query, 400), split.search(query, 400)
        by_row = dict(zip(other[1].tolist(), other[0].tolist(), strict=True))
        assert sorted(one[1].tolist()) == sorted(by_row)
        np.testing.assert_allclose(one[0], [by_row[row] for row in one[1].tolist()], rtol=0, atol=1.1e-4)


def test_ties_are_complete_and_in_row_order(make: Make) -> None:
    texts = {row: "acute stroke" for row in range(0, 500, 2)} | {row: "stroke " * 3 for row in range(1, 9, 2)}
    reader = make(dict(reversed(texts.items())))
    for k in (1, 3, 100, 250, 10_000):
        scores, rows = reader.search("acute", k)
        assert rows.tolist() == list(range(0, 500, 2))
        assert len(set(scores.tolist())) == 1
    scores, rows = reader.search("stroke", 2)
    assert rows[:4].tolist() == [1, 3, 5, 7]
    assert list(zip((-scores).tolist(), rows.tolist(), strict=True)) == sorted(
        zip((-scores).tolist(), rows.tolist(), strict=True)
    )


@pytest.mark.parametrize(
    "query",
    [
        "AND", "OR NOT", "(heart", "heart)", '"heart', "heart AND", "year:2000", "BRCA1:c.68", "words:heart",
        "[a TO z]", "heart~2 stroke^5", "*", "?", "\\", "+heart -stroke", "heart\0stroke", "\U0001f600",
        "\u202e", "é", "the of and", "", "  \n", "'", "row:1", "c0:3", "{", "heart" * 10_000,
        "heart stroke " * 8000,
    ],
)  # fmt: skip
def test_any_text_is_a_query(make: Make, query: str) -> None:
    reader = make({0: "heart attack", 1: "stroke of the year 2000", 2: "BRCA1:c.68-7T>A and AND"})
    scores, rows = reader.search(query, 10)
    assert len(scores) == len(rows) <= 3
    assert np.isfinite(scores).all()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_a_text_finds_itself(make: Make, text: str) -> None:
    reader = make({0: "chronic", 1: text, 2: "acute"}, analyser="plain")
    rows = reader.search(text, 3)[1]
    if reader.terms(text):
        assert 1 in rows.tolist()
    else:
        assert len(rows) == 0


def test_words_are_folded_and_stemmed_and_stop_words_count_for_nothing(make: Make) -> None:
    reader = make({0: "Anémies chroniques", 1: "The patient's FRACTURES were treated"})
    assert reader.search("anemie", 5)[1].tolist() == [0]
    assert reader.search("fractured", 5)[1].tolist() == [1]
    assert reader.search("the of and", 5)[1].tolist() == []
    plain = make({0: "the fractures"}, analyser="plain")
    assert plain.search("fracture", 5)[1].tolist() == []
    assert plain.search("THE", 5)[1].tolist() == [0]


def test_terms_that_occur_nowhere_do_not_push_others_out_of_a_query(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    reader = make({0: "stroke", 1: "word5"}, analyser="plain")
    query = " ".join(f"nowhere{number}" for number in range(MAX_QUERY_TERMS + 500)) + " word5 stroke stroke"
    scores, rows = reader.search(query, 5)
    expected, same = reader.search("word5 stroke stroke", 5)
    assert (scores.tolist(), rows.tolist()) == (expected.tolist(), same.tolist())
    assert set(rows.tolist()) == {0, 1}
    assert caplog.records == []


def test_of_more_terms_than_are_looked_at_the_rarest_count_and_a_warning_tells_how_many_do_not(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    words = [f"word{number}" for number in range(MAX_QUERY_TERMS)]
    common = ["heart", "attack", "acute"]
    reader = make({0: " ".join(words), 1: " ".join(common), 2: " ".join(common)}, analyser="plain")
    scores, rows = reader.search(" ".join([*common * 3, *words]), 5)
    assert rows.tolist() == [0]
    assert scores.tolist() == reader.search(" ".join(words), 5)[0].tolist()
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "without its 3 most common" in record.getMessage()
    assert not any(word in record.getMessage() for word in common)


def test_k_is_no_size_of_anything(make: Make) -> None:
    reader = make({0: "heart", 1: "stroke"})
    assert reader.search("heart", 10**15)[1].tolist() == [0]
    assert reader.search("heart", 0)[1].tolist() == []
    assert reader.search("nothing", 10)[1].tolist() == []


def test_an_empty_index_finds_nothing(make: Make) -> None:
    reader = make({})
    assert len(reader) == 0
    assert reader.search("heart", 10)[1].tolist() == reader.rows().tolist() == []
    where = parse_filter({"group": 1}, COLUMNS)
    assert where is not None and reader.rows_matching(where).tolist() == []


def test_a_filter_chooses_rows_and_leaves_their_scores_alone(make: Make) -> None:
    texts = texts_of(300)
    reader = make(texts, dead=[0, 5, 13])
    scores, rows = reader.search("acute kidney risk", 300)
    expected = dict(zip(rows.tolist(), scores.tolist(), strict=True))
    assert not {0, 5, 13} & set(expected)
    for wanted in ([3], [3, 4, 5], list(range(10)), []):
        where = parse_filter({"group": {"in": wanted}}, COLUMNS)
        for k in (1, 5, 300):
            scores, rows = reader.search("acute kidney risk", k, where)
            passing = {row: score for row, score in expected.items() if row % 10 in wanted}
            assert len(rows) >= min(k, len(passing))
            assert dict(zip(rows.tolist(), scores.tolist(), strict=True)).items() <= passing.items()
            assert rows.tolist()[:k] == sorted(passing, key=lambda row: (-passing[row], row))[:k]


def test_deleted_rows_are_gone_and_the_others_are_there(make: Make) -> None:
    texts = texts_of(100)
    reader = make(texts, dead=list(range(0, 100, 3)))
    assert reader.rows().tolist() == [row for row in range(100) if row % 3]


def test_finishing_with_another_number_of_rows_than_expected_is_an_error(tmp_path: Path) -> None:
    writer = LexicalWriter(tmp_path / "words", COLUMNS, "english")
    writer.add(0, "heart", [])
    writer.delete([7])
    with pytest.raises(IndexCorruptError, match="holds 1 rows, expected 2"):
        writer.finish(2)


# --- files ---


def links() -> set[str]:
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("cmbert-words-")}  # noqa: PTH208


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in [folder, *folder.iterdir()]}


def test_reading_leaves_the_folder_as_it_is_and_needs_no_right_to_write(tmp_path: Path) -> None:
    writer = LexicalWriter(tmp_path / "words", COLUMNS, "english")
    writer.add(0, "heart", [])
    writer.finish(1)
    (tmp_path / "words").chmod(0o555)
    before = state(tmp_path / "words")
    first, second = (LexicalReader(tmp_path / "words", COLUMNS, "english") for _ in range(2))
    assert first.search("heart", 1)[1].tolist() == second.search("heart", 1)[1].tolist() == [0]
    first.close()
    assert second.search("heart", 1)[1].tolist() == [0]
    second.close()
    assert state(tmp_path / "words") == before
    (tmp_path / "words").chmod(0o755)


def test_the_private_links_go_with_the_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    reader = make({0: "heart"})
    assert len(links()) == 1
    reader.close()
    reader.close()
    assert links() == set()
    folder = next(tmp_path.glob("words-*"))
    forgotten = LexicalReader(folder, COLUMNS, "english")
    assert len(links()) == 1
    del forgotten
    gc.collect()
    assert links() == set()


def test_readers_that_open_at_the_same_time_leave_each_others_links_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    """Each looks for links that killed readers left, while others are just making theirs."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    make({0: "heart"})
    folder = next(tmp_path.glob("words-*"))
    troubles: list[BaseException] = []

    def open_and_close() -> None:
        try:
            for _ in range(40):
                reader = LexicalReader(folder, COLUMNS, "english")
                assert reader.search("heart", 1)[1].tolist() == [0]
                reader.close()
        except BaseException as error:
            troubles.append(error)

    threads = [threading.Thread(target=open_and_close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == []
    assert len(links()) == 1


def test_a_forked_child_that_ends_leaves_the_links_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    reader = make({0: "heart"})
    before = links()
    child = os.fork()
    if child == 0:
        reader.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    other = make({0: "heart"})  # opening looks for what killed readers left
    assert before < links()
    other.close()
    reader.close()
    assert links() == set()


@pytest.mark.parametrize("damage", ["missing", "empty", "garbage"])
def test_a_damaged_folder_is_an_error_naming_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / "words"
    if damage != "missing":
        folder.mkdir()
    if damage == "garbage":
        (folder / "meta.json").write_text("{")
    with pytest.raises(IndexCorruptError, match=r"words: .*run: cmbert index verify"):
        LexicalReader(folder, COLUMNS, "english")
    assert links() == set()


def test_an_unknown_analyser_names_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown analyser 'german'; known: english, plain"):
        LexicalWriter(tmp_path / "words", COLUMNS, "german")


def test_continuing_a_folder_leaves_the_one_before_untouched(tmp_path: Path) -> None:
    writer = LexicalWriter(tmp_path / "1", COLUMNS, "english")
    for row in range(50):
        writer.add(row, "heart attack", [])
    writer.finish(50)
    contents = {path.name: path.read_bytes() for path in (tmp_path / "1").iterdir()}
    begin_lexical(tmp_path / "1", tmp_path / "2")
    writer = LexicalWriter(tmp_path / "2", COLUMNS, "english")
    writer.delete(range(10))
    writer.add(50, "stroke", [])
    writer.finish(41)
    assert {path.name: path.read_bytes() for path in (tmp_path / "1").iterdir()} == contents
    reader = LexicalReader(tmp_path / "1", COLUMNS, "english")
    assert len(reader) == 50
    reader.close()
