"""Memory of building an index of 4,000 articles beside that of 1,000: it must not grow with the corpus.

Each build is a process of its own (``cmbert index build``). What counts is the most anonymous memory that it
had (``RssAnon`` of ``/proc``, asked every 20 ms): its own, not the pages of files that the system keeps while
there is room. Texts are full articles of PMC; for the build with an encoder (a tiny one with random weights,
so that it takes minutes) the first 3,000 characters of each.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
from pathlib import Path

from _measure import ROOT, RUNS, Results, SkippedError, most_anonymous_mib, read_jsonl, run

SIZES = (1000, 4000)
TINY_ENCODER = ROOT / "tests" / "fixtures" / "tiny-encoder"
MAX_CHARACTERS = 3000


def write_articles(data: Path, path: Path, count: int, max_characters: int | None) -> None:
    """Write ``count`` articles as JSON lines of id, title and text."""
    folder = data / "pmc_evidence_inference"
    names = ("pmc_fulltext_ccby_cc0.jsonl.gz", "pmc_fulltext_other_licences.jsonl.gz")
    articles = itertools.chain.from_iterable(read_jsonl(folder / name) for name in names)
    with path.open("w", encoding="utf-8") as file:
        for article in itertools.islice(articles, count):
            paragraphs = [article["abstract"] or ""]
            for section in article["sections"]:
                paragraphs += [section["h"] or "", *section["p"]]
            text = "\n\n".join(filter(None, paragraphs))[:max_characters]
            document = {"id": article["pmcid"], "title": article["title"] or "", "text": text}
            file.write(json.dumps(document) + "\n")


def memory(data: Path, results: Results) -> None:
    """Measure both builds in both sizes."""
    if not Path("/proc/self/status").exists():
        raise SkippedError("needs /proc, as Linux has it")
    RUNS.mkdir(parents=True, exist_ok=True)
    for encoder, max_characters in (("none", None), (str(TINY_ENCODER), MAX_CHARACTERS)):
        peaks = {}
        for size in SIZES:
            with tempfile.TemporaryDirectory(dir=RUNS) as folder:
                source = Path(folder) / "articles.jsonl"
                write_articles(data, source, size, max_characters)
                command = [sys.executable, "-m", "cmbert_retrieval", "index", "build"]
                command += ["--from", f"jsonl:{source}", "--out", f"{folder}/index", "--encoder", encoder]
                peaks[size] = most_anonymous_mib(command)
        few, many = SIZES
        kind = "words alone" if encoder == "none" else "with a tiny encoder"
        results.add(
            f"building {many:,} articles, {kind}",
            ours=peaks[many],
            theirs=peaks[few],
            unit="MiB anonymous",
            peer=f"itself with {few:,}",
            repeats=1,
            mark="ratio <= 1.25",
        )


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(ROOT))  # the library of this clone, wherever one is installed
    run(memory, __doc__)
