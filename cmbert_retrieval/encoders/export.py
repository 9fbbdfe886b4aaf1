"""An encoder folder with graphs that run without torch."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cmbert_retrieval.encoders.agreement import Agreement, compare_vectors
from cmbert_retrieval.encoders.base import EncoderIdentity
from cmbert_retrieval.encoders.graph import OPSET, quantize_graph, write_graph
from cmbert_retrieval.encoders.identity import PROBE_TEXTS, row_cosines
from cmbert_retrieval.encoders.onnx import GRAPH_FILES, OnnxEncoder, OnnxManifest
from cmbert_retrieval.encoders.settings import module_paths
from cmbert_retrieval.errors import ConfigError, EncoderError, MissingExtraError
from cmbert_retrieval.storage import fsync_folder, fsync_tree, plain_mode

if TYPE_CHECKING:
    from cmbert_retrieval.encoders.sentence_transformers import SentenceTransformersEncoder

MAX_FLOAT_DISTANCE = 1e-4
"""Cosine distance that a float32 graph may have from torch. Rounding alone is a thousandth of it."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export made.

    Attributes:
        folder: where it is.
        identity: of the encoder.
        dtype: ``int8`` or ``float32``.
        graph_bytes: size of the graph.
        float_distance: largest cosine distance of the float32 graph from torch.
        agreement: of the graph that was written with torch in float32.
    """

    folder: str
    identity: EncoderIdentity
    dtype: str
    graph_bytes: int
    float_distance: float
    agreement: Agreement

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


def export_encoder(
    name: str | Path,
    out: str | Path | None = None,
    *,
    quantize: str | None = "int8",
    texts: Sequence[str] = (),
    identity_name: str | None = None,
    revision: str | None = None,
) -> ExportReport:
    """Write an encoder as a sentence-transformers folder with ``onnx/``, which opens without torch.

    The graph holds the pooling too. Before anything is kept, its float32 form must equal torch; then the form
    that was asked for is compared with torch, for the report. Nothing appears at ``out`` until all of it is
    there.

    Args:
        name: a folder or a hub id.
        out: the folder to make. None adds ``onnx/`` to the folder itself, replacing an earlier one.
        quantize: ``int8``, or None for float32.
        texts: measure the agreement on these too, besides the probe texts.
        identity_name: how users call the model; the folder's or the hub's name when None.
        revision: of a hub id.

    Returns:
        what was made, and how well it agrees with float32.

    Raises:
        ConfigError: an unknown ``quantize``.
        EncoderError: the model cannot be loaded or exported, ``out`` is taken, or the graph does not equal
        torch. MissingExtraError: torch, onnx or onnxscript is not installed.
    """
    from cmbert_retrieval.encoders.load import load_encoder
    from cmbert_retrieval.encoders.sentence_transformers import SentenceTransformersEncoder

    if quantize not in ("int8", None):
        raise ConfigError(f"quantize is {quantize!r}; expected 'int8', or None for float32")
    for package in ("torch", "onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError.of("exporting an encoder", package, "train")
    in_place = out is None
    target = Path(name) if out is None else Path(out)
    if in_place and not module_paths(target):
        raise EncoderError(
            f"{name}: not a sentence-transformers folder, to which onnx/ could be added; say where to "
            "write: --out DIR"
        )
    if not in_place and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise EncoderError(f"{target}: is there already; remove it, or take another --out")
    encoder = load_encoder(
        name,
        backend="sentence_transformers",
        device="cpu",
        dtype="float32",
        attention="eager",
        revision=revision,
    )
    assert isinstance(encoder, SentenceTransformersEncoder)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.building-", dir=target.parent))
    try:
        built = work / "encoder"
        encoder.save_pretrained(built)
        shutil.rmtree(built / "onnx", ignore_errors=True)
        report = _write_onnx(encoder, built, quantize=quantize, texts=texts, name=identity_name)
        mode = plain_mode(built)
        for path in built.rglob("*"):
            if path.is_file():  # safetensors writes its own for their owner alone
                path.chmod(mode)
        fsync_tree(built)
        if in_place:
            shutil.rmtree(target / "onnx", ignore_errors=True)
            (built / "onnx").rename(target / "onnx")
        else:
            if target.exists():
                target.rmdir()
            built.rename(target)
        fsync_folder(target if in_place else target.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return replace(report, folder=str(target))


def _write_onnx(
    encoder: SentenceTransformersEncoder,
    folder: Path,
    *,
    quantize: str | None,
    texts: Sequence[str],
    name: str | None,
) -> ExportReport:
    identity = encoder.identity if name is None else replace(encoder.identity, name=name)
    tokenizer = encoder.model.tokenizer
    if not (folder / "tokenizer.json").is_file():
        if not getattr(tokenizer, "is_fast", False):
            raise EncoderError(
                f"{folder}: its tokenizer has no fast form; expected one that gives a tokenizer.json"
            )
        tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    graphs = folder / "onnx"
    graphs.mkdir()
    float_graph = graphs / GRAPH_FILES["float32"]
    write_graph(encoder.model, float_graph, dim=identity.dim)
    pad_id = tokenizer.pad_token_id or 0
    manifest = graphs / "cmbert.json"
    OnnxManifest(identity, OPSET, pad_id, {"float32": float_graph.name}).write(manifest)

    compared = [*PROBE_TEXTS, *texts]
    expected = encoder.encode_document(compared)
    vectors = OnnxEncoder(folder).encode_document(compared)
    distance = float(np.max(1.0 - row_cosines(expected, vectors)))
    if not distance <= MAX_FLOAT_DISTANCE:
        raise EncoderError(
            f"the exported graph of '{identity.name}' differs from torch (largest cosine distance "
            f"{distance:.2g}, expected "
            f"at most {MAX_FLOAT_DISTANCE}); use backend 'sentence_transformers' for this model"
        )
    if quantize is not None:
        quantize_graph(float_graph, graphs / GRAPH_FILES[quantize])
        float_graph.unlink()
        OnnxManifest(identity, OPSET, pad_id, {quantize: GRAPH_FILES[quantize]}).write(manifest)
        vectors = OnnxEncoder(folder).encode_document(compared)
    dtype = quantize or "float32"
    return ExportReport(
        folder=str(folder),
        identity=identity,
        dtype=dtype,
        graph_bytes=(graphs / GRAPH_FILES[dtype]).stat().st_size,
        float_distance=distance,
        agreement=compare_vectors(expected, vectors),
    )
