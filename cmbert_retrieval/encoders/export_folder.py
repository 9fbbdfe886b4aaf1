"""Where an export is written: in one piece, beside or into the folder of a model."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cmbert_retrieval.encoders.manifest import GRAPH_FILES, MANIFEST_FILE, TOKENIZER_FILE, OnnxManifest
from cmbert_retrieval.encoders.modules import module_paths
from cmbert_retrieval.errors import EncoderError
from cmbert_retrieval.storage import fsync_folder


def check_in_place(name: str | Path, folder: Path) -> None:
    """Raise ``EncoderError`` where an export cannot be added to a folder of a model."""
    if not module_paths(folder):
        raise EncoderError(
            f"{name}: not a sentence-transformers folder, to which onnx/ could be added; say where to "
            "write: --out DIR"
        )
    own = _own_files(folder / "onnx")
    for file in (*GRAPH_FILES.values(), Path(TOKENIZER_FILE).name):
        if (folder / "onnx" / file).exists() and file not in own:
            raise EncoderError(
                f"{folder / 'onnx' / file}: is there already, and no export of ours; move it away, or say "
                "where to write: --out DIR"
            )


def check_out(name: str | Path, target: Path) -> None:
    """Raise ``EncoderError`` where an export cannot be written to a folder: it is taken, or the model's."""
    source = Path(name).expanduser()
    if source.is_dir() and target.is_relative_to(source.resolve()):
        raise EncoderError(
            f"{target}: is in the encoder's own folder; expected another one, or no --out, which adds onnx/"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise EncoderError(f"{target}: is there already; remove it, or take another --out")


def _own_files(onnx: Path) -> set[str]:
    """Return the names of an earlier export's files; those of others lie beside them."""
    manifest = onnx / Path(MANIFEST_FILE).name
    if not manifest.is_file():
        return set()
    graphs: set[str] = set(GRAPH_FILES.values())
    with contextlib.suppress(EncoderError):  # one that cannot be read is an export of ours all the same
        graphs = set(OnnxManifest.read(manifest).files.values())
    return {manifest.name, Path(TOKENIZER_FILE).name, *graphs}


def replace_own(built: Path, onnx: Path) -> None:
    """Put an export in the place of an earlier one; files of others stay.

    The manifest goes first and comes last: whenever this stops, it names no graph that it does not belong to.
    """
    onnx.mkdir(exist_ok=True)
    own = _own_files(onnx)
    manifest = Path(MANIFEST_FILE).name
    (onnx / manifest).unlink(missing_ok=True)
    for file in own:
        (onnx / file).unlink(missing_ok=True)
    for path in sorted(built.iterdir(), key=lambda path: path.name == manifest):
        path.replace(onnx / path.name)
    fsync_folder(onnx)


@contextlib.contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """Give a folder beside ``target``, locked while in use; remove those of processes that were killed."""
    import fcntl

    prefix = f".{target.name}.building-"
    for leftover in target.parent.glob(f"{glob.escape(prefix)}*"):
        with contextlib.suppress(OSError), _opened(leftover) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its process lives
            shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        with _opened(work) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
