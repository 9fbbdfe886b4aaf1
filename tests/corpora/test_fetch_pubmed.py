"""Fetching PubMed's files: baseline and updates, their checksums, and what comes of a second run."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from publishers import Publisher, cut, serving, status

from cmbert_retrieval.corpora.fetch import FetchReport
from cmbert_retrieval.corpora.fetch_address import FetchError
from cmbert_retrieval.corpora.fetch_pubmed import fetch_pubmed
from cmbert_retrieval.errors import ConfigError


def packed(seed: int) -> bytes:
    return gzip.compress(random.Random(seed).randbytes(300_000), mtime=0)


@pytest.fixture
def pubmed() -> Iterator[Publisher]:
    """Three files of a baseline, and three updates of three days."""
    publisher = Publisher()
    for number in (1, 2, 3):
        publisher.add_pubmed("baseline", number, packed(number))
    for number, day in ((4, "2026-01-30"), (5, "2026-01-31"), (6, "2026-02-01")):
        publisher.add_pubmed("updatefiles", number, packed(number), date=f"{day} 14:05")
    publisher.files["updatefiles/pubmed26n0004_stats.html"] = b"<html></html>"
    with serving(publisher):
        yield publisher


def fetch(pubmed: Publisher, to: Path, **options: Any) -> FetchReport:
    pubmed.log.clear()
    return fetch_pubmed(to, base_url=pubmed.url, **{"wait_s": 0.01, "timeout_s": 5, **options})


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def published(pubmed: Publisher, *numbers: int) -> dict[str, bytes]:
    names = {f"pubmed26n{number:04}.xml.gz" for number in numbers}
    return {Path(path).name: data for path, data in pubmed.files.items() if Path(path).name in names}


def test_all_is_the_baseline_and_the_updates(pubmed: Publisher, tmp_path: Path) -> None:
    report = fetch(pubmed, tmp_path / "pubmed", everything=True)
    assert files(tmp_path / "pubmed") == published(pubmed, 1, 2, 3, 4, 5, 6)
    wanted = [path for path in pubmed.files if "stats" not in path]
    assert pubmed.asked() == sorted(wanted)
    assert (report.fetched, report.failed) == (6, 0)
    folder = tmp_path / "pubmed"
    assert report.next_command == f"cmbert index build --from pubmed:{folder} --out {folder}-index"


def test_since_is_the_updates_of_that_day_and_later(pubmed: Publisher, tmp_path: Path) -> None:
    report = fetch(pubmed, tmp_path / "pubmed", since="2026-01-31")
    assert files(tmp_path / "pubmed") == published(pubmed, 5, 6)
    assert report.next_command == f"cmbert index update INDEX {tmp_path / 'pubmed'}"
    assert {path for path, _ in pubmed.log if path.endswith("/")} == {"updatefiles/"}


def test_a_second_run_fetches_nothing_but_what_is_new(pubmed: Publisher, tmp_path: Path) -> None:
    fetch(pubmed, tmp_path / "pubmed", everything=True)
    report = fetch(pubmed, tmp_path / "pubmed", everything=True)
    assert pubmed.asked() == []
    assert (report.fetched, report.already_there) == (0, 6)
    new = pubmed.add_pubmed("updatefiles", 7, packed(7), date="2026-02-02 14:05")
    fetch(pubmed, tmp_path / "pubmed", everything=True)
    assert pubmed.asked() == [new, f"{new}.md5"]


def test_files_that_came_by_other_means_are_checked_and_kept(pubmed: Publisher, tmp_path: Path) -> None:
    (tmp_path / "pubmed26n0001.xml.gz").write_bytes(packed(1))
    (tmp_path / "pubmed26n0002.xml.gz").write_bytes(packed(2)[:1000])
    report = fetch(pubmed, tmp_path, everything=True)
    assert (report.fetched, report.already_there) == (5, 1)
    assert "baseline/pubmed26n0001.xml.gz" not in pubmed.asked()
    assert files(tmp_path) == published(pubmed, 1, 2, 3, 4, 5, 6)


def test_a_file_that_was_published_anew_is_fetched_again(pubmed: Publisher, tmp_path: Path) -> None:
    fetch(pubmed, tmp_path / "pubmed", everything=True)
    path = pubmed.add_pubmed("updatefiles", 5, packed(50), date="2026-02-03 09:00")
    fetch(pubmed, tmp_path / "pubmed", everything=True)
    assert pubmed.asked() == [path, f"{path}.md5"]
    assert files(tmp_path / "pubmed")["pubmed26n0005.xml.gz"] == packed(50)


def test_cut_and_refused_files_still_arrive(pubmed: Publisher, tmp_path: Path) -> None:
    pubmed.faults["baseline/pubmed26n0001.xml.gz"] = [cut(100_000), status(503), cut(100_000)]
    pubmed.faults["baseline/pubmed26n0002.xml.gz.md5"] = [status(502)]
    fetch(pubmed, tmp_path / "pubmed", everything=True)
    assert files(tmp_path / "pubmed") == published(pubmed, 1, 2, 3, 4, 5, 6)


def test_a_wrong_checksum_fails_that_file_alone(pubmed: Publisher, tmp_path: Path) -> None:
    pubmed.files["baseline/pubmed26n0002.xml.gz"] = packed(9)
    pubmed.files["baseline/pubmed26n0003.xml.gz.md5"] = b"<html>not a checksum</html>"
    del pubmed.files["updatefiles/pubmed26n0004.xml.gz.md5"]
    report = fetch(pubmed, tmp_path / "pubmed", everything=True)
    assert files(tmp_path / "pubmed") == published(pubmed, 1, 5, 6)
    failures = sorted(report.failures)
    assert failures[0].startswith("baseline/pubmed26n0002.xml.gz: the checksum does not agree, twice")
    assert failures[1].startswith("baseline/pubmed26n0003.xml.gz.md5: not the MD5 of this file")
    assert failures[2].startswith("updatefiles/pubmed26n0004.xml.gz.md5: not there (HTTP 404)")
    assert report.failed_file.read_text().count("\n") == 3


def test_the_checksum_of_another_file_is_not_taken(pubmed: Publisher, tmp_path: Path) -> None:
    pubmed.files["baseline/pubmed26n0001.xml.gz.md5"] = pubmed.files["baseline/pubmed26n0002.xml.gz.md5"]
    report = fetch(pubmed, tmp_path / "pubmed", everything=True)
    assert report.failed == 1 and "expected 'MD5(pubmed26n0001.xml.gz)= ...'" in report.failures[0]


def test_names_in_an_index_never_leave_the_folder(pubmed: Publisher, tmp_path: Path) -> None:
    hostile = ("../../pubmed26n0009.xml.gz", "/pubmed26n0009.xml.gz", "..%2fpubmed26n0009.xml.gz",
               "pubmed26n0009.xml.gz/../x", "//evil.example.org/pubmed26n0009.xml.gz",
               "https://evil.example.org/pubmed26n0009.xml.gz", "pubmed26n0009.xml.gz.md5.exe")  # fmt: skip
    rows = "".join(f'<a href="{name}">{name}</a>  2026-01-29 14:48  19M\n' for name in hostile)
    good = '<a href="pubmed26n0004.xml.gz">pubmed26n0004.xml.gz</a>  2026-01-29 14:48  19M\n'
    pubmed.faults["updatefiles/"] = [lambda handler: handler.answer(200, (rows + good).encode())]
    fetch(pubmed, tmp_path / "a/b/pubmed", since="2026-01-01")
    assert files(tmp_path / "a/b/pubmed") == published(pubmed, 4)
    assert pubmed.asked() == ["updatefiles/pubmed26n0004.xml.gz", "updatefiles/pubmed26n0004.xml.gz.md5"]
    assert {path.name for path in tmp_path.iterdir()} == {"a"}


@pytest.mark.parametrize(
    "page", [b"", b"<html>maintenance</html>", b"\xff\x00" * 1000, b"<a " * 300_000, b'<a href="' * 300_000]
)
def test_a_page_that_is_no_index_is_one_error(pubmed: Publisher, tmp_path: Path, page: bytes) -> None:
    pubmed.faults["updatefiles/"] = [lambda handler: handler.answer(200, page)]
    with pytest.raises(FetchError, match=r"updatefiles/: no files like pubmed26n0001\.xml\.gz on this page"):
        fetch(pubmed, tmp_path / "pubmed", since="2026-01-01")
    assert files(tmp_path / "pubmed") == {}


@pytest.mark.parametrize(
    ("row", "taken"),
    [
        ('<tr><td><a href="{0}">pubmed..&gt;</a></td><td align="right">2026-01-31 14:05</td></tr>', True),
        ('<a href="{0}">{0}</a>            31-Jan-2026 14:05    19000', True),
        ('<a href="./{0}">{0}</a>            30-Jan-2026 14:05    19000', False),
        ("<a class=x href='{0}' title=y>{0}</a>            30-Feb-2026 14:05    19000", True),
        ("<A HREF={0}>{0}</A>   2026-01-31", True),
    ],
)
def test_the_index_pages_of_mirrors_are_understood(
    pubmed: Publisher, tmp_path: Path, row: str, taken: bool
) -> None:
    pubmed.faults["updatefiles/"] = [lambda handler: handler.answer(200, f"<pre>{row}</pre>".encode())]
    row = row.format("pubmed26n0005.xml.gz")
    fetch(pubmed, tmp_path / "pubmed", since="2026-01-31")
    assert files(tmp_path / "pubmed") == (published(pubmed, 5) if taken else {})


def test_without_dates_in_the_index_since_is_refused(pubmed: Publisher, tmp_path: Path) -> None:
    page = b'<li><a href="pubmed26n0005.xml.gz">pubmed26n0005.xml.gz</a></li>'
    pubmed.faults["updatefiles/"] = [lambda handler: handler.answer(200, page)]
    with pytest.raises(FetchError, match="the index shows no date for pubmed26n0005"):
        fetch(pubmed, tmp_path / "pubmed", since="2026-01-31")


def test_the_files_of_two_years_are_not_mixed(pubmed: Publisher, tmp_path: Path) -> None:
    (tmp_path / "pubmed25n1274.xml.gz").write_bytes(packed(1))
    with pytest.raises(ConfigError, match=r"here pubmed25n, on the server pubmed26n\).*name an empty folder"):
        fetch(pubmed, tmp_path, since="2026-01-31")
    assert pubmed.asked() == []
