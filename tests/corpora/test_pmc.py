"""The three layouts of PMC, and reading on from the middle of each."""

from __future__ import annotations

import gzip
import hashlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from articles import article

from cmbert_retrieval.corpora import open_corpus
from cmbert_retrieval.corpora.base import Corpus
from cmbert_retrieval.corpora.pmc import PmcCorpus
from cmbert_retrieval.errors import ConfigError, CorpusError

PMC = Path(__file__).parents[1] / "fixtures" / "pmc"


def ids(corpus: Corpus) -> list[str]:
    return [document.id for document in corpus.strictly()]


def assert_resumes_after_every_record(corpus: Corpus) -> None:
    records = list(corpus.records())
    assert records
    for index, record in enumerate(records):
        assert list(corpus.records(record.cursor)) == records[index + 1 :]


def test_the_cloud_layout_is_read_in_the_order_of_numbers_with_the_highest_version_of_each(
    tmp_path: Path,
) -> None:
    shutil.copytree(PMC, tmp_path / "pmc")
    (tmp_path / "pmc" / "PMC1000000.1").mkdir()
    (tmp_path / "pmc" / "PMC1000000.1" / "PMC1000000.1.xml").write_bytes(article(1000000))
    corpus = PmcCorpus(tmp_path / "pmc")
    assert ids(corpus) == ["PMC900001", "PMC900002", "PMC900003", "PMC1000000"]
    second = list(corpus)[1]
    assert (second.title, second.text, second.metadata["version"]) == ("New letter", "The tenth version.", 10)


def test_metadata_files_tell_licence_retraction_and_ids() -> None:
    by_id = {document.id: document.metadata for document in PmcCorpus(PMC)}
    assert [by_id[f"PMC90000{n}"]["license"] for n in (1, 2, 3)] == ["CC BY", "CC0", "CC BY-NC"]
    assert [by_id[f"PMC90000{n}"]["is_retracted"] for n in (1, 2, 3)] == [False, False, True]
    assert by_id["PMC900002"]["pmid"] == "90000002"
    assert by_id["PMC900003"]["doi"] == "10.5555/invented.900003"
    assert "pmid" not in by_id["PMC900003"]


def test_articles_without_metadata_files_are_read_and_counted_in_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(PMC, tmp_path / "pmc")
    (tmp_path / "pmc" / "metadata" / "PMC900001.1.json").unlink()
    (tmp_path / "pmc" / "metadata" / "PMC900003.1.json").write_text("{")
    with caplog.at_level(logging.WARNING, logger="cmbert_retrieval"):
        assert len(ids(PmcCorpus(tmp_path / "pmc"))) == 3
    assert [record.getMessage() for record in caplog.records if "2 articles" in record.getMessage()]
    assert len(caplog.records) == 1


def test_the_metadata_folder_may_lie_elsewhere(tmp_path: Path) -> None:
    shutil.copytree(PMC, tmp_path / "pmc")
    (tmp_path / "pmc" / "metadata").rename(tmp_path / "elsewhere")
    found = {document.id: document.metadata["is_retracted"] for document in PmcCorpus(tmp_path / "pmc")}
    assert not found["PMC900003"]
    found = {
        document.id: document.metadata["is_retracted"]
        for document in PmcCorpus(tmp_path / "pmc", metadata=tmp_path / "elsewhere")
    }
    assert found["PMC900003"]


def test_a_versioned_folder_without_xml_is_a_problem_and_reading_goes_on(tmp_path: Path) -> None:
    shutil.copytree(PMC, tmp_path / "pmc")
    (tmp_path / "pmc" / "PMC900002.10" / "PMC900002.10.xml").unlink()
    records = list(PmcCorpus(tmp_path / "pmc").records())
    assert [record.document is None for record in records] == [False, True, False]
    assert records[1].id == "PMC900002"
    assert str(records[1].problem).startswith("PMC900002.10/PMC900002.10.xml: cannot be opened (No such file")


def test_an_archive_is_read_with_licences_and_retractions_of_its_file_list(
    make_archive: Callable[..., Path],
) -> None:
    path = make_archive(
        [("PMC000xxxxxx/PMC11.xml", article(11)), ("PMC000xxxxxx/PMC12.xml", article(12))],
        filelist="PMC000xxxxxx/PMC11.xml,A. 2001,PMC11,2024-01-01 00:00:00,555,CC BY-NC,no\n"
        "PMC000xxxxxx/PMC12.xml,A. 2002,PMC12,2024-01-01 00:00:00,,CC0,yes\n",
    )
    first, second = PmcCorpus(path)
    assert (first.id, first.metadata["license"], first.metadata["pmid"]) == ("PMC11", "CC BY-NC", "555")
    assert first.metadata["source"] == f"{path.name}:PMC000xxxxxx/PMC11.xml"
    assert not first.metadata["is_retracted"]
    assert second.metadata["is_retracted"]
    assert "pmid" not in second.metadata
    source, listed = PmcCorpus(path).sources()
    assert source.licenses == {"CC BY-NC": 1, "CC0": 1}
    assert source.checksum == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    file_list = Path(listed.path)
    assert listed.checksum == "sha256:" + hashlib.sha256(file_list.read_bytes()).hexdigest()
    file_list.write_text(file_list.read_text().replace("CC BY-NC", "CC BY"))
    assert PmcCorpus(path).sources()[0].checksum == source.checksum
    assert PmcCorpus(path).sources()[1].checksum != listed.checksum
    assert PmcCorpus(path.parent).sources()[1].checksum != listed.checksum


