"""A year of PubMed in small: real records, real commands, readers that never notice, kills anywhere."""

from __future__ import annotations

import gzip
import re
import shutil
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import harness
import pytest
from harness import State
from test_readers import Readers, assert_only_the_last_commit_is_there

from cmbert_retrieval.encoders import load_encoder
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.shard_files import shard_name
from cmbert_retrieval.indexes.writer import IndexWriter
from cmbert_retrieval.retriever import Retriever

pytestmark = pytest.mark.slow

FILES = (
    "tipplerow_pubmed_sample.xml.gz",
    "tipplerow_29355075.xml",
    "tipplerow_30073290.xml",
    "pubmed-29768149.xml",
)
HEAD = b'<?xml version="1.0" encoding="utf-8"?>\n<PubmedArticleSet>\n'
QUERIES = (
    "statins and prostate cancer",
    "asthma",
    "knee osteoarthritis pain",
    "hematoma surgery",
    "colorectal",
)


class Pubmed:
    """What PubMed publishes, and what it holds after each file: a dict of PMID -> (version, title)."""

    def __init__(self, folder: Path, samples: Path) -> None:
        self.folder = folder
        self.published: list[Path] = []
        self.titles: dict[str, tuple[int, str]] = {}
        self.real: dict[str, bytes] = {}
        for name in FILES:
            data = (samples / name).read_bytes()
            data = gzip.decompress(data) if name.endswith(".gz") else data
            for record in re.findall(rb"<PubmedArticle>.*?</PubmedArticle>", data, re.DOTALL):
                self.real[pmid_of(record)] = record

    def publish(self, *records: bytes, delete: tuple[str, ...] = (), data: bytes = b"") -> Path:
        """Write the next file: records and deletions behind them, or the ``data`` of a whole one."""
        deletions = "".join(f'<PMID Version="1">{pmid}</PMID>' for pmid in delete)
        data = data or b"".join(
            (HEAD, *records, f"<DeleteCitation>{deletions}</DeleteCitation></PubmedArticleSet>".encode())
        )
        path = self.folder / f"pubmed26n{len(self.published) + 1:04d}.xml.gz"
        path.write_bytes(gzip.compress(data, mtime=0))
        self.published.append(path)
        for element in ET.fromstring(data):
            if element.tag == "DeleteCitation":
                for pmid in element.findall("PMID"):
                    self.titles.pop(str(pmid.text), None)
                continue
            pmid = element.find("MedlineCitation/PMID")
            title = element.find("MedlineCitation/Article/ArticleTitle")
            assert pmid is not None and title is not None
            version = int(pmid.get("Version", "1"))
            if version >= self.titles.get(str(pmid.text), (0, ""))[0]:
                self.titles[str(pmid.text)] = (version, "".join(title.itertext()))
        return path

    def check(self, root: Path) -> None:
        """Compare an index with the dict."""
        with IndexReader(root) as reader:
            assert reader.manifest.documents == len(self.titles)
            for pmid, (_, title) in self.titles.items():
                document = reader.get(pmid)
                assert document is not None and document.title == title
        assert harness.problems(root) == []


def pmid_of(record: bytes) -> str:
    found = re.search(rb"<PMID[^>]*>(\d+)<", record)
    assert found is not None
    return found[1].decode()


def revised(record: bytes, what: str) -> bytes:
    """Return a record with another title."""
    return re.sub(rb"(<ArticleTitle>)", rb"\g<1>" + what.encode() + b" ", record, count=1)


def copies(record: bytes, first: int, count: int) -> list[bytes]:
    """Return a record under other PMIDs."""
    return [
        re.sub(rb"(<PMID[^>]*>)\d+", rb"\g<1>" + str(number).encode(), record, count=1)
        for number in range(first, first + count)
    ]


@pytest.fixture
def pubmed(shared_data: Path, tmp_path: Path) -> Pubmed:
    samples = shared_data / "jats_medline_samples"
    if not (samples / FILES[0]).is_file():
        pytest.skip("no records of PubMed among the real data")
    (tmp_path / "pubmed").mkdir()
    found = Pubmed(tmp_path / "pubmed", samples)
    found.publish(data=gzip.decompress((samples / FILES[0]).read_bytes()))  # as it was, deletions and all
    found.publish(*copies(found.real["29355075"], 70_000_000, 60))
    return found


def run(*arguments: str) -> dict[str, Any]:
    ended = harness.run(*arguments)
    assert ended.code == 0, ended.err
    return ended.report


