"""An encoder folder with graphs that run without torch."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.encoders.agreement import Agreement, compare_vectors, worse
from cmbert_retrieval.encoders.base import Encoder, EncoderIdentity
from cmbert_retrieval.encoders.compact import weights_file
from cmbert_retrieval.encoders.compact_export import (
    check_compact,
    detach_weights,
    replace_weights,
    round_weights,
    store_rows,
)
from cmbert_retrieval.encoders.export_folder import check_in_place, check_out, replace_own, work_folder
from cmbert_retrieval.encoders.fingerprint import fingerprint
from cmbert_retrieval.encoders.fixed_scales import activation_reach, fix_scales
from cmbert_retrieval.encoders.graph import OPSET, quantize_graph, write_graph
from cmbert_retrieval.encoders.identity import PROBE_TEXTS, row_cosines
from cmbert_retrieval.encoders.manifest import (
    GRAPH_FILES,
    MANIFEST_FILE,
    OWN_TOKENIZER_FILE,
    TOKENIZER_FILE,
    OnnxManifest,
    is_onnx_folder,
)
from cmbert_retrieval.encoders.modernbert_graph import is_plain_modernbert
from cmbert_retrieval.encoders.modules import is_two_models, pools_without_prompt
from cmbert_retrieval.encoders.onnx import OnnxEncoder
from cmbert_retrieval.errors import ConfigError, EncoderError, MissingExtraError
from cmbert_retrieval.storage import fsync_folder, fsync_tree, plain_mode

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from cmbert_retrieval.encoders.sentence_transformers import SentenceTransformersEncoder

MIN_SCALE_TEXTS = 100
"""Texts from which on activations get fixed scales. From a few, what others reach is cut off."""

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
        float_distance: largest cosine distance of the float32 graph from torch; for a compact export, with
            the rounded weights.
        agreement: of the graph that was written with torch in float32, for documents or for queries:
            whichever is worse.
        weights_bytes: size of the file that a compact graph shares with torch; 0 where a graph holds its own.
    """

    folder: str
    identity: EncoderIdentity
    dtype: str
    graph_bytes: int
    float_distance: float
    agreement: Agreement
    weights_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