def test_an_article_in_two_archives_comes_twice_with_the_increment_last(
    make_archive: Callable[..., Path], tmp_path: Path
) -> None:
    make_archive([("a/PMC11.xml", article(11, title="Newer"))], name="oa_comm_xml.incr.2024-07-01.tar.gz")
    make_archive([("a/PMC11.xml", article(11, title="Older"))])
    assert [document.title for document in PmcCorpus(tmp_path)] == ["Older", "Newer"]
    assert len(PmcCorpus(tmp_path).sources()) == 2


def test_a_folder_may_hold_archives_versioned_folders_and_loose_files_at_once(
    make_archive: Callable[..., Path], tmp_path: Path
) -> None:
    make_archive(
        [("a/PMC11.xml", article(11)), ("a/notes.txt", b"not an article"), ("a/PMC12.nxml", article(12))]
    )
    shutil.copytree(PMC, tmp_path, dirs_exist_ok=True)
    (tmp_path / "b" / "deep").mkdir(parents=True)
    (tmp_path / "b" / "deep" / "PMC13.nxml").write_bytes(article(13))
    (tmp_path / "a.xml.gz").write_bytes(gzip.compress(article(14)))
    corpus = PmcCorpus(tmp_path)
    assert ids(corpus) == ["PMC11", "PMC12", "PMC900001", "PMC900002", "PMC900003", "PMC14", "PMC13"]
    assert ids(corpus) == ids(corpus)
    assert_resumes_after_every_record(corpus)


def test_reading_goes_on_behind_every_record_of_every_layout(
    make_archive: Callable[..., Path], tmp_path: Path
) -> None:
    archive = make_archive([(f"a/PMC{n}.xml", article(n) if n % 3 else b"<broken") for n in range(11, 20)])
    loose = tmp_path / "loose"
    loose.mkdir()
    for name in ("b.xml", "a.xml", "c.nxml"):
        (loose / name).write_bytes(article(7))
    for path in (archive, PMC, loose, loose / "a.xml"):
        assert_resumes_after_every_record(PmcCorpus(path))


def test_names_of_archives_and_folders_that_look_like_versions_hide_nothing_from_a_resumed_reader(
    make_archive: Callable[..., Path], tmp_path: Path
) -> None:
    make_archive([("a/PMC11.xml", article(11))], name="PMC950000.1.tar.gz")
    shutil.copytree(PMC, tmp_path, dirs_exist_ok=True)
    (tmp_path / "PMC950000.12345").mkdir()  # no version that PMC gives: loose files
    (tmp_path / "PMC950000.12345" / "PMC950000.12345.xml").write_bytes(article(13))
    (tmp_path / "a.xml").write_bytes(article(14))
    corpus = PmcCorpus(tmp_path)
    assert len(ids(corpus)) == 6
    assert_resumes_after_every_record(corpus)


