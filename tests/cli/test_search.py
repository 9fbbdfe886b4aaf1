"""``cmbert search``: what is printed for people, for pipes and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from samples import COLUMNS, SMALL, build, documents

from cmbert_retrieval import Document, Retriever, load_encoder
from cmbert_retrieval.cli import main
from cmbert_retrieval.cli import search as module

HOSTILE = Document(
    "hostile",
    "Zoonotic\tcauses\nare \x1b[31mrare\x1b[0m.\x07",
    title="A\ttitle\nof\r\x1b[2Jlines",
    metadata={"year": 1990, "is_retracted": True},
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("search") / "index"
    build(folder, [*documents(20), HOSTILE], load_encoder(tiny_encoder_path), *SMALL, columns=COLUMNS)
    yield folder


def run(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["search", *(str(arg) for arg in args)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def hits_of(capsys: pytest.CaptureFixture[str], *args: str | Path) -> list[dict[str, Any]]:
    code, out, err = run(capsys, *args, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert isinstance(found, list)
    return found


def test_piped_output_is_a_line_a_hit_with_tabs_between(
    index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, index, "heart failure", "-k", "5")
    assert (code, err) == (0, "")
    lines = [line.split("\t") for line in out.splitlines()]
    assert [line[0] for line in lines] == ["1", "2", "3", "4", "5"]
    assert all(len(line) == 5 for line in lines)
    with Retriever.from_pretrained(index) as retriever:
        hits = retriever.search("heart failure", 5)
    assert [(line[1], line[2], line[3]) for line in lines] == [
        (f"{hit.score:.4f}", hit.id, hit.document.title) for hit in hits
    ]


def test_a_document_cannot_steer_the_terminal_or_break_a_line(
    index: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run(capsys, index, "zoonotic", "--mode", "lexical")
    assert code == 0 and out.count("\n") == 1 and out.count("\t") == 4
    assert "\x1b" not in out and "\x07" not in out and "\r" not in out
    monkeypatch.setattr(module, "is_terminal", lambda: True)
    code, out, _ = run(capsys, index, "zoonotic", "--mode", "lexical")
    assert code == 0 and "RETRACTED" in out and "A title of" in out
    assert "[31m" not in out.replace(" ", "") or "\x1b[31mrare" not in out
    assert "\x07" not in out


def test_json_has_the_same_keys_for_every_hit(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for mode in ("hybrid", "dense", "lexical"):
        hits = hits_of(capsys, index, "heart failure", "--mode", mode, "-k", "3")
        assert [hit["rank"] for hit in hits] == [1, 2, 3]
        for hit in hits:
            assert set(hit) == {
                "rank", "score", "id", "title", "passage", "offsets", "section", "citation", "signals",
                "metadata",
            }  # fmt: skip
            assert isinstance(hit["score"], float) and len(hit["offsets"]) == 2
            assert set(hit["metadata"]) == {"year", "journal"}
    assert hits_of(capsys, index, "zoonotic", "--mode", "lexical")[0]["title"] == HOSTILE.title


def test_filters_passages_and_k(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hits = hits_of(
        capsys, index, "heart", "--filter", "year>=2010", "--filter", "journal=BMJ,Ann Surg", "-k", "50"
    )
    expected = {
        text.id
        for text in documents(20)
        if text.metadata["year"] >= 2010 and text.metadata["journal"] in ("BMJ", "Ann Surg")
    }
    assert {hit["id"] for hit in hits} == expected
    passages = hits_of(capsys, index, "heart", "--passages", "-k", "200")
    assert len(passages) > 21 and all("#" in hit["id"] for hit in passages)
    assert len(hits_of(capsys, index, "heart", "-k", "1")) == 1


def test_nothing_found_is_no_error(
    index: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = f"nothing in {index} matches\n"
    assert run(capsys, index, "qqqq", "--mode", "lexical") == (0, "", nothing)
    assert hits_of(capsys, index, "qqqq", "--mode", "lexical") == []
    monkeypatch.setattr(module, "is_terminal", lambda: True)
    assert run(capsys, index, "qqqq", "--mode", "lexical") == (0, "", nothing)
    assert run(capsys, index, "", "  ")[0] == 1


@pytest.mark.parametrize(
    ("args", "words", "code"),
    [
        (["heart", "--filter", "jurnal=BMJ"], ["did you mean 'journal'", "year"], 1),
        (["heart", "--filter", "year"], ["expected COLUMN=VALUE"], 1),
        (["heart", "--filter", "year=x"], ["filter on 'year' (integer)"], 1),
        (["heart", "-k", "0"], ["k is 0; expected 1 to 10,000"], 1),
        (["heart", "-k", "many"], ["-k"], 2),
        (["heart", "--mode", "semantic"], ["semantic"], 2),
        ([], ["QUERY"], 2),
        ([" "], ["the query is empty"], 1),
        (["heart", "--encoder", "/no/such/encoder"], ["/no/such/encoder"], 1),
    ],
)
def test_a_mistake_is_one_line(
    index: Path, capsys: pytest.CaptureFixture[str], args: list[str], words: list[str], code: int
) -> None:
    got, out, err = run(capsys, index, *args)
    assert (got, out) == (code, "")
    assert err.startswith("cmbert: ") and err.count("\n") == 1
    assert all(word in err for word in words), err


def test_what_is_no_index_says_how_to_make_one(
    tmp_path: Path, tiny_encoder_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, word in (
        (tmp_path, "cmbert index build"),
        (tmp_path / "nowhere", "no such folder"),
        (tiny_encoder_path, "cmbert index build"),
    ):
        code, out, err = run(capsys, name, "heart")
        assert (code, out) == (1, "")
        assert word in err and err.count("\n") == 1