def build(source: Path, out: Path, encoder: Path) -> None:
    settings = ["--set", "shard_rows=16", "--set", "name=pubmed", "--set", "passages.max_tokens=120"]
    run(
        "index",
        "build",
        "--from",
        f"pubmed:{source}",
        "--out",
        str(out),
        "--encoder",
        str(encoder),
        *settings,
        "--json",
    )


def test_updates_under_four_readers_end_as_a_dict_of_records_and_a_fresh_build_do(
    pubmed: Pubmed, tmp_path: Path, tiny_encoder_path: Path
) -> None:
    root, fresh, real = tmp_path / "index", tmp_path / "fresh", pubmed.real
    build(pubmed.folder, root, tiny_encoder_path)
    pubmed.check(root)
    queries = {str(number): text for number, text in enumerate(QUERIES)}
    readers = Readers(root, tmp_path, queries, encoder_name=str(tiny_encoder_path))
    readers.note_commit()
    held = IndexReader(root)
    before = State.of_reader(held)
    with readers.searching([1, 1, 5, 25]):
        for records, delete in (
            ([real["30073290"], real["29768149"]], ()),  # adds
            ([revised(real["31687927"], "Revised:"), real["24451147"]], ()),  # revises; one is unchanged
            ([], ("24451147", "70000003", "70000004", "99999999")),  # deletes, one of them is unknown
            (
                [
                    revised(real["24451147"], "Back:"),
                    *copies(revised(real["29355075"], "New:"), 70_000_000, 9),
                ],
                (),
            ),
        ):
            path = pubmed.publish(*records, delete=delete)
            (file,) = run("index", "update", str(root), str(path), "--json")["files"]
            assert file["applied"]
            readers.note_commit()
            pubmed.check(root)
        manifest = (root / "manifest.json").read_bytes()
        again = run("index", "update", str(root), *map(str, reversed(pubmed.published)), "--json")
        assert [file["applied"] for file in again["files"]] == [False] * len(pubmed.published)
        assert (root / "manifest.json").read_bytes() == manifest
    readers.check()
    assert State.of_reader(held) == before
    held.close()

    build(pubmed.folder, fresh, tiny_encoder_path)
    assert State.of(root).texts() == State.of(fresh).texts()
    run("index", "optimize", str(root), "--json")
    run("index", "optimize", str(fresh), "--json")
    encoder = load_encoder(tiny_encoder_path, threads=1)
    for mode in ("lexical", "dense", "hybrid"):
        with Retriever(IndexReader(root), encoder) as old, Retriever(IndexReader(fresh), encoder) as new:
            for text in QUERIES:
                one, other = (each.search(text, k=100, mode=mode) for each in (old, new))
                assert {hit.id: pytest.approx(hit.score, abs=1e-4) for hit in one} == {
                    hit.id: hit.score for hit in other
                }
    with IndexWriter(root) as writer:
        writer.delete(["1"])
    assert_only_the_last_commit_is_there(root)


def test_a_killed_update_goes_on_and_ends_as_one_that_nobody_disturbed(
    pubmed: Pubmed, tmp_path: Path, tiny_encoder_path: Path
) -> None:
    root, whole = tmp_path / "index", tmp_path / "whole"
    build(pubmed.folder, root, tiny_encoder_path)
    shutil.copytree(root, whole)
    real = pubmed.real
    pubmed.publish(
        *copies(revised(real["29355075"], "New:"), 70_000_000, 30), *copies(real["30073290"], 80_000_000, 40),
        delete=tuple(str(number) for number in range(70_000_020, 70_000_040)),
    )  # fmt: skip
    pubmed.publish(*copies(real["29768149"], 80_000_010, 5), delete=("80000012", "80000030"))
    pubmed.publish(delete=("24451147",))
    command = ["index", "update", "--json", str(whole), *map(str, pubmed.published)]
    undisturbed = run(*command)
    command[3] = str(root)
    for shard in (0, 1, 3, 6):
        stored = root / "segments" / "00001.building" / shard_name(shard)
        process = harness.start(command)
        while not stored.exists() and process.poll() is None:
            time.sleep(0.001)
        harness.kill(process)
        assert harness.finish(process).code < 0, f"shard {shard} came with the end"
    ended = harness.run(*command)
    assert ended.code == 0, ended.err
    pubmed.check(root)
    assert State.of(root) == State.of(whole)
    encoder = load_encoder(tiny_encoder_path, threads=1)
    assert harness.answers(root, encoder) == harness.answers(whole, encoder)
    assert undisturbed["commit"] == ended.report["commit"] == 4
