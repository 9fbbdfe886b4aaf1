"""What is held out from everything that is trained or tuned: the one place that says so.

Frozen: pretraining, lexicons, training pairs, tuning and probes all ask here. A set with a published split
keeps it. What has none is divided by a hash of what its parts have in common (a code's category, a question's
subject), so that near copies never lie on both sides, and so that what is held out does not depend on how
much of a set somebody has. Changing anything here makes figures before and after incomparable, and tests of
this module fail.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from cmbert_retrieval.errors import ConfigError

Split = Literal["train", "validation", "test"]

FROZEN = "2026-11"
"""The edition of the splits. Part of every hash: another edition would be another division."""

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.1

BY_HASH = {
    "icd10cm": "the three-character category of a code",
    "icd10pcs": "the first three characters of a code, its table",
    "hcpcs": "the first three characters of a code",
    "cpt": "the first three characters of a code",
    "mesh": "the descriptor",
    "ontology": "the term",
    "medquad": "the subject of a question, whatever is asked of it",
    "mtsamples": "the sample",
    "notes": "the patient, or the note where no patient is known",
    "pmc": "the article",
    "pubmed": "the article",
}
"""Collection -> what its split is decided by: the key that ``split_by_hash`` takes."""

TEST_ONLY = frozenset({"med", "bioasq", "covidqa", "trec_clinical_trials"})
"""Sets that nothing is ever trained or tuned on, so that figures on them are zero-shot."""

PUBLISHED = {
    "scifact": {"train": "train", "dev": "test"},
    "nfcorpus": {"train": "train", "validation": "validation", "dev": "validation", "test": "test"},
    "pmc_evidence": {"train": "train", "validation": "validation", "test": "test"},
    "codiesp": {"train": "train", "dev": "validation", "background": "train", "test": "test"},
}
"""Set -> its published split -> ours. BEIR's test claims of SciFact are the publishers' dev claims."""


def split_by_hash(collection: str, key: str) -> Split:
    """Return the split that ``key`` lies in, in a collection without a published one.

    Args:
        collection: one of ``BY_HASH``.
        key: what the split is decided by there; upper and lower case and outer white space do not count.

    Raises:
        ConfigError: the collection is not known, or the key is empty.
    """
    if collection not in BY_HASH:
        raise ConfigError(f"no split of '{collection}'; expected one of {', '.join(sorted(BY_HASH))}")
    normal = " ".join(key.casefold().split())
    if not normal:
        raise ConfigError(f"'{collection}' is split by {BY_HASH[collection]}; got an empty key")
    digest = hashlib.sha256(f"{FROZEN}:{collection}:{normal}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < TEST_SHARE:
        return "test"
    return "validation" if place < TEST_SHARE + VALIDATION_SHARE else "train"


def split_of_code(system: str, code: str) -> Split:
    """Return the split of a code: that of its category, so that neighbours in the tree lie together.

    Args:
        system: ``icd10cm``, ``icd10pcs``, ``hcpcs`` or ``cpt``.
        code: as published, with or without its dot (``I21.4``, ``i214``).

    Raises:
        ConfigError: the system is not known, or the code is shorter than a category.
    """
    if system not in ("icd10cm", "icd10pcs", "hcpcs", "cpt"):
        raise ConfigError(f"'{system}' is no code system; expected icd10cm, icd10pcs, hcpcs or cpt")
    category = code.strip()[:3]
    if len(category) < 3 or not category.isalnum():
        raise ConfigError(f"'{code[:20]}' has no category; expected a code of at least three characters")
    return split_by_hash(system, category)


def published_split(name: str, part: str) -> Split:
    """Return our split for a published part (``dev``) of a set.

    Raises:
        ConfigError: the set or the part is not known.
    """
    if name in TEST_ONLY:
        return "test"
    parts = PUBLISHED.get(name)
    if parts is None or part not in parts:
        known = (
            f"its parts are {', '.join(parts)}" if parts else f"known sets are {', '.join(sorted(PUBLISHED))}"
        )
        raise ConfigError(f"no published split '{part}' of '{name}'; {known}")
    return parts[part]  # type: ignore[return-value]
