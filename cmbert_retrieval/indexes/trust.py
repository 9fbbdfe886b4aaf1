"""Is this really what we write? Asked of an index from elsewhere, before FAISS, SQLite or we rely on it.

The hashes in a manifest tell damage, not malice: who changes a file changes its hash. So what comes from a
manifest has the types that are expected, SQLite meets only the tables that a build makes, and FAISS only
files of kinds that lead to no other file.
"""

from __future__ import annotations

import re
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from cmbert_retrieval.errors import IndexCorruptError
from cmbert_retrieval.indexes.advice import run_verify
from cmbert_retrieval.indexes.columns import TYPES

_FLAT = struct.Struct("<4siqqq?iQ")
_HEADER = struct.Struct("<4siqqq?i")
_HEAD_BYTES = 1 << 20
_INNER_PRODUCT = 0

# Kinds that searching within memory needs, by the name at the head of their file: flat, graphs, inverted
# lists, codes, and the wrappers that change vectors before (IxPT) or score again behind (IxRF).
_KINDS = re.compile(
    rb"IxF[I2l]|IHN[fpsc2]|INS[fps]|Iw[A-Za-z0-9]{2}|Iv[A-Za-z0-9]{2}|I[xrm][PSRrqQpT][A-Za-z]|IPfs|IRfs|ILfs"
)

# Inverted lists in another file: the name, the number of lists and the size of a code, both of a sane size.
_LISTS_ELSEWHERE = re.compile(rb"ilod.{4}\0{4}.{4}\0{4}", re.DOTALL)


# --- vectors ---


def check_faiss_file(path: Path, factory: str, *, rows: int, dim: int) -> None:
    """Check the head of a FAISS file before FAISS reads it.

    A Flat file is checked wholly: its header, and its size to the byte. Of other kinds the outer header is
    checked (kind, rows, dimensions, metric), and that no inverted lists in another file are named within the
    first megabyte, where they stand unless the centroids before them are large. What lies deeper is for
    FAISS: ``faiss_flags`` keeps it to files in the index's own folder, for reading, and
    ``check_faiss_index`` refuses them. A file that is made to exploit an error in FAISS's own reader of HNSW,
    IVF or PQ is not recognised: open indexes of such kinds only from those whom you trust.

    Args:
        path: the file.
        factory: what the manifest says that it is.
        rows: vectors that it must hold.
        dim: their length.

    Raises:
        IndexCorruptError: it is something else.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_FLAT.size if factory == "Flat" else _HEAD_BYTES)
    if len(head) < _FLAT.size:
        raise _not_expected(path, f"{size} bytes are too few")
    kind, width, count, _, _, trained, metric = _HEADER.unpack_from(head)
    if factory == "Flat":
        values = _FLAT.unpack_from(head)[-1]
        if kind != b"IxFI" or values != count * width or size != _FLAT.size + 4 * count * width:
            raise _not_expected(path, f"not a Flat file of {count} vectors in {size:,} bytes")
    elif not _KINDS.fullmatch(kind):
        raise _not_expected(path, f"kind {kind!r} is none that is read")
    elif _LISTS_ELSEWHERE.search(head):
        raise _not_expected(path, "inverted lists in another file")
    if (count, width) != (rows, dim):
        raise _not_expected(path, f"holds {count} vectors of {width} dimensions, expected {rows} of {dim}")
    if not trained or metric != _INNER_PRODUCT:
        raise _not_expected(
            path, f"metric {metric}, trained: {trained}; expected a trained one of inner products"
        )


def faiss_flags(factory: str) -> int:
    """Return the flags to read a file with: Flat is mapped, and no list leads out of the index's folder."""
    import faiss

    if factory == "Flat":
        return int(faiss.IO_FLAG_MMAP_IFC)
    return int(faiss.IO_FLAG_ONDISK_SAME_DIR | faiss.IO_FLAG_READ_ONLY)


def check_faiss_index(index: Any, path: Path) -> None:
    """Refuse an index, as FAISS has read it, that keeps its lists in another file.

    Raises:
        IndexCorruptError: it does.
    """
    import faiss

    inner = faiss.downcast_index(index)
    for name in ("index", "base_index", "refine_index", "quantizer", "storage"):
        part = getattr(inner, name, None)
        if part is not None:
            check_faiss_index(part, path)
    lists = getattr(inner, "invlists", None)
    if lists is not None and isinstance(faiss.downcast_InvertedLists(lists), faiss.OnDiskInvertedLists):
        raise _not_expected(path, "inverted lists in another file")


def _not_expected(path: Path, reason: str) -> IndexCorruptError:
    return IndexCorruptError(f"{path}: {reason}; {run_verify(path)}")


# --- documents ---


def check_database(connection: sqlite3.Connection, path: Path) -> None:
    """Check that a database has the tables and indexes of a segment, and nothing that runs by itself.

    A view in the place of a table is a program that the first query runs; ``trusted_schema`` does not stop
    it. The tables that a build keeps for itself may be there.

    Raises:
        IndexCorruptError: something is missing, or is there that no build makes.
    """
    from cmbert_retrieval.indexes.documents import TABLES
    from cmbert_retrieval.indexes.shards import BUILD_TABLES

    found = _definitions(connection)
    needed, known = _defined_by(TABLES), _defined_by(TABLES + BUILD_TABLES)
    strange = sorted(name for name in found if found[name] != known.get(name))
    missing = sorted(name for name in needed if name not in found)
    if strange or missing:
        kind, name = (strange or missing)[0]
        what = (
            "is missing"
            if not strange
            else "is not as a build makes it"
            if strange[0] in known
            else "is foreign"
        )
        raise IndexCorruptError(f"{path}: the {kind} '{name[:60]}' {what}; {run_verify(path)}")


