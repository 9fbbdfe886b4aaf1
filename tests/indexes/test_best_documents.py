"""How many rows are looked at must not show in what is found."""

from __future__ import annotations

import pytest

from cmbert_retrieval import Document, Retriever

WORDS = ("heart", "attack", "pain", "fever")


def documents() -> list[Document]:
    """Return documents of one to 30 passages, many of which score alike."""
    found = []
    for number in range(40):
        sentence = f"The {WORDS[number % 4]} of the patient was treated, and {WORDS[number % 3]} came back. "
        filler = "Nothing else was seen on that day in the ward, whatever was looked for. " * 3
        found.append(Document(id=f"d{number:02}", text=(sentence + filler) * (1 + number * 7 % 30)))
    return found[::-1]  # of those that score alike, the last row has the first id


@pytest.mark.parametrize("mode", ["lexical", "dense", "hybrid"])
def test_fewer_documents_are_the_first_of_more(mode: str, tiny_encoder_path: str) -> None:
    with Retriever.from_documents(documents(), encoder=tiny_encoder_path) as retriever:
        assert retriever.manifest.rows > 10 * len(retriever)
        for query in ("heart attack", "pain", "the fever of the patient"):
            every = [(hit.id, hit.score, hit.passage) for hit in retriever.search(query, 40, mode=mode)]
            assert len(every) >= 10
            for k in (1, 2, 3, 7, 10, len(every)):
                hits = retriever.search(query, k, mode=mode)
                assert [(hit.id, hit.score, hit.passage) for hit in hits] == every[:k]


def test_a_document_counts_by_the_best_of_all_its_passages(tiny_encoder_path: str) -> None:
    with Retriever.from_documents(documents(), encoder=tiny_encoder_path) as retriever:
        rows = retriever.manifest.rows
        passages = retriever.search("heart attack", rows, mode="lexical", group=False)
        best: dict[str, float] = {}
        for hit in passages:
            best[hit.document.id] = max(best.get(hit.document.id, 0.0), hit.score)
        expected = sorted(best, key=lambda id_: (-best[id_], id_))
        for k in (1, 5, 12, len(expected)):
            found = retriever.search("heart attack", k, mode="lexical")
            assert [hit.id for hit in found] == expected[:k]
            assert [hit.score for hit in found] == [best[id_] for id_ in expected[:k]]
