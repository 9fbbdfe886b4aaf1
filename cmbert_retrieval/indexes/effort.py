"""How hard FAISS looks: its own settings are its weakest, one list of an IVF and a beam of 16 in a graph."""

from __future__ import annotations

import math
from typing import Any

_FEWEST_LISTS = 8
_ROWS_PER_ASKED = 8  # rows in the lists that are looked into
_NARROWEST_BEAM = 128
_BEAM_PER_WANTED = 4


def is_lossy(index: Any) -> bool:
    """Return whether the index ranks by something less than the vectors: codes, or fewer dimensions."""
    import faiss

    inner = faiss.downcast_index(index)
    if isinstance(inner, faiss.IndexPreTransform):
        return inner.index.d < inner.d or is_lossy(inner.index)
    if isinstance(inner, faiss.IndexRefine):
        return is_lossy(inner.base_index)
    return not isinstance(inner, faiss.IndexFlat | faiss.IndexIVFFlat | faiss.IndexHNSWFlat)


def candidates_for(wanted: int, *, lossy: bool) -> int:
    """Return how many candidates to ask for; all are scored again exactly, which puts codes right."""
    return 4 * wanted + 32 if lossy else wanted


def search_parameters(index: Any, wanted: int, *, share: float = 1.0, selector: Any = None) -> Any:
    """Return search parameters of the index's own kind: FAISS refuses those of another.

    Args:
        index: any kind.
        wanted: how many of the nearest are looked for.
        share: of its vectors, how many pass the filter. The nearest of those lie farther apart by as much, so
            the search goes as much farther.
        selector: the filter, or None.
    """
    import faiss

    inner = faiss.downcast_index(index)
    if isinstance(inner, faiss.IndexPreTransform):
        below = search_parameters(inner.index, wanted, share=share, selector=selector)
        return faiss.SearchParametersPreTransform(index_params=below) if below is not None else None
    if isinstance(inner, faiss.IndexRefine):
        parameters = faiss.IndexRefineSearchParameters()
        parameters.k_factor = inner.k_factor
        below = search_parameters(inner.base_index, wanted, share=share, selector=selector)
        # Attached to the Python object, too: FAISS keeps a bare pointer.
        parameters.inner = parameters.base_index_params = below
        return parameters
    if isinstance(inner, faiss.IndexIVF):
        asked = candidates_for(wanted, lossy=is_lossy(inner))
        holding = _ROWS_PER_ASKED * asked * inner.nlist / max(1, inner.ntotal)
        lists = max(_FEWEST_LISTS, math.sqrt(inner.nlist), holding) / share
        return faiss.SearchParametersIVF(sel=selector, nprobe=min(inner.nlist, math.ceil(lists)))
    if isinstance(inner, faiss.IndexHNSW):
        beam = max(_NARROWEST_BEAM, _BEAM_PER_WANTED * wanted) / share
        return faiss.SearchParametersHNSW(sel=selector, efSearch=min(max(16, inner.ntotal), math.ceil(beam)))
    return faiss.SearchParameters(sel=selector) if selector is not None else None
