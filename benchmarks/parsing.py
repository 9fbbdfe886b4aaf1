"""Articles and records a second, and words found: our readers of PMC and PubMed beside pubmed_parser.

Both sides read the same files from the disk, in one thread, in turns, and processor time counts. What
pubmed_parser offers for the text of an article is called once a file each:

- paragraphs: ``parse_pubmed_xml`` (metadata, abstract) and ``parse_pubmed_paragraph(all_paragraph=True)``;
- all text: these, ``parse_pubmed_caption`` and ``parse_pubmed_table``;
- with references: these and ``parse_pubmed_references``.

Ours always reads everything, in one call. A file that raises an exception counts as read and as a failure.
Of PubMed, ours gives documents with all metadata, theirs what ``parse_medline_xml`` yields as it comes.
"""

from __future__ import annotations

import gzip
import math
import re
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _measure import Results, run, take_turns, versioned, wanted

from cmbert_retrieval.corpora import READERS, open_corpus
from cmbert_retrieval.corpora.jats import parse_article

WORD = re.compile(r"\w+")
ROUNDS = 3
PUBMED_RECORDS = 5000  # at least


def ours(path: Path) -> list[str]:
    """Return all text that our reader finds in a file."""
    return [parse_article(path.read_bytes()).text_and_sections()[0]]


def theirs(
    pubmed_parser: Any, *, floats: bool = False, references: bool = False
) -> Callable[[Path], list[str]]:
    """Return what does the same with pubmed_parser."""

    def read(path: Path) -> list[str]:
        file = str(path)
        texts = [pubmed_parser.parse_pubmed_xml(file)["abstract"]]
        texts += [p["text"] for p in pubmed_parser.parse_pubmed_paragraph(file, all_paragraph=True)]
        if floats:
            texts += [caption["fig_caption"] for caption in pubmed_parser.parse_pubmed_caption(file) or []]
            for table in pubmed_parser.parse_pubmed_table(file) or []:
                texts += [table["caption"] or "", *table["table_columns"]]
                texts += [cell for row in table["table_values"] for cell in row]
        if references:
            pubmed_parser.parse_pubmed_references(file)
        return texts

    return read


@dataclass
class Pass:
    """One reading of all files by one side: records a second of processor time, words, failures."""

    speed: float
    words: int
    failures: int


def read_all(read: Callable[[Path], list[str]], files: list[Path]) -> Pass:
    """Read all files with one side."""
    words = failures = 0
    seconds = 0.0
    for file in files:
        began = time.process_time()
        try:
            texts = read(file)
        except Exception:  # what the other side cannot read is a finding, not our error
            texts = []
            failures += 1
        seconds += time.process_time() - began
        words += sum(len(WORD.findall(text or "")) for text in texts)
    return Pass(len(files) / seconds, words, failures)


def unpack(archive: Path, folder: Path) -> list[Path]:
    """Return the article files of an archive, unpacked."""
    files = []
    with tarfile.open(archive) as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.name.endswith(".xml") else None
            if stream is not None:
                files.append(folder / f"{len(files)}.xml")
                files[-1].write_bytes(stream.read())
    return files


def pmc(data: Path, results: Results) -> None:
    """Measure the full texts of PMC."""
    archive = wanted(data / "pmc_oa_bulk_sample" / "oa_comm_xml.sample.baseline.tar.gz")
    peer = versioned("pubmed_parser")
    import pubmed_parser

    sides = {
        "ours": ours,
        "paragraphs": theirs(pubmed_parser),
        "all text": theirs(pubmed_parser, floats=True),
        "with references": theirs(pubmed_parser, floats=True, references=True),
    }
    with tempfile.TemporaryDirectory() as folder:
        files = unpack(archive, Path(folder))
        passes: dict[str, list[Pass]] = {side: [] for side in sides}
        for _ in range(ROUNDS):
            for side, read in sides.items():
                passes[side].append(read_all(read, files))
    speeds = {side: statistics.median(one.speed for one in done) for side, done in passes.items()}
    mine = passes["ours"][0]
    for side in ("paragraphs", "all text", "with references"):
        other = passes[side][0]
        results.add(
            f"PMC articles, {side}",
            ours=speeds["ours"],
            theirs=speeds[side],
            unit="articles/s",
            peer=peer,
            repeats=ROUNDS,
            mark="ratio >= 1.5",
            articles=len(files),
            failures=mine.failures,
            failures_theirs=other.failures,
        )
        if side != "with references":
            results.add(
                f"PMC words found, {side}",
                ours=mine.words,
                theirs=other.words,
                unit="words",
                peer=peer,
                repeats=1,
                mark="ratio >= 1",
            )


def pubmed(data: Path, results: Results) -> None:
    """Measure records of PubMed: a few real ones, over and over, as one file.

    First those of a file of PubMed, then also the single ones, picked for being long. Speed follows size, so
    the mean size stands beside it: the files that NLM publishes have 6,000 to 7,000 bytes a record.
    """
    if "pubmed" not in READERS:
        results.skip("PubMed records", "this version has no reader 'pubmed'")
        return
    peer = versioned("pubmed_parser")
    import pubmed_parser

    folder = wanted(data / "jats_medline_samples")
    paths = [path for path in sorted(folder.iterdir()) if path.name.endswith((".xml", ".xml.gz"))]
    few = [record for path in paths if path.suffix == ".gz" for record in records_of(path)]
    measured = {
        "PubMed records": few,
        "PubMed records, also long": [r for path in paths for r in records_of(path)],
    }
    for name, records in measured.items():
        with tempfile.TemporaryDirectory() as made:
            path = Path(made) / "pubmed26n0001.xml.gz"
            copies = math.ceil(PUBMED_RECORDS / len(records))
            content = b"\n".join([b"<PubmedArticleSet>", *records * copies, b"</PubmedArticleSet>"])
            path.write_bytes(gzip.compress(content))
            sides: dict[str, Callable[[], list[str]]] = {
                "ours": lambda path=path: [document.text for document in open_corpus("pubmed", path)],
                "theirs": lambda path=path: [
                    found["abstract"] for found in pubmed_parser.parse_medline_xml(str(path))
                ],
            }
            counts = {side: len(read()) for side, read in sides.items()}
            times = take_turns(sides, ROUNDS)
        results.add(
            name,
            ours=counts["ours"] / statistics.median(times["ours"].processor),
            theirs=counts["theirs"] / statistics.median(times["theirs"].processor),
            unit="records/s",
            peer=peer,
            repeats=ROUNDS,
            mark="ours >= 5000",
            mean_bytes=round(statistics.mean(map(len, records))),
            records=counts["ours"],
            records_theirs=counts["theirs"],
            different=len(records),
        )


def records_of(path: Path) -> list[bytes]:
    """Return the articles of a file of PubMed, as they stand in it."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return re.findall(rb"<PubmedArticle\b.*?</PubmedArticle>", raw, re.DOTALL)


def parsing(data: Path, results: Results) -> None:
    """Measure both kinds of XML."""
    pmc(data, results)
    pubmed(data, results)


if __name__ == "__main__":
    run(parsing, __doc__)