def export_encoder(
    name: str | Path,
    out: str | Path | None = None,
    *,
    quantize: str | None = "int8",
    compact: bool = False,
    texts: Sequence[str] = (),
    identity_name: str | None = None,
    revision: str | None = None,
) -> ExportReport:
    """Write an encoder as a sentence-transformers folder with ``onnx/``, which opens without torch.

    The graph holds the pooling too. Before anything is kept, its float32 form must equal torch; then the form
    that was asked for is compared with torch, for the report. Nothing appears at ``out`` until all of it is
    there.

    A compact export keeps its weights once, rounded (matrices to 8 bits, all else to 16):
    torch and the graph both take them from ``model.safetensors``. They are another model's than those that
    were exported, with a hash of their own; the report says how far it is from the first.

    Args:
        name: a folder or a hub id.
        out: the folder to make. None adds ``onnx/`` to the folder itself, replacing an earlier export; files
            of others in ``onnx/`` stay.
        quantize: ``int8``, or None for float32.
        compact: share the weights between torch and the graph; for ModernBERT, in int8, with ``out``.
        texts: measure the agreement on these too, besides the probe texts. With 100 and more of them, a
            ModernBERT in int8 gets fixed scales from half of them, so that texts of one length can be encoded
            together: as varied as what it will read, from titles to whole passages.
        identity_name: how users call the model; the folder's or the hub's name when None.
        revision: of a hub id.

    Returns:
        what was made, and how well it agrees with float32.

    Raises:
        ConfigError: an unknown ``quantize``, or ``compact`` without int8 or without ``out``.
        EncoderError: the model cannot be loaded or exported, ``out`` is taken, or the graph does not equal
        torch. MissingExtraError: torch, onnx or onnxscript is not installed.
    """
    from cmbert_retrieval.encoders.load import load_encoder
    from cmbert_retrieval.encoders.sentence_transformers import SentenceTransformersEncoder

    if quantize not in ("int8", None):
        raise ConfigError(f"quantize is {quantize!r}; expected 'int8', or none for float32")
    if compact and quantize is None:
        raise ConfigError(
            "a compact export was asked for in float32; expected quantize 'int8', the only form in which a "
            "graph shares its weights with torch"
        )
    if compact and out is None:
        raise ConfigError(
            f"a compact export rounds the weights, which would change {name} itself; expected a folder to "
            "make: --out DIR"
        )
    for package in ("torch", "onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError.of("exporting an encoder", package, "train")
    in_place = out is None
    target = Path(name if out is None else out).expanduser().resolve()
    if in_place:
        check_in_place(name, target)
    else:
        check_out(name, target)
    encoder = load_encoder(
        name,
        backend="sentence_transformers",
        device="cpu",
        dtype="float32",
        attention="eager",
        revision=revision,
    )
    assert isinstance(encoder, SentenceTransformersEncoder)
    if is_two_models(encoder.folder):
        raise EncoderError(
            f"{name}: has an encoder for queries and one for documents, and an export holds one; use backend "
            "'sentence_transformers' for this model"
        )
    if encoder.identity.prompts and pools_without_prompt(encoder.folder):
        raise EncoderError(
            f"{name}: its pooling leaves the prompt out (include_prompt is false), which a graph cannot, "
            "as it does not know the prompt; use backend 'sentence_transformers' for this model"
        )
    if compact:
        check_compact(encoder.model, name)
    scales_from = _scales_from(encoder, texts) if quantize is not None else []
    if identity_name is None and Path(name).is_dir() and is_onnx_folder(Path(name)):
        with contextlib.suppress(EncoderError):  # a manifest that cannot be read is about to be replaced
            identity_name = OnnxManifest.read(Path(name) / MANIFEST_FILE).identity.name
    target.parent.mkdir(parents=True, exist_ok=True)
    with work_folder(target) as work:
        built = work / "encoder"
        encoder.save_pretrained(built)
        shutil.rmtree(built / "onnx", ignore_errors=True)
        compared = [*PROBE_TEXTS, *texts]
        reference = _both_sides(encoder, compared)
        if scales_from:
            _even_out(encoder, scales_from, work)
        if compact:
            replace_weights(round_weights(encoder.model, name), built)
            encoder = SentenceTransformersEncoder(
                built, device="cpu", dtype="float32", attention="eager", name=encoder.identity.name
            )
        report = _write_onnx(
            encoder,
            built,
            compared,
            reference,
            quantize=quantize,
            compact=compact,
            scales_from=scales_from,
            name=identity_name,
        )
        mode = plain_mode(built)
        for path in built.rglob("*"):
            if path.is_file():  # safetensors writes its own for their owner alone
                path.chmod(mode)
        fsync_tree(built)
        if in_place:
            replace_own(built / "onnx", target / "onnx")
        else:
            if target.exists():
                target.rmdir()
            built.rename(target)
        fsync_folder(target if in_place else target.parent)
    return replace(report, folder=str(target))


def _write_onnx(
    encoder: SentenceTransformersEncoder,
    folder: Path,
    compared: Sequence[str],
    reference: tuple[NDArray[np.float32], NDArray[np.float32]],
    *,
    quantize: str | None,
    compact: bool,
    scales_from: Sequence[Sequence[int]],
    name: str | None,
) -> ExportReport:
    identity = encoder.identity if name is None else replace(encoder.identity, name=name)
    tokenizer = encoder.model.tokenizer
    if not getattr(tokenizer, "is_fast", False):
        raise EncoderError(
            f"{folder}: its tokenizer has no fast form; expected one that gives a tokenizer.json"
        )
    graphs = folder / "onnx"
    graphs.mkdir()
    _save_tokenizer(tokenizer.backend_tokenizer, folder / TOKENIZER_FILE)
    if compact or not (folder / OWN_TOKENIZER_FILE).is_file():
        shutil.copyfile(folder / TOKENIZER_FILE, folder / OWN_TOKENIZER_FILE)
    float_graph = graphs / GRAPH_FILES["float32"]
    write_graph(encoder.model, float_graph, dim=identity.dim, pooling=identity.pooling)
    manifest = OnnxManifest(
        identity,
        OPSET,
        tokenizer.pad_token_id or 0,
        {"float32": float_graph.name},
        fingerprint(folder),
    )
    manifest.write(folder / MANIFEST_FILE)

    expected = _both_sides(encoder, compared) if compact else reference
    vectors = _both_sides(OnnxEncoder(folder), compared)
    distance = max(float(np.max(1.0 - row_cosines(*sides))) for sides in zip(expected, vectors, strict=True))
    if not distance <= MAX_FLOAT_DISTANCE:
        raise EncoderError(
            f"the exported graph of '{identity.name}' differs from torch (largest cosine distance "
            f"{distance:.2g}, expected "
            f"at most {MAX_FLOAT_DISTANCE}); use backend 'sentence_transformers' for this model"
        )
    if quantize is not None:
        if compact:
            store_rows(float_graph, folder)
        graph = graphs / GRAPH_FILES[quantize]
        if scales_from:
            fix_scales(float_graph, graph, activation_reach(float_graph, scales_from))
        else:
            quantize_graph(float_graph, graph)
        weights = detach_weights(float_graph, graph, folder) if compact else {}
        float_graph.unlink()
        if compact:
            (folder / TOKENIZER_FILE).unlink()
        manifest = replace(manifest, files={quantize: graph.name}, weights=weights)
        manifest.write(folder / MANIFEST_FILE)
        vectors = _both_sides(OnnxEncoder(folder), compared)
    dtype = quantize or "float32"
    return ExportReport(
        folder=str(folder),
        identity=identity,
        dtype=dtype,
        graph_bytes=(graphs / GRAPH_FILES[dtype]).stat().st_size,
        float_distance=distance,
        agreement=worse(*(compare_vectors(*sides) for sides in zip(reference, vectors, strict=True))),
        weights_bytes=weights_file(folder).stat().st_size if compact else 0,
    )


def _both_sides(encoder: Encoder, texts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the texts' vectors as documents and as queries, which the model may put other prompts before."""
    documents, prompts = encoder.encode_document(texts), encoder.identity.prompts
    alike = prompts.get("query", "") == prompts.get("document", "")
    return documents, documents if alike else encoder.encode_query(texts)


def _scales_from(encoder: SentenceTransformersEncoder, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens of half of the texts where scales can be taken from them, else nothing."""
    identity = encoder.identity
    if len(texts) < MIN_SCALE_TEXTS or not is_plain_modernbert(
        encoder.model, dim=identity.dim, pooling=identity.pooling
    ):
        return []
    prompts = sorted({*{"query": "", "document": "", **identity.prompts}.values()})
    rows = encoder.model.tokenizer(
        [prompt + text for prompt in prompts for text in (*PROBE_TEXTS, *texts[::2])],
        truncation=True,
        max_length=identity.max_tokens,
    )
    return [list(row) for row in rows["input_ids"]]


def _even_out(encoder: SentenceTransformersEncoder, rows: Sequence[Sequence[int]], work: Path) -> None:
    from cmbert_retrieval.encoders.equalizing import even_out

    graph = work / "uneven.onnx"
    write_graph(encoder.model, graph, dim=encoder.identity.dim, pooling=encoder.identity.pooling)
    even_out(encoder.model, activation_reach(graph, rows).values())
    graph.unlink()


def _save_tokenizer(ran: Tokenizer, path: Path) -> None:
    """Write the tokenizer that ran, without the padding and the truncation of its last call."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(ran.to_str())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(path))
