"""The manifest: the one file that says what an index is. Renaming it into place is the commit."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.corpora.base import Source
from cmbert_retrieval.encoders.base import EncoderIdentity
from cmbert_retrieval.errors import CmbertError, IndexCorruptError, IndexMismatchError
from cmbert_retrieval.indexes.advice import run_verify
from cmbert_retrieval.indexes.trust import check_manifest_values
from cmbert_retrieval.storage import atomic_file, sha256_of

SCHEMA = 1
MANIFEST = "manifest.json"
COMMITS = "commits"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Size and SHA-256 of a file of the index."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileEntry:
        """Read the file and return its entry."""
        return cls(path.stat().st_size, sha256_of(path))


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """A run of rows that were written together.

    Attributes:
        name: its folder below ``segments/``.
        first_row: the first row number that may be in it.
        end_row: one past the last. Ranges of segments never overlap and ascend.
        rows: rows stored, dead ones included. Less than the range when a merge dropped dead rows;
            ``rows.npy`` in the folder then holds the row numbers in order.
        documents: documents stored.
        factory: the FAISS factory of its vectors, "" in an index of words only.
    """

    name: str
    first_row: int
    end_row: int
    rows: int
    documents: int
    factory: str

    @property
    def dense(self) -> bool:
        """Whether row ``first_row + i`` is vector ``i``, without a table."""
        return self.rows == self.end_row - self.first_row


@dataclass(frozen=True, slots=True)
class EncoderEntry:
    """The encoder that made the vectors, and what proves that another copy is the same.

    Attributes:
        identity: all that decides its vectors.
        source: what opens it again: a bundled name, a hub id, or a folder (``encoder`` is the one inside the
            index).
        probes: path ("query", "document") -> base64 of float16 vectors of fixed probe texts.
    """

    identity: EncoderIdentity
    source: str
    probes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One commit of an index. Values only; every change makes a new one."""

    commit: int
    documents: int
    rows: int
    next_row: int
    next_segment: int
    recipe: Mapping[str, Any]
    columns: Mapping[str, str]
    analyser: str
    encoder: EncoderEntry | None
    segments: tuple[SegmentEntry, ...]
    lexical: str
    deleted: str | None
    dead_rows: int
    sources: tuple[Mapping[str, Any], ...]
    files: Mapping[str, FileEntry]
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    schema: int = SCHEMA

    def stamped(self) -> Manifest:
        """Return a copy that names the time and the versions of the libraries that wrote it."""
        return replace(
            self, created=datetime.now(UTC).isoformat(timespec="seconds"), versions=library_versions()
        )

    def to_bytes(self) -> bytes:
        """Return the JSON text, with a checksum of itself."""
        values = asdict(self)
        values["checksum"] = _checksum(values)
        return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, path: Path) -> Manifest:
        """Parse what ``to_bytes`` wrote.

        Raises:
            IndexCorruptError: it is not JSON, a key is missing or of another type, or the checksum differs.
            IndexMismatchError: its schema is newer than this library.
        """
        try:
            values = json.loads(data)
            schema = values["schema"]
        except (ValueError, KeyError, TypeError) as error:
            raise IndexCorruptError(f"{path}: not a manifest of an index ({type(error).__name__})") from None
        if not isinstance(schema, int) or schema > SCHEMA:
            raise IndexMismatchError(
                f"{path}: written with index schema {schema}, this version reads up to {SCHEMA}; "
                "upgrade: pip install -U cmbert-retrieval"
            )
        if values.pop("checksum", None) != _checksum(values):
            raise IndexCorruptError(
                f"{path}: its checksum differs from its contents; the file was changed or damaged"
            )
        try:
            check_manifest_values(values)
            if values["encoder"] is not None:
                identity = EncoderIdentity.from_json(values["encoder"].pop("identity"))
                values["encoder"] = EncoderEntry(identity=identity, **values["encoder"])
            values["segments"] = tuple(SegmentEntry(**entry) for entry in values["segments"])
            values["files"] = {name: FileEntry(**entry) for name, entry in values["files"].items()}
            values["sources"] = tuple(values["sources"])
            manifest = cls(**values)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise IndexCorruptError(f"{path}: not a manifest of an index ({error})") from None
        names = [*manifest.files, *(entry.name for entry in manifest.segments)]
        names += [name for name in (manifest.lexical, manifest.deleted) if name]
        for name in names:
            # An index from elsewhere must not make us read, copy or remove what lies outside its folder.
            if "\\" in name or ":" in name or any(part in ("", ".", "..") for part in name.split("/")):
                raise IndexCorruptError(f"{path}: names '{name[:60]}', which is no file of an index")
        return manifest