Definitions = dict[tuple[str, str], str]


@cache
def _defined_by(statements: str) -> Definitions:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(statements)
        return _definitions(connection)


def _definitions(connection: sqlite3.Connection) -> Definitions:
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    return {
        (str(kind), str(name)): f"{table}: {_without_comments(str(sql))}" for kind, name, table, sql in rows
    }


def _without_comments(sql: str) -> str:
    return "".join(re.sub(r"--[^\n]*", "", sql).split())


# --- the manifest ---


def check_manifest_values(values: Mapping[str, Any]) -> None:
    """Check types and bounds of what a manifest says, as JSON gives it.

    Raises:
        ValueError: names the key, what was expected and the type that was got.
    """
    for key in ("commit", "documents", "rows", "next_row", "next_segment", "dead_rows"):
        _integer(values, key)
    _integer(values, "commit", least=1)
    for key in ("analyser", "lexical", "created"):
        _of(values, key, str, "a text")
    if values["deleted"] is not None:
        _of(values, "deleted", str, "a text or null")
    for key, kind in _texts(values, "columns").items():
        if kind not in TYPES:
            raise ValueError(f"columns.{key} is no type of a column")
    _texts(values, "versions")
    for number, source in enumerate(_of(values, "sources", list, "a list")):
        _of(values["sources"], number, dict, "an object", "sources")
        _of(source, "path", str, "a text", f"sources.{number}")
    for name in _of(values, "files", dict, "an object"):
        entry = _of(values["files"], name, dict, "an object", "files")
        _integer(entry, "bytes", f"files.{name[:60]}")
        _of(entry, "sha256", str, "a text", f"files.{name[:60]}")
    _check_recipe(values)
    _check_encoder(values)
    _check_segments(values)
    _check_named(values)


def _check_recipe(values: Mapping[str, Any]) -> None:
    recipe = _of(values, "recipe", dict, "an object")
    _of(recipe, "name", str, "a text", "recipe")
    search = _of(recipe, "search", dict, "an object", "recipe")
    for key in ("mode", "fusion"):
        _of(search, key, str, "a text", "recipe.search")
    _integer(search, "depth", "recipe.search", least=1)
    weight = search.get("dense_weight")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1:
        raise ValueError("recipe.search.dense_weight is not a number from 0 to 1")


def _check_encoder(values: Mapping[str, Any]) -> None:
    if values["encoder"] is None:
        return
    entry = _of(values, "encoder", dict, "an object or null")
    _of(entry, "source", str, "a text", "encoder")
    _texts(entry, "probes", "encoder")
    identity = _of(entry, "identity", dict, "an object", "encoder")
    for key in ("name", "revision", "pooling", "weights_sha256"):
        _of(identity, key, str, "a text", "encoder.identity")
    for key in ("dim", "max_tokens"):
        _integer(identity, key, "encoder.identity", least=1)
    _of(identity, "normalized", bool, "true or false", "encoder.identity")
    _texts(identity, "prompts", "encoder.identity")


def _check_segments(values: Mapping[str, Any]) -> None:
    end, stored = 0, 0
    for number, segment in enumerate(_of(values, "segments", list, "a list")):
        where = f"segments.{number}"
        _of(values["segments"], number, dict, "an object", "segments")
        for key in ("name", "factory"):
            _of(segment, key, str, "a text", where)
        for key in ("first_row", "end_row", "rows", "documents"):
            _integer(segment, key, where)
        first, last = segment["first_row"], segment["end_row"]
        if not end <= first <= last <= values["next_row"] or segment["rows"] > last - first:
            raise ValueError(f"{where} has rows {first} to {last}, which do not follow those before")
        end, stored = last, stored + segment["rows"]
    if values["rows"] > stored:
        raise ValueError(f"rows is {values['rows']}, but the segments hold {stored}")


def _check_named(values: Mapping[str, Any]) -> None:
    """Check that ``files`` names what the commit is made of: a writer removes what it does not name."""
    files = values["files"]
    names = ["documents.sqlite"] + (["vectors.faiss"] if values["encoder"] is not None else [])
    needed = [f"segments/{segment['name']}/{name}" for segment in values["segments"] for name in names]
    needed += [values["deleted"]] if values["deleted"] is not None else []
    needed += [f"{values['lexical']}/meta.json"]
    for name in needed:
        if name not in files:
            raise ValueError(f"files does not name {name[:60]}")


def _of(
    values: Mapping[str, Any] | Sequence[Any], key: Any, kind: type, expected: str, where: str = ""
) -> Any:
    """Return ``values[key]``, which is there and of this type."""
    name = f"{where}.{key}" if where else str(key)
    try:
        value = values[key]
    except (KeyError, IndexError):
        raise ValueError(f"{name} is missing, expected {expected}") from None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{name} is a {type(value).__name__}, expected {expected}")
    return value


def _integer(values: Mapping[str, Any], key: str, where: str = "", *, least: int = 0) -> None:
    value = _of(values, key, int, "an integer", where)
    if not least <= value < 2**63:
        raise ValueError(f"{where + '.' if where else ''}{key} is {value}, expected at least {least}")


def _texts(values: Mapping[str, Any], key: str, where: str = "") -> dict[str, str]:
    """Return ``values[key]``, an object of texts."""
    texts: dict[str, str] = _of(values, key, dict, "an object", where)
    for name in texts:
        _of(texts, name, str, "a text", f"{where}.{key}" if where else key)
    return texts
