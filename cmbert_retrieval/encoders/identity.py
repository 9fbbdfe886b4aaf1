"""Is this the encoder that the index was built with? Asked before the first dense query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.encoders.base import Encoder, EncoderIdentity
from cmbert_retrieval.errors import EncoderError, IndexMismatchError

MIN_PROBE_COSINE = 0.95
"""Between backends and precisions of the same weights. An int8 export of MiniLM stays above 0.97."""

PROBE_TEXTS: tuple[str, ...] = (
    "fever",
    "acute kidney injury",
    "Which drugs lower the risk of a second stroke?",
    "Fracture of the left femur, initial encounter for a closed fracture",
    "BRCA1 variant c.68_69del was found in 3 of 1,204 samples (95% CI 0.05-0.73).",
    "The patient is a 64 year old man with type 2 diabetes and chronic kidney disease who came to "
    "the clinic because of swollen ankles. He takes metformin 500 mg twice a day and denies chest "
    "pain.",
    "We compared two schedules of vaccination in 412 infants. Antibody titres were measured at 2, 6 "
    "and 12 months. Titres were higher after the longer interval, and the difference held after "
    "adjustment for age, sex and birth weight. Adverse events were mild and equally frequent in both "
    "groups.",
    "Background: Resistance to carbapenems is spreading among Gram-negative bacteria, and few "
    "treatments are left. Methods: Isolates from the blood of adults in nine hospitals were "
    "collected over four years. The genomes of all isolates were sequenced, resistance genes were "
    "annotated, and minimum inhibitory concentrations were determined by broth microdilution. "
    "Results: Among 1,036 isolates, 187 carried at least one carbapenemase gene. The share rose from "
    "11% in the first year to 24% in the last. Mortality at 30 days was twice as high in patients "
    "whose first treatment was not active in vitro. Conclusions: Rapid detection of these genes may "
    "shorten the time to an active treatment, and hospitals should report them to a common register.",
)
"""Invented, from one word to an abstract."""


def check_vectors(vectors: NDArray[Any], dim: int, *, rows: int | None = None) -> NDArray[np.float32]:
    """Return ``vectors`` as a contiguous float32 array ``[rows, dim]``.

    Args:
        vectors: what an encoder gave.
        dim: how long a vector must be.
        rows: how many there must be; None for any number.

    Raises:
        IndexMismatchError: another shape; both are named.
        EncoderError: a value is not finite, which FAISS would take and never find, or too large for the
            float16 that an index keeps.
    """
    if vectors.ndim != 2 or vectors.shape != (len(vectors) if rows is None else rows, dim):
        expected = (rows if rows is not None else len(vectors) if vectors.ndim else 0, dim)
        raise IndexMismatchError(
            f"got vectors of shape {vectors.shape}, expected {expected}; use the encoder that the index was "
            "built with"
        )
    # Checked after the conversion: a float64 can be too large for a float32.
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(vectors, dtype=np.float32)
    finite = np.isfinite(converted).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise EncoderError(
            f"got vectors of shape {vectors.shape} of which {len(bad)} hold NaN or infinity (first in row "
            f"{bad[0]}), expected finite ones of shape {vectors.shape}; check the encoder's weights and "
            "precision (dtype=float32 overflows less)"
        )
    largest = float(np.abs(converted).max(initial=0.0))
    if largest > float(np.finfo(np.float16).max):
        raise EncoderError(
            f"got vectors with values up to {largest:,.0f}, expected at most 65,504, which is all that "
            "float16 keeps; use an encoder that normalises"
        )
    return converted


def probe_vectors(encoder: Encoder) -> dict[str, NDArray[np.float32]]:
    """Return the vectors of ``PROBE_TEXTS`` through the ``query`` and the ``document`` path."""
    dim = encoder.identity.dim
    return {
        "query": check_vectors(encoder.encode_query(PROBE_TEXTS), dim),
        "document": check_vectors(encoder.encode_document(PROBE_TEXTS), dim),
    }


def row_cosines(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Return the cosine of each row of ``first`` with the same row of ``second``."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / np.maximum(norms, 1e-12), np.float64)


def check_same_encoder(
    expected: EncoderIdentity, probes: Mapping[str, NDArray[Any]], encoder: Encoder
) -> dict[str, float]:
    """Check that ``encoder`` makes the vectors that an index was built with.

    The same weights may come under another name, from another backend and in another precision.

    Args:
        expected: the identity in the index's manifest.
        probes: the probe vectors in the manifest, by path (``query``, ``document``).
        encoder: what is about to search or to add.

    Returns:
        the smallest cosine of the probe vectors, by path.

    Raises:
        IndexMismatchError: other weights, other settings, or vectors that point elsewhere.
    """
    got = encoder.identity
    same_weights = got.weights_sha256 == expected.weights_sha256
    if not expected.weights_sha256:  # an encoder of the user's own that cannot say: its name has to do
        same_weights = same_weights and (got.name, got.revision) == (expected.name, expected.revision)
    if not same_weights:
        raise IndexMismatchError(
            f"the index was built with {describe(expected)}, not with {describe(got)}; "
            "open it with its own encoder, or rebuild it"
        )
    for field in ("dim", "pooling", "prompts", "max_tokens", "normalized"):
        theirs, ours = getattr(expected, field), getattr(got, field)
        equal = dict(theirs) == dict(ours) if field == "prompts" else theirs == ours
        if not equal:
            raise IndexMismatchError(
                f"the index was built with {describe(expected)} and {field} {theirs!r}, this encoder has "
                f"{ours!r}; "
                "open it with the index's settings, or rebuild it"
            )
    cosines = {}
    for path, vectors in probe_vectors(encoder).items():
        if path not in probes:
            raise IndexMismatchError(f"the index has no {path} probes of {describe(expected)}; rebuild it")
        stored = np.asarray(probes[path])
        if stored.shape != vectors.shape:
            raise IndexMismatchError(
                f"the index's {path} probes have shape {stored.shape}, this encoder's {vectors.shape}; "
                "open it with the version that built it, or rebuild it"
            )
        cosines[path] = float(row_cosines(stored, vectors).min())
        if not cosines[path] >= MIN_PROBE_COSINE:  # written so that NaN does not pass
            raise IndexMismatchError(
                f"this encoder's {path} vectors are not those of {describe(expected)}: smallest cosine of "
                "the probes "
                f"{cosines[path]:.3f}, expected at least {MIN_PROBE_COSINE}; open the index with its own "
                "encoder, or rebuild it"
            )
    return cosines


def describe(identity: EncoderIdentity) -> str:
    """Return how messages name an encoder: its name, then its revision or the start of its weights' hash."""
    detail = (
        f"rev {identity.revision[:8]}"
        if identity.revision
        else f"weights {identity.weights_sha256[:8] or 'unknown'}"
    )
    return f"'{identity.name}' ({detail})"
