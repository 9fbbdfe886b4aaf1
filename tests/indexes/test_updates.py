"""Updates of PubMed: what an index holds afterwards is what a dict of the records would, whatever happens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pubmed_records import article, deletion, write
from samples import Wrapper
from test_duplicates import Interrupted, StopAtEveryShard

from cmbert_retrieval.config import IndexRecipe
from cmbert_retrieval.corpora.memory import MemoryCorpus
from cmbert_retrieval.corpora.pubmed import PubmedCorpus
from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.errors import CorpusError, IndexCorruptError, IndexMismatchError
from cmbert_retrieval.indexes.manifest import read_manifest
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.report import Report
from cmbert_retrieval.indexes.updates import Update, update_index
from cmbert_retrieval.indexes.verify import verify
from cmbert_retrieval.indexes.writer import IndexWriter
from cmbert_retrieval.types import Document

FIXTURES = Path(__file__).parents[1] / "fixtures" / "pubmed"


def build(root: Path, source: Path, encoder: Encoder | None = None, *settings: str) -> Report:
    chosen = [*settings] if encoder is not None else ["encoder=none", *settings]
    with IndexWriter(root) as writer:
        recipe = IndexRecipe.for_corpus("pubmed", source, overrides=chosen)
        return writer.build(PubmedCorpus(source), recipe, encoder)


def texts(root: Path) -> dict[str, str]:
    """Return id -> title and text of all live documents, and check that each is found by its id."""
    found: dict[str, str] = {}
    with IndexReader(root) as reader:
        for segment in reader.segments:
            rows = reader.live_rows(segment)
            for id_ in set(reader.parents(rows).values()):
                document = reader.get(id_)
                assert document is not None and id_ not in found
                found[id_] = f"{document.title} {document.text}"
        assert (reader.manifest.documents, len(found)) == (len(found), reader.manifest.documents)
    return found


def rows(root: Path) -> dict[int, tuple[str, str]]:
    """Return live row -> id and indexed text."""
    found: dict[int, tuple[str, str]] = {}
    with IndexReader(root) as reader:
        for segment in reader.segments:
            live = reader.live_rows(segment)
            parents, indexed = reader.parents(live), reader.texts(live)
            found |= {row: (parents[row], indexed[row]) for row in live.tolist()}
    return found


def applied(done: list[Update]) -> list[tuple[str, bool]]:
    return [(update.path.name, update.report is not None) for update in done]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A baseline of one file and three updates."""
    return [
        write(tmp_path / "pubmed26n0001.xml.gz", *(article(n, f"one {n}") for n in range(1, 6))),
        write(tmp_path / "pubmed26n0002.xml.gz", article(2, "two 2"), article(6, "two 6"), deletion(3)),
        write(tmp_path / "pubmed26n0003.xml.gz", deletion(6, 99), article(3, "three 3")),
        write(tmp_path / "pubmed26n0004.xml.gz", article(1, "one 1"), deletion(5)),
    ]


@pytest.fixture
def index(tmp_path: Path, files: list[Path]) -> Path:
    build(tmp_path / "index", files[0])
    return tmp_path / "index"


# --- what an update does ---


def test_an_update_adds_replaces_and_deletes(index: Path, files: list[Path]) -> None:
    (update,) = update_index(index, files[1:2], None)
    report = update.report
    assert report is not None
    assert (report.documents, report.replaced, report.deleted, report.commit) == (2, 1, 1, 2)
    assert texts(index) == {
        "1": "A title. one 1", "2": "A title. two 2", "4": "A title. one 4", "5": "A title. one 5",
        "6": "A title. two 6",
    }  # fmt: skip
    assert verify(index).problems == []


def test_files_are_applied_in_their_order_and_each_is_a_commit(index: Path, files: list[Path]) -> None:
    done = update_index(index, [files[3], files[1], files[2]], None)
    assert applied(done) == [(path.name, True) for path in files[1:]]
    assert [update.report.commit for update in done if update.report] == [2, 3, 4]
    assert [update.report.deleted for update in done if update.report] == [1, 1, 1]
    assert {id_: text[9:] for id_, text in texts(index).items()} == {
        "1": "one 1", "2": "two 2", "3": "three 3", "4": "one 4",
    }  # fmt: skip
    assert verify(index).problems == []


