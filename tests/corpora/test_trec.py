from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import pytest

from cmbert_retrieval.corpora.base import Record
from cmbert_retrieval.corpora.topics import read_topics
from cmbert_retrieval.corpora.trec import TrecCorpus
from cmbert_retrieval.errors import ConfigError, CorpusError
from cmbert_retrieval.types import Document, Query

TREC = """<?xml version="1.0"?>
<DOCS>
<DOC>
<DOCNO> FT911-3 </DOCNO>
<PROFILE>_AN-BEOA7AAIFT</PROFILE>
<HEADLINE>
FT 14 MAY 91 / Heart &amp; lungs
</HEADLINE>
<TEXT>
<P>First <b>para</b>graph &lt; 5 &mu;g.
</P><!-- a
<TEXT> comment -->
<P>Second.</P>
</TEXT>
<TEXT>More.</TEXT>
</DOC>
<doc><docno>2</docno><Title>T</Title><body>One line.</body></doc><DOC>
<DOCNO>3</DOCNO><DOCHDR>http://x</DOCHDR><html><script>if (a<b) c</script>All &eacute; of it.</html>
</DOC>
</DOCS>
"""
SMART = """.I 1
.U
87049087
.S
Am J Emerg Med 8703; 4(6):491-5
.M
Allied Health Personnel/*; Adult; Heart/IN.
.T
Refibrillation managed by
EMT-Ds.
.P
JOURNAL ARTICLE.
.W
Some patients   \n  converted.
.A
Stults KR; Brown DD.
.I 2
.W
only text
"""


def write(folder: Path, data: str | bytes, name: str = "a.trec") -> Path:
    data = data.encode() if isinstance(data, str) else data
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder / name


def records_of(corpus: TrecCorpus) -> list[Record]:
    """Return all records, having checked that reading goes on behind every one of them."""
    records = list(corpus.records())
    for index, record in enumerate(records):
        after = json.loads(json.dumps(record.cursor))
        assert list(corpus.records(after)) == records[index + 1 :]
    return records


@pytest.mark.parametrize("name", ["a.trec", "FT911_1", "a.gz"])
def test_trec_documents_are_read(name: str, tmp_path: Path) -> None:
    records = records_of(TrecCorpus(write(tmp_path, TREC, name)))
    assert [record.document for record in records] == [
        Document(
            "FT911-3",
            "First paragraph < 5 μg.\n\nSecond.\n\nMore.",
            "FT 14 MAY 91 / Heart & lungs",
        ),
        Document("2", "One line.", "T"),
        Document("3", "All é of it."),
    ]


def test_the_tags_of_text_and_title_may_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, "<DOC><DOCNO>1</DOCNO><A>one</A><TEXT>two</TEXT><Abs>three</Abs></DOC>")
    assert list(TrecCorpus(path, text="abs", title=["A"]).strictly()) == [Document("1", "three", "one")]
    with pytest.raises(ConfigError, match="option 'text': got 5, expected names of tags"):
        TrecCorpus(path, text=5)  # type: ignore[arg-type]


def test_smart_documents_are_read_with_the_ids_that_ohsumeds_judgements_name(tmp_path: Path) -> None:
    records = records_of(TrecCorpus(write(tmp_path, SMART, "ohsumed.87")))
    assert [record.document for record in records] == [
        Document(
            "87049087",
            "Some patients\n  converted.",
            "Refibrillation managed by EMT-Ds.",
            {
                "source": "Am J Emerg Med 8703; 4(6):491-5",
                "mesh": ["Allied Health Personnel/*", "Adult", "Heart/IN"],
                "type": "JOURNAL ARTICLE.",
                "authors": "Stults KR; Brown DD.",
            },
        ),
        Document("2", "only text"),
    ]


