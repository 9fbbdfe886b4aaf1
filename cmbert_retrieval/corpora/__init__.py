"""Readers of real formats: each is a stream of documents that can be started again, also from the middle.

Readers are imported when they are asked for, so that naming them costs nothing.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cmbert_retrieval.errors import ConfigError, CorpusError

if TYPE_CHECKING:
    from cmbert_retrieval.corpora.base import Corpus

__all__ = ["READERS", "guess_reader", "open_corpus", "reader_class"]

READERS = {
    "beir": "beir:BeirCorpus",
    "datasets": "hf_datasets:DatasetsCorpus",
    "hcpcs": "hcpcs:HcpcsCorpus",
    "icd10cm": "icd10cm:Icd10cmCorpus",
    "icd10cm_index": "icd10cm_index:Icd10cmIndexCorpus",
    "icd10cm_order": "order_files:Icd10cmOrderCorpus",
    "icd10pcs": "order_files:Icd10pcsCorpus",
    "icd9cm": "icd9cm:Icd9cmCorpus",
    "jsonl": "jsonl:JsonlCorpus",
    "mesh": "mesh:MeshCorpus",
    "notes": "notes:NotesCorpus",
    "ontology": "ontology:OntologyCorpus",
    "parquet": "parquet:ParquetCorpus",
    "pmc": "pmc:PmcCorpus",
    "pubmed": "pubmed:PubmedCorpus",
    "trec": "trec:TrecCorpus",
}
"""Reader's name -> ``module:class`` in this package."""


def open_corpus(reader: str, path: str | Path, **options: Any) -> Corpus:
    """Return the corpus at ``path``, to be read by the named reader.

    Args:
        reader: one of ``READERS``.
        path: what the reader reads; ``""`` for a reader that brings its data (``icd10cm``).
        **options: keyword arguments of the reader's class.

    Raises:
        ConfigError: the reader or one of the options is not known.
        CorpusError: nothing that this reader reads is there.
    """
    corpus_class = reader_class(reader)
    known = [key for key in inspect.signature(corpus_class).parameters if key != "path"]
    for key in options:
        if key not in known:
            expected = f"it takes {', '.join(known)}" if known else "it takes none"
            raise ConfigError(
                f"reader '{reader}': unknown option '{key}'; {expected}{_did_you_mean(key, known)}"
            )
    if (
        not str(path)
        and inspect.signature(corpus_class).parameters["path"].default is inspect.Parameter.empty
    ):
        raise CorpusError(
            f"reader '{reader}': the path is missing; expected {reader}:PATH, or for a recipe: "
            "--set source.path=PATH"
        )
    largest = options.get("max_bytes", 1)
    if isinstance(largest, bool) or not isinstance(largest, int) or largest < 1:
        raise ConfigError(f"reader '{reader}': max_bytes is {largest!r}, expected a whole number of bytes")
    return corpus_class(path, **options)


def reader_class(reader: str) -> Callable[..., Corpus]:
    """Return the class of a reader.

    Raises:
        ConfigError: the reader is not known.
    """
    if reader not in READERS:
        hint = _did_you_mean(reader, READERS)
        raise ConfigError(f"unknown reader '{reader}'; expected one of {', '.join(sorted(READERS))}{hint}")
    module, _, name = READERS[reader].partition(":")
    return cast("Callable[..., Corpus]", getattr(import_module(f"{__name__}.{module}"), name))


_MIMIC_FILES = frozenset({"discharge.csv", "radiology.csv", "noteevents.csv"})


def guess_reader(path: str | Path) -> str:
    """Return the name of the reader that ``path`` looks made for, by names; of XML also by the first tag.

    Raises:
        CorpusError: nothing is there, or nothing that a reader is known to read.
    """
    path = Path(path)
    if not path.exists():
        raise CorpusError(f"{path}: no such file or folder")
    try:
        reader = _guess_of_file(path) if not path.is_dir() else _guess_of_folder(path)
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror or type(error).__name__})") from None
    if reader is None:
        names = ", ".join(sorted(READERS))
        raise CorpusError(f"{path}: cannot tell the format; name the reader: --from READER:{path} ({names})")
    return reader


def _guess_of_file(path: Path) -> str | None:
    from cmbert_retrieval.corpora.pubmed_files import looks_like_pubmed

    if path.is_file():
        name = path.name.lower().removesuffix(".gz")
        if name.endswith(".jsonl"):
            return "jsonl"
        if name.endswith(".obo"):
            return "ontology"
        if name.endswith((".xml", ".nxml", ".tar", ".tgz")):
            return "pubmed" if looks_like_pubmed(path) else "pmc"
        if name in _MIMIC_FILES:
            return "notes"
        if name.endswith(".parquet"):
            return "parquet"
        if name.endswith(".trec"):
            return "trec"
    return None


def _guess_of_folder(path: Path) -> str | None:
    from cmbert_retrieval.corpora.pubmed_files import looks_like_pubmed

    if (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file():
        return "datasets"
    if _MIMIC_FILES & {entry.name.lower().removesuffix(".gz") for entry in path.iterdir()}:
        return "notes"
    if any(True for _ in path.glob("*.parquet")):
        return "parquet"
    if any((path / name).is_file() for name in ("corpus.jsonl", "corpus.jsonl.gz")):
        return "beir"
    if looks_like_pubmed(path):
        return "pubmed"
    return "pmc" if _looks_like_pmc(path) else None


def _looks_like_pmc(folder: Path) -> bool:
    for entry in folder.iterdir():
        name = entry.name.lower()
        if re.fullmatch(r"pmc\d+\.\d+", name) or name.endswith((".tar.gz", ".tgz", ".tar")):
            return True
        if name.removesuffix(".gz").endswith((".xml", ".nxml")):
            return True
    return any(True for pattern in ("*/*.xml", "*/*.nxml") for _ in folder.glob(pattern))


def _did_you_mean(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
