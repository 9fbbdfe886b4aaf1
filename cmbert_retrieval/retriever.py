"""Retriever: the class that users know. Searches an index by words and by meaning."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from cmbert_retrieval.citation import cite
from cmbert_retrieval.encoders.identity import check_same_encoder, check_vectors
from cmbert_retrieval.encoders.names import as_index_reads
from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.fusion import strictly_decreasing
from cmbert_retrieval.indexes.filters import parse_filter
from cmbert_retrieval.indexes.manifest import Manifest, unpack_probes
from cmbert_retrieval.indexes.queries import as_texts, check_search
from cmbert_retrieval.indexes.ranking import (
    FUSIONS,
    Candidates,
    best_possible,
    find_candidates,
    find_fused,
    fuse,
)
from cmbert_retrieval.indexes.reader import IndexReader, Ranked
from cmbert_retrieval.types import Document, Hit, Query, Run

if TYPE_CHECKING:
    from cmbert_retrieval.encoders.base import Encoder
    from cmbert_retrieval.opening import TemporaryFolder

Filters = Mapping[str, Any] | Sequence[str] | str


class Retriever:
    """Searches an index. One retriever serves any number of threads."""

    def __init__(
        self, reader: IndexReader, encoder: Encoder | None, *, encoder_options: Mapping[str, Any] = {}
    ) -> None:
        """Wrap an open index; most users call ``from_pretrained`` or ``from_documents``.

        Args:
            reader: the index. It is closed with the retriever.
            encoder: what encodes queries; None to open the one that the index names when it is first needed.
            encoder_options: how that one is opened, as ``load_encoder`` takes them.
        """
        self.reader = reader
        self._encoder = encoder
        self._encoder_options = dict(encoder_options)
        self._checked = False
        self._lock = threading.Lock()
        self._folder: TemporaryFolder | None = None

    # --- ways in ---

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        index: str | Path | None = None,
        encoder: str | Path | None = None,
        revision: str | None = None,
        cache_folder: str | Path | None = None,
        local_files_only: bool = False,
        token: bool | str | None = None,
        **encoder_options: Any,
    ) -> Retriever:
        """Open an index by name, folder or hub id.

        Args:
            name: a bundled recipe ("icd10cm"), built once into the cache; or a folder or hub id of an index;
                or, with ``index``, of an encoder.
            index: what to search when ``name`` is an encoder: a bundled recipe, which is then built with it,
                or a folder or hub id of an index that was built with it.
            encoder: another copy of the index's encoder, or the encoder to build a bundled recipe with;
                "none" for a bundled recipe of words alone.
            revision: branch, tag or commit of the hub id ``name``.
            cache_folder: the hub's download cache, if not its usual one. Built recipes: ``CMBERT_CACHE``.
            local_files_only: never ask the hub; ``HF_HUB_OFFLINE=1`` forbids it for the whole process.
            token: for private and gated repositories; None for that of ``hf auth login`` or ``HF_TOKEN``.
            encoder_options: ``backend``, ``device``, ``threads``, ..., as ``load_encoder`` takes them.

        Returns:
            An open retriever; close it, or use it in a ``with`` block.

        Raises:
            ConfigError: nothing of that name, or an encoder without ``index``.
            IndexMismatchError: the encoder is not the one that the index was built with.
        """
        from cmbert_retrieval.opening import open_pretrained

        return open_pretrained(
            cls,
            name,
            index=index,
            encoder=encoder,
            revision=revision,
            cache_folder=cache_folder,
            local_files_only=local_files_only,
            token=token,
            encoder_options=encoder_options,
        )

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[Document],
        *,
        encoder: str | Path | Encoder | None = None,
        path: str | Path | None = None,
        columns: Mapping[str, str] | None = None,
        overrides: Sequence[str] = (),
    ) -> Retriever:
        """Index documents that are in memory.

        Args:
            documents: with unique ids; of two with the same id, the later one counts. What cannot be used is
                left out and named in a warning.
            encoder: a name, a folder or an open encoder; None for the default one, "none" for words only.
            path: where the index is kept; None for a temporary folder that goes with the retriever.
            columns: metadata to filter on, name -> type (text, integer, number, boolean, date); None guesses
                them from the documents.
            overrides: recipe settings, ``section.key=value`` each.

        Raises:
            ConfigError: something in ``documents`` is no ``Document``, or its id, title or text is no text.
            CorpusError: no document can be used.
        """
        from cmbert_retrieval.opening import index_documents

        return index_documents(
            cls, documents, encoder=encoder, path=path, columns=columns, overrides=overrides
        )

    # --- what there is ---

    def __repr__(self) -> str:
        """Show what is searched, and with what."""
        manifest, encoder = self.manifest, self.manifest.encoder
        name = encoder.identity.name if encoder is not None else None
        return (
            f"Retriever({manifest.recipe['name']!r}, documents={manifest.documents}, rows={manifest.rows}, "
            f"encoder={name!r})"
        )

    def __len__(self) -> int:
        """Return the number of documents."""
        return self.manifest.documents

    @property
    def manifest(self) -> Manifest:
        """What the index says of itself."""
        return self.reader.manifest

    @property
    def encoder(self) -> Encoder | None:
        """The index's encoder, opened and compared with the index when it is first needed; None for words
        only.

        Raises:
            IndexMismatchError: it is not the encoder that made the vectors.
        """
        entry = self.manifest.encoder
        if entry is None:
            return None
        with self._lock:
            if self._encoder is None:
                from cmbert_retrieval.opening import load_index_encoder

                self._encoder = load_index_encoder(entry, self.reader.path, self._encoder_options)
            if not self._checked:
                self._encoder = as_index_reads(self._encoder, entry.identity)
                check_same_encoder(
                    entry.identity, unpack_probes(entry.probes, entry.identity.dim), self._encoder
                )
                self._checked = True
            return self._encoder

    def get(self, id: str) -> Document | None:
        """Return the document with this id, or None."""
        return self.reader.get(id)

    # --- search ---

    @overload
    def search(  # type: ignore[overload-overlap]  # a text is a sequence of texts, too
        self, query: str, k: int = ..., *, mode: str | None = ..., filter: Filters | None = ...,
        group: bool = ..., fusion: str | None = ...,
    ) -> list[Hit]: ...  # fmt: skip

    @overload
    def search(
        self, query: Sequence[str], k: int = ..., *, mode: str | None = ..., filter: Filters | None = ...,
        group: bool = ..., fusion: str | None = ...,
    ) -> list[list[Hit]]: ...  # fmt: skip

    def search(
        self,
        query: str | Sequence[str],
        k: int = 10,
        *,
        mode: str | None = None,
        filter: Filters | None = None,
        group: bool = True,
        fusion: str | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """Return the best documents for a query, or a list of them for each of several queries.

        Args:
            query: a text or a list of texts.
            k: hits per query; fewer come back when the index, or what passes the filter, holds fewer.
            mode: ``hybrid`` (words and meaning), ``dense`` (meaning) or ``lexical`` (words); None for the
                index's own.
            filter: conditions on declared columns: ``{"year": {"ge": 2020}, "journal": "BMJ"}`` or
                ``"year>=2020"``.
            group: one hit a document, with its best passage; False for one hit a passage.
            fusion: ``bounded``, ``min-max`` or ``rrf``, how hybrid joins the two; None for the index's own.

        Returns:
            Hits by score, then id; passages by score, then their order in the index.

        Raises:
            ConfigError: an unknown mode, an undeclared column, or ``k`` out of bounds.
            IndexMismatchError: the encoder is not the index's.
        """
        single = isinstance(query, str)
        texts = as_texts(query)
        ranked = self._rank(texts, k, mode, filter, group, fusion)
        answers = [self._hits(scores, parts, k, group) for scores, parts in ranked]
        return answers[0] if single else answers

    def run(
        self,
        queries: Mapping[str, str] | Iterable[Query],
        k: int = 100,
        *,
        mode: str | None = None,
        filter: Filters | None = None,
        fusion: str | None = None,
    ) -> Run:
        """Return ``{query id: {document id: score}}``, as evaluation tools take it.

        Scores are float32 values that strictly decrease in our order, so that every tool sees the same order,
        whatever it does with ties. A query without answers is there, with an empty dictionary.
        """
        pairs = list(queries.items()) if isinstance(queries, Mapping) else [(q.id, q.text) for q in queries]
        run: Run = {}
        block = 64  # bounds memory, not results
        for start in range(0, len(pairs), block):
            chunk = pairs[start : start + block]
            ranked = self._rank(as_texts([text for _, text in chunk]), k, mode, filter, True, fusion)
            for (id_, _), (scores, _) in zip(chunk, ranked, strict=True):
                run[id_] = strictly_decreasing(dict(list(scores.items())[:k]))
        return run

    def _rank(
        self,
        texts: Sequence[str],
        k: int,
        mode: str | None,
        given: Filters | None,
        group: bool,
        fusion: str | None,
    ) -> list[tuple[dict[str, float], dict[str, Candidates]]]:
        """Return, for each text, fused scores by id and the candidates of each signal."""
        settings = self.manifest.recipe["search"]
        mode = check_search(self.manifest, k, mode)
        fusion = fusion or settings["fusion"]
        if fusion not in FUSIONS:
            raise ConfigError(f"unknown fusion '{fusion}'; known: {', '.join(FUSIONS)}")
        where = parse_filter(given, self.manifest.columns)
        vectors = self.encode_queries(texts) if mode != "lexical" else [None] * len(texts)
        weight = settings["dense_weight"]
        ranked = []
        for text, vector in zip(texts, vectors, strict=True):
            searches: dict[str, Callable[[int], Ranked]] = {}
            if mode != "dense":
                searches["lexical"] = partial(self.reader.search_words, text, where=where)
            if vector is not None:
                searches["dense"] = partial(self.reader.search_vectors, vector, where=where)
            if len(searches) > 1:
                found = find_fused(
                    self.reader,
                    searches,
                    k,
                    depth=settings["depth"],
                    group=group,
                    fusion=fusion,
                    dense_weight=weight,
                    best=best_possible(self.reader, text) if fusion == "bounded" else None,
                )
            else:
                parts = {
                    signal: find_candidates(self.reader, search, k, depth=k, group=group)
                    for signal, search in searches.items()
                }
                found = fuse(parts, fusion, dense_weight=weight), parts
            ranked.append(found)
        return ranked

    def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """Return a vector for each query; an empty one, which finds nothing, for a blank text.

        Raises:
            EncoderError: a vector is not finite.
            IndexMismatchError: the encoder is not the index's, or gives vectors of another length.
        """
        encoder = self.encoder
        assert encoder is not None
        # A blank query means nothing: it must not find what lies nearest to nothing.
        filled = [text for text in texts if text.strip()]
        encoded = check_vectors(encoder.encode_query(filled), encoder.identity.dim) if filled else ()
        vectors = iter(encoded)
        blank = np.empty(0, dtype=np.float32)
        return [next(vectors) if text.strip() else blank for text in texts]

    def _hits(
        self, scores: Mapping[str, float], parts: Mapping[str, Candidates], k: int, group: bool
    ) -> list[Hit]:
        hits = []
        for rank, (id_, score) in enumerate(list(scores.items())[:k], start=1):
            found = {signal: part.scores[id_] for signal, part in parts.items() if id_ in part.scores}
            # What meaning points at reads better as an excerpt than where the words are densest.
            signal = "dense" if "dense" in found else next(iter(found))
            row, document = self.reader.row(parts[signal].rows[id_])
            # A row of the title alone, like an entry text, stands nowhere in the text.
            offsets = (row.start, row.end) if row.start is not None and row.end else None
            passage = row.entry if row.entry is not None else document.text[row.start : row.end]
            hits.append(
                Hit(
                    rank=rank,
                    score=score,
                    id=document.id if group else f"{document.id}#{row.number}",
                    document=document,
                    passage=passage or document.title,
                    offsets=offsets,
                    citation=cite(document),
                    signals=found,
                )
            )
        return hits

    # --- keeping and sharing ---

    def keep(self, folder: TemporaryFolder | None) -> None:
        """Remove this temporary folder when the retriever is closed."""
        self._folder = folder

    def save_pretrained(self, path: str | Path, *, with_encoder: bool = True) -> None:
        """Write a copy with the encoder and a README.md, that ``from_pretrained`` opens anywhere.

        Raises:
            ConfigError: ``path`` is there and not empty.
        """
        from cmbert_retrieval.sharing import save_index

        encoder = self.encoder if with_encoder else None
        save_index(self.reader, encoder, Path(path))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        revision: str | None = None,
        token: bool | str | None = None,
    ) -> str:
        """Upload the index with its encoder to a model repository of the hub; return the commit's address.

        Raises:
            CmbertError: the hub does not take it; or the repository is there and public, while the text of
                documents is private unless you say otherwise.
        """
        from cmbert_retrieval.sharing import push_index

        return push_index(self, repo_id, private=private, revision=revision, token=token)

    def close(self) -> None:
        """Give the files back, and remove the temporary folder of ``from_documents``."""
        self.reader.close()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> Retriever:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
