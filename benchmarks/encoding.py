"""Speed of the int8 backend against ``SentenceTransformer.encode`` as it comes: same model, texts and cores.

Both sides take turns in one process, so that whatever else the machine does meets both. Prints a JSON line
for each kind of text: the median texts a second of both sides, their ratio, and how far the vectors agree.

    python benchmarks/encoding.py [--texts FILE] [--repeats 5]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import statistics
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cmbert_retrieval.encoders import load_encoder
from cmbert_retrieval.encoders.agreement import compare_vectors
from cmbert_retrieval.threads import thread_budget


def icd_titles(count: int) -> list[str]:
    """Return titles of ICD-10-CM codes, drawn with a fixed seed."""
    package = importlib.util.find_spec("simple_icd_10_cm")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("needs the package simple-icd-10-cm")
    (tabular,) = (Path(package.submodule_search_locations[0]) / "data").glob("*.xml")
    titles = sorted(
        {entry.findtext("desc", "") for entry in ElementTree.parse(tabular).getroot().iter("diag")}
    )
    return random.Random(7).sample(titles, count)


def seconds(call: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--texts", type=Path, help="a long text a line; joined ICD-10-CM titles when left out"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--short", type=int, default=512)
    parser.add_argument("--long", type=int, default=32)
    arguments = parser.parse_args()

    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(thread_budget())
    ours = load_encoder(backend="onnx")
    exact: Any = load_encoder(backend="sentence_transformers", device="cpu", dtype="float32")
    theirs = SentenceTransformer(str(exact.folder), device="cpu")

    if arguments.texts:
        long = [line for line in arguments.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
    else:
        titles = icd_titles(arguments.long * 60)
        long = [" ".join(titles[start : start + 60]) for start in range(0, len(titles), 60)]
    long = [text for text, count in zip(long, ours.count_tokens(long), strict=True) if count >= 254]
    for name, texts in (
        ("icd10cm titles", icd_titles(arguments.short)),
        ("256 tokens", long[: arguments.long]),
    ):
        sides = {
            "sentence_transformers_fp32": lambda texts=texts: theirs.encode(texts),
            "onnx_int8": lambda texts=texts: ours.encode_document(texts),
        }
        times: dict[str, list[float]] = {side: [] for side in sides}
        for call in sides.values():
            call()
        for _ in range(arguments.repeats):
            for side, call in sides.items():
                times[side].append(seconds(call))
        medians = {side: statistics.median(values) for side, values in times.items()}
        agreement = compare_vectors(theirs.encode(texts), ours.encode_document(texts))
        result: dict[str, Any] = {"texts": name, "count": len(texts), "threads": thread_budget()}
        result |= {f"{side}_per_second": round(len(texts) / value, 1) for side, value in medians.items()}
        result["ratio"] = round(medians["sentence_transformers_fp32"] / medians["onnx_int8"], 2)
        result |= {
            "min_cosine": round(agreement.min_cosine, 4),
            "mean_cosine": round(agreement.mean_cosine, 4),
        }
        result["rank_correlation"] = round(agreement.rank_correlation, 4)
        print(json.dumps(result), flush=True)
    query = [seconds(lambda: ours.encode_query(["type 2 diabetes with kidney disease"])) for _ in range(50)]
    print(json.dumps({"texts": "one query", "onnx_int8_p50_ms": round(statistics.median(query) * 1e3, 2)}))


if __name__ == "__main__":
    main()
