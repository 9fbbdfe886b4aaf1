"""Fetching from PMC's cloud service: what is asked for, what arrives, and what comes of a second run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import publishers
import pytest
from publishers import Publisher, md5, serving, status

from cmbert_retrieval.cli import main
from cmbert_retrieval.corpora import open_corpus
from cmbert_retrieval.corpora.fetch import FetchReport
from cmbert_retrieval.corpora.fetch_pmc import fetch_pmc
from cmbert_retrieval.errors import CmbertError, ConfigError, CorpusError


@pytest.fixture
def pmc() -> Iterator[Publisher]:
    with serving(Publisher()) as publisher:
        yield publisher


def ids_file(folder: Path, *lines: str) -> Path:
    path = folder / "ids.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def fetch(pmc: Publisher, to: Path, **options: Any) -> FetchReport:
    pmc.log.clear()
    return fetch_pmc(to, base_url=pmc.url, **{"wait_s": 0.01, "timeout_s": 5, **options})


def files(folder: Path) -> dict[str, bytes]:
    """What is in a folder, but for what the fetch keeps for itself."""
    return {
        name: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not (name := path.relative_to(folder).as_posix()).startswith(".fetch/")
    }


def published(pmc: Publisher, *names: str) -> dict[str, bytes]:
    return {key: pmc.files[key] for name in names for key in (f"{name}/{name}.xml", f"metadata/{name}.json")}


def test_ids_fetch_the_newest_version_and_nothing_else(pmc: Publisher, tmp_path: Path) -> None:
    for number in (1, 2, 3, 20):
        pmc.add_article(number)
    pmc.add_article(2, 2)
    pmc.add_article(2, 10)
    ids = ids_file(tmp_path, "# what I need", "PMC2  # three versions", "", "pmc3", "PMC3")
    report = fetch(pmc, tmp_path / "pmc", ids=ids)
    assert files(tmp_path / "pmc") == published(pmc, "PMC2.10", "PMC3.1")
    assert pmc.asked() == sorted(published(pmc, "PMC2.10", "PMC3.1"))
    assert sorted(path for path, _ in pmc.log if "?" in path) == [
        "?list-type=2&prefix=metadata%2FPMC2.",
        "?list-type=2&prefix=metadata%2FPMC3.",
    ]
    assert (report.fetched, report.already_there, report.failed) == (2, 0, 0)


def test_a_version_that_is_named_is_the_one_that_comes(pmc: Publisher, tmp_path: Path) -> None:
    for version in (1, 2, 10):
        pmc.add_article(7, version)
    fetch(pmc, tmp_path / "pmc", ids=ids_file(tmp_path, "PMC7.1"))
    assert files(tmp_path / "pmc") == published(pmc, "PMC7.1")


def test_an_article_asked_for_twice_under_two_names_comes_once(pmc: Publisher, tmp_path: Path) -> None:
    pmc.add_article(7, 2)
    fetch(pmc, tmp_path / "pmc", ids=ids_file(tmp_path, "PMC7", "PMC7.2"))
    assert pmc.asked() == sorted(published(pmc, "PMC7.2"))


def test_all_takes_the_newest_version_of_each_article_from_the_inventory(
    pmc: Publisher, tmp_path: Path
) -> None:
    for number in range(1, 30):
        pmc.add_article(number)
    pmc.add_article(5, 2)
    pmc.add_inventory("2026-01-17T01-00Z")
    newest = pmc.add_inventory("2026-01-18T01-00Z")
    report = fetch(pmc, tmp_path / "pmc", everything=True)
    names = [f"PMC{number}.{2 if number == 5 else 1}" for number in range(1, 30)]
    assert files(tmp_path / "pmc") == published(pmc, *names)
    assert report.fetched == 29 and report.listing == "inventory of 2026-01-18T01-00Z"
    assert [path for path, _ in pmc.log if path.endswith(".csv.gz")] == [newest]


def test_without_an_inventory_the_bucket_is_listed_page_by_page(pmc: Publisher, tmp_path: Path) -> None:
    for number in range(1, 12):
        pmc.add_article(number)
    pmc.page = 4
    report = fetch(pmc, tmp_path / "pmc", everything=True)
    assert files(tmp_path / "pmc") == published(pmc, *(f"PMC{number}.1" for number in range(1, 12)))
    assert report.listing == "bucket listing of 127.0.0.1"


def test_since_takes_the_articles_whose_newest_version_changed_on_that_day_or_later(
    pmc: Publisher, tmp_path: Path
) -> None:
    for number, day in ((1, "2026-01-01"), (2, "2026-01-02"), (3, "2026-01-03")):
        pmc.modified[f"metadata/{pmc.add_article(number)}.json"] = f"{day}T00:00:00.000Z"
    # The old version of 4 changed, its newest did not: there is nothing new to read.
    pmc.modified[f"metadata/{pmc.add_article(4, 1)}.json"] = "2026-01-04T00:00:00.000Z"
    pmc.modified[f"metadata/{pmc.add_article(4, 2)}.json"] = "2026-01-01T00:00:00.000Z"
    pmc.add_inventory()
    fetch(pmc, tmp_path / "pmc", since="2026-01-02")
    assert files(tmp_path / "pmc") == published(pmc, "PMC2.1", "PMC3.1")


@pytest.mark.parametrize("inventory", [True, False])
def test_a_second_run_fetches_nothing(pmc: Publisher, tmp_path: Path, inventory: bool) -> None:
    for number in range(1, 6):
        pmc.add_article(number, license="CC BY-NC" if number == 3 else "CC BY")
    if inventory:
        pmc.add_inventory()
    first = fetch(pmc, tmp_path / "pmc", everything=True, licenses="CC0,CC-BY")
    assert (first.fetched, dict(first.left_out)) == (4, {"with the licence CC BY-NC": 1})
    second = fetch(pmc, tmp_path / "pmc", everything=True, licenses="CC0,CC-BY")
    assert pmc.asked() == []
    assert not [path for path, _ in pmc.log if path.endswith(".csv.gz")]
    assert (second.fetched, second.already_there, second.failed) == (0, 4, 0)
    assert second.left_out == first.left_out


def test_an_inventory_that_was_read_is_not_read_again(pmc: Publisher, tmp_path: Path) -> None:
    for number in range(1, 4):
        pmc.add_article(number)
    pmc.add_inventory()
    read: list[int] = []
    for _ in range(2):
        told: list[tuple[str, int]] = []
        fetch(pmc, tmp_path / "pmc", everything=True, notify=lambda *one, told=told: told.append(one))
        read.append(sum(count for phase, count in told if phase == "listed"))
        assert ("total", 3) in told and told.count(("done", 1)) == 3
    assert read == [3, 0]


def test_a_second_run_for_the_same_ids_fetches_nothing(pmc: Publisher, tmp_path: Path) -> None:
    pmc.add_article(1)
    pmc.add_article(2, license="CC BY-ND")
    ids = ids_file(tmp_path, "PMC1", "PMC2")
    fetch(pmc, tmp_path / "pmc", ids=ids, licenses=["CC BY"])
    report = fetch(pmc, tmp_path / "pmc", ids=ids, licenses=["CC BY"])
    assert pmc.asked() == []
    assert (report.already_there, sum(report.left_out.values())) == (1, 1)


def test_only_what_changed_is_fetched_again(pmc: Publisher, tmp_path: Path) -> None:
    for number in range(1, 6):
        pmc.add_article(number)
    pmc.add_inventory("2026-01-17T01-00Z")
    fetch(pmc, tmp_path / "pmc", everything=True)
    pmc.add_article(2, text="Other words.")
    pmc.add_article(4, is_retracted=True)  # the metadata alone
    pmc.add_article(5, 2)
    pmc.add_inventory("2026-01-18T01-00Z")
    report = fetch(pmc, tmp_path / "pmc", everything=True)
    names = ("PMC1.1", "PMC2.1", "PMC3.1", "PMC4.1", "PMC5.1", "PMC5.2")
    assert files(tmp_path / "pmc") == published(pmc, *names)
    assert pmc.asked() == sorted({**published(pmc, "PMC2.1", "PMC5.2"), "metadata/PMC4.1.json": b""})
    assert (report.fetched, report.already_there) == (3, 2)


def test_a_file_that_was_damaged_or_removed_here_is_fetched_again(pmc: Publisher, tmp_path: Path) -> None:
    for number in range(1, 4):
        pmc.add_article(number)
    fetch(pmc, tmp_path / "pmc", everything=True)
    (tmp_path / "pmc/PMC1.1/PMC1.1.xml").write_bytes(b"damaged")
    (tmp_path / "pmc/PMC2.1/PMC2.1.xml").unlink()
    fetch(pmc, tmp_path / "pmc", everything=True)
    assert files(tmp_path / "pmc") == published(pmc, "PMC1.1", "PMC2.1", "PMC3.1")
    assert pmc.asked() == ["PMC1.1/PMC1.1.xml", "PMC2.1/PMC2.1.xml"]


def test_where_no_checksum_is_published_a_change_of_the_metadata_counts(
    pmc: Publisher, tmp_path: Path
) -> None:
    pmc.add_article(1, published_md5=False)
    pmc.add_article(2, published_md5=False)
    fetch(pmc, tmp_path / "pmc", everything=True)
    pmc.add_article(2, text="Other words.", published_md5=False, revision=2)
    fetch(pmc, tmp_path / "pmc", everything=True)
    assert files(tmp_path / "pmc") == published(pmc, "PMC1.1", "PMC2.1")
    assert pmc.asked() == sorted(published(pmc, "PMC2.1"))


def test_what_the_license_leaves_out_is_never_fetched_but_its_metadata(
    pmc: Publisher, tmp_path: Path
) -> None:
    for number, code in enumerate(("CC0", "CC BY", "CC BY-NC", "TDM", None), start=1):
        pmc.add_article(number, license=code)
    report = fetch(pmc, tmp_path / "pmc", everything=True, licenses="CC0,CC-BY")
    assert files(tmp_path / "pmc") == published(pmc, "PMC1.1", "PMC2.1")
    assert {path for path in pmc.asked() if path.endswith(".xml")} == {
        "PMC1.1/PMC1.1.xml",
        "PMC2.1/PMC2.1.xml",
    }
    assert report.left_out == {
        "with the licence CC BY-NC": 1,
        "with the licence other": 1,
        "with the licence (unknown)": 1,
    }
    # Asked for more licences, the ones left out before come.
    fetch(pmc, tmp_path / "pmc", everything=True, licenses="CC0,CC-BY,CC-BY-NC")
    assert files(tmp_path / "pmc") == published(pmc, "PMC1.1", "PMC2.1", "PMC3.1")


def test_an_article_without_xml_is_left_out(pmc: Publisher, tmp_path: Path) -> None:
    pmc.add_article(1, xml_url=None)
    report = fetch(pmc, tmp_path / "pmc", everything=True)
    assert report.left_out == {"without XML": 1} and pmc.asked() == ["metadata/PMC1.1.json"]


def test_addresses_in_the_metadata_are_not_followed(pmc: Publisher, tmp_path: Path) -> None:
    name = pmc.add_article(1, xml_url="s3://pmc-oa-opendata/../../../secret.xml")
    pmc.files["secret.xml"] = b"no"
    fetch(pmc, tmp_path / "pmc", everything=True)
    assert pmc.asked() == sorted(published(pmc, name))


def test_names_in_a_listing_never_leave_the_folder(pmc: Publisher, tmp_path: Path) -> None:
    pmc.add_article(1)
    names = ("metadata/../../../evil.json", "metadata/PMC2.1/../../x.json", "/metadata/PMC3.1.json",
             "metadata/PMC4.1.json\x00", "metadata/PMC0.1.json", "metadata/PMC5.1111.json")  # fmt: skip
    lines = "".join(f'"b","{name}","2026-01-08T11:47:59.000Z","{"0" * 32}"\n' for name in names)
    pmc.add_inventory(lines=lines)
    fetch(pmc, tmp_path / "a/b/c/pmc", everything=True)
    assert files(tmp_path / "a/b/c/pmc") == published(pmc, "PMC1.1")
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} <= {
        "PMC1.1.xml", "PMC1.1.json", "lock", "state.sqlite",
    } | {Path(path).name for path in pmc.files}  # fmt: skip
    assert pmc.asked() == sorted(published(pmc, "PMC1.1"))


def test_single_articles_that_fail_are_named_and_the_others_come(pmc: Publisher, tmp_path: Path) -> None:
    for number in range(1, 6):
        pmc.add_article(number)
    del pmc.files["PMC2.1/PMC2.1.xml"]
    pmc.files["metadata/PMC3.1.json"] = b"[1]"
    pmc.add_article(4, xml_url=f"s3://x/y.xml?md5={'0' * 32}")
    ids = ids_file(tmp_path, *(f"PMC{number}" for number in range(1, 7)))
    report = fetch(pmc, tmp_path / "pmc", ids=ids)
    there = {name: data for name, data in files(tmp_path / "pmc").items() if name.endswith(".xml")}
    assert there == {name: pmc.files[name] for name in ("PMC1.1/PMC1.1.xml", "PMC5.1/PMC5.1.xml")}
    assert (report.fetched, report.failed) == (2, 4)
    failures = sorted(report.failures)
    assert failures[0].startswith("PMC2.1/PMC2.1.xml: not there (HTTP 404)")
    assert failures[1].startswith("PMC4.1/PMC4.1.xml: the checksum does not agree, twice; expected")
    assert failures[2] == "PMC6: PMC's cloud service has no such article"
    assert failures[3] == "metadata/PMC3.1.json: not a JSON object"
    # The list of what failed is one that --ids takes.
    pmc.files["PMC2.1/PMC2.1.xml"] = publishers.article(2, "Some words.")
    again = fetch(pmc, tmp_path / "pmc", ids=report.failed_file)
    assert (again.fetched, again.failed) == (1, 3)


def test_what_arrives_is_read_by_the_reader_as_it_is(pmc: Publisher, tmp_path: Path) -> None:
    for number in range(1, 8):
        pmc.add_article(number, text=f"Words of article {number}.", is_retracted=number == 4)
    fetch(pmc, tmp_path / "pmc", everything=True)
    documents = list(open_corpus("pmc", tmp_path / "pmc").strictly())
    assert [document.id for document in documents] == [f"PMC{number}" for number in range(1, 8)]
    assert [document.metadata["is_retracted"] for document in documents] == [n == 4 for n in range(1, 8)]
    index = tmp_path / "index"
    built = ["index", "build", "--from", f"pmc:{tmp_path / 'pmc'}", "--out", str(index), "--encoder", "none"]
    assert main(built) == 0
    assert main(["index", "verify", str(index)]) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "exactly one of ids, since and all"),
        ({"since": "2026-01-01", "everything": True}, "exactly one of ids, since and all"),
        ({"since": "01.02.2026"}, "'01.02.2026' is no date; expected one like 2026-01-31"),
        ({"since": "20260102"}, "expected a date like 2026-01-31"),
        ({"everything": True, "licenses": "MIT"}, "licence 'MIT' is not known; expected one of CC0, CC-BY"),
        ({"everything": True, "connections": 0}, "connections: 0; expected 1 to 64"),
        ({"everything": True, "timeout_s": 0}, "timeout is 0"),
        ({"everything": True, "base_url": "http://pmc.example.org/"}, "plain http"),
        ({"everything": True, "base_url": "ftp://ftp.ncbi.nlm.nih.gov/"}, "expected an address like https"),
        ({"everything": True, "base_url": "https://me:word@host/"}, "user names and passwords are not sent"),
        ({"everything": True, "base_url": "https://[::1"}, "not well-formed"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_one_line_and_fetch_nothing(
    pmc: Publisher, tmp_path: Path, options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(ConfigError) as caught:
        fetch_pmc(tmp_path / "pmc", **{"base_url": pmc.url, **options})
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert pmc.log == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "12345",
            "ids.txt:2: no PMCID; expected one a line, as PMC123 or PMC123.1; a number alone may be a PMID",
        ),
        ("PMC12x", "ids.txt:2: no PMCID"),
        ("PMC../../etc", "ids.txt:2: no PMCID"),
        ("# nothing", "holds no PMCID"),
    ],
)
def test_a_file_of_ids_that_holds_something_else_is_refused_with_its_line(
    pmc: Publisher, tmp_path: Path, line: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=r"ids\.txt") as caught:
        fetch(pmc, tmp_path / "pmc", ids=ids_file(tmp_path, "#", line))
    assert words in str(caught.value)
    with pytest.raises(CorpusError, match="no such file"):
        fetch(pmc, tmp_path / "pmc", ids=tmp_path / "absent.txt")
    assert pmc.log == []


def test_offline_nothing_is_fetched_from_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set, so nothing is fetched; unset it"):
        fetch_pmc(tmp_path / "pmc", everything=True)
    assert not (tmp_path / "pmc").exists()


def test_two_fetches_into_one_folder_do_not_run_at_a_time(pmc: Publisher, tmp_path: Path) -> None:
    pmc.add_article(1)
    seen: list[str] = []

    def second(handler: publishers.Handler) -> None:
        with pytest.raises(CorpusError) as caught:
            fetch_pmc(tmp_path / "pmc", base_url=pmc.url, everything=True)
        seen.append(str(caught.value))
        handler.give()

    pmc.faults["metadata/PMC1.1.json"] = [second]
    fetch(pmc, tmp_path / "pmc", everything=True)
    assert seen and "another process is fetching into it" in seen[0]


# --- hostile lists ---


def test_a_listing_that_answers_with_another_article_is_not_taken(pmc: Publisher, tmp_path: Path) -> None:
    pmc.add_article(2, 9)
    key = f"<Contents><Key>metadata/PMC2.9.json</Key><ETag>{'0' * 32}</ETag></Contents>"
    pmc.listing = lambda handler, query: handler.answer(200, publishers.bucket_page(key))
    report = fetch(pmc, tmp_path / "pmc", ids=ids_file(tmp_path, "PMC1"))
    assert report.failures == ["PMC1: PMC's cloud service has no such article"]
    assert pmc.asked() == []


def refused(pmc: Publisher, to: Path, **options: Any) -> str:
    with pytest.raises(CmbertError) as caught:
        fetch(pmc, to, **{"everything": True, **options})
    assert "\n" not in str(caught.value)
    assert files(to) == {}
    return str(caught.value)


def test_a_listing_that_never_ends_is_an_error(pmc: Publisher, tmp_path: Path) -> None:
    entry = "<Contents><Key>metadata/PMC1.1.json</Key></Contents>"
    token = "<NextContinuationToken>more</NextContinuationToken>"

    def endless(entries: str, token: str) -> Any:
        def answer(handler: publishers.Handler, query: dict[str, str]) -> None:
            if query["prefix"].startswith("inventory"):
                handler.answer(200, publishers.bucket_page(""))
            else:
                handler.answer(200, publishers.bucket_page(entries, truncated=True, token=token))

        return answer

    for entries, sent in ((entry, token), ("", token), (entry, "")):
        pmc.listing = endless(entries, sent)
        assert "a bucket listing that does not come to an end" in refused(pmc, tmp_path / "pmc")
        assert len(pmc.log) <= 3


@pytest.mark.parametrize(
    "data",
    [
        b"<html><body><h1>It works!</h1><br></body></html>",
        b"<html></html>",
        b"",
        b"\x00\xff\xfe junk",
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><ListBucketResult>&b;</ListBucketResult>',
        b"<a>" * 100_000,
    ],
)
def test_a_listing_that_is_none_is_an_error(pmc: Publisher, tmp_path: Path, data: bytes) -> None:
    pmc.listing = lambda handler, query: handler.answer(200, data)
    assert "no bucket listing" in refused(pmc, tmp_path / "pmc")


def test_a_listing_that_is_too_large_is_an_error(pmc: Publisher, tmp_path: Path) -> None:
    pmc.listing = lambda handler, query: handler.answer(200, b"", {"Content-Length": "99999999999"}, cut=0)
    assert "99,999,999,999 bytes, expected at most" in refused(pmc, tmp_path / "pmc")


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({"fileFormat": "ORC"}, "not an inventory that is known here"),
        ({"fileSchema": "Bucket, Key"}, "not an inventory that is known here"),
        ({"files": [{"key": "../../etc/passwd", "MD5checksum": "0"}]}, "not an inventory that is known here"),
        ({"files": None}, "not an inventory that is known here"),
        ({"fileSchema": "Bucket, Key, LastModifiedDate, ETag, Size"}, ".csv.gz:1: 4 columns, expected 5"),
    ],
)
def test_an_inventory_of_another_form_is_an_error(
    pmc: Publisher, tmp_path: Path, manifest: dict[str, Any], words: str
) -> None:
    pmc.add_article(1)
    pmc.add_inventory(**manifest)
    assert words in refused(pmc, tmp_path / "pmc")


def test_an_inventory_whose_lines_are_damaged_is_an_error(pmc: Publisher, tmp_path: Path) -> None:
    pmc.add_article(1)
    for lines in ("x" * 100_000, '"unfinished\n', "\u00e9,b,c,d\n"):
        pmc.add_inventory(lines=lines)
        assert ".csv.gz" in refused(pmc, tmp_path / "pmc")
    path = pmc.add_inventory()
    pmc.files[path] = pmc.files[path][:40]
    manifest = json.loads(
        pmc.files["inventory-reports/pmc-oa-opendata/metadata/2026-01-18T01-00Z/manifest.json"]
    )
    manifest["files"][0]["MD5checksum"] = md5(pmc.files[path])
    pmc.files["inventory-reports/pmc-oa-opendata/metadata/2026-01-18T01-00Z/manifest.json"] = json.dumps(
        manifest
    ).encode()
    assert "damaged gzip data behind line" in refused(pmc, tmp_path / "pmc")


def test_an_inventory_that_is_being_written_is_passed_over_for_the_one_before(
    pmc: Publisher, tmp_path: Path
) -> None:
    pmc.add_article(1)
    pmc.add_inventory("2026-01-17T01-00Z")
    pmc.add_inventory("2026-01-18T01-00Z")
    del pmc.files["inventory-reports/pmc-oa-opendata/metadata/2026-01-18T01-00Z/manifest.json"]
    assert fetch(pmc, tmp_path / "pmc", everything=True).listing == "inventory of 2026-01-17T01-00Z"


def test_a_server_that_stops_to_answer_ends_the_run_with_one_line(pmc: Publisher, tmp_path: Path) -> None:
    for number in range(1, 100):
        name = pmc.add_article(number)
        if number > 10:
            pmc.faults[f"metadata/{name}.json"] = [status(503)] * 50
    with pytest.raises(CorpusError, match="does not answer any more") as caught:
        fetch(pmc, tmp_path / "pmc", everything=True, connections=2)
    assert "run the same command again later" in str(caught.value)
    assert len([name for name in files(tmp_path / "pmc") if name.endswith(".xml")]) == 10


@pytest.mark.slow
def test_the_sample_of_real_articles_arrives_as_it_was_served(shared_data: Path, tmp_path: Path) -> None:
    sample = shared_data / "pmc_cloud_sample"
    served = {
        path.relative_to(sample).as_posix(): path.read_bytes()
        for path in sample.rglob("*")
        if path.suffix in (".xml", ".json")
    }
    with serving(Publisher(files=served)) as pmc:
        report = fetch(pmc, tmp_path / "pmc", everything=True)
        assert (report.fetched, report.failed) == (200, 0)
        there = files(tmp_path / "pmc")
        assert there == {name: served[name] for name in there}
        again = fetch(pmc, tmp_path / "pmc", everything=True)
        assert (again.fetched, again.already_there, pmc.asked()) == (0, 200, [])
    read = open_corpus("pmc", sample).strictly()
    for expected, found in zip(read, open_corpus("pmc", tmp_path / "pmc").strictly(), strict=True):
        assert (found.id, found.text, found.metadata) == (expected.id, expected.text, expected.metadata)
