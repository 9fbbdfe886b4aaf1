"""Names of codes and terms, which an encoder may read otherwise than sentences: by a prompt of their own."""

from __future__ import annotations

from cmbert_retrieval.encoders.base import Encoder, EncoderIdentity

NAME = "name"
"""What the prompt is called among those of a model."""


def for_names(encoder: Encoder) -> Encoder:
    """Return an encoder that puts the model's prompt for names before queries and documents.

    One whose model has no such prompt, or that cannot change its prompts, comes back as it is.
    """
    prompt = encoder.identity.prompts.get(NAME)
    if not prompt or not hasattr(encoder, "with_prompts"):
        return encoder
    changed: Encoder = encoder.with_prompts({"query": prompt, "document": prompt})
    return changed


def as_index_reads(encoder: Encoder, identity: EncoderIdentity) -> Encoder:
    """Return an encoder as it reads names, where the index whose ``identity`` is given was built so."""
    named = for_names(encoder)
    return named if dict(named.identity.prompts) == dict(identity.prompts) else encoder
