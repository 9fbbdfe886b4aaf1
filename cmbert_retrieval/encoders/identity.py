"""Telling whether an encoder is the one that made an index: by its settings, and by vectors of fixed texts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.encoders.base import Encoder, EncoderIdentity
from cmbert_retrieval.errors import EncoderError, IndexMismatchError

MINIMUM_COSINE = 0.95

PROBE_TEXTS = (
    "fever",
    "broken left wrist",
    "HbA1c 8.4 %",
    "Type 2 diabetes mellitus with diabetic chronic kidney disease",
    "The patient denies chest pain and shortness of breath.",
    "Is aspirin better than placebo for preventing a second stroke?",
    "Metformin lowered fasting glucose within twelve weeks in adults with newly found diabetes, and weight fell by two "
    "kilograms more than in the control group.",
    "We randomised 412 adults with community-acquired pneumonia to five or ten days of amoxicillin. Clinical cure at day "
    "30 was the primary outcome. The shorter course was not inferior, adverse events were fewer, and resistance in the "
    "nasopharyngeal flora rose less. Readmission within 90 days did not differ between the two groups.",
)


def check_vectors(vectors: NDArray[np.float32], texts: int, dim: int) -> None:
    """Refuse vectors that FAISS would take and never find.

    Raises:
        IndexMismatchError: another shape than ``[texts, dim]``.
        EncoderError: a vector is not finite, or too large for float16.
    """
    if vectors.shape != (texts, dim):
        raise IndexMismatchError(f"the encoder gave vectors of shape {vectors.shape}, expected ({texts}, {dim})")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise EncoderError(
            f"{int(np.count_nonzero(~finite))} of {texts} vectors of shape {vectors.shape} hold NaN or infinite "
            "values; none of them was kept: look for overflow (try dtype=float32) or damaged weights"
        )
    if np.abs(vectors).max(initial=0.0) > np.finfo(np.float16).max:
        raise EncoderError("vectors hold values over 65,504, which float16 cannot keep; use a normalised encoder")


def probe_vectors(encoder: Encoder) -> dict[str, NDArray[np.float32]]:
    """Return the vectors of ``PROBE_TEXTS``, ``[probes, dim]``, through the query and the document path."""
    dim = encoder.identity.dim
    probes = {"query": encoder.encode_query(PROBE_TEXTS), "document": encoder.encode_document(PROBE_TEXTS)}
    for vectors in probes.values():
        check_vectors(vectors, len(PROBE_TEXTS), dim)
    return probes


def check_same_encoder(
    expected: EncoderIdentity, probes: Mapping[str, NDArray[np.float32]], encoder: Encoder
) -> None:
    """Refuse an encoder that did not make the vectors of an index.

    Name and revision may differ where the weights are the same. Another backend or precision of the same weights
    passes when the cosines of the probes with those of the index are at least 0.95.

    Raises:
        IndexMismatchError: what differs, and what to do.
    """
    given = encoder.identity
    advice = "open the index with its own encoder, or rebuild it"
    if given.weights_sha256 != expected.weights_sha256:
        raise IndexMismatchError(
            f"the index was built with '{expected.name}' (weights {expected.weights_sha256[:8]}), not with "
            f"'{given.name}' (weights {given.weights_sha256[:8]}); {advice}"
        )
    for field in ("dim", "pooling", "prompts", "max_tokens", "normalized"):
        if getattr(given, field) != getattr(expected, field):
            raise IndexMismatchError(
                f"the index was built with '{expected.name}' and {field} {getattr(expected, field)!r}, "
                f"got {getattr(given, field)!r}; {advice}"
            )
    fresh = probe_vectors(encoder)
    for path, vectors in probes.items():
        norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(fresh[path], axis=1)
        lowest = float(((vectors * fresh[path]).sum(axis=1) / np.maximum(norms, 1e-12)).min())
        if lowest < MINIMUM_COSINE:
            raise IndexMismatchError(
                f"'{given.name}' gives other {path} vectors than when the index was built (cosine {lowest:.3f}, "
                f"expected at least {MINIMUM_COSINE}); {advice}"
            )