GOOD = "<DOC>\n<DOCNO>good</DOCNO><TEXT>x</TEXT></DOC>\n"
BROKEN = {
    "no number": ("<DOC><TEXT>Zebedee</TEXT></DOC>\n", "no <DOCNO>", ""),
    "number with white space": ("<DOC><DOCNO>a b</DOCNO></DOC>\n", "the id holds white space", ""),
    "an end too many": ("Zebedee</DOC>\n", "</DOC> without <DOC>", ""),
    "a document not ended": ("<DOC><DOCNO>a</DOCNO>Zebedee\n<DOC></DOC>\n", "2 <DOC> and one </DOC>", "a"),
    "invalid UTF-8": (b"<DOC><DOCNO>a</DOCNO>Zebed\xe9e</DOC>\n", "invalid UTF-8; name the file's enc", ""),
    "NUL": ("<DOC><DOCNO>a</DOCNO>Zebe\0dee</DOC>\n", "NUL characters", ""),
    "too long": ("<DOC><DOCNO>a</DOCNO>" + "Zebedee\n" * 100_000 + "</DOC>\n", "larger than 9,000 bytes", ""),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_document_is_a_problem_with_file_and_line_and_the_next_one_is_read(
    case: str, tmp_path: Path
) -> None:
    source, reason, known_id = BROKEN[case]
    data = source if isinstance(source, bytes) else source.encode()
    path = write(tmp_path, GOOD.encode() + data + GOOD.encode())
    first, bad, last = records_of(TrecCorpus(path, max_bytes=9000))
    assert first.document == last.document == Document("good", "x")
    assert str(bad.problem).startswith("a.trec:2: ")
    assert reason in str(bad.problem)
    assert "Zebedee" not in str(bad.problem)
    assert bad.id == known_id


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        ("<DOC><DOCNO>cut</DOCNO><TEXT>Zebedee", "no </DOC> up to the end of the file"),
        ("Zebedee", "text outside of <DOC>"),
    ],
)
def test_what_stands_behind_the_last_document_is_a_problem(tail: str, reason: str, tmp_path: Path) -> None:
    good, bad = records_of(TrecCorpus(write(tmp_path, GOOD + tail)))
    assert good.document is not None
    assert reason in str(bad.problem)
    assert "Zebedee" not in str(bad.problem)


def test_documents_larger_than_a_block_and_marks_across_blocks_are_found(tmp_path: Path) -> None:
    path = write(tmp_path, "".join(GOOD.replace("x", "x" * (1 << 18) + "y" * n) for n in range(40)))
    assert sum(1 for _ in TrecCorpus(path).strictly()) == 40


@pytest.mark.parametrize("source", ["<TEXT>", "<!--", "<a<", "&amp;<script>", "<DOCNO>", "<", "</DOC", "\n"])
def test_a_document_of_nothing_but_beginnings_takes_no_time(source: str, tmp_path: Path) -> None:
    path = write(tmp_path, "<DOC><DOCNO>1</DOCNO>" + source * 200_000 + "</DOC>")
    started = time.perf_counter()
    assert len(list(TrecCorpus(path).records())) == 1
    assert time.perf_counter() - started < 10


BROKEN_SMART = {
    "neither text nor title": (".I 2\n.A\nZebedee\n", "neither a text"),
    "id with white space": (".I 2 3\n.W\nZebedee\n", "the id holds white space"),
}


@pytest.mark.parametrize("case", BROKEN_SMART)
def test_a_broken_smart_document_is_a_problem_with_its_line(case: str, tmp_path: Path) -> None:
    source, reason = BROKEN_SMART[case]
    first, bad, last = records_of(TrecCorpus(write(tmp_path, f".I 1\n.W\nx\n{source}.I 3\n.W\ny\n")))
    assert (first.document, last.document) == (Document("1", "x"), Document("3", "y"))
    assert str(bad.problem).startswith("a.trec:4: ")
    assert reason in str(bad.problem)
    assert "Zebedee" not in str(bad.problem)