def test_a_file_that_was_applied_changes_nothing(index: Path, files: list[Path], tmp_path: Path) -> None:
    update_index(index, files[1:3], None)
    before = (index / "manifest.json").read_bytes()
    (tmp_path / "elsewhere").mkdir()
    copy = shutil.copy(files[1], tmp_path / "elsewhere")
    assert applied(update_index(index, [*files[:3], copy], None)) == [
        ("pubmed26n0001.xml.gz", False), ("pubmed26n0002.xml.gz", False), ("pubmed26n0002.xml.gz", False),
        ("pubmed26n0003.xml.gz", False),
    ]  # fmt: skip
    assert (index / "manifest.json").read_bytes() == before


def test_a_file_without_any_change_is_remembered(index: Path, files: list[Path], tmp_path: Path) -> None:
    same = write(tmp_path / "pubmed26n0002.xml", article(1, "one 1"), deletion(77))
    (update,) = update_index(index, [same], None)
    assert update.report is not None
    assert (update.report.unchanged, update.report.deleted, update.report.commit) == (1, 0, 2)
    assert applied(update_index(index, [same], None)) == [("pubmed26n0002.xml", False)]
    update_index(index, [files[2]], None)


def test_a_folder_of_updates_is_its_files(index: Path, files: list[Path]) -> None:
    done = update_index(index, [files[0].parent], None)
    assert applied(done) == [(path.name, path != files[0]) for path in files]


def test_unchanged_records_keep_rows_and_vectors_and_equal_texts_keep_vectors(
    tmp_path: Path, encoder: Encoder
) -> None:
    counting = Wrapper(encoder)
    first = write(tmp_path / "pubmed26n0001.xml", *(article(n, f"word {n}") for n in range(1, 6)))
    build(tmp_path / "i", first, counting)
    with IndexReader(tmp_path / "i") as reader:
        stored = {id_: sorted(reader.find(id_)[1]) for id_ in "12345"}  # type: ignore[index]
    counting.texts.clear()  # of the build, and the probes of the encoder
    revised = article(2, "word 2").replace(b"<Year>2020", b"<Year>2021")
    second = write(
        tmp_path / "pubmed26n0002.xml", article(1, "word 1"), revised, deletion(3), article(3, "word 3"),
        article(4, "other 4"),
    )  # fmt: skip
    (update,) = update_index(tmp_path / "i", [second], counting)
    assert update.report is not None
    assert [text for text in counting.texts if "title" in text] == ["A title. other 4"]
    assert (update.report.unchanged, update.report.reused, update.report.encoded) == (1, 2, 1)
    with IndexReader(tmp_path / "i") as reader:
        assert sorted(reader.find("1")[1]) == stored["1"]  # type: ignore[index]
        assert sorted(reader.find("5")[1]) == stored["5"]  # type: ignore[index]
    assert verify(tmp_path / "i", encoder=encoder).problems == []


def test_a_retraction_that_pubmed_takes_back_is_taken_back(tmp_path: Path) -> None:
    build(tmp_path / "i", FIXTURES / "pubmed26n0001.xml")
    (update,) = update_index(tmp_path / "i", [FIXTURES / "pubmed26n0002.xml"], None)
    assert update.report is not None
    assert (update.report.replaced, update.report.deleted, update.report.documents) == (1, 1, 2)
    with IndexReader(tmp_path / "i") as reader:
        document = reader.get("90000004")
        assert document is not None and document.metadata["is_retracted"] is False
        assert reader.get("90000002") is None


def test_of_several_versions_the_highest_counts_whatever_their_order(tmp_path: Path) -> None:
    path = write(
        tmp_path / "pubmed26n0001.xml",
        article(1, "new", version=2), article(1, "old", version=1), deletion(1, version=1),
        article(2, "old", version=1), article(2, "new", version=2),
        article(3, "only"), deletion(3, version=2),
    )  # fmt: skip
    for shard_rows in (1, 2, 2048):
        root = tmp_path / f"index-{shard_rows}"
        report = build(root, path, None, f"shard_rows={shard_rows}")
        assert texts(root) == {"1": "A title. new", "2": "A title. new"}
        assert (report.outdated, report.duplicates, report.deleted, report.documents) == (1, 1, 1, 3)
    later = write(tmp_path / "pubmed26n0002.xml", article(1, "old", version=1), deletion(2, version=1))
    update_index(root, [later], None)
    assert texts(root) == {"1": "A title. new", "2": "A title. new"}


