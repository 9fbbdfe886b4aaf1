"""What an export was made from: do the files beside it still hold the same?

Training again into the folder of an export changes the weights and leaves ``onnx/`` as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from cmbert_retrieval.encoders.modules import module_paths
from cmbert_retrieval.errors import EncoderError

_NAMES = frozenset(
    "modules.json config.json config_sentence_transformers.json sentence_bert_config.json tokenizer.json "
    "vocab.txt vocab.json merges.txt".split()
)
_SUFFIXES = frozenset({".safetensors", ".model"})
_WHOLE_BYTES = 1 << 18
_PIECES = 32
_PIECE_BYTES = 4096


def fingerprint(folder: Path) -> dict[str, str]:
    """Return a hash of each file of settings, tokenizer and weights in an encoder's folder, by relative path.

    Up to 256 KiB all bytes count. Of larger files only the size and 32 pieces over their length do, which
    takes a millisecond and not seconds: training moves about every value of a layer.

    Raises:
        EncoderError: ``modules.json`` cannot be read.
    """
    return {path.relative_to(folder).as_posix(): _hash(path) for path in _files(folder)}


def check_fingerprint(folder: Path, expected: Mapping[str, str]) -> None:
    """Check that the files beside an export are those it was made from.

    Absent files are no difference: an export runs without the weights. None are expected of an export that an
    older version made.

    Raises:
        EncoderError: one has changed, or there are weights that the export does not know.
    """
    if not expected:
        return
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        known = name in expected
        if (known and _hash(path) != expected[name]) or (not known and path.suffix == ".safetensors"):
            raise EncoderError(
                f"{path}: has changed since the export to {folder / 'onnx'}, which belongs to what was here "
                f"before; export again (cmbert export {folder}), or take backend 'sentence_transformers'"
            )


def _files(folder: Path) -> Iterator[Path]:
    places = {folder, *(path for _, path in module_paths(folder) if path.is_dir())}
    for place in sorted(places):
        for path in sorted(place.iterdir()):
            if (path.name in _NAMES or path.suffix in _SUFFIXES) and path.is_file():
                yield path


def _hash(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as stream:
        if size <= _WHOLE_BYTES:
            digest.update(stream.read())
        else:
            for piece in range(_PIECES):
                stream.seek((size - _PIECE_BYTES) * piece // (_PIECES - 1))
                digest.update(stream.read(_PIECE_BYTES))
    return digest.hexdigest()
