"""cmbert-mini as it lies in the package: what opens when nobody names an encoder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cmbert_retrieval import Document, Retriever
from cmbert_retrieval.encoders import load_encoder
from cmbert_retrieval.encoders.agreement import compare_vectors
from cmbert_retrieval.encoders.default import BUNDLED_NAME, bundled_folder
from cmbert_retrieval.encoders.identity import PROBE_TEXTS
from cmbert_retrieval.encoders.onnx import OnnxEncoder

MOST_BYTES = 20_000_000
LEAST_COSINE = 0.99
"""Of a vector by onnx in int8 with that of the same text by sentence-transformers: what the card states."""

NEAR = (
    ("heart attack", "acute myocardial infarction", "ear wax"),
    ("high blood pressure", "hypertension", "a broken wrist"),
    ("kidney stones", "nephrolithiasis", "bipolar disorder"),
    (
        "Does exercise help against depression?",
        "Training lowered depressive symptoms.",
        "A gene for albinism.",
    ),
)


@pytest.fixture(scope="module")
def encoder() -> OnnxEncoder:
    opened = load_encoder()
    assert isinstance(opened, OnnxEncoder)
    return opened


def test_it_opens_by_any_of_its_names(encoder: OnnxEncoder) -> None:
    assert encoder.identity.name == encoder.source == BUNDLED_NAME
    for name in ("default", BUNDLED_NAME):
        assert load_encoder(name).identity == encoder.identity


def test_it_fits_the_package() -> None:
    sizes = {path: path.stat().st_size for path in bundled_folder().rglob("*") if path.is_file()}
    assert 10_000_000 < sum(sizes.values()) <= MOST_BYTES


@pytest.mark.parametrize(("asked", "near", "far"), NEAR)
def test_what_means_the_same_is_nearer(encoder: OnnxEncoder, asked: str, near: str, far: str) -> None:
    (query,) = encoder.encode_query([asked])
    same, other = encoder.encode_document([near, far]) @ query
    # The matrix behind the pooling brings cosines closer to each other: without it, 0.2 was between these.
    assert same > other + 0.1, (same, other)


def test_it_reads_up_to_8192_tokens(encoder: OnnxEncoder) -> None:
    text = "fever and a cough " * 3000
    longest = load_encoder(max_tokens=8192)
    (vector,) = longest.encode_document([text])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-3)
    assert encoder.identity.max_tokens < 8192


def test_an_index_remembers_it_by_name() -> None:
    with Retriever.from_documents([Document(id="1", text="Renal calculi were removed.")]) as retriever:
        entry = retriever.manifest.encoder
        assert entry is not None and entry.source == BUNDLED_NAME
        assert retriever.search("kidney stones", mode="dense")[0].id == "1"


def test_its_card_says_what_it_is() -> None:
    card = (bundled_folder() / "README.md").read_text(encoding="utf-8")
    for part in ("## Data", "## Training", "## Limits", "no\nmedical device", "CC BY", "all-MiniLM-L6-v2"):
        assert part in card, part
    assert not re.search(r"(?<![\w.])/(home|root|work|tmp)/", card)


def test_no_torch_is_loaded_for_it() -> None:
    code = (
        "import sys\n"
        "from cmbert_retrieval.encoders import load_encoder\n"
        "load_encoder().encode_query(['fever'])\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["", "name"])
def test_sentence_transformers_opens_the_same_folder_to_the_same_vectors(
    encoder: OnnxEncoder, prompt: str, shared_data: Path
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from cmbert_retrieval.evaluation.datasets import named_set

    texts = [*PROBE_TEXTS, *list(named_set("scifact", shared_data, split="train").queries.values())[:300]]
    plain = sentence_transformers.SentenceTransformer(str(bundled_folder()), device="cpu")
    if prompt:
        encoder = encoder.with_prompts({"document": plain.prompts[prompt]})
    theirs = plain.encode(texts, prompt=plain.prompts[prompt] if prompt else None)
    agreement = compare_vectors(theirs, encoder.encode_document(texts))
    assert agreement.min_cosine >= LEAST_COSINE
