"""Articles per second and words found: this library's PMC reader beside pubmed_parser, in one run.

    python benchmarks/parsing.py FOLDER_OF_XML_OR_ARCHIVE [--limit 300] [--rounds 3]

Prints one JSON line a measurement. Both sides read the same files from the disk, in one thread, in turns.
The best round counts, in processor time, so that neighbours on the machine do not matter. "text" is metadata,
abstract and paragraphs; "all" adds captions, tables and references, which ours always reads and
pubmed_parser with three more functions.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cmbert_retrieval.corpora.jats import parse_article

WORD = re.compile(r"\w+")


def ours(path: Path) -> list[str]:
    """Return all text that our reader finds in a file."""
    return [parse_article(path.read_bytes()).text_and_sections()[0]]


def theirs(pubmed_parser: Any, *, everything: bool) -> Callable[[Path], list[str]]:
    """Return the same for pubmed_parser."""

    def read(path: Path) -> list[str]:
        file = str(path)
        texts = [pubmed_parser.parse_pubmed_xml(file)["abstract"]]
        texts += [p["text"] for p in pubmed_parser.parse_pubmed_paragraph(file, all_paragraph=True)]
        if everything:
            texts += [caption["fig_caption"] for caption in pubmed_parser.parse_pubmed_caption(file) or []]
            for table in pubmed_parser.parse_pubmed_table(file) or []:
                texts += [table["caption"] or "", *table["table_columns"]]
                texts += [cell for row in table["table_values"] for cell in row]
            pubmed_parser.parse_pubmed_references(file)
        return texts

    return read


def measure(name: str, read: Callable[[Path], list[str]], files: list[Path]) -> dict[str, Any]:
    """Return articles per second of processor time, words and failures of one pass over the files."""
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
    return {
        "name": name,
        "articles": len(files),
        "articles_per_cpu_s": round(len(files) / seconds, 1),
        "words": words,
        "failures": failures,
    }


def unpack(path: Path, folder: Path, limit: int) -> list[Path]:
    """Return up to ``limit`` article files below a folder, or out of an archive."""
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix in (".xml", ".nxml"))[:limit]
    files = []
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isreg() and member.name.endswith((".xml", ".nxml")) and len(files) < limit:
                stream = tar.extractfile(member)
                assert stream is not None
                files.append(folder / f"{len(files)}.xml")
                files[-1].write_bytes(stream.read())
    return files


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sides: dict[str, Callable[[Path], list[str]]] = {"cmbert-retrieval": ours}
    try:
        import pubmed_parser
    except ImportError:
        print("skipped: pubmed_parser is not installed (pip install pubmed_parser)", file=sys.stderr)
    else:
        sides["pubmed_parser, text"] = theirs(pubmed_parser, everything=False)
        sides["pubmed_parser, all"] = theirs(pubmed_parser, everything=True)
    with tempfile.TemporaryDirectory() as folder:
        files = unpack(options.path, Path(folder), options.limit)
        if not files:
            sys.exit(f"{options.path}: no .xml or .nxml files; expected a folder of them or a .tar.gz")
        best: dict[str, dict[str, Any]] = {}
        for _ in range(options.rounds):
            for name, read in sides.items():
                result = measure(name, read, files)
                if name not in best or result["articles_per_cpu_s"] > best[name]["articles_per_cpu_s"]:
                    best[name] = result
    reference = best["cmbert-retrieval"]
    for result in best.values():
        result["ours_is_faster_by"] = round(reference["articles_per_cpu_s"] / result["articles_per_cpu_s"], 2)
        result["words_share"] = round(result["words"] / reference["words"], 3)
        print(json.dumps(result))


if __name__ == "__main__":
    main()
