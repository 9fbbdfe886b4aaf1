"""``cmbert corpus fetch pubmed --ids``: what it prints, being killed, and what becomes of the folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Run, assert_error
from publishers import Handler, Publisher, serving
from pubmed_records import article, write

from cmbert_retrieval.corpora import open_corpus


@pytest.fixture
def ncbi(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("NCBI_API_KEY", "0123456789abcdef")
    with serving(Publisher(records={pmid: article(pmid) for pmid in range(1, 2001)})) as publisher:
        yield publisher


def ids_file(folder: Path, *ids: object) -> Path:
    path = folder / "ids.txt"
    path.write_text("".join(f"{one}\n" for one in ids))
    return path


def test_it_says_what_came_and_what_pubmed_does_not_have(ncbi: Publisher, run: Run, tmp_path: Path) -> None:
    ids, to = ids_file(tmp_path, 1, 2, 5000), tmp_path / "p"
    command = ("corpus", "fetch", "pubmed", "--ids", ids, "--to", to)
    # A mirror has the same file at its end, whatever stands before it.
    done = run(*command, "--base-url", f"{ncbi.url}entrez/eutils/")
    assert done.code == 0
    assert done.out.startswith(f"{to}: 2 records fetched (")
    assert "0 already there, 1 left out because PubMed has no such record (by " in done.out
    assert "PubMed has no record 5000\n" in done.err
    assert done.err.endswith(f"next: cmbert index build --from pubmed:{to} --out {to}-index\n")
    again = run(*command, "--base-url", ncbi.url, "--json").json
    assert (again["fetched"], again["already_there"], again["failed"]) == (0, 2, 0)
    assert again["left_out"] == {"because PubMed has no such record": 1}


def test_a_bad_line_is_named_with_its_number(run: Run, tmp_path: Path) -> None:
    ids = ids_file(tmp_path, 1, "PMC2")
    done = run("corpus", "fetch", "pubmed", "--ids", ids, "--to", tmp_path / "p")
    assert_error(done, f"{ids}:2: no PMID; expected one a line, as 12345678")


def test_killed_it_goes_on_with_what_is_missing(ncbi: Publisher, tmp_path: Path) -> None:
    def slowly(handler: Handler) -> None:
        time.sleep(0.5)
        handler.efetch(handler.publisher.requests[-1][0]["id"].split(","))

    ncbi.faults["efetch.fcgi"] = [slowly] * 100
    to = tmp_path / "p"
    command = [sys.executable, "-m", "cmbert_retrieval", "corpus", "fetch", "pubmed",
               "--ids", str(ids_file(tmp_path, *range(1, 2001))), "--to", str(to),
               "--base-url", ncbi.url, "--connections", "1"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ})
    end = time.monotonic() + 60
    while len(list(to.glob("efetch-*.xml.gz"))) < 3:
        assert time.monotonic() < end and process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    there = {document.id for document in open_corpus("pubmed", to).strictly()}
    assert 600 <= len(there) < 2000
    ncbi.faults.clear()
    ncbi.requests.clear()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and f"{len(there):,} already there" in done.stdout, done.stderr
    asked = [pmid for query, _ in ncbi.requests for pmid in query["id"].split(",")]
    assert there.isdisjoint(asked) and len(there) + len(asked) == 2000
    assert sorted(document.id for document in open_corpus("pubmed", to).strictly()) == sorted(
        map(str, range(1, 2001))
    )
    assert sorted(path.name for path in (to / ".fetch").iterdir()) == ["lock", "state.sqlite"]


def test_an_index_of_such_records_has_no_place_among_the_updates(
    ncbi: Publisher, run: Run, tmp_path: Path
) -> None:
    to, update = tmp_path / "p", write(tmp_path / "pubmed26n0002.xml.gz", article(9))
    ids = ids_file(tmp_path, 1, 2)
    run("corpus", "fetch", "pubmed", "--ids", ids, "--to", to, "--base-url", ncbi.url)
    run("index", "build", "--from", f"pubmed:{to}", "--out", tmp_path / "i", "--encoder", "none")
    assert_error(run("index", "update", tmp_path / "i", update), "have no numbers", "PubMed's baseline")


def test_such_records_in_an_index_of_the_baseline_do_not_change_what_comes_next(
    ncbi: Publisher, run: Run, tmp_path: Path
) -> None:
    to, first = tmp_path / "p", write(tmp_path / "pubmed26n0001.xml.gz", article(1))
    second, third = (write(tmp_path / f"pubmed26n000{n}.xml.gz", article(n)) for n in (2, 3))
    ids = ids_file(tmp_path, 7)
    run("corpus", "fetch", "pubmed", "--ids", ids, "--to", to, "--base-url", ncbi.url)
    index = tmp_path / "i"
    run("index", "build", "--from", f"pubmed:{first}", "--out", index, "--encoder", "none")
    assert_error(run("index", "update", index, to), "efetch-00001.xml.gz: its name has no number")
    assert run("index", "add", index, "--from", f"pubmed:{to}").code == 0
    assert_error(run("index", "update", index, third), "pubmed26n0002 has not been applied")
    assert run("index", "update", index, second, third).code == 0
    assert run("index", "info", index, "--json").json["documents"] == 4