def _checksum(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(root: Path) -> Manifest:
    """Return the last commit of the index in ``root``.

    Raises:
        IndexCorruptError: there is none, or it is damaged; the message says how to go on.
    """
    path = root / MANIFEST
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        started = any(root.glob("segments/*.building"))
        hint = (
            "a build was begun there: run it again to finish it"
            if started
            else f"build one: cmbert index build --from READER:PATH --out {root}"
        )
        raise IndexCorruptError(f"no index in {root} (no {MANIFEST}); {hint}") from None
    except NotADirectoryError:
        raise IndexCorruptError(f"{root} is not a folder, so it holds no index") from None
    try:
        return Manifest.from_bytes(data, path)
    except IndexCorruptError as error:
        readable = filter(_is_manifest, reversed(manifest_copies(root)))
        if (copy := next(readable, None)) is None:
            raise
        raise IndexCorruptError(
            f"{error}; the newest readable copy is {copy}: copy it over {MANIFEST}, then {run_verify(root)}"
        ) from None


def _is_manifest(path: Path) -> bool:
    try:
        Manifest.from_bytes(path.read_bytes(), path)
    except (CmbertError, OSError):
        return False
    return True


def manifest_copies(root: Path) -> list[Path]:
    """Return the copies of manifests that commits left, by commit."""
    copies = (path for path in (root / COMMITS).glob("[0-9]*") if path.name.isdigit())
    return sorted(copies, key=lambda path: int(path.name))


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Put the manifest in place by one atomic rename. After that, the commit has happened."""
    with atomic_file(root / MANIFEST) as file:
        file.write(manifest.to_bytes())


def with_sources(current: Manifest, sources: Iterable[dict[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Return the sources of a manifest and new ones, which take the place of those at the same path."""
    known = {source["path"]: source for source in current.sources}
    known.update((source["path"], source) for source in sources)
    return tuple(known.values())


def source_json(source: Source) -> dict[str, Any]:
    """Return a source as a manifest has it."""
    return {
        "path": source.path,
        "checksum": source.checksum,
        "bytes": source.bytes,
        "licenses": dict(source.licenses),
    }


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that shape an index."""
    names = ("cmbert-retrieval", "faiss-cpu", "tantivy", "onnxruntime", "tokenizers", "numpy")
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def pack_probes(probes: Mapping[str, NDArray[np.float32]]) -> dict[str, str]:
    """Return probe vectors as text that fits into JSON."""
    return {
        path: base64.b64encode(vectors.astype("<f2").tobytes()).decode() for path, vectors in probes.items()
    }


def unpack_probes(packed: Mapping[str, str], dim: int) -> dict[str, NDArray[np.float32]]:
    """Return what ``pack_probes`` packed, ``[probes, dim]`` each."""
    try:
        return {
            path: np.frombuffer(base64.b64decode(text), dtype="<f2").astype(np.float32).reshape(-1, dim)
            for path, text in packed.items()
        }
    except ValueError:
        raise IndexCorruptError(
            f"the encoder's probes in the manifest are no vectors of {dim} dimensions; rebuild the index"
        ) from None
