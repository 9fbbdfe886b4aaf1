"""Files of every reader of text tables with bytes changed at random: problems or one error, never a crash."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmbert_retrieval.corpora import open_corpus
from cmbert_retrieval.errors import CorpusError

WHOLE = {
    "notes": ("a.csv", b'note_id,text,ward\n1,"PLAN:\nrest",a\n2,"caf\xc3\xa9, ""x""",b\r\n\n3,y,\n'),
    "trec": (
        "a.trec",
        b"<DOC><DOCNO>1</DOCNO><TITLE>T</TITLE><TEXT>a &amp; b<!-- c --></TEXT></DOC>\n"
        b"<DOC><DOCNO>2</DOCNO><BODY>d</BODY></DOC>\n",
    ),
    "smart": ("a.all", b".I 1\n.T\ntitle\n.W\ntext\ntext\n.I 2\n.A\nname\n.W\nmore\n"),
    "packed": ("a.csv.gz", gzip.compress(b'id,text\n1,"a\nb"\n2,c\n' * 20, mtime=0)),
}
BYTES = b'"\n\r,<>.&;\0\xff\xc3I \t/D-!x'
edits = st.lists(
    st.tuples(st.integers(0, 1000), st.sampled_from("icr"), st.sampled_from(list(BYTES))), max_size=6
)


def mutated(data: bytes, changes: list[tuple[int, str, int]]) -> bytes:
    changed = bytearray(data)
    for place, kind, byte in changes:
        place %= len(changed) + 1
        if kind == "i":
            changed.insert(place, byte)
        elif kind == "r" and place < len(changed):
            changed[place] = byte
        elif kind == "c":
            del changed[place : place + 3]
    return bytes(changed)


@pytest.mark.parametrize("kind", WHOLE)
@given(changes=edits, encoding=st.sampled_from(["utf-8", "utf-8", "latin-1", "utf-16"]))
@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_changed_bytes_give_problems_or_one_error_and_reading_goes_on_behind_every_record(
    kind: str, changes: list[tuple[int, str, int]], encoding: str, tmp_path: Path
) -> None:
    name, data = WHOLE[kind]
    (tmp_path / name).write_bytes(mutated(data, changes))
    records = []
    failed = False
    try:
        reader = "trec" if kind in ("trec", "smart") else "notes"
        corpus = open_corpus(reader, tmp_path / name, encoding=encoding)
        for record in corpus.records():
            records.append(record)
    except CorpusError as error:
        assert "\n" not in str(error)
        failed = True
    for record in records:
        assert (record.document is None) == (record.problem is not None)
        assert "\n" not in str(record.problem)
    if records and not failed:
        middle = len(records) // 2
        after = json.loads(json.dumps(records[middle].cursor))
        assert list(corpus.records(after)) == records[middle + 1 :]
