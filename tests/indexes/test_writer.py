"""Building, adding, deleting and optimizing: whatever the way, the same index as a fresh build."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from samples import SMALL, Wrapper, add, build, delete, document, documents, optimize, queries, recipe

from cmbert_retrieval.corpora.memory import MemoryCorpus
from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.errors import ConfigError, CorpusError, IndexCorruptError, IndexLockedError
from cmbert_retrieval.indexes.merge import MAX_SEGMENTS
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.verify import verify
from cmbert_retrieval.indexes.writer import IndexWriter
from cmbert_retrieval.retriever import Retriever
from cmbert_retrieval.types import Document, Section

Answer = list[tuple[str, float, str]]


def answers(folder: Path, encoder: Encoder | None, texts: list[str], k: int = 10) -> dict[str, list[Answer]]:
    """Return the top of every mode and fusion, as ids, scores and passages."""
    found: dict[str, list[Answer]] = {}
    with Retriever(IndexReader(folder), encoder) as retriever:
        ways = [("lexical", "rrf")]
        if encoder is not None:
            ways += [("dense", "rrf"), ("hybrid", "rrf"), ("hybrid", "min-max"), ("hybrid", "bounded")]
        for mode, fusion in ways:
            for where in (None, "year>=2010"):
                hits = retriever.search(texts, k, mode=mode, fusion=fusion, filter=where)
                found[f"{mode} {fusion} {where}"] = [
                    [(hit.id, hit.score, hit.passage) for hit in answer] for answer in hits
                ]
    return found


def contents(folder: Path) -> dict[str, Document]:
    with IndexReader(folder) as reader:
        found = list(reader.documents())
        assert len({text.id for text in found}) == len(found) == reader.manifest.documents
        return {text.id: text for text in found}


def assert_sound(folder: Path, encoder: Encoder | None = None) -> None:
    result = verify(folder, encoder=encoder)
    assert result.problems == []
    assert result.leftovers == []


@pytest.mark.parametrize("seed", range(3))
def test_any_history_ends_after_optimize_as_a_fresh_build_of_what_is_left(
    tmp_path: Path, encoder: Encoder, seed: int
) -> None:
    chance = random.Random(seed)
    alive = {text.id: text for text in documents(12, seed=seed)}
    build(tmp_path / "grown", alive.values(), encoder, *SMALL)
    for step in range(1, 7):
        match chance.choice(["add", "revise", "delete", "optimize"]):
            case "add":
                new = documents(chance.randint(1, 6), seed=seed, first=100 * step)
                add(tmp_path / "grown", new, encoder)
                alive.update({text.id: text for text in new})
            case "revise":
                chosen = chance.sample(sorted(alive), min(4, len(alive)))
                new = [document(int(id_.removeprefix("note-")), seed=1000 * step + seed) for id_ in chosen]
                add(tmp_path / "grown", new, encoder)
                alive.update({text.id: text for text in new})
            case "delete":
                for id_ in (gone := chance.sample(sorted(alive), min(3, len(alive) - 1))):
                    del alive[id_]
                delete(tmp_path / "grown", gone)
            case "optimize":
                optimize(tmp_path / "grown")
        assert contents(tmp_path / "grown") == alive
        assert_sound(tmp_path / "grown")
    optimize(tmp_path / "grown")
    order = list(contents(tmp_path / "grown"))
    build(tmp_path / "fresh", [alive[id_] for id_ in order], encoder, *SMALL)
    assert_sound(tmp_path / "grown", encoder)
    asked = queries(6, seed=seed)
    grown, fresh = (answers(tmp_path / name, encoder, asked) for name in ("grown", "fresh"))
    for way, found in grown.items():
        for one, other in zip(found, fresh[way], strict=True):
            assert [hit[::2] for hit in one] == [hit[::2] for hit in other], way
            np.testing.assert_allclose([hit[1] for hit in one], [hit[1] for hit in other], atol=2e-4)
        if way.startswith("lexical"):
            assert found == fresh[way]


def test_an_update_leaves_nothing_of_the_longer_revision_before(tmp_path: Path, encoder: Encoder) -> None:
    long, short = document(3, sentences=12), document(3, seed=5, sentences=1)
    build(tmp_path / "i", [*documents(3), long], encoder, *SMALL)
    with IndexReader(tmp_path / "i") as reader:
        before = reader.manifest.rows
    report = add(tmp_path / "i", [short], encoder)
    assert (report.documents, report.replaced, report.unchanged) == (1, 1, 0)
    assert contents(tmp_path / "i")["note-3"] == short
    with IndexReader(tmp_path / "i") as reader:
        assert reader.manifest.rows < before
        rows = reader.words.rows()
        assert set(reader.parents(rows).values()) == {f"note-{number}" for number in range(4)}
        assert all(reader.row(row)[1] != long for row in rows.tolist())
    assert_sound(tmp_path / "i", encoder)


def test_what_did_not_change_is_not_encoded_again(tmp_path: Path, encoder: Encoder) -> None:
    counting = Wrapper(encoder)
    texts = documents(10)
    build(tmp_path / "i", texts, counting, *SMALL)
    counting.texts.clear()
    report = add(tmp_path / "i", [*texts, document(50)], counting)
    assert (report.unchanged, report.documents, report.replaced) == (10, 1, 0)
    # Opening for an addition encodes the probes once, and nothing else beside the new document's rows.
    assert (
        sum(text.startswith(document(50).title) for text in counting.texts) == report.rows == report.encoded
    )
    assert not any(text.startswith(old.title) for text in counting.texts for old in texts)


def test_an_addition_that_changes_nothing_makes_no_commit(tmp_path: Path, encoder: Encoder) -> None:
    first = build(tmp_path / "i", documents(5), encoder)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "i").rglob("*") if path.is_file()}
    again = add(tmp_path / "i", documents(5), encoder)
    assert (again.commit, again.unchanged) == (first.commit, 5)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "i").rglob("*") if path.is_file()}
    assert {path.name for path in after} == {path.name for path in before}
    assert after[tmp_path / "i" / "manifest.json"] == before[tmp_path / "i" / "manifest.json"]


def test_a_change_of_metadata_alone_keeps_the_vectors(tmp_path: Path, encoder: Encoder) -> None:
    text = document(1, sentences=6)
    build(tmp_path / "i", [text], encoder, *SMALL)
    with IndexReader(tmp_path / "i") as reader:
        rows = reader.words.rows()
        before = reader.vectors(rows)
    counting = Wrapper(encoder)
    changed = Document(text.id, text.text, text.title, {**text.metadata, "year": 1900})
    report = add(tmp_path / "i", [changed], counting)
    assert (report.encoded, report.reused, report.replaced) == (0, report.rows, 1)
    assert not any(text.title in seen for seen in counting.texts)
    with IndexReader(tmp_path / "i") as reader:
        np.testing.assert_array_equal(reader.vectors(reader.words.rows()), before)
    with Retriever.from_pretrained(tmp_path / "i") as retriever:
        assert [hit.id for hit in retriever.search(text.title, filter="year=1900")] == [text.id]
        assert retriever.search(text.title, filter="year>1900") == []


def test_a_sentence_more_keeps_the_vectors_of_the_rows_before_it(tmp_path: Path, encoder: Encoder) -> None:
    text = document(1, sentences=12)
    build(tmp_path / "i", [text], encoder, *SMALL)
    longer = Document(text.id, f"{text.text} {document(2, sentences=3).text}", text.title, text.metadata)
    report = add(tmp_path / "i", [longer], encoder)
    assert report.reused > 0 and report.encoded > 0
    assert report.reused + report.encoded == report.rows
    assert_sound(tmp_path / "i", encoder)


@pytest.mark.parametrize("distance", [1, 12])
def test_of_several_documents_with_one_id_the_last_counts(
    tmp_path: Path, encoder: Encoder, distance: int
) -> None:
    others = documents(distance, first=10)
    texts = [
        document(1),
        *others,
        document(1, seed=1, sentences=9),
        *documents(3, first=90),
        document(1, seed=2),
    ]
    report = build(tmp_path / "i", texts, encoder, *SMALL)
    assert (report.duplicates, report.documents) == (2, distance + 4)
    assert report.examples["duplicates"] == ["note-1", "note-1"]
    assert contents(tmp_path / "i")["note-1"] == document(1, seed=2)
    assert_sound(tmp_path / "i", encoder)
    again = add(tmp_path / "i", [document(1), document(1, seed=1), document(1, seed=2)], encoder)
    assert contents(tmp_path / "i")["note-1"] == document(1, seed=2)
    assert again.duplicates == 2 and again.replaced == 1
    assert_sound(tmp_path / "i", encoder)


def test_row_numbers_are_never_used_again(tmp_path: Path, encoder: Encoder) -> None:
    build(tmp_path / "i", documents(4), encoder, *SMALL)
    seen: dict[int, str] = {}
    for step in range(1, 4):
        with IndexReader(tmp_path / "i") as reader:
            for row in reader.words.rows().tolist():
                stored, parent = reader.row(row)
                known = seen.setdefault(row, f"{parent.id} {stored.text}")
                assert known == f"{parent.id} {stored.text}"
            next_row = reader.manifest.next_row
            ids = sorted(set(reader.parents(reader.words.rows()).values()))
        delete(tmp_path / "i", ids[:2])
        optimize(tmp_path / "i")
        add(tmp_path / "i", documents(3, first=step * 10), encoder)
        with IndexReader(tmp_path / "i") as reader:
            assert reader.manifest.segments[-1].first_row == next_row
            assert reader.manifest.next_row > next_row


def test_many_additions_merge_and_every_row_keeps_its_own_vector(tmp_path: Path, encoder: Encoder) -> None:
    build(tmp_path / "i", documents(6), encoder, *SMALL)
    for step in range(1, 11):
        add(tmp_path / "i", documents(2, first=10 * step), encoder)
        if step % 4 == 0:
            delete(tmp_path / "i", [f"note-{10 * step}"])
        with IndexReader(tmp_path / "i") as reader:
            assert len(reader.segments) <= MAX_SEGMENTS
            rows = reader.words.rows()
            texts = [reader.row(row)[0].text for row in rows.tolist()]
            stored = reader.vectors(rows).astype(np.float32)
        np.testing.assert_allclose(stored, encoder.encode_document(texts), atol=2e-3)
    assert_sound(tmp_path / "i", encoder)


def test_an_index_can_be_emptied_and_filled_again(tmp_path: Path, encoder: Encoder) -> None:
    build(tmp_path / "i", documents(6), encoder, *SMALL)
    report = delete(tmp_path / "i", [f"note-{number}" for number in range(6)])
    assert report.deleted == 6
    asked = queries(3)
    for tidy in (False, True):
        if tidy:
            optimize(tmp_path / "i")
        assert contents(tmp_path / "i") == {}
        assert_sound(tmp_path / "i")
        assert all(answer == [] for way in answers(tmp_path / "i", encoder, asked).values() for answer in way)
        add(tmp_path / "i", documents(3), encoder)
        assert sorted(contents(tmp_path / "i")) == ["note-0", "note-1", "note-2"]
        assert any(answer for way in answers(tmp_path / "i", encoder, asked).values() for answer in way)
        assert_sound(tmp_path / "i", encoder)
        delete(tmp_path / "i", [f"note-{number}" for number in range(3)])


def test_emptied_segments_survive_merging(tmp_path: Path, encoder: Encoder) -> None:
    build(tmp_path / "i", documents(1), encoder, *SMALL)
    for number in range(1, 10):
        delete(tmp_path / "i", [f"note-{number - 1}"])
        add(tmp_path / "i", [document(number)], encoder)
        assert_sound(tmp_path / "i")
    assert list(contents(tmp_path / "i")) == ["note-9"]


def test_deleting_an_unknown_id_deletes_nothing_unless_that_is_fine(tmp_path: Path, encoder: Encoder) -> None:
    build(tmp_path / "i", documents(3), encoder)
    with pytest.raises(CorpusError, match=r"1 of 2 ids are not in the index \(first: 'nobody'\)"):
        delete(tmp_path / "i", ["note-1", "nobody"])
    assert len(contents(tmp_path / "i")) == 3
    with IndexWriter(tmp_path / "i") as writer:
        report = writer.delete(["note-1", "note-1", "nobody", "\udc80"], missing_ok=True)
    assert (report.deleted, report.skipped) == (1, 2)
    assert sorted(contents(tmp_path / "i")) == ["note-0", "note-2"]
    with pytest.raises(CorpusError, match="not in the index"):
        delete(tmp_path / "i", ["note-1"])


def test_words_alone_go_through_the_same_life(tmp_path: Path) -> None:
    build(tmp_path / "i", documents(8), None, "shard_rows=3")
    add(tmp_path / "i", [document(2, seed=9), document(20)], None)
    delete(tmp_path / "i", ["note-0"])
    optimize(tmp_path / "i")
    assert_sound(tmp_path / "i")
    expected = {text.id: text for text in [*documents(8)[1:], document(2, seed=9), document(20)]}
    assert contents(tmp_path / "i") == expected
    build(tmp_path / "fresh", contents(tmp_path / "i").values(), None, "shard_rows=3")
    asked = queries(5)
    assert answers(tmp_path / "i", None, asked) == answers(tmp_path / "fresh", None, asked)


@pytest.mark.parametrize("factory", ["HNSW32", "IVF1,Flat"])
def test_other_factories_live_the_same_life(tmp_path: Path, encoder: Encoder, factory: str) -> None:
    settings = (f"vectors.factory={factory}", "shard_rows=7")
    build(tmp_path / "i", documents(30), encoder, *settings)
    add(tmp_path / "i", documents(40, first=100), encoder)
    delete(tmp_path / "i", ["note-3", "note-101"])
    asked = queries(4)
    with Retriever(IndexReader(tmp_path / "i"), encoder) as retriever:
        for hits in retriever.search(asked, 500, mode="dense"):
            assert len(hits) == 68
    optimize(tmp_path / "i")
    assert_sound(tmp_path / "i", encoder)
    build(tmp_path / "flat", contents(tmp_path / "i").values(), encoder, "shard_rows=7")
    with (
        Retriever(IndexReader(tmp_path / "i"), encoder) as one,
        Retriever(IndexReader(tmp_path / "flat"), encoder) as other,
    ):
        for left, right in zip(
            one.search(asked, 500, mode="dense"), other.search(asked, 500, mode="dense"), strict=True
        ):
            assert [hit.id for hit in left] == [hit.id for hit in right]


# --- refusals ---


def test_building_over_an_index_or_into_other_files_is_refused(tmp_path: Path, encoder: Encoder) -> None:
    build(tmp_path / "i", documents(2), encoder)
    with pytest.raises(ConfigError, match="holds an index already"):
        build(tmp_path / "i", documents(3), encoder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="holds other files and no index"):
        build(tmp_path / "mine", documents(3), encoder)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        build(tmp_path / "file", documents(3), encoder)


def test_nothing_but_an_index_can_be_added_to(tmp_path: Path, encoder: Encoder) -> None:
    for action in (lambda: add(tmp_path / "i", documents(1), encoder), lambda: delete(tmp_path / "i", ["a"])):
        with pytest.raises(IndexCorruptError, match="no index in"):
            action()
    with pytest.raises(IndexCorruptError, match="no index in"):
        IndexReader(tmp_path / "nowhere")


def test_an_empty_corpus_is_an_error_that_says_so(tmp_path: Path, encoder: Encoder) -> None:
    with pytest.raises(CorpusError, match="nothing to index in the source: it is empty"):
        build(tmp_path / "i", [], encoder)
    assert not (tmp_path / "i" / "manifest.json").exists()
    build(tmp_path / "i", documents(1), encoder)
    assert add(tmp_path / "i", [], encoder).documents == 0


def test_one_writer_at_a_time(tmp_path: Path, encoder: Encoder) -> None:
    build(tmp_path / "i", documents(2), encoder)
    with IndexWriter(tmp_path / "i") as writer:
        with pytest.raises(IndexLockedError, match="another process is writing to this index"):
            IndexWriter(tmp_path / "i").__enter__()
        writer.delete(["note-1"])
    add(tmp_path / "i", documents(3), encoder)
    assert len(contents(tmp_path / "i")) == 3


def test_an_undeclared_analyser_or_column_type_is_refused_before_anything_is_written(
    tmp_path: Path, encoder: Encoder
) -> None:
    with (
        IndexWriter(tmp_path / "i") as writer,
        pytest.raises(ConfigError, match="unknown analyser 'klingon'"),
    ):
        writer.build(MemoryCorpus(documents(1)), recipe({}, "lexical.analyser=klingon"), encoder)
    with pytest.raises(ConfigError, match=r"cannot use the factory 'Flta'"):
        build(tmp_path / "j", documents(1), encoder, "vectors.factory=Flta")
    assert not (tmp_path / "j" / "manifest.json").exists()


def test_back_matter_is_indexed_without_the_title_that_it_does_not_speak_of(tmp_path: Path) -> None:
    text = "Shoes were compared. We thank the nurses."
    sections = (Section(0, 20, ("Methods",)), Section(21, len(text), ("Back matter",), "back"))
    build(tmp_path / "i", [Document("a", text, "Knee pain", sections=sections)], None)
    with IndexReader(tmp_path / "i") as reader:
        rows = [reader.row(row)[0].text for row in reader.words.rows().tolist()]
    assert rows == ["Knee pain Shoes were compared.", "We thank the nurses."]
