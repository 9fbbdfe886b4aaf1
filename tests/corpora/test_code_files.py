"""What all readers of code systems' files have in common: cursors, sources, encodings, hostile input."""

from __future__ import annotations

import gzip
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from code_systems import (
    HCPCS,
    ICD9_DX,
    INDEX,
    MESH,
    MESH_ASCII,
    MESH_SUPPLEMENT,
    NEOPLASM_TABLE,
    OBO,
    OBOGRAPHS,
    ORDER_CM,
    ORDER_PCS,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmbert_retrieval.codes.tree import code_from_document
from cmbert_retrieval.corpora import open_corpus
from cmbert_retrieval.corpora.base import Record
from cmbert_retrieval.corpora.code_documents import clean, distinct
from cmbert_retrieval.corpora.code_files import first_day, release_in_name, text_lines
from cmbert_retrieval.errors import CmbertError, CorpusError

FILES = {
    "hcpcs": ("hcpcs", "HCPC2031_JAN_ANWEB.txt", HCPCS),
    "hcpcs-csv": ("hcpcs", "a.csv", 'HCPC,LONG DESCRIPTION\nA0001,"Gnome, ceramic"\nA0002,Hat\n'),
    "icd10pcs": ("icd10pcs", "icd10pcs_order_2031.txt", ORDER_PCS),
    "icd10cm_order": ("icd10cm_order", "icd10cm_order_2031.txt", ORDER_CM),
    "icd9cm": ("icd9cm", "CMS32_DESC_LONG_DX.txt", ICD9_DX),
    "mesh": ("mesh", "desc2031.xml", MESH),
    "mesh-supplement": ("mesh", "supp2031.xml", MESH_SUPPLEMENT),
    "mesh-ascii": ("mesh", "d2031.bin", MESH_ASCII),
    "obo": ("ontology", "gno.obo", OBO),
    "obographs": ("ontology", "gno.json", json.dumps(OBOGRAPHS)),
    "index": ("icd10cm_index", "icd10cm_index_2031.xml", INDEX),
    "neoplasm": ("icd10cm_index", "icd10cm_neoplasm_2031.xml", NEOPLASM_TABLE),
}
GIVEN_UP = (
    r"1,000 of the first 1,0\d\d records are no codes; expected|"
    r"more than 100,000 lines in one stanza; expected"
)
every_file = pytest.mark.parametrize("kind", FILES)
# Those whose structure is nothing but lines: a damaged line costs its own record only.
every_flat_file = pytest.mark.parametrize("kind", ["hcpcs", "icd10pcs", "icd10cm_order", "icd9cm", "obo"])


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., tuple[str, Path]]:
    def written(kind: str, data: bytes | None = None, suffix: str = "") -> tuple[str, Path]:
        reader, name, text = FILES[kind]
        path = tmp_path / (name + suffix)
        path.write_bytes(text.encode() if data is None else data)
        return reader, path

    return written


def records_of(reader: str, path: Path) -> list[Record]:
    return list(open_corpus(reader, path).records())


@every_file
def test_reading_goes_on_behind_every_cursor(kind: str, write: Callable[..., tuple[str, Path]]) -> None:
    reader, path = write(kind)
    records = records_of(reader, path)
    assert len(records) > 0
    for position, record in enumerate(records, start=1):
        cursor = json.loads(json.dumps(record.cursor))
        assert list(open_corpus(reader, path).records(cursor)) == records[position:]


@every_file
def test_gzip_reads_like_the_plain_file_and_a_truncated_one_is_an_error(
    kind: str, write: Callable[..., tuple[str, Path]]
) -> None:
    reader, path = write(kind)
    data = gzip.compress(path.read_bytes())
    documents = [record.document for record in records_of(reader, path)]
    assert [record.document for record in records_of(*write(kind, data, ".gz"))] == documents
    with pytest.raises(CorpusError, match="truncated or damaged gzip data"):
        records_of(*write(kind, data[:-6], ".gz"))


@every_file
def test_documents_are_codes_with_metadata_that_is_json_and_entries_unlike_each_other(
    kind: str, write: Callable[..., tuple[str, Path]]
) -> None:
    reader, path = write(kind)
    corpus = open_corpus(reader, path)
    documents = list(corpus)
    ids = {document.id for document in documents}
    for document in documents:
        code = code_from_document(document)
        assert (code.code, code.title) == (document.id, document.title)
        assert json.loads(json.dumps(dict(document.metadata))) == document.metadata
        assert document.metadata["license"] is not None
        for name, type_ in corpus.columns.items():
            assert isinstance(document.metadata[name], {"text": str, "boolean": bool}[type_])
        assert document.text.startswith(document.title)
        assert document.entries
        assert len({entry.casefold() for entry in document.entries}) == len(document.entries)
        assert set(document.metadata["children"]) <= ids
        assert all(names == distinct(names) for names in document.metadata["names"].values())


@every_file
def test_the_source_is_the_file_with_its_checksum(kind: str, write: Callable[..., tuple[str, Path]]) -> None:
    reader, path = write(kind)
    before = open_corpus(reader, path).sources()[0]
    assert (before.path, before.bytes) == (str(path), path.stat().st_size)
    path.write_bytes(path.read_bytes() + b"\n")
    assert open_corpus(reader, path).sources()[0].checksum != before.checksum