def test_in_a_folder_a_file_of_another_kind_is_one_problem_and_the_next_file_is_read(tmp_path: Path) -> None:
    write(tmp_path, "about this collection", "README")
    write(tmp_path, GOOD, "b")
    write(tmp_path, b"\x1f\x9d\x90", "c.Z")
    records = records_of(TrecCorpus(tmp_path))
    assert [record.problem for record in records] == [
        "README: begins neither with <DOC> (TREC) nor with .I and a number (SMART)",
        None,
        "c.Z: data of Unix compress; unpack them (gunzip does)",
    ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("a b c", r"a\.trec: begins neither with <DOC>"),
        (TREC.encode("utf-16"), r"a\.trec: UTF-16, not UTF-8: --set source\.options\.encoding=utf-16"),
    ],
)
def test_the_one_file_of_another_kind_is_an_error(data: str | bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=reason):
        list(TrecCorpus(write(tmp_path, data)).records())


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig"])
def test_other_encodings_are_read_when_they_are_named(encoding: str, tmp_path: Path) -> None:
    source = "<DOC><DOCNO>1</DOCNO><TEXT>café</TEXT></DOC>\n" * 3
    corpus = TrecCorpus(write(tmp_path, source.encode(encoding)), encoding=encoding)
    assert [record.document for record in records_of(corpus)] == [Document("1", "café")] * 3


def test_truncated_gzip_data_are_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD * 1000, "a.gz")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorpusError, match=r"a\.gz: truncated or damaged gzip data"):
        list(TrecCorpus(path).records())


def test_an_empty_file_has_no_documents_and_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no files in this folder"):
        TrecCorpus(tmp_path)
    assert list(TrecCorpus(write(tmp_path, "")).records()) == []


TOPICS = """
<top>
<num> Number: 301
<title> International &amp; Crime
<desc> Description:
Identify organizations.
<narr> Narrative:
A relevant document must.
</top>
<top>
<num>302</num><title>Second</title><desc>D</desc>
</top>
"""


def test_topics_of_tags_are_queries_made_of_the_parts_that_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, TOPICS)
    assert list(read_topics(path)) == [Query("301", "International & Crime"), Query("302", "Second")]
    assert list(read_topics(path, fields=("title", "desc"))) == [
        Query("301", "International & Crime Identify organizations."),
        Query("302", "Second D"),
    ]


def test_topics_in_xml_are_queries(tmp_path: Path) -> None:
    trials = write(tmp_path, '<topics task="x"><topic number="1">\nA 45-year-old\nman.</topic></topics>')
    assert list(read_topics(trials)) == [Query("1", "A 45-year-old man.")]
    support = '<topic number="2" type="t"><description>D</description><summary>S</summary></topic>'
    assert list(read_topics(write(tmp_path, support), fields=["summary"])) == [Query("2", "S")]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("none", "a.trec: no topics; expected <top>, <topic number=...>, or .I as SMART has it"),
        ("\n<top><title>Zebedee</top>", "a.trec:2: a topic without <num> or number="),
        ("<top><num>1 2<title>Zebedee</top>", "a.trec:1: the id holds white space or control characters"),
        (
            "<top><num>1<desc>Zebedee</top>",
            "a.trec:1: a topic without title; expected some of its parts",
        ),
    ],
)
def test_a_broken_topic_is_an_error_with_file_and_line(source: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError) as caught:
        list(read_topics(write(tmp_path, source)))
    assert str(caught.value).startswith(reason)
    assert "Zebedee" not in str(caught.value)


@pytest.mark.slow
def test_med_as_it_was_published_has_the_documents_of_its_beir_folder(shared_data: Path) -> None:
    folder = shared_data / "med_medline1033"
    with gzip.open(folder / "corpus.jsonl.gz") as stream:
        expected = {str(d.get("_id", d.get("id"))): d for d in map(json.loads, stream)}
    found = list(TrecCorpus(folder / "original" / "MED.ALL").strictly())
    assert len(found) == len(expected) == 1033
    for document in found:
        values = expected[document.id]
        assert document.text.split() == f"{values.get('title', '')} {values['text']}".split()


def test_queries_of_smart_are_their_texts_under_their_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, ".I 1\n.W\nthe lens in\nvertebrates.\n.I 2\n.W\nlung\n")
    assert list(read_topics(path)) == [Query("1", "the lens in vertebrates."), Query("2", "lung")]
