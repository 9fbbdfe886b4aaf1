"""Fetching single records of PubMed by their PMIDs: what is asked for, what arrives, and a second run."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from publishers import Fault, Handler, Publisher, other, serving, status
from pubmed_records import article, article_set, deletion

from cmbert_retrieval.corpora import open_corpus
from cmbert_retrieval.corpora.fetch import FetchReport
from cmbert_retrieval.corpora.fetch_address import FetchError
from cmbert_retrieval.corpora.fetch_efetch import ABSENT, EUTILS_URL, _key, fetch_pubmed_ids
from cmbert_retrieval.corpora.fetch_pubmed import fetch_pubmed
from cmbert_retrieval.corpora.pubmed_files import looks_like_pubmed
from cmbert_retrieval.errors import CmbertError, ConfigError, CorpusError

EMPTY = b"<eFetchResult><ERROR>ID list is empty! Possibly it has no correct IDs.</ERROR></eFetchResult>"
BUSY = b"<eFetchResult><ERROR>Failed to connect to PubOne service</ERROR></eFetchResult>"


@pytest.fixture
def ncbi(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """Records with the PMIDs 1 to 999, and a key, which lets the tests ask more often."""
    monkeypatch.setenv("NCBI_API_KEY", "0123456789abcdef")
    records = {pmid: article(pmid, f"Words of {pmid}.") for pmid in range(1, 1000)}
    with serving(Publisher(records=records)) as publisher:
        yield publisher


def fetch(ncbi: Publisher, to: Path, *ids: object, **options: Any) -> FetchReport:
    ncbi.requests.clear()
    file = to.parent / "ids.txt"
    file.write_text("".join(f"{line}\n" for line in ids))
    return fetch_pubmed_ids(to, file, base_url=ncbi.url, **{"wait_s": 0.01, "timeout_s": 5, **options})


def asked(ncbi: Publisher) -> list[list[int]]:
    return sorted([int(pmid) for pmid in query["id"].split(",")] for query, _ in ncbi.requests)


def read(folder: Path) -> list[str]:
    return [document.id for document in open_corpus("pubmed", folder).strictly()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".fetch")


def test_what_is_named_comes_and_nothing_else(ncbi: Publisher, tmp_path: Path) -> None:
    report = fetch(ncbi, tmp_path / "p", "# mine", "30  # first", "", "7", "30", "12")
    assert read(tmp_path / "p") == ["30", "7", "12"]
    assert [query for query, _ in ncbi.requests] == [
        {"db": "pubmed", "retmode": "xml", "tool": "cmbert-retrieval", "id": "30,7,12",
         "api_key": "0123456789abcdef"}
    ]  # fmt: skip
    assert (report.fetched, report.already_there, report.failed, dict(report.left_out)) == (3, 0, 0, {})
    assert report.bytes > 0
    folder = tmp_path / "p"
    assert report.next_command == f"cmbert index build --from pubmed:{folder} --out {folder}-index"
    assert looks_like_pubmed(folder)


def test_many_are_asked_for_200_at_a_time(ncbi: Publisher, tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    fetch(ncbi, tmp_path / "p", *range(1, 451), notify=lambda *one: told.append(one))
    assert [len(pmids) for pmids in asked(ncbi)] == [200, 200, 50]
    assert read(tmp_path / "p") == [str(pmid) for pmid in range(1, 451)]
    assert names(tmp_path / "p") == [f"efetch-0000{number}.xml.gz" for number in (1, 2, 3)]
    assert told[0] == ("total", 450) and told.count(("done", 1)) == 450


@pytest.mark.parametrize(("key", "most"), [("", 3), ("0123456789abcdef", 10)])
def test_no_more_requests_begin_in_a_second_than_ncbi_allows(
    ncbi: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, most: int
) -> None:
    monkeypatch.setenv("NCBI_API_KEY", key)
    ncbi.faults["efetch.fcgi"] = [status(503)]  # what is tried again counts as well
    fetch(ncbi, tmp_path / "p", *range(1, 700), connections=8)
    times = sorted(time for _, time in ncbi.requests)
    assert len(times) == 5
    assert all(later - earlier > 0.9 / most for earlier, later in pairwise(times))
    assert all(query.get("api_key", "") == key for query, _ in ncbi.requests)


def test_records_that_do_not_exist_are_left_out_and_named(
    ncbi: Publisher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = fetch(ncbi, tmp_path / "p", 5000, 1, 5001, 2, *range(6000, 6005))
    assert (report.fetched, dict(report.left_out), report.failed) == (2, {ABSENT: 7}, 0)
    assert caplog.messages == ["PubMed has no record 5000, 5001, 6000, 6001, 6002 and 2 more"]
    assert read(tmp_path / "p") == ["1", "2"]


@pytest.mark.parametrize("answer", [None, lambda handler: handler.answer(400, EMPTY)])
def test_where_none_exists_no_file_is_made(ncbi: Publisher, tmp_path: Path, answer: Fault | None) -> None:
    ncbi.faults["efetch.fcgi"] = [answer] if answer else []
    report = fetch(ncbi, tmp_path / "p", 5000)
    assert (report.fetched, dict(report.left_out), len(ncbi.requests)) == (0, {ABSENT: 1}, 1)
    assert names(tmp_path / "p") == []


def test_a_second_run_asks_only_for_what_is_not_there(ncbi: Publisher, tmp_path: Path) -> None:
    fetch(ncbi, tmp_path / "p", 1, 2, 3)
    report = fetch(ncbi, tmp_path / "p", 3, 2, 1)
    assert (asked(ncbi), report.fetched, report.already_there) == ([], 0, 3)
    fetch(ncbi, tmp_path / "p", 2, 5000, 4, 9)
    assert asked(ncbi) == [[5000, 4, 9]]
    ncbi.records[5000] = article(5000)  # it may have come since
    fetch(ncbi, tmp_path / "p", 2, 5000, 4, 9)
    assert asked(ncbi) == [[5000]]
    assert read(tmp_path / "p") == ["1", "2", "3", "4", "9", "5000"]


def as_asked(handler: Handler) -> None:
    handler.efetch(handler.publisher.requests[-1][0]["id"].split(","))


def cut_off(handler: Handler) -> None:
    handler.efetch(["1", "2"], cut=-19)


def broken_off(handler: Handler) -> None:
    """Announce more than comes, as a connection that breaks."""
    handler.answer(200, article_set(article(1), article(2)), cut=200)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (cut_off, "ends too early"),
        (broken_off, "the connection was cut"),
        (status(502), "HTTP 502"),
        (lambda handler: handler.answer(400, BUSY), "HTTP 400"),
        (other(b"<html><body>Maintenance</body></html>"), "begins with <html>, expected <PubmedArticleSet>"),
        (other(b""), "begins with no XML element"),
        (other(EMPTY), "begins with <eFetchResult>"),
        (other(article_set(article(1), article(3))), "a record came that was not asked for"),
        (other(article_set(article(1), b"<ERROR>x</ERROR>")), "something that is no record"),
        (other(article_set(article(1).replace(b"</Title>", b""))), "not well-formed XML"),
        (other(article_set(deletion(1))), "not a record with a PMID"),
        (other(article_set(b"<PubmedArticle></PubmedArticle>")), "not a record with a PMID"),
    ],
)
def test_an_answer_that_is_not_whole_is_asked_for_again(
    ncbi: Publisher, tmp_path: Path, fault: Fault, reason: str
) -> None:
    ncbi.faults["efetch.fcgi"] = [fault]
    report = fetch(ncbi, tmp_path / "p", 1, 2)
    assert (report.fetched, len(ncbi.requests)) == (2, 2)
    assert read(tmp_path / "p") == ["1", "2"]
    ncbi.faults["efetch.fcgi"] = [fault] * 5
    report = fetch(ncbi, tmp_path / "q", 1, 2)
    assert (report.fetched, report.failed, len(ncbi.requests)) == (0, 2, 5)
    (failure,) = report.failures
    assert failure.startswith("PMID 1 and 1 other: ") and reason in failure
    assert names(tmp_path / "q") == []
    failed = report.failed_file.read_text()
    assert [line.partition(" ")[0] for line in failed.splitlines()] == ["1", "2"]
    report = fetch(ncbi, tmp_path / "q", *failed.splitlines())  # as --ids takes it
    assert report.fetched == 2 and not report.failed_file.exists()


def test_an_answer_without_end_is_refused(
    ncbi: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cmbert_retrieval.corpora.fetch_efetch._MAX_ANSWER_BYTES", 10_000)
    report = fetch(ncbi, tmp_path / "p", *range(1, 101))
    assert (report.failed, len(ncbi.requests)) == (100, 1)
    assert report.failures == ["efetch.fcgi: more than the expected 10,000 bytes"]
    assert list((tmp_path / "p/.fetch").glob("*.part*")) == []


def test_one_request_that_fails_costs_only_its_own_records(ncbi: Publisher, tmp_path: Path) -> None:
    ncbi.faults["efetch.fcgi"] = [status(403)]
    report = fetch(ncbi, tmp_path / "p", *range(1, 451), connections=1)
    assert (report.fetched, report.failed) == (250, 200)
    assert report.failures == ["efetch.fcgi: not there, or not for us (HTTP 403)"]
    fetch(ncbi, tmp_path / "p", *range(1, 451))
    assert asked(ncbi) == [list(range(1, 201))]
    assert sorted(read(tmp_path / "p"), key=int) == [str(pmid) for pmid in range(1, 451)]


def test_a_server_that_is_gone_ends_the_fetch_and_the_same_call_goes_on(
    ncbi: Publisher, tmp_path: Path
) -> None:
    def down(handler: Handler) -> None:
        handler.close_connection = True

    ncbi.faults["efetch.fcgi"] = [as_asked, *[down] * 100]
    with pytest.raises(FetchError, match=r"does not answer any more.*run the same command again later"):
        fetch(ncbi, tmp_path / "p", *range(1, 1000), connections=1)
    assert read(tmp_path / "p") == [str(pmid) for pmid in range(1, 201)]
    ncbi.faults.clear()
    report = fetch(ncbi, tmp_path / "p", *range(1, 1000))
    assert (report.already_there, report.fetched) == (200, 799)
    assert read(tmp_path / "p") == [str(pmid) for pmid in range(1, 1000)]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["12", "PMC34"], "ids.txt:2: no PMID; expected one a line, as 12345678; this looks like a PMCID"),
        (["12", "", "x"], "ids.txt:3: no PMID; expected one a line, as 12345678"),
        (["0"], "ids.txt:1: no PMID"),
        (["123456789"], "ids.txt:1: no PMID"),
        (["12,13"], "ids.txt:1: no PMID"),
        (["\u0663"], "ids.txt:1: no PMID"),
        (["# nothing"], "ids.txt: holds no PMID"),
    ],
)
def test_a_file_that_names_something_else_is_one_line(
    ncbi: Publisher, tmp_path: Path, lines: list[str], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        fetch(ncbi, tmp_path / "p", *lines)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not ncbi.requests and not (tmp_path / "p").exists()


def test_single_records_and_numbered_files_are_not_mixed(ncbi: Publisher, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/pubmed26n0001.xml").write_bytes(article_set(article(1)))
    with pytest.raises(ConfigError, match=r"holds files of PubMed's baseline or updates \(pubmed26n0001"):
        fetch(ncbi, tmp_path / "a", 1)
    fetch(ncbi, tmp_path / "b", 1)
    with pytest.raises(ConfigError, match=r"fetched by their PMIDs \(efetch-00001.*another folder"):
        fetch_pubmed(tmp_path / "b", everything=True, base_url=ncbi.url)


def test_a_damaged_file_is_named_and_what_it_held_is_fetched_once_it_is_removed(
    ncbi: Publisher, tmp_path: Path
) -> None:
    fetch(ncbi, tmp_path / "p", *range(1, 301))
    damaged = tmp_path / "p/efetch-00001.xml.gz"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(CorpusError, match=r"efetch-00001\.xml\.gz: .*damaged gzip data.*; remove this file"):
        fetch(ncbi, tmp_path / "p", *range(1, 301))
    assert ncbi.requests == []
    damaged.unlink()
    fetch(ncbi, tmp_path / "p", *range(1, 301))
    assert asked(ncbi) == [list(range(1, 201))]


@pytest.mark.parametrize("key", ["0123456789abcdef", "a b", "x&tool=y"])
def test_a_wrong_key_is_an_error_that_does_not_show_it(
    ncbi: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("NCBI_API_KEY", key)
    answer = b'{"error":"API key invalid","api-key":"%b"}' % key.encode()
    ncbi.faults["efetch.fcgi"] = [lambda handler: handler.answer(400, answer)]
    with pytest.raises(CmbertError) as caught:
        fetch(ncbi, tmp_path / "p", 1)
    assert str(caught.value).startswith("NCBI_API_KEY") and key not in str(caught.value)


def test_a_key_is_not_sent_to_other_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCBI_API_KEY", "0123456789abcdef")
    assert _key(EUTILS_URL) and not _key("https://mirror.example.org/eutils/")
    assert not _key("https://evil-ncbi.nlm.nih.gov.example.org/") and not _key("https://xncbi.nlm.nih.gov/")


def test_files_are_the_same_whenever_they_were_fetched(ncbi: Publisher, tmp_path: Path) -> None:
    for name in ("a", "b"):
        fetch(ncbi, tmp_path / name, *range(1, 301))
    for name in names(tmp_path / "a"):
        data = (tmp_path / "a" / name).read_bytes()
        assert data == (tmp_path / "b" / name).read_bytes()
        assert gzip.decompress(data).count(b"<PubmedArticle>") in (200, 100)