@every_file
def test_a_folder_a_zip_and_an_absent_file_are_errors(kind: str, tmp_path: Path) -> None:
    reader = FILES[kind][0]
    with pytest.raises(CorpusError, match=r"a folder, expected|in this folder; expected"):
        open_corpus(reader, tmp_path)
    with pytest.raises(CorpusError, match=r"no such file or folder"):
        open_corpus(reader, tmp_path / "absent.txt")
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(CorpusError, match=r"a\.zip: a zip archive; unpack it"):
        open_corpus(reader, tmp_path / "a.zip")


@every_file
@pytest.mark.parametrize(
    "data", [b"", b"\0" * 5000, bytes(range(256)) * 40, b"\x81\x8d" * 3000, b"Smith " * 5000]
)
def test_a_file_of_something_else_is_an_error_in_one_line_that_quotes_nothing(
    data: bytes, kind: str, write: Callable[..., tuple[str, Path]]
) -> None:
    with pytest.raises(CorpusError) as caught:
        records_of(*write(kind, data))
    assert "\n" not in str(caught.value)
    assert "Smith" not in str(caught.value)


@every_flat_file
def test_a_file_in_utf_16_is_an_error_that_says_so(kind: str, write: Callable[..., tuple[str, Path]]) -> None:
    with pytest.raises(CorpusError, match=r"in UTF-16; expected UTF-8 or Windows-1252"):
        records_of(*write(kind, FILES[kind][2].encode("utf-16")))


@every_flat_file
def test_a_byte_order_mark_and_other_line_ends_change_nothing(
    kind: str, write: Callable[..., tuple[str, Path]]
) -> None:
    documents = [record.document for record in records_of(*write(kind))]
    text = FILES[kind][2].replace("\r\n", "\n").replace("\n", "\r\n")
    assert [record.document for record in records_of(*write(kind, text.encode("utf-8-sig")))] == documents


@every_flat_file
def test_a_long_file_of_something_else_is_given_up_early(
    kind: str, write: Callable[..., tuple[str, Path]]
) -> None:
    reader, path = write(kind, b"something else\n" * 2_000_000)
    begin = time.process_time()
    with pytest.raises(CorpusError, match=GIVEN_UP):
        for _ in open_corpus(reader, path).records():
            pass
    assert time.process_time() - begin < 10


@every_file
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_give_records_or_an_error_in_one_line(
    kind: str, tmp_path: Path, data: st.DataObject
) -> None:
    reader, name, text = FILES[kind]
    content = bytearray(text.encode())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content)))
        length = data.draw(st.integers(0, 40))
        new = data.draw(st.one_of(st.binary(max_size=12), st.sampled_from(HOSTILE)))
        content[place : place + length] = new
    path = tmp_path / name
    path.write_bytes(content)
    logging.disable(logging.WARNING)
    try:
        for record in open_corpus(reader, path).records():
            if record.document is None:
                assert str(record.problem).startswith(name)
                assert "\n" not in str(record.problem)
            else:
                assert not any(c.isspace() or not c.isprintable() for c in record.document.id)
                json.dumps(
                    [record.document.text, dict(record.document.metadata)], ensure_ascii=False
                ).encode()
    except CmbertError as error:
        assert "\n" not in str(error)
    finally:
        logging.disable(logging.NOTSET)


HOSTILE = [
    b"\xff\xfe",
    b"\0",
    b'"',
    b"<",
    b"]]>",
    b"&x;",
    b"\\",
    b"\r",
    b"\n[Term]\n",
    b"*NEWRECORD\n",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"1e999",
    b"NaN",
    b"{",
    b"\xe2\x80\xa8",
    b"\x85",
]


def test_a_line_is_utf_8_where_it_can_be_and_windows_1252_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("Café\n".encode() + "Café\n".encode("cp1252") + b"\x81\n" + b"x" * 40 + b"\nend")
    assert list(text_lines(path, max_bytes=30)) == [
        (1, "Café", ""),
        (2, "Café", ""),
        (3, "", "neither UTF-8 nor Windows-1252"),
        (4, "", "a line of more than 30 bytes"),
        (5, "end", ""),
    ]


@pytest.mark.parametrize(
    ("name", "release", "day"),
    [
        ("icd10cm_order_2026.txt", "2026", "2026-01-01"),
        ("HCPC2025_OCT_ANWEB.txt", "October 2025", "2025-10-01"),
        ("HCPC2025_OCTOBER_ANWEB.txt", "October 2025", "2025-10-01"),
        ("HCPC2025_MAPPED.txt", "2025", "2025-01-01"),
        ("desc120261.xml", "", ""),
    ],
)
def test_a_release_is_read_out_of_a_name(name: str, release: str, day: str) -> None:
    assert release_in_name(Path(name)) == release
    assert first_day(release) == day


def test_texts_are_cleaned_of_what_breaks_lines_and_encodings() -> None:
    assert clean(" a\u2028b\x00c\x81d\t e\u00a0f \ud800") == "a b c d e f \ufffd"
    assert clean("gnome\x92s hat") == "gnome’s hat"
    assert distinct(["b", "", "A", "B", "a", "c"]) == ["b", "A", "c"]
