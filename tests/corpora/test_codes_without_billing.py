"""Codes of sources that say nothing of claims: whether they may stand on one is not known, and not told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from code_systems import INDEX, MESH, OBO, ORDER_CM

from cmbert_retrieval.cli import main
from cmbert_retrieval.codes import billing_status, code_from_document, code_to_json, describe_code
from cmbert_retrieval.codes.tree import is_billable
from cmbert_retrieval.corpora import open_corpus
from cmbert_retrieval.types import Code, Document

WITHOUT = [("mesh", "desc2031.xml", MESH), ("ontology", "gno.obo", OBO),
           ("icd10cm_index", "icd10cm_index_2031.xml", INDEX)]  # fmt: skip


@pytest.fixture(params=WITHOUT, ids=[reader for reader, *_ in WITHOUT])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    reader, name, text = request.param
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return reader, path


def test_neither_the_document_nor_the_code_nor_its_description_speaks_of_billing(
    source: tuple[str, Path],
) -> None:
    documents = list(open_corpus(*source))
    assert documents
    for document in documents:
        assert "billable" not in document.metadata and "billable" not in open_corpus(*source).columns
        code = code_from_document(document)
        assert (code.billable, is_billable(code), billing_status(code)) == (None, None, "")
        shown = describe_code(code).splitlines()[1]
        assert shown.endswith(f"release {code.release}") and "billing" not in describe_code(code)
        values = json.loads(json.dumps(code_to_json(code)))
        assert values["billable"] is None
        assert code_from_document(Document(code.code, "", code.title, values)) == code


def test_the_command_prints_nothing_of_claims_for_them(
    source: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, path = source
    index = str(tmp_path / "index")
    assert main(["index", "build", "--from", f"{reader}:{path}", "--out", index, "--encoder", "none"]) == 0
    code = next(iter(open_corpus(reader, path)))
    capsys.readouterr()
    assert main(["codes", "search", code.title, "--index", index, "--encoder", "none"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines and {line[3] for line in lines} == {""}
    for command in (["search", code.title], ["show", code.id]):
        assert main(["codes", *command, "--index", index, "--encoder", "none", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        first = found[0] if isinstance(found, list) else found
        assert first["billable"] is None


def test_codes_of_claims_still_say_what_they_lack(tmp_path: Path) -> None:
    path = tmp_path / "icd10cm_order_2031.txt"
    path.write_text(ORDER_CM, encoding="utf-8")
    codes = {document.id: code_from_document(document) for document in open_corpus("icd10cm_order", path)}
    assert codes["G09"].billable is True and billing_status(codes["G09"]) == "valid for billing"
    assert codes["G00"].billable is False
    assert billing_status(codes["G00"]) == "not valid for billing: choose a code below it"


def test_a_code_that_is_made_by_hand_says_nothing_of_billing() -> None:
    assert Code("1", "One", "own", "1", "code").billable is None
