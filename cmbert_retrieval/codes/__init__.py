"""Code systems as trees, and the look-up of codes from what people write."""

from __future__ import annotations

from cmbert_retrieval.codes.searcher import CodeHit, CodeSearcher
from cmbert_retrieval.codes.tree import (
    billing_status,
    code_from_document,
    code_to_json,
    describe_code,
    extend,
)

__all__ = [
    "CodeHit",
    "CodeSearcher",
    "billing_status",
    "code_from_document",
    "code_to_json",
    "describe_code",
    "extend",
]