def test_deletions_reach_an_index_that_documents_are_added_to(index: Path, files: list[Path]) -> None:
    only = write(files[0].with_name("gone.xml"), deletion(1, 2, 99))
    with IndexWriter(index) as writer:
        report = writer.add(PubmedCorpus(only), None)
    assert (report.deleted, report.documents, report.commit) == (2, 0, 2)
    assert sorted(texts(index)) == ["3", "4", "5"]


def test_a_source_of_deletions_alone_makes_no_index(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="nothing to index"):
        build(tmp_path / "i", write(tmp_path / "a.xml", deletion(1)))


# --- the order of files ---


def refused(index: Path, path: Path, words: str) -> None:
    before = (index / "manifest.json").read_bytes()
    with pytest.raises(IndexMismatchError, match=words) as caught:
        update_index(index, [path], None)
    assert "\n" not in str(caught.value) and "--force" in str(caught.value)
    assert (index / "manifest.json").read_bytes() == before
    done = update_index(index, [path], None, force=True)
    assert applied(done) == [(path.name, True)]
    assert applied(update_index(index, [path], None)) == [(path.name, False)]


def test_a_gap_is_refused_and_named(index: Path, files: list[Path]) -> None:
    refused(
        index,
        files[2],
        r"pubmed26n0003\.xml\.gz: pubmed26n0002 has not been applied \(the last was pubmed26n0001\)",
    )


def test_a_long_gap_is_named_by_its_ends(index: Path, tmp_path: Path) -> None:
    refused(
        index,
        write(tmp_path / "pubmed26n1500.xml", article(1)),
        "pubmed26n0002 to pubmed26n1499 have not been",
    )


def test_an_older_file_that_was_left_out_is_refused(index: Path, files: list[Path]) -> None:
    update_index(index, [files[2]], None, force=True)
    refused(index, files[1], "is older than pubmed26n0003, which was applied")


def test_another_file_of_a_number_that_was_applied_is_refused(index: Path, files: list[Path]) -> None:
    refused(index, write(files[0], article(1, "changed")), r"another content \(checksum\)")


def test_a_file_of_the_next_year_is_refused_and_one_of_the_year_before_too(
    index: Path, tmp_path: Path
) -> None:
    old = write(tmp_path / "pubmed25n9999.xml", article(1, "old"))
    refused(index, old, "is older than pubmed26n0001")
    refused(
        index,
        write(tmp_path / "pubmed27n0001.xml", article(1, "new")),
        "is of 2027, the index of 2026.*build a new",
    )


def test_a_file_without_a_number_is_refused(index: Path, tmp_path: Path) -> None:
    refused(index, write(tmp_path / "efetch.xml", article(1, "new")), "its name has no number")


def test_an_index_of_files_without_numbers_takes_no_numbered_one(tmp_path: Path, files: list[Path]) -> None:
    build(tmp_path / "i", write(tmp_path / "efetch.xml", article(1)))
    refused(tmp_path / "i", files[1], "the files that the index was built from have no numbers")


def test_one_file_that_is_refused_keeps_all_others_back(index: Path, files: list[Path]) -> None:
    with pytest.raises(IndexMismatchError, match="pubmed26n0003 has not been applied"):
        update_index(index, [files[1], files[3]], None)
    assert read_manifest(index).commit == 1


def test_files_before_a_damaged_one_stay_applied(index: Path, files: list[Path]) -> None:
    whole = files[2].read_bytes()
    files[2].write_bytes(whole[:-20])
    with pytest.raises(CorpusError, match=r"pubmed26n0003\.xml\.gz:\d+: truncated or damaged gzip data"):
        update_index(index, files[1:], None)
    assert read_manifest(index).commit == 2
    files[2].write_bytes(whole)
    assert applied(update_index(index, files[1:], None)) == [  # nothing was stored of it: no --restart
        ("pubmed26n0002.xml.gz", False), ("pubmed26n0003.xml.gz", True), ("pubmed26n0004.xml.gz", True),
    ]  # fmt: skip