def test_resuming_in_an_archive_parses_nothing_again(
    make_archive: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = PmcCorpus(make_archive([(f"a/PMC{n}.xml", article(n)) for n in range(11, 21)]))
    cursor = list(corpus.records())[7].cursor
    parsed = []
    from cmbert_retrieval.corpora import pmc

    original = pmc.parse_article
    monkeypatch.setattr(pmc, "parse_article", lambda data: (parsed.append(1), original(data))[1])
    assert len(list(corpus.records(cursor))) == 2
    assert len(parsed) == 2


@pytest.mark.parametrize(
    ("ids_xml", "name", "expected"),
    [
        ('<article-id pub-id-type="pmc">PMC7</article-id>', "x.xml", "PMC7"),
        ('<article-id pub-id-type="pmcid">PMC7.2</article-id>', "x.xml", "PMC7"),
        ('<article-id pub-id-type="pmid">5</article-id>', "x.xml", "pmid:5"),
        ('<article-id pub-id-type="doi">10.1/x y</article-id>', "x.xml", "doi:10.1/xy"),
        ("", "my article.nxml", "my_article"),
        ("", "PMC99.3.xml", "PMC99"),
        ("", "b.nxml.gz", "b"),
    ],
)  # fmt: skip
def test_the_id_is_the_pmcid_else_pmid_else_doi_else_the_name(
    ids_xml: str, name: str, expected: str, tmp_path: Path
) -> None:
    xml = f"<article><front><article-meta>{ids_xml}</article-meta></front><body/></article>".encode()
    (tmp_path / name).write_bytes(gzip.compress(xml) if name.endswith(".gz") else xml)
    assert ids(PmcCorpus(tmp_path / name)) == [expected]


def test_retracted_articles_and_other_licences_are_left_out_when_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert ids(PmcCorpus(PMC, include_retracted=False)) == ["PMC900001", "PMC900002"]
    with caplog.at_level(logging.INFO, logger="cmbert_retrieval"):
        assert ids(PmcCorpus(PMC, licenses=["CC-BY", "CC0"])) == ["PMC900001", "PMC900002"]
    assert "1 with the licence CC BY-NC" in caplog.text
    assert ids(PmcCorpus(PMC, licenses="CC0")) == ["PMC900002"]
    with pytest.raises(ConfigError, match="'Beerware' is not known"):
        PmcCorpus(PMC, licenses="CC0, Beerware")


def test_the_checksum_of_a_folder_changes_with_names_and_sizes_only(tmp_path: Path) -> None:
    shutil.copytree(PMC, tmp_path / "pmc")
    before = PmcCorpus(tmp_path / "pmc").sources()[0]
    assert before.checksum.startswith("listing-sha256:")
    assert PmcCorpus(tmp_path / "pmc").sources()[0] == before
    (tmp_path / "pmc" / "PMC900003.1" / "PMC900003.1.xml").write_bytes(article(900003))
    assert PmcCorpus(tmp_path / "pmc").sources()[0].checksum != before.checksum


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_checksums_of_a_folder_change_with_its_metadata_files(tmp_path: Path, elsewhere: bool) -> None:
    shutil.copytree(PMC, tmp_path / "pmc")
    folder = tmp_path / "pmc" / "metadata"
    if elsewhere:
        folder = folder.rename(tmp_path / "elsewhere")

    def checksums() -> list[str]:
        corpus = PmcCorpus(tmp_path / "pmc", metadata=folder if elsewhere else None)
        return [source.checksum for source in corpus.sources()]

    before = checksums()
    assert checksums() == before
    path = folder / "PMC900001.1.json"
    path.write_text(path.read_text().replace("CC BY", "CC BY-ND"))
    changed = checksums()
    assert changed != before
    path.unlink()
    assert checksums() not in (before, changed)


def test_the_checksum_of_a_folder_changes_with_a_gzipped_version(tmp_path: Path) -> None:
    path = tmp_path / "PMC1.1" / "PMC1.1.xml.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(article(1)))
    before = PmcCorpus(tmp_path).sources()
    path.write_bytes(gzip.compress(article(1, text="Rather more words than there were.")))
    assert PmcCorpus(tmp_path).sources() != before


@pytest.mark.parametrize("kind", ["folder", "archive", "text files"])
def test_a_corpus_without_articles_is_an_error(
    kind: str, tmp_path: Path, make_archive: Callable[..., Path]
) -> None:
    path = tmp_path
    if kind == "archive":
        path = make_archive([("readme.txt", b"nothing")])
    elif kind == "text files":
        (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(CorpusError, match="no article found; expected"):
        list(PmcCorpus(path).records())


def test_a_single_file_is_a_corpus_with_its_own_checksum() -> None:
    path = PMC / "PMC900001.1" / "PMC900001.1.xml"
    corpus = open_corpus("pmc", path)
    assert ids(corpus) == ["PMC900001"]
    assert corpus.sources()[0].checksum == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_declared_columns_have_values_of_their_types() -> None:
    types = {"integer": int, "text": (str, list), "boolean": bool}
    for document in PmcCorpus(PMC):
        for column, kind in PmcCorpus.columns.items():
            if column in document.metadata:
                assert isinstance(document.metadata[column], types[kind]), column


@pytest.mark.parametrize("asked", ["", "pmc/PMC900003.1", "pmc/PMC900003.1/PMC900003.1.xml"])
def test_one_article_of_the_cloud_layout_or_a_folder_above_it_is_read_with_its_metadata(
    tmp_path: Path, asked: str
) -> None:
    shutil.copytree(PMC, tmp_path / "pmc")
    documents = {document.id: document for document in PmcCorpus(tmp_path / asked)}
    assert len(documents) == (1 if asked else 3)
    assert documents["PMC900003"].metadata["is_retracted"] is True
    if not asked:
        assert documents["PMC900002"].metadata["version"] == 10  # and not the others, which lie beside it
    assert_resumes_after_every_record(PmcCorpus(tmp_path / asked))
