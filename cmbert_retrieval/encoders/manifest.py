"""What an export says of itself: the file beside its graphs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cmbert_retrieval.encoders.base import EncoderIdentity
from cmbert_retrieval.encoders.compact import GraphWeight, parse_weights
from cmbert_retrieval.encoders.modules import read_json
from cmbert_retrieval.errors import EncoderError

FORMAT = 2
"""Version of ``onnx/cmbert.json``. The second can name weights that lie outside the graph; what has none is
written in the first, which older versions read."""

GRAPH_FILES = {"int8": "model_int8.onnx", "float32": "model.onnx"}
"""dtype -> file below ``onnx/``; the first one that is there is the one that opens."""

MANIFEST_FILE = "onnx/cmbert.json"
TOKENIZER_FILE = "onnx/tokenizer.json"
"""The tokenizer as it ran for the export: the model's own file may say less than its configuration does."""

OWN_TOKENIZER_FILE = "tokenizer.json"
"""The model's own, which a compact export writes as it ran."""


@dataclass(frozen=True, slots=True)
class OnnxManifest:
    """``onnx/cmbert.json``: what the graphs beside it were exported from.

    Attributes:
        identity: of the encoder that was exported.
        opset: version of the operators in the graphs.
        pad_id: token id that fills up a batch.
        files: dtype -> file name.
        sources: a hash of each file that the export was made from; empty in exports of older versions.
        weights: of a compact export: name in the graph -> where in the model's weights it comes from; empty
            where the graph holds its weights.
    """

    identity: EncoderIdentity
    opset: int
    pad_id: int
    files: Mapping[str, str]
    sources: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, GraphWeight] = field(default_factory=dict)

    @property
    def tokenizer(self) -> str:
        """Where the tokenizer that ran lies, relative to the folder.

        A compact export, which writes the model's own file too, keeps it once; older versions, which name no
        sources, read the model's own.
        """
        return OWN_TOKENIZER_FILE if self.weights or not self.sources else TOKENIZER_FILE

    def write(self, path: Path) -> None:
        """Write the manifest as JSON."""
        values = {**asdict(self), "format": FORMAT if self.weights else 1}
        if not self.weights:
            del values["weights"]
        path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> OnnxManifest:
        """Read a manifest.

        Raises:
            EncoderError: it cannot be read, or was written by a newer version.
        """
        values = read_json(path)
        try:
            if values["format"] > FORMAT:
                raise EncoderError(
                    f"{path}: written in format {values['format']}, this version reads up to {FORMAT}; "
                    "upgrade cmbert-retrieval, or export the model again"
                )
            files = {str(dtype): str(name) for dtype, name in values["files"].items()}
            if any(Path(name).name != name for name in files.values()):
                raise ValueError("a file name leaves the folder")
            identity = EncoderIdentity.from_json(values["identity"])
            return cls(
                identity,
                int(values["opset"]),
                int(values["pad_id"]),
                files,
                dict(values.get("sources") or {}),
                parse_weights(values.get("weights") or {}),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EncoderError(f"{path}: not an export manifest ({error}); export the model again") from error


def is_onnx_folder(folder: Path) -> bool:
    """Return whether ``folder`` holds an export that this backend opens."""
    return (folder / MANIFEST_FILE).is_file()
