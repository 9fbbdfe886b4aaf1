"""``cmbert export``: an encoder that runs without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def export(
    folder: Annotated[str, typer.Argument(help="An encoder: a folder or a hub id.")],
    *,
    out: Annotated[
        Path | None, typer.Option(help="Folder to make. Left out, onnx/ is added to FOLDER.")
    ] = None,
    quantize: Annotated[str, typer.Option(help="int8, or none for float32.")] = "int8",
    compact: Annotated[
        bool, typer.Option("--compact", help="Round the weights, and keep them once for torch and onnx.")
    ] = False,
    texts: Annotated[
        Path | None,
        typer.Option(
            help="Measure the agreement on this file's lines too. From 100 on, a ModernBERT's int8 gets its "
            "scales from every second one, and is faster for short texts."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What the encoder is to be called. (default: as the folder or hub id)")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Export an encoder to onnx, and say how well it agrees with float32."""
    from cmbert_retrieval.encoders.export import export_encoder
    from cmbert_retrieval.errors import ConfigError

    lines: list[str] = []
    if texts is not None:
        try:
            lines = [line for line in texts.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{texts}: cannot be read ({error}); expected a text a line, in UTF-8"
            ) from error
    report = export_encoder(
        folder,
        out,
        quantize=None if quantize == "none" else quantize,
        compact=compact,
        texts=lines,
        identity_name=name,
        revision=revision,
    )
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2, sort_keys=True))
        return
    agreement = report.agreement
    overlap = "" if agreement.top10_overlap is None else f"; top-10 overlap {agreement.top10_overlap:.3f}"
    megabytes = (report.graph_bytes + report.weights_bytes) / 1e6
    shared = " with the weights, which torch uses too" if report.weights_bytes else ""
    typer.echo(f"{report.folder}: {report.identity.name}, {report.dtype}, {megabytes:.1f} MB{shared}")
    typer.echo(
        f"agreement with float32 on {agreement.texts} texts: cosine mean {agreement.mean_cosine:.4f}, "
        f"min {agreement.min_cosine:.4f}; rank correlation {agreement.rank_correlation:.4f}{overlap}"
    )