def test_an_index_of_another_reader_is_refused(tmp_path: Path, files: list[Path]) -> None:
    with IndexWriter(tmp_path / "i") as writer:
        recipe = IndexRecipe.for_corpus("memory", overrides=["encoder=none"])
        writer.build(MemoryCorpus([Document("1", "text")]), recipe, None)
    with pytest.raises(IndexMismatchError, match=r"built by the reader 'memory'.*cmbert index add"):
        update_index(tmp_path / "i", files[:1], None)
    with pytest.raises(IndexCorruptError, match="no index in"):
        update_index(tmp_path / "nothing", files[:1], None)
    assert not (tmp_path / "nothing").exists()


# --- any sequence of changes, killed anywhere ---

CHANGE = st.one_of(
    st.tuples(st.just("record"), st.integers(1, 5), st.integers(0, 3)),
    st.tuples(st.just("delete"), st.integers(1, 6), st.just(0)),
)
FILES = st.lists(st.lists(CHANGE, min_size=0, max_size=8), min_size=1, max_size=4)


def words(pmid: int, revision: int) -> str:
    """Return a text of as many passages as its revision has sentences; some revisions differ by one only."""
    return " ".join(
        f"Sentence {place} of {pmid}{' changed' * (place == revision)}." for place in range(revision + 1)
    )


@settings(max_examples=8, deadline=None)
@given(files=FILES, shard_rows=st.integers(1, 5))
def test_any_sequence_of_updates_ends_as_a_dict_of_records_does_wherever_it_is_killed(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[tuple[str, int, int]]], shard_rows: int
) -> None:
    check_updates(tmp_path_factory.mktemp("updates"), files, shard_rows)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(files=FILES, shard_rows=st.integers(1, 5))
def test_more_sequences_of_updates_end_as_a_dict_of_records_does(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[tuple[str, int, int]]], shard_rows: int
) -> None:
    check_updates(tmp_path_factory.mktemp("updates"), files, shard_rows)


def check_updates(folder: Path, files: list[list[tuple[str, int, int]]], shard_rows: int) -> None:
    """Build and update whole, and killed at every shard; compare both with a dict and a fresh build."""
    base = [("record", pmid, 1) for pmid in range(1, 4)]
    paths, expected = [], {}
    for number, changes in enumerate([base, *files], start=1):
        parts = []
        for kind, pmid, revision in changes:
            if kind == "delete":
                parts.append(deletion(pmid))
                expected.pop(str(pmid), None)
            else:
                parts.append(article(pmid, words(pmid, revision)))
                expected[str(pmid)] = f"A title. {words(pmid, revision)}"
        paths.append(write(folder / f"pubmed26n{number:04d}.xml", *parts))
    small = ("passages.max_tokens=16", f"shard_rows={shard_rows}")
    reports: dict[str, list[dict[str, object]]] = {}
    for name, stopping in (("whole", False), ("broken", True)):
        root = folder / name
        build(root, paths[0], None, *small)
        done: list[dict[str, object]] = []
        for path in paths[1:]:
            stop = StopAtEveryShard()
            while True:
                try:
                    notify = {"notify": stop.one_run()} if stopping else {}
                    (update,) = update_index(root, [path], None, **notify)
                    break
                except Interrupted:
                    assert stopping
            if update.report is not None:
                done.append(update.report.to_json())
        reports[name] = done
        assert texts(root) == expected
        assert verify(root).problems == []
        assert {update.applied for update in update_index(root, paths, None)} == {True}
    assert json.dumps(reports["whole"]) == json.dumps(reports["broken"])
    assert rows(folder / "whole") == rows(folder / "broken")
    fresh = folder / "fresh"
    if expected:
        (folder / "all").mkdir()
        for path in paths:
            shutil.copy(path, folder / "all")
        build(fresh, folder / "all", None, *small)
        assert texts(fresh) == expected
