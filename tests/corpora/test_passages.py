"""Windows: a real tokenizer where counting matters, words and characters where any tokenizer must do."""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmbert_retrieval.corpora.passages import Passage, PassageSplitter, passage_title
from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.types import Document, Section

Count = Callable[[Sequence[str]], list[int]]


def count_words(texts: Sequence[str]) -> list[int]:
    """Whole words and signs, as tokenizers that split at white space first count at least."""
    return [len(re.findall(r"\w+|[^\w\s]", text)) for text in texts]


def count_letters(texts: Sequence[str]) -> list[int]:
    """Pieces of three letters within a word."""
    return [sum(-(-len(word) // 3) for word in text.split()) for text in texts]


def count_bytes(texts: Sequence[str]) -> list[int]:
    """Every byte, white space included: the worst that a byte-level tokenizer can do."""
    return [len(text.encode()) for text in texts]


def document_of(paragraphs: list[tuple[str, str, str]], title: str = "") -> Document:
    """Make a document of (text, top heading, kind)."""
    sections, start = [], 0
    for text, heading, kind in paragraphs:
        sections.append(Section(start, start + len(text), (heading,) if heading else (), kind))
        start += len(text) + 2
    return Document("d", "\n\n".join(text for text, _, _ in paragraphs), title, {}, tuple(sections))


def check(document: Document, splitter: PassageSplitter, count: Count) -> list[Passage]:
    """Check what always holds: coverage, order, budget, borders of kinds."""
    passages = splitter.split(document)
    text, title = document.text, splitter.passage_title(document)
    covered = [False] * len(text)
    for passage in passages:
        piece = text[passage.start : passage.end]
        assert piece == piece.strip()
        assert piece or not text.strip()
        row = f"{title} {piece}".strip()
        assert count([row])[0] <= splitter.max_tokens
        covered[passage.start : passage.end] = [True] * len(piece)
        inside = {
            (s.kind, s.path[:1]) for s in document.sections if s.start < passage.end and passage.start < s.end
        }
        assert len(inside) <= 1
    assert all(done or character.isspace() for done, character in zip(covered, text, strict=True))
    for earlier, later in pairwise(passages):
        assert earlier.start < later.start
        assert earlier.end < later.end
    return passages


sentences = st.lists(
    st.sampled_from("Dose. rose fell, 5.2 E. coli et al. The The. (p<0.05). ααα x.y ! ? 日本。語".split()),
    max_size=30,
).map(" ".join)
gaps = st.sampled_from([" ", "  ", "\n", "\n\n", "\t", " " * 30, "\n" * 12])
raw = st.lists(st.tuples(sentences, gaps).map("".join), max_size=12).map("".join)
paragraphs = st.lists(
    st.tuples(
        sentences.filter(bool),
        st.sampled_from(["", "Methods", "Results"]),
        st.sampled_from(["abstract", "paragraph", "caption", "table"]),
    ),
    max_size=12,
)
counters = st.sampled_from([count_words, count_letters, count_bytes])


def test_a_window_of_repeated_sentences_takes_at_least_one_more() -> None:
    paragraph = "Dose. Dose. Dose. Dose. Dose."
    document = document_of([(paragraph, "", "abstract"), (paragraph, "", "abstract")])
    splitter = PassageSplitter(
        lambda texts: [3 * len(text.split()) for text in texts], max_tokens=16, stride=4
    )
    passages = splitter.split(document)
    ends = [passage.end for passage in passages]
    assert ends == sorted(set(ends))


@settings(deadline=None, max_examples=150)
@given(
    st.one_of(st.one_of(raw, st.text()).map(lambda text: Document("d", text)), paragraphs.map(document_of)),
    st.sampled_from(["", "Title", "A rather long title of many words " * 3, "x" * 300]),
    counters,
    st.integers(16, 60),
    st.integers(0, 5),
)  # fmt: skip
def test_windows_cover_the_text_in_order_within_the_budget_and_on_borders(
    document: Document, title: str, count: Count, max_tokens: int, stride: int
) -> None:
    document = Document(document.id, document.text, title, {}, document.sections)
    check(document, PassageSplitter(count, max_tokens=max_tokens, stride=stride), count)


@settings(deadline=None)
@given(paragraphs, st.integers(16, 40))
def test_windows_without_stride_do_not_overlap(parts: list[tuple[str, str, str]], max_tokens: int) -> None:
    passages = PassageSplitter(count_words, max_tokens=max_tokens).split(document_of(parts))
    assert all(earlier.end <= later.start for earlier, later in pairwise(passages))


def words(n: int, *, of: str = "word") -> str:
    """Return a sentence of n tokens: n - 1 words and a full stop."""
    return " ".join([of.capitalize(), *[of] * (n - 2)]) + "."


def windows(document: Document, **options: int) -> list[str]:
    splitter = PassageSplitter(count_words, **options)  # type: ignore[arg-type]
    return [document.text[passage.start : passage.end] for passage in check(document, splitter, count_words)]


def test_windows_end_on_sentence_borders() -> None:
    text = " ".join([words(8, of="a"), words(8, of="b"), words(8, of="c")])
    assert windows(Document("d", text), max_tokens=20) == [
        f"{words(8, of='a')} {words(8, of='b')}",
        words(8, of="c"),
    ]


def test_a_document_that_is_short_enough_stays_whole_and_a_longer_one_is_cut() -> None:
    def lengths(sentences: int) -> list[int]:
        document = document_of([("One two three four. " * sentences, "", "body")], title="About numbers")
        splitter = PassageSplitter(count_words, max_tokens=20, whole=52)
        return count_words([document.text[p.start : p.end] for p in splitter.split(document)])

    assert lengths(10) == [50]  # and two of the title
    assert lengths(11) == [15, 15, 15, 10]


def test_the_stride_is_the_number_of_sentences_that_neighbours_share() -> None:
    text = " ".join(words(5, of=letter) for letter in "abcdef")
    parts = [words(5, of=letter) for letter in "abcdef"]
    assert windows(Document("d", text), max_tokens=16, stride=1) == [
        " ".join(parts[0:3]),
        " ".join(parts[2:5]),
        " ".join(parts[4:6]),
    ]
    assert len(windows(Document("d", text), max_tokens=16, stride=2)) == 4
    assert len(windows(Document("d", text), max_tokens=16, stride=100)) == 4


def test_the_title_takes_its_part_of_the_budget() -> None:
    text = " ".join(words(8, of=letter) for letter in "abc")
    assert len(windows(Document("d", text), max_tokens=24)) == 1
    assert len(windows(Document("d", text, "One"), max_tokens=24)) == 2
    assert (
        len(windows(Document("d", text, "One two three four five six seven eight nine"), max_tokens=24)) == 3
    )


def test_a_title_of_more_than_half_of_the_budget_is_shortened_at_a_word() -> None:
    splitter = PassageSplitter(count_words, max_tokens=20)
    title = " ".join(f"word{n}" for n in range(30))
    assert splitter.passage_title(Document("d", "x", title)) == " ".join(f"word{n}" for n in range(10))
    assert splitter.passage_title(Document("d", "x", " Short ")) == "Short"
    assert PassageSplitter(count_letters, max_tokens=20).passage_title(Document("d", "x", "y" * 500)) == ""
    assert passage_title(Document("d", "x", title)) == title


def test_kinds_and_top_level_sections_are_never_mixed() -> None:
    parts = [
        ("One.", "A", "abstract"),
        ("Two.", "A", "paragraph"),
        ("Three.", "B", "paragraph"),
        ("4.", "B", "caption"),
    ]
    assert windows(document_of(parts), max_tokens=100) == ["One.", "Two.", "Three.", "4."]


def test_small_neighbouring_paragraphs_share_windows() -> None:
    found = windows(document_of([(words(4), "Methods", "paragraph")] * 100), max_tokens=50)
    assert len(found) <= 10


def test_a_window_that_is_half_full_ends_before_a_paragraph_that_does_not_fit() -> None:
    long, short = " ".join([words(10, of="b")] * 2), words(16, of="a")
    found = windows(document_of([(short, "M", "paragraph"), (long, "M", "paragraph")]), max_tokens=30)
    assert found == [short, long]
    found = windows(
        document_of([(words(6), "M", "paragraph"), (long + " " + long, "M", "paragraph")]), max_tokens=30
    )
    assert found[0].startswith(words(6) + "\n\n")


def test_rows_of_a_table_stay_whole() -> None:
    rows = "\n".join(f"row {n}. Name | 1 | 2" for n in range(20))
    for window in windows(document_of([(rows, "", "table")]), max_tokens=30):
        assert all(line in rows.split("\n") for line in window.split("\n"))


def test_a_sentence_longer_than_the_budget_is_cut_between_words_and_fills_its_windows() -> None:
    text = " ".join(f"w{n}" for n in range(1000))
    found = windows(Document("d", text), max_tokens=50)
    assert " ".join(found) == text
    assert len(found) <= 24


def test_long_text_without_sentences_is_cut_at_line_ends_first() -> None:
    text = "\n".join(" ".join(["w"] * 7) for _ in range(300))
    found = windows(Document("d", text), max_tokens=60)
    assert all(len(line.split()) == 7 for window in found for line in window.split("\n"))


def test_a_word_longer_than_the_budget_is_cut_inside() -> None:
    splitter = PassageSplitter(count_letters, max_tokens=20)
    document = Document("d", "x" * 1000)
    assert len(check(document, splitter, count_letters)) >= 17


def test_text_between_sections_is_covered() -> None:
    document = Document("d", "Before. Inside. Behind.", sections=(Section(8, 15, ("A",)),))
    assert windows(document, max_tokens=50) == ["Before.", "Inside.", "Behind."]


def test_empty_documents_give_no_passage_and_a_title_alone_gives_one() -> None:
    splitter = PassageSplitter(count_words, max_tokens=50)
    assert splitter.split(Document("d", "")) == []
    assert splitter.split(Document("d", " \n\n ")) == []
    assert splitter.split(Document("d", "", "A title")) == [Passage(0, 0)]


def test_every_sentence_is_counted_once() -> None:
    counted: list[str] = []

    def count(texts: Sequence[str]) -> list[int]:
        counted.extend(texts)
        return count_words(texts)

    text = " ".join(words(5, of=f"s{n}") for n in range(100))
    PassageSplitter(count, max_tokens=40, stride=2).split(Document("d", text, "Title"))
    assert len(counted) == 101


@pytest.mark.parametrize("unit", ["word ", "a", "x\n", ". ", "\u3000b"])
def test_ten_megabytes_without_a_sentence_take_bounded_time_and_batches(unit: str) -> None:
    largest = 0

    def count(texts: Sequence[str]) -> list[int]:
        nonlocal largest
        largest = max(largest, sum(map(len, texts)))
        return count_letters(texts)

    text = unit * (10_000_000 // len(unit))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    passages = PassageSplitter(count, max_tokens=256).split(Document("d", text))
    assert time.process_time() - began < 60
    assert passages[-1].end >= len(text) - 1
    assert largest < 4_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2_000_000  # KiB


def test_settings_that_cannot_work_are_errors() -> None:
    with pytest.raises(ConfigError, match=r"passages\.max_tokens: got 8, expected at least 16"):
        PassageSplitter(count_words, max_tokens=8)
    with pytest.raises(ConfigError, match=r"passages\.stride: got -1"):
        PassageSplitter(count_words, max_tokens=100, stride=-1)
