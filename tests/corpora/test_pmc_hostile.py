"""Broken and hostile PMC downloads: each is one problem or one error, and nothing of the text is told."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from articles import article

from cmbert_retrieval.corpora.base import Record
from cmbert_retrieval.corpora.pmc import PmcCorpus
from cmbert_retrieval.errors import CorpusError

SECRET = "Zebedee"
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
BOMB = f'<!DOCTYPE article [<!ENTITY l0 "ha">{LAUGHS}]>\n'


def with_text(text: str, *, before: str = "") -> bytes:
    return before.encode() + article(5, f"{SECRET} {text}")


def utf16(data: bytes) -> bytes:
    return ('<?xml version="1.0" encoding="UTF-16"?>' + data.decode()).encode("utf-16")


BROKEN = {
    "mismatched tag": (with_text("</sec>"), "mismatched tag 'p'"),
    "bare less-than": (with_text(f"aged <65 {SECRET}"), "a bare '&' or '<'"),
    "name as attribute": (with_text(f"<p John <{SECRET}"), "an attribute without a value"),
    "bare ampersand": (with_text("A & B"), "a bare '&' or '<'"),
    "undeclared entity": (with_text("&Zebedee;"), "an entity that is not declared"),
    "control character": (with_text("\x01"), "a character that XML does not allow"),
    "truncated": (with_text("x")[:-20], "is missing"),
    "not XML at all": (SECRET.encode(), "empty, or not XML"),
    "nothing": (b"", "empty, or not XML"),
    "latin-1 that says UTF-8": (with_text("caf\u00e9").decode().encode("latin-1"), "not in the encoding"),
    "unknown encoding": (b'<?xml version="1.0" encoding="klingon"?>' + with_text("x"), "unknown encoding"),
    "nested too deeply": (with_text("<sec>" * 5000 + "</sec>" * 5000), "deeper than the parser allows"),
    "billion laughs": (with_text("&l9;", before=BOMB), "declares entities; refused"),
    "billion laughs in an attribute": (
        with_text('<p id="&l9;">x</p>', before=BOMB),
        "declares entities; refused",
    ),
    "billion laughs in UTF-16": (
        utf16(with_text("&l9;", before=BOMB)),
        "larger or deeper than the parser allows",
    ),
    "an entity in UTF-16": (
        utf16(with_text("&x;", before='<!DOCTYPE article [<!ENTITY x "y">]>')),
        "declares entities; refused",
    ),
    "external entity": (
        with_text("&x;", before='<!DOCTYPE article [<!ENTITY x SYSTEM "file:///etc/hostname">]>'),
        "declares entities; refused",
    ),
    "external parameter entity": (
        with_text("x", before='<!DOCTYPE article [<!ENTITY % x SYSTEM "http://127.0.0.1:9/x"> %x;]>'),
        "declares entities; refused",
    ),
    "unknown named character": (
        with_text("&nosuch;", before='<!DOCTYPE article SYSTEM "x.dtd">'),
        "not known",
    ),
    "another format": (b"<PubmedArticleSet/>", "root element is <PubmedArticleSet>, expected <article>"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_article_is_one_problem_with_its_name_and_the_next_one_is_read(
    case: str, make_archive: Callable[..., Path]
) -> None:
    data, reason = BROKEN[case]
    path = make_archive([("a/PMC5.xml", data), ("a/PMC6.xml", article(6))])
    began = time.monotonic()
    broken, good = PmcCorpus(path).records()
    assert time.monotonic() - began < 2
    assert broken.document is None
    assert broken.id == "PMC5"
    assert reason in str(broken.problem)
    assert str(broken.problem).startswith(f"{path.name}: a/PMC5.xml")
    assert SECRET not in str(broken.problem)
    assert "\n" not in str(broken.problem)
    assert good.document is not None
    assert good.document.id == "PMC6"


def test_a_problem_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(b"<article>\n<body>\n<p>x</b>\n</body></article>")
    (record,) = PmcCorpus(tmp_path).records()
    assert record.problem == "a.xml:3: not well-formed XML (mismatched tag 'p')"


def test_strictly_stops_at_the_first_problem(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(b"<article>")
    with pytest.raises(CorpusError, match=r"a\.xml:1: not well-formed"):
        list(PmcCorpus(tmp_path).strictly())


def test_named_characters_of_the_jats_dtd_are_read_without_the_dtd(tmp_path: Path) -> None:
    data = article(5, "a&nbsp;b <italic>&alpha;</italic>&beta;&mdash;c").replace(
        b"<article ", b"<article ", 1
    )
    (tmp_path / "a.nxml").write_bytes(b'<!DOCTYPE article PUBLIC "-//NLM//DTD" "archivearticle.dtd">' + data)
    (document,) = PmcCorpus(tmp_path).strictly()
    assert document.text == "a b \u03b1\u03b2\u2014c"


def link(kind: bytes, name: str = "a/PMC1.xml") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def test_members_that_point_outside_links_and_devices_are_problems(make_archive: Callable[..., Path]) -> None:
    path = make_archive(
        [
            ("../PMC1.xml", article(1)),
            ("/tmp/PMC2.xml", article(2)),
            ("a/../../PMC3.xml", article(3)),
            link(tarfile.SYMTYPE, "a/PMC4.xml"),
            link(tarfile.LNKTYPE, "a/PMC5.xml"),
            link(tarfile.CHRTYPE, "a/PMC6.xml"),
            link(tarfile.FIFOTYPE, "a/PMC7.xml"),
            link(tarfile.DIRTYPE, "a/PMC8.xml"),
            ("a/PMC9.xml", article(9)),
        ]
    )
    records = list(PmcCorpus(path).records())
    assert [record.id for record in records if record.document is None] == [f"PMC{n}" for n in range(1, 8)]
    problems = [str(record.problem) for record in records if record.document is None]
    assert all("points outside of the archive" in problem for problem in problems[:3])
    assert all("a link" in problem for problem in problems[3:5])
    assert all("not a regular file" in problem for problem in problems[5:])
    assert [record.document.id for record in records if record.document] == ["PMC9"]


def test_a_member_above_the_bound_is_a_problem_and_not_read(make_archive: Callable[..., Path]) -> None:
    path = make_archive([("a/PMC1.xml", article(1, "x" * 5000)), ("a/PMC2.xml", article(2))])
    first, second = PmcCorpus(path, max_bytes=2000).records()
    assert "larger than 2,000 bytes when unpacked; raise the option max_bytes" in str(first.problem)
    assert second.document is not None


def test_a_gzip_bomb_is_read_no_further_than_the_bound(tmp_path: Path) -> None:
    (tmp_path / "a.xml.gz").write_bytes(gzip.compress(b" " * 30_000_000))
    (record,) = PmcCorpus(tmp_path, max_bytes=1000).records()
    assert "larger than 1,000 bytes when unpacked" in str(record.problem)


def test_an_extended_header_of_a_gigabyte_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**30
    (tmp_path / "a.tar").write_bytes(info.tobuf() + b"\0" * 4096)
    with pytest.raises(CorpusError, match="extended header of more than 1 MiB"):
        list(PmcCorpus(tmp_path).records())


def read_until_error(path: Path) -> tuple[list[Record], str]:
    records = []
    with pytest.raises(CorpusError) as caught:
        for record in PmcCorpus(path).records():
            records.append(record)
    return records, str(caught.value)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_truncated_archive_yields_what_is_before_and_is_an_error_naming_it(
    suffix: str, make_archive: Callable[..., Path]
) -> None:
    members = [(f"a/PMC{n}.xml", article(n, os.urandom(2000).hex())) for n in range(1, 9)]
    path = make_archive(members, name=f"bulk{suffix}")
    whole = path.read_bytes()
    size = len(whole) if suffix == ".tar.gz" else 8 * (512 + 4608)
    counts = set()
    for share in (0.2, 0.5, 0.8):
        path.write_bytes(whole[: int(size * share)])
        records, message = read_until_error(path)
        assert message.startswith(f"bulk{suffix}: truncated or damaged archive after {len(records)} members")
        counts.add(len(records))
    assert len(counts) == 3


def test_a_tar_cut_between_two_members_is_an_error_too(make_archive: Callable[..., Path]) -> None:
    path = make_archive([("a/PMC1.xml", article(1)), ("a/PMC2.xml", article(2))], name="bulk.tar")
    with tarfile.open(path) as tar:
        second = tar.getmembers()[1].offset
    path.write_bytes(path.read_bytes()[:second])
    records, message = read_until_error(path)
    assert len(records) == 1
    assert "end-of-archive marker is missing" in message


def test_a_damaged_header_in_the_middle_is_an_error_not_the_end(make_archive: Callable[..., Path]) -> None:
    path = make_archive([(f"a/PMC{n}.xml", article(n)) for n in (1, 2, 3)], name="bulk.tar")
    with tarfile.open(path) as tar:
        second = tar.getmembers()[1].offset
    data = bytearray(path.read_bytes())
    data[second : second + 100] = b"\xff" * 100
    path.write_bytes(data)
    records, message = read_until_error(path)
    assert len(records) == 1
    assert "damaged member header" in message


def test_a_wrong_gzip_checksum_behind_the_last_member_is_an_error(make_archive: Callable[..., Path]) -> None:
    path = make_archive([("a/PMC1.xml", article(1))])
    data = bytearray(path.read_bytes())
    data[-8] ^= 0xFF
    path.write_bytes(data)
    records, message = read_until_error(path)
    assert len(records) == 1
    assert "damaged" in message


def test_a_truncated_gz_is_a_problem_naming_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.xml.gz").write_bytes(gzip.compress(article(1, os.urandom(3000).hex()))[:-100])
    (tmp_path / "b.xml").write_bytes(article(2))
    first, second = PmcCorpus(tmp_path).records()
    assert first.problem == "a.xml.gz: truncated or damaged gzip data; fetch the file again"
    assert second.document is not None


def test_a_file_that_is_no_archive_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"no gzip data")
    with pytest.raises(CorpusError, match=r"a\.tar\.gz: truncated or damaged archive after 0 members"):
        list(PmcCorpus(tmp_path).records())
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"no tar in here" * 100))
    with pytest.raises(CorpusError, match=r"a\.tar\.gz: truncated or damaged archive after 0 members"):
        list(PmcCorpus(tmp_path).records())


def test_a_broken_file_list_is_an_error_naming_file_and_line(make_archive: Callable[..., Path]) -> None:
    path = make_archive([("a/PMC1.xml", article(1))], filelist="x,y,notanid,z,1,CC0,no\n")
    with pytest.raises(CorpusError, match=r"filelist\.csv:2: the AccessionID is no PMCID"):
        list(PmcCorpus(path).records())
    path.with_name(path.name.replace(".tar.gz", ".filelist.csv")).write_text("a,b\n1,2\n")
    with pytest.raises(CorpusError, match=r"filelist\.csv:1: no column AccessionID, License, Retracted"):
        list(PmcCorpus(path).records())


def test_directories_pipes_and_dangling_links_named_like_articles_stop_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.xml").mkdir()
    (tmp_path / "a.xml" / "inner.xml").write_bytes(article(1))
    os.mkfifo(tmp_path / "b.xml")
    (tmp_path / "c.xml").symlink_to(tmp_path / "nowhere.xml")
    (tmp_path / "d.xml").write_bytes(article(4))
    (tmp_path / "e.xml").symlink_to(tmp_path / "d.xml")
    (tmp_path / "loop").symlink_to(tmp_path)
    records = list(PmcCorpus(tmp_path).records())
    assert [record.document.id for record in records if record.document] == ["PMC1", "PMC4", "PMC4"]
    assert [str(record.problem) for record in records if record.problem] == [
        "b.xml: not a regular file",
        "c.xml: cannot be opened (No such file or directory)",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(article(1))
    (tmp_path / "a.xml").chmod(0)
    (record,) = PmcCorpus(tmp_path).records()
    assert record.problem == "a.xml: cannot be opened (Permission denied)"


def test_an_article_of_ten_megabytes_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(article(1, "word " * 2_000_000))
    (document,) = PmcCorpus(tmp_path).strictly()
    assert len(document.text) == 2_000_000 * 5 - 1


def test_an_article_without_text_is_a_document_without_text(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(b"<article><front/><body/></article>")
    (document,) = PmcCorpus(tmp_path).strictly()
    assert (document.id, document.text, document.title, document.sections) == ("a", "", "", ())


def test_an_article_as_deep_as_the_parser_allows_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(
        article(1, "<list><list-item>" * 115 + "deep" + "</list-item></list>" * 115)
    )
    (tmp_path / "b.xml").write_bytes(article(2, "<italic>" * 240 + "deep" + "</italic>" * 240))
    assert [document.text for document in PmcCorpus(tmp_path).strictly()] == ["deep", "deep"]


def test_the_gzip_of_a_tar_in_several_parts_is_read_to_the_end(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in (1, 2):
            info = tarfile.TarInfo(f"PMC{number}.xml")
            info.size = len(article(number))
            tar.addfile(info, io.BytesIO(article(number)))
    data = buffer.getvalue()
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(data[:700]) + gzip.compress(data[700:]))
    assert [document.id for document in PmcCorpus(tmp_path)] == ["PMC1", "PMC2"]


def pax_archive(path: Path, headers: dict[str, str]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("PMC1.xml")
        info.pax_headers, info.size = headers, len(article(1))
        tar.addfile(info, io.BytesIO(article(1)))
    return path


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "headers",
    [
        {"size": "9" * 23},
        {"GNU.sparse.size": "Zebedee"},
        {"GNU.sparse.map": "Zebedee,1", "GNU.sparse.size": "5"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_an_extended_header_that_lies_is_an_error_that_quotes_nothing(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    with pytest.raises(CorpusError, match=r"a\.tar: truncated or damaged archive") as caught:
        list(PmcCorpus(pax_archive(tmp_path / "a.tar", headers)).records())
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_archives_joined_into_one_file_are_not_taken_for_the_first_of_them(
    make_archive: Callable[..., Path], tmp_path: Path, ending: str
) -> None:
    data = b""
    for number in (1, 2):
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as tar:
            info = tarfile.TarInfo(f"PMC{number}.xml")
            info.size = len(article(number))
            tar.addfile(info, io.BytesIO(article(number)))
        data += gzip.compress(plain.getvalue()) if ending.endswith("gz") else plain.getvalue()
    (tmp_path / f"both{ending}").write_bytes(data)
    with pytest.raises(CorpusError, match="more data behind the end of the archive"):
        list(PmcCorpus(tmp_path / f"both{ending}").records())


def test_a_gzipped_article_in_an_archive_is_a_problem_and_an_archive_below_a_folder_is_read(
    tmp_path: Path,
) -> None:
    (tmp_path / "below").mkdir()
    with tarfile.open(tmp_path / "below" / "a.tar.gz", "w:gz") as tar:
        for name, data in (("PMC1.xml", article(1)), ("PMC2.xml.gz", gzip.compress(article(2)))):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (tmp_path / "PMC3.xml").write_bytes(article(3))
    corpus = PmcCorpus(tmp_path)
    records = list(corpus.records())
    assert [record.document.id for record in records if record.document] == ["PMC1", "PMC3"]
    assert [record.problem for record in records if record.problem] == [
        "a.tar.gz: PMC2.xml.gz: gzipped within the archive, expected plain XML"
    ]
    for place, record in enumerate(records):
        rest = [other.cursor for other in corpus.records(after=record.cursor)]
        assert rest == [other.cursor for other in records[place + 1 :]]
    assert [source.path for source in corpus.sources()] == [
        str(tmp_path / "below" / "a.tar.gz"),
        str(tmp_path),
    ]


def test_a_folder_that_may_not_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "PMC1.xml").write_bytes(article(1))
    scandir = os.scandir

    def refusing(path: object) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refusing)  # root may list everything
    with pytest.raises(CorpusError, match=r"closed: cannot be listed \(Permission denied\)"):
        list(PmcCorpus(tmp_path).records())
