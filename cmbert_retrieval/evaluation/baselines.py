"""What users would take instead, run as its documentation says: bm25s, and an encoder with exact search."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.encoders.names import NAME
from cmbert_retrieval.errors import MissingExtraError
from cmbert_retrieval.storage import atomic_file
from cmbert_retrieval.types import Document, Run


class Rows:
    """The texts that a baseline ranks: one a document, or one a name where a document has several.

    Attributes:
        ids: of the document of each row.
        texts: the rows.
        named: whether any document is found by its names.
    """

    def __init__(self, documents: Iterable[Document]) -> None:
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.named = False
        for document in documents:
            self.named = self.named or bool(document.entries)
            whole = f"{document.title} {document.text}".strip()
            for text in document.entries or (whole,):
                self.ids.append(document.id)
                self.texts.append(text)

    def best(self, ranked: Iterable[tuple[int, float]], k: int) -> dict[str, float]:
        """Return the best ``k`` documents of ranked rows, each by its best row."""
        found: dict[str, float] = {}
        for row, score in ranked:
            found.setdefault(self.ids[row], float(score))
            if len(found) == k:
                break
        return found

    def nearest(self, scores: NDArray[np.float32], k: int) -> dict[str, float]:
        """Return the best ``k`` documents by ``[rows]``, the score of every row; of equal rows the first."""
        wanted = min(len(scores), k * self.most_per_document)
        top = np.argpartition(-scores, wanted - 1)[:wanted]
        top = top[np.lexsort((top, -scores[top]))]
        return self.best(((int(row), float(scores[row])) for row in top), k)

    @cached_property
    def most_per_document(self) -> int:
        """The number of rows of the document that has most."""
        return max(Counter(self.ids).values(), default=1)


def bm25s_run(
    rows: Rows, queries: Mapping[str, str], k: int, *, stemmer: str = "", k1: float = 1.5, b: float = 0.75
) -> Run:
    """Return what bm25s finds, with its English stop words.

    Args:
        rows: what is ranked.
        queries: query id -> text.
        k: documents a query; what shares no word with the query is not among them.
        stemmer: the language of a Snowball stemmer, or "".
        k1: how soon more of the same word counts less.
        b: how much a long text is held against it.

    Raises:
        MissingExtraError: bm25s, or the stemmer, is not installed.

    Source:
        Lu, "BM25S: Orders of magnitude faster lexical search via eager sparse scoring", 2024.
    """
    for package, module in (("bm25s", "bm25s"), ("PyStemmer", "Stemmer")):
        if importlib.util.find_spec(module) is None and (package == "bm25s" or stemmer):
            raise MissingExtraError.of("the baseline 'bm25s'", package, "eval")
    import bm25s

    stems = None
    if stemmer:
        import Stemmer

        stems = Stemmer.Stemmer(stemmer)
    settings: dict[str, Any] = {"stopwords": "en", "stemmer": stems, "show_progress": False}
    logging.getLogger("bm25s").setLevel(logging.ERROR)  # it tells of its steps as of warnings
    ranker = bm25s.BM25(k1=k1, b=b)
    ranker.index(bm25s.tokenize(rows.texts, **settings), show_progress=False)
    tokens = bm25s.tokenize(list(queries.values()), **settings)
    wanted = min(len(rows.texts), k * rows.most_per_document)
    found, scores = ranker.retrieve(tokens, k=wanted, show_progress=False)
    return {
        id_: rows.best(((row, score) for row, score in zip(*ranked, strict=True) if score > 0), k)
        for id_, ranked in zip(queries, zip(found.tolist(), scores.tolist(), strict=True), strict=True)
    }


def encoder_run(rows: Rows, queries: Mapping[str, str], k: int, *, model: str | None, cache: Path) -> Run:
    """Return what a sentence-transformers model finds: ``encode`` as it comes, exact search by cosine.

    Args:
        rows: what is ranked.
        queries: query id -> text.
        k: documents a query.
        model: a hub id, a folder or a name of ours (``minilm``); None for the default encoder.
        cache: where the vectors of the rows are kept.

    Raises:
        MissingExtraError: sentence-transformers or the model is not installed.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise MissingExtraError.of("the baseline 'sentence-transformers'", "sentence-transformers", "train")
    from sentence_transformers import SentenceTransformer

    from cmbert_retrieval.encoders.named import trained_folder
    from cmbert_retrieval.encoders.sentence_transformers import quiet_loading

    name = str(trained_folder(model) or model)
    with quiet_loading():
        encoder = SentenceTransformer(name, device="cpu")
    prompt = encoder.prompts.get(NAME) if rows.named else None
    vectors = _cached_vectors(encoder, name, rows.texts, cache, prompt)
    asked = _unit(encoder.encode_query(list(queries.values()), prompt=prompt, show_progress_bar=False))
    return {id_: rows.nearest(vectors @ vector, k) for id_, vector in zip(queries, asked, strict=True)}


def _cached_vectors(
    encoder: Any, name: str, texts: Sequence[str], cache: Path, prompt: str | None
) -> NDArray[np.float32]:
    digest = hashlib.sha256(name.encode() + (prompt or "").encode())
    for weight in encoder.state_dict().values():  # a folder keeps its name when other weights come into it
        digest.update(weight.float().numpy().tobytes())
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    path = cache / f"vectors-{digest.hexdigest()[:16]}.npy"
    if not path.is_file():
        vectors = _unit(encoder.encode_document(list(texts), prompt=prompt, show_progress_bar=False))
        cache.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            np.save(file, vectors, allow_pickle=False)
    loaded: NDArray[np.float32] = np.load(path, allow_pickle=False)
    return loaded


def _unit(vectors: Any) -> NDArray[np.float32]:
    array = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    units: NDArray[np.float32] = (array / np.maximum(lengths, 1e-12)).astype(np.float32)
    return units
