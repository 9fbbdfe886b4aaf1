"""The class that users know: ways to search, what a hit says, and its promises about order."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import SMALL, Wrapper, document, documents, queries

from cmbert_retrieval import Document, Query, Retriever, Section, load_encoder
from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.errors import CmbertError, ConfigError, CorpusError
from cmbert_retrieval.fusion import bounded, min_max, reciprocal_rank, strictly_decreasing
from cmbert_retrieval.indexes.queries import MAX_K

ARTICLE = Document(
    id="PMC1",
    title="Appendicitis in children",
    text="Appendicitis is common. Zoonotic causes are rare. " + document(77, sentences=20).text,
    metadata={
        "year": 2021,
        "journal": "BMJ",
        "authors": ["Ada Lovelace", "Alan Turing"],
        "pmid": "123",
        "doi": "10.1/x",
        "is_retracted": True,
    },
    sections=(Section(0, 23, ("Abstract",), "abstract"), Section(24, 49, ("Results",))),
)
CODE = Document(
    id="K35", text="", title="Acute appendicitis", entries=("Acute appendicitis", "Burst appendix")
)
TITLE_ONLY = Document(id="T1", text="", title="Xerostomia after radiotherapy")


@pytest.fixture(scope="module")
def encoder(tiny_encoder_path: Path) -> Encoder:
    return load_encoder(tiny_encoder_path)


@pytest.fixture(scope="module")
def retriever(encoder: Encoder) -> Iterator[Retriever]:
    texts = [*documents(60), ARTICLE, CODE, TITLE_ONLY]
    with Retriever.from_documents(texts, encoder=encoder, overrides=SMALL) as opened:
        yield opened


WAYS = [("lexical", None), ("dense", None), *(("hybrid", fusion) for fusion in ("bounded", "min-max", "rrf"))]


def keys(hits: list[Any]) -> list[tuple[Any, ...]]:
    return [(hit.rank, hit.id, hit.score, hit.passage, hit.offsets, dict(hit.signals)) for hit in hits]


# --- what a search returns ---


@pytest.mark.parametrize(("mode", "fusion"), WAYS)
@pytest.mark.parametrize("group", [True, False])
def test_hits_are_ranked_unique_and_say_where_they_stand(
    retriever: Retriever, mode: str, fusion: str | None, group: bool
) -> None:
    for query in (*queries(10), "appendicitis", "xerostomia", "burst appendix"):
        hits = retriever.search(query, 20, mode=mode, fusion=fusion, group=group)
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
        assert len({hit.id for hit in hits}) == len(hits) <= 20
        assert all(one.score >= other.score for one, other in itertools.pairwise(hits))
        assert mode == "lexical" or len(hits) == 20
        for hit in hits:
            stored = retriever.get(hit.document.id)
            assert hit.document == stored
            assert hit.id == hit.document.id if group else hit.id.rpartition("#")[0] == hit.document.id
            if hit.offsets is None:
                assert hit.passage in (*hit.document.entries, hit.document.title)
            else:
                assert hit.document.text[slice(*hit.offsets)] == hit.passage != ""
            assert hit.citation.endswith(hit.document.id) or hit.document.id == "PMC1"
            assert set(hit.signals) <= ({"lexical", "dense"} if mode == "hybrid" else {mode})
            assert hit.signals


def test_passages_are_numbered_within_their_document(retriever: Retriever) -> None:
    hits = [hit for hit in retriever.search("appendicitis", 500, mode="dense", group=False)]
    mine = sorted(
        (hit for hit in hits if hit.document.id == "PMC1"), key=lambda hit: int(hit.id.split("#")[1])
    )
    assert [hit.id for hit in mine] == [f"PMC1#{number}" for number in range(len(mine))]
    starts = [hit.offsets[0] for hit in mine if hit.offsets]
    assert len(mine) > 3 and starts == sorted(starts)
    assert sorted(hit.id for hit in hits if hit.document.id == "K35") == ["K35#0", "K35#1"]


def test_a_document_scores_as_its_best_passage(retriever: Retriever) -> None:
    for mode in ("lexical", "dense"):
        for query in queries(5, seed=3):
            passages = retriever.search(query, 2000, mode=mode, group=False)
            best: dict[str, float] = {}
            for hit in passages:
                best.setdefault(hit.document.id, hit.score)
            grouped = retriever.search(query, 2000, mode=mode)
            assert {hit.id: hit.score for hit in grouped} == best


def test_equal_scores_come_in_the_order_of_ids_and_passages_in_that_of_the_index(encoder: Encoder) -> None:
    texts = [Document(f"d{number}", "acute stroke") for number in (11, 2, 30, 1)]
    with Retriever.from_documents(texts, encoder=encoder) as opened:
        for mode, fusion in WAYS:
            hits = opened.search("acute stroke", 3, mode=mode, fusion=fusion)
            assert [hit.id for hit in hits] == ["d1", "d11", "d2"]
            hits = opened.search("acute stroke", 3, mode=mode, fusion=fusion, group=False)
            assert [hit.id for hit in hits] == ["d11#0", "d2#0", "d30#0"]


def test_the_words_that_only_one_passage_has_find_it(retriever: Retriever) -> None:
    (hit,) = retriever.search("zoonotic", mode="lexical")
    assert (hit.id, hit.rank) == ("PMC1", 1)
    assert "Zoonotic" in hit.passage
    (hit,) = retriever.search("xerostomia", mode="lexical")
    assert (hit.id, hit.passage, hit.offsets) == ("T1", TITLE_ONLY.title, None)
    best = retriever.search("burst appendix", mode="lexical")[0]
    assert (best.id, best.passage, best.offsets) == ("K35", "Burst appendix", None)


def test_a_citation_names_authors_title_place_and_warns_of_retractions(retriever: Retriever) -> None:
    (hit,) = retriever.search("zoonotic", mode="lexical")
    assert hit.citation == (
        "RETRACTED Ada Lovelace et al. Appendicitis in children. BMJ 2021. PMC1, PMID 123, doi:10.1/x"
    )


@pytest.mark.parametrize(
    "authors", ["Ada Lovelace", ["Ada Lovelace"], [{"name": "Ada"}], [1], {}, [], "", None, 5]
)
def test_any_metadata_can_be_cited(authors: Any) -> None:
    text = Document(
        "a", "fever", title="A title", metadata={"authors": authors, "journal": ["BMJ"], "year": "20"}
    )
    with Retriever.from_documents([text], encoder="none") as opened:
        (hit,) = opened.search("fever")
    assert "A title." in hit.citation and hit.citation.endswith("a")
    assert ("Ada Lovelace. A title" in hit.citation) == (authors in ("Ada Lovelace", ["Ada Lovelace"]))
    assert "\n" not in hit.citation


# --- ways to fuse ---


def test_hybrid_is_the_fusion_of_the_two_rankings(encoder: Encoder) -> None:
    deep = (*SMALL, "search.depth=1000")
    with Retriever.from_documents(documents(60), encoder=encoder, overrides=deep) as retriever:
        for query in queries(8, seed=5):
            parts = [
                {hit.id: hit.score for hit in retriever.search(query, 1000, mode=mode)}
                for mode in ("lexical", "dense")
            ]
            best = retriever.reader.words.best_score(query)
            assert max(parts[0].values(), default=0) <= best
            bounds = [(0.0, best), (min(0.0, *parts[1].values()), 1.0)]  # all of them were found
            for fusion, expected in (
                ("bounded", bounded(parts, bounds, weights=[0.7, 0.3])),
                ("min-max", min_max(parts, weights=[0.7, 0.3])),
                ("rrf", reciprocal_rank(parts, weights=[0.7, 0.3])),
            ):
                hits = retriever.search(query, 1000, mode="hybrid", fusion=fusion)
                assert [hit.id for hit in hits] == list(expected)
                np.testing.assert_allclose([hit.score for hit in hits], list(expected.values()), rtol=1e-9)


def test_the_only_document_is_as_good_as_its_meaning_and_its_words_are(encoder: Encoder) -> None:
    only = Document("a", "crushing chest pain")
    with Retriever.from_documents([only], encoder=encoder) as opened:
        for query, words in (("crushing chest pain", True), ("kidney", False)):
            (hit,) = opened.search(query)
            assert ("lexical" in hit.signals) == words
            meaning = 0.3 * max(hit.signals["dense"], 0)
            assert hit.score == pytest.approx(meaning, abs=1e-6) if not words else hit.score > meaning


@pytest.fixture(scope="module")
def shallow(encoder: Encoder) -> Iterator[Retriever]:
    overrides = (*SMALL, "search.depth=5")
    with Retriever.from_documents(documents(60), encoder=encoder, overrides=overrides) as opened:
        yield opened


@given(
    query=st.sampled_from(queries(12, seed=9)),
    k=st.integers(1, 70),
    more=st.integers(0, 200),
    way=st.sampled_from(WAYS),
    group=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_asking_for_more_changes_nothing_about_the_first_ones(
    shallow: Retriever, query: str, k: int, more: int, way: tuple[str, str | None], group: bool
) -> None:
    mode, fusion = way
    few = shallow.search(query, k, mode=mode, fusion=fusion, group=group)
    many = shallow.search(query, k + more, mode=mode, fusion=fusion, group=group)
    assert keys(few) == keys(many[:k])
    assert all(one.score >= other.score for one, other in itertools.pairwise(many))
    assert len({hit.id for hit in many}) == len(many)
    assert len(few) == min(k, len(many))


def test_a_search_after_closing_is_an_error(encoder: Encoder) -> None:
    opened = Retriever.from_documents(documents(3), encoder=encoder)
    opened.search("heart")
    opened.close()
    opened.close()
    for mode in ("lexical", "dense", "hybrid"):
        with pytest.raises(CmbertError, match="the index was closed; open it again"):
            opened.search("heart", mode=mode)
    with pytest.raises(CmbertError, match="the index was closed; open it again"):
        opened.get("note-1")


def test_the_weight_of_meaning_is_the_recipes(encoder: Encoder) -> None:
    for weight, mode in ((0.0, "lexical"), (1.0, "dense")):
        settings_ = (*SMALL, f"search.dense_weight={weight}", "search.fusion=min-max")
        with Retriever.from_documents(documents(20), encoder=encoder, overrides=settings_) as opened:
            for query in queries(4):
                alone = [hit.id for hit in opened.search(query, 20, mode=mode)]
                assert {hit.id for hit in opened.search(query, 20)} == set(alone)


def test_mode_and_fusion_default_to_the_indexs_own(encoder: Encoder) -> None:
    with Retriever.from_documents(documents(20), encoder=encoder, overrides=["search.mode=dense"]) as opened:
        assert keys(opened.search("heart")) == keys(opened.search("heart", mode="dense"))


# --- filters ---


@pytest.mark.parametrize(("mode", "fusion"), WAYS)
def test_a_filter_leaves_what_passes_and_enough_of_it(
    retriever: Retriever, mode: str, fusion: str | None
) -> None:
    everything = {text.id: text for text in (*documents(60), ARTICLE)}
    for year in (1999, 2005, 2020, 2021, 2030):
        passing = {id_ for id_, text in everything.items() if text.metadata["year"] >= year}
        for query in queries(3):
            hits = retriever.search(query, 10, mode=mode, fusion=fusion, filter=f"year>={year}")
            assert {hit.id for hit in hits} <= passing
            assert mode == "lexical" or len(hits) == min(10, len(passing))
    for mode_ in ("lexical", "dense"):
        free = {hit.id: hit.score for hit in retriever.search("heart", 1000, mode=mode_)}
        for hit in retriever.search("heart", 1000, mode=mode_, filter={"journal": ["BMJ", "JAMA"]}):
            assert free[hit.id] == hit.score


def test_an_undeclared_column_names_those_that_are_declared(retriever: Retriever) -> None:
    with pytest.raises(ConfigError, match="did you mean 'journal'"):
        retriever.search("heart", filter={"jornal": "BMJ"})
    assert "year" in retriever.manifest.columns and "authors" in retriever.manifest.columns


def test_columns_can_be_declared(encoder: Encoder) -> None:
    texts = [Document("a", "fever", metadata={"seen": "2020-01-01"}), Document("b", "fever")]
    with Retriever.from_documents(texts, encoder=encoder, columns={"seen": "date"}) as opened:
        assert [hit.id for hit in opened.search("fever", filter="seen>=2019-12-31")] == ["a"]
    with Retriever.from_documents(texts, encoder=encoder, columns={}) as opened, pytest.raises(ConfigError):
        opened.search("fever", filter="seen>=2019-12-31")


# --- queries of all kinds ---


@pytest.mark.parametrize(("mode", "fusion"), WAYS)
@pytest.mark.parametrize("query", ["", "   ", "\n\t\u2003"])
def test_an_empty_query_finds_nothing(
    retriever: Retriever, mode: str, fusion: str | None, query: str
) -> None:
    assert retriever.search(query, mode=mode, fusion=fusion) == []
    assert [len(hits) for hits in retriever.search([query, "heart", query], 5, mode=mode)] == [0, 5, 0]


@pytest.mark.parametrize(
    "query",
    ["the of and", "?", "\U0001f600", "heart\0attack", "(heart AND", "appendicitis " * 10_000,
     "x" * 100_000, " ".join(f"word{number}" for number in range(10_000)) + " zoonotic", "\u202e\ufeff"],
    ids=["stop words", "sign", "emoji", "nul", "syntax", "10,000 times", "long", "10,000 words", "controls"],
)  # fmt: skip
def test_any_text_is_a_query(retriever: Retriever, query: str) -> None:
    for mode, fusion in WAYS:
        hits = retriever.search(query, 5, mode=mode, fusion=fusion)
        assert all(np.isfinite(hit.score) for hit in hits)
        assert mode == "lexical" or len(hits) == 5


def test_a_query_that_is_no_valid_text_is_refused_without_quoting_it(retriever: Retriever) -> None:
    for mode in ("lexical", "dense", "hybrid"):
        with pytest.raises(ConfigError, match=r"half of a surrogate pair \(character 7\)") as caught:
            retriever.search(["fever", "heart \ud800 attack"], 5, mode=mode)
        assert "heart" not in str(caught.value)
    for wrong in (None, 5, ["heart", None]):
        with pytest.raises((ConfigError, TypeError)):
            retriever.search(wrong)  # type: ignore[call-overload]


@pytest.mark.parametrize(("mode", "fusion"), WAYS)
def test_many_queries_at_once_answer_as_each_alone(
    retriever: Retriever, mode: str, fusion: str | None
) -> None:
    texts = [*queries(20, seed=9), "appendicitis", "heart"]
    together = retriever.search(texts, 7, mode=mode, fusion=fusion)
    alone = [retriever.search(text, 7, mode=mode, fusion=fusion) for text in texts]
    assert [keys(hits) for hits in together] == [keys(hits) for hits in alone]
    assert retriever.search([], mode=mode) == []
    assert keys(retriever.search(tuple(texts), 7, mode=mode, fusion=fusion)[3]) == keys(alone[3])


@pytest.mark.parametrize(("k", "mode"), list(itertools.product([0, -1, MAX_K + 1], ["lexical", "dense"])))
def test_k_out_of_bounds_is_an_error(retriever: Retriever, k: int, mode: str) -> None:
    with pytest.raises(ConfigError, match=f"k is {k}; expected 1 to 10,000"):
        retriever.search("heart", k, mode=mode)


def test_k_beyond_the_index_gives_all_there_is(retriever: Retriever) -> None:
    assert len(retriever.search("heart", MAX_K, mode="dense")) == len(retriever) == 63
    assert len(retriever.search("heart", MAX_K, mode="hybrid")) == 63


def test_unknown_modes_and_fusions_name_the_known_ones(retriever: Retriever) -> None:
    with pytest.raises(ConfigError, match="unknown mode 'semantic'; known: hybrid, dense, lexical"):
        retriever.search("heart", mode="semantic")
    with pytest.raises(ConfigError, match="unknown fusion 'sum'; known: bounded, min-max, rrf"):
        retriever.search("heart", fusion="sum")


# --- runs ---


@pytest.mark.parametrize(("mode", "fusion"), WAYS)
def test_a_run_has_the_order_of_the_search_in_strictly_decreasing_float32(
    retriever: Retriever, mode: str, fusion: str | None
) -> None:
    asked = {f"q{number}": text for number, text in enumerate(queries(70, seed=2))} | {"blank": " "}
    run = retriever.run(asked, 30, mode=mode, fusion=fusion)
    assert list(run) == list(asked)
    assert run["blank"] == {}
    for id_, text in asked.items():
        hits = retriever.search(text, 30, mode=mode, fusion=fusion)
        assert list(run[id_]) == [hit.id for hit in hits]
        scores = list(run[id_].values())
        assert all(one > other for one, other in itertools.pairwise(scores))
        assert all(float(np.float32(score)) == score for score in scores)
        np.testing.assert_allclose(scores, [hit.score for hit in hits], rtol=1e-4, atol=1e-6)


def test_a_run_takes_queries_with_ids_from_anywhere(retriever: Retriever) -> None:
    asked = [Query("a", "heart"), Query("b", "stroke")]
    assert retriever.run(iter(asked), 5) == retriever.run({"a": "heart", "b": "stroke"}, 5)
    assert retriever.run({}, 5) == {}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.floats(-(2.0**100), 2.0**100, width=32) | st.sampled_from([0.0, -0.0, 1.0, 1e-45]), max_size=30
    )
)
def test_scores_are_made_strictly_decreasing_without_changing_their_order(scores: list[float]) -> None:
    ordered = dict(enumerate(sorted(scores, reverse=True)))
    changed = strictly_decreasing(ordered)  # type: ignore[arg-type]
    values = list(changed.values())
    assert list(changed) == list(ordered)
    assert all(one > other for one, other in itertools.pairwise(values))
    assert all(float(np.float32(value)) == value for value in values)


# --- many threads ---


def test_eight_threads_get_what_one_gets(retriever: Retriever) -> None:
    asked = queries(12, seed=4)
    filters = [None, "year>=2010", {"journal": "BMJ"}]
    work = list(itertools.product(asked, filters, ["lexical", "dense", "hybrid"]))
    expected = [keys(retriever.search(text, 5, filter=where, mode=mode)) for text, where, mode in work]
    troubles: list[object] = []
    barrier = threading.Barrier(8)

    def search(number: int) -> None:
        barrier.wait()
        try:
            for turn in range(len(work)):
                place = (turn * 5 + number * 13) % len(work)
                text, where, mode = work[place]
                if keys(retriever.search(text, 5, filter=where, mode=mode)) != expected[place]:
                    troubles.append(work[place])
        except BaseException as error:
            troubles.append(error)

    threads = [threading.Thread(target=search, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == []


# --- documents in memory ---


def test_documents_may_come_from_a_generator(encoder: Encoder) -> None:
    with Retriever.from_documents((text for text in documents(5)), encoder=encoder) as opened:
        assert len(opened) == 5


def test_the_temporary_folder_goes_with_the_retriever(encoder: Encoder) -> None:
    opened = Retriever.from_documents(documents(2), encoder=encoder)
    folder = opened.reader.path
    assert folder.is_dir()
    opened.close()
    opened.close()
    assert not folder.exists()


def test_a_folder_that_was_asked_for_stays(tmp_path: Path, encoder: Encoder) -> None:
    Retriever.from_documents(documents(2), encoder=encoder, path=tmp_path / "kept").close()
    with Retriever.from_pretrained(tmp_path / "kept") as opened:
        assert len(opened) == 2
    with pytest.raises(ConfigError, match="holds an index already"):
        Retriever.from_documents(documents(2), encoder=encoder, path=tmp_path / "kept")


def test_words_alone_need_no_encoder() -> None:
    with Retriever.from_documents(documents(5), encoder="none") as opened:
        assert opened.encoder is None
        assert opened.search("heart")[0].signals.keys() == {"lexical"}


def test_nothing_to_index_is_an_error(encoder: Encoder) -> None:
    for texts in ([], [Document("a b", "x")], [Document("a", " ")]):
        with pytest.raises(CorpusError, match="nothing to index in the source"):
            Retriever.from_documents(texts, encoder=encoder)


def test_of_two_documents_with_one_id_the_later_counts(encoder: Encoder) -> None:
    with Retriever.from_documents(
        [Document("a", "fever"), Document("a", "cough")], encoder=encoder
    ) as opened:
        assert len(opened) == 1
        assert opened.search("fever", mode="lexical") == []
        assert [hit.passage for hit in opened.search("fever", mode="dense")] == ["cough"]


def test_queries_are_encoded_as_queries_and_in_one_call(encoder: Encoder) -> None:
    calls: list[list[str]] = []

    class Listening(Wrapper):
        def encode_query(self, texts: Any) -> Any:
            calls.append(list(texts))
            return super().encode_query(texts)

    with Retriever.from_documents(documents(3), encoder=Listening(encoder)) as opened:
        opened.search("heart")
        calls.clear()
        opened.search(["heart", " ", "stroke"], mode="dense")
        assert calls == [["heart", "stroke"]]
        opened.search("heart", mode="lexical")
        assert len(calls) == 1


def test_equal_scores_come_by_id_however_many_are_asked_for() -> None:
    many = Document("m", "", entries=("aspirin",) * 10)
    others = [Document(f"z{59 - number:02d}", "aspirin and other words") for number in range(60)]
    with Retriever.from_documents([many, *others], encoder="none") as retriever:
        every = [hit.id for hit in retriever.search("aspirin", 61)]
        assert every == ["m", *sorted(other.id for other in others)]
        for k in (1, 2, 10, 20, 40):
            assert [hit.id for hit in retriever.search("aspirin", k)] == every[:k]


def test_what_a_prompt_shows_of_hits_and_retrievers_is_a_line_each() -> None:
    note = Document("n1", "fever and cough " * 500, "A note")
    with Retriever.from_documents([note], encoder="none") as retriever:
        (hit,) = retriever.search("cough")
        assert repr(retriever) == "Retriever('memory', documents=1, rows=9, encoder=None)"
        assert repr(hit).startswith(
            f"Hit(rank=1, score={hit.score:.4f}, id='n1', title='A note', passage='fever"
        )
        assert len(repr(hit)) < 200
        assert repr(hit.document) == "Document(id='n1', title='A note', text=<8,000 characters>)"


def test_what_is_left_out_of_documents_in_memory_is_named_in_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    odd = Document("b", "hello there", metadata={"m": object()})
    twice = [Document("a", "hello world"), Document("a", "hello again")]
    with Retriever.from_documents([*twice, odd, Document("c", "")], encoder="none") as retriever:
        assert len(retriever) == 1
    told = " ".join(record.getMessage() for record in caplog.records)
    assert "'b': metadata holds a object" in told
    assert "more than once" in told and "without title and text" in told


@pytest.mark.parametrize(
    ("documents", "reason"),
    [
        ([{"id": "1"}], r"documents\[0\] is a dict; expected a Document"),
        (["text"], r"documents\[0\] is a str; expected a Document"),
        ([Document("1", "x"), Document(2, "x")], r"documents\[1\].id is a int; expected a text"),  # type: ignore[arg-type]
        ([Document("1", None)], r"documents\[0\].text is a NoneType; expected a text"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_document_of_texts_is_refused_by_its_number(documents: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Retriever.from_documents(documents, encoder="none")


def test_k_that_is_no_number_is_refused() -> None:
    with Retriever.from_documents([Document("1", "fever")], encoder="none") as retriever:
        assert len(retriever.search("fever", np.int64(1))) == 1  # type: ignore[arg-type]
        for k in (1.5, "3", True, None):
            with pytest.raises(ConfigError, match="expected a whole number"):
                retriever.search("fever", k)  # type: ignore[call-overload]


def test_columns_are_guessed_of_dates_and_numpy_values_too() -> None:
    import datetime

    day = datetime.date(2026, 1, 31)
    document = Document("1", "fever", metadata={"n": np.int64(3), "day": day, "sure": np.bool_(True)})
    with Retriever.from_documents([document], encoder="none") as retriever:
        assert dict(retriever.manifest.columns) == {"n": "integer", "day": "date", "sure": "boolean"}
        assert retriever.search("fever", filter={"n": {"ge": 3}, "day": {"ge": "2026-01-01"}, "sure": "yes"})
