"""PubMed's records: what becomes of their parts, in which order files are read, where reading goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pubmed_records import article, article_set, deletion, write

from cmbert_retrieval.citation import cite
from cmbert_retrieval.corpora import guess_reader
from cmbert_retrieval.corpora.pubmed import PubmedCorpus
from cmbert_retrieval.corpora.pubmed_files import FileNumber, file_number
from cmbert_retrieval.corpora.pubmed_stream import _BLOCK
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.types import Document

FIXTURES = Path(__file__).parents[1] / "fixtures" / "pubmed"


@pytest.fixture(scope="module")
def found() -> dict[str, Document]:
    return {document.id: document for document in PubmedCorpus(FIXTURES / "pubmed26n0001.xml").strictly()}


def ids(path: Path) -> list[str]:
    return [
        f"-{r.id}" if r.deleted else r.document.id if r.document else "?"
        for r in PubmedCorpus(path).records()
    ]


def title_of(title: str, tmp_path: Path) -> str:
    (document,) = PubmedCorpus(write(tmp_path / "a.xml", article(1, title=title)))
    return document.title


# --- a record ---


def test_the_parts_of_a_structured_abstract_are_sections_with_their_labels(
    found: dict[str, Document],
) -> None:
    document = found["90000001"]
    assert document.text == "Water with CO2 was measured.\n\nA ratio a/b of n = 4.\n\nAll is well."
    assert [(document.text[s.start : s.end], s.path, s.kind) for s in document.sections] == [
        ("Water with CO2 was measured.", ("Abstract", "BACKGROUND"), "abstract"),
        ("A ratio a/b of n = 4.", ("Abstract", "WHAT WE DID"), "abstract"),
        ("All is well.", ("Abstract",), "abstract"),
    ]


def test_the_metadata_of_a_record_are_those_of_its_xml(found: dict[str, Document]) -> None:
    assert found["90000001"].metadata == {
        "authors": ["Müller AB", "Ohne JP 3rd", "Salt Study Group"],
        "chemicals": ["Sodium Chloride"],
        "doi": "10.9999/right",
        "is_retracted": False,
        "issn": "8765-4321",
        "issue": "3-4",
        "journal": "Zeitschrift fur erfundene Medizin",
        "journal_abbreviation": "Z Erfund Med",
        "keywords": ["salt", "winter frost"],
        "language": ["ger", "eng"],
        "mesh": ["Heart Failure", "Humans", "Xenopus"],
        "mesh_headings": ["Heart Failure/*drug therapy/genetics", "Humans", "*Xenopus"],
        "mesh_ids": ["D006333", "D006801", "D014982"],
        "mesh_major": ["Heart Failure", "Xenopus"],
        "mesh_supplementary": ["Winter salt syndrome, type 2", "SALT protocol"],
        "mesh_supplementary_ids": ["C900001", "C900002"],
        "pages": "7-12",
        "pmcid": "PMC900001",
        "pmid": "90000001",
        "types": ["Journal Article", "Randomized Controlled Trial"],
        "vernacular_title": "Salz im Winter.",
        "version": 2,
        "volume": "12",
        "year": 1998,
    }


def test_a_record_can_be_cited(found: dict[str, Document]) -> None:
    assert cite(found["90000001"]) == (
        "Müller AB et al. Salt and Xenopus [in winter] at 10^9 cells. "
        "Zeitschrift fur erfundene Medizin 1998. PMID 90000001, doi:10.9999/right"
    )


def test_where_there_is_no_abstract_an_english_one_of_somebody_else_is_taken(
    found: dict[str, Document],
) -> None:
    document = found["90000002"]
    assert document.text == "Of water."
    assert document.sections[0].path == ("Plain language summary",)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([("plain-language-summary", "eng", "It helps.")], [("Plain language summary", "It helps.")]),
        ([("plain-language-summary", "spa", "Ayuda.")], []),
        ([("Publisher", "fre", "Cela aide."), ("AIDS", "eng", "Somebody else's.")], []),
        ([("Publisher", "fre", "Cela aide."), ("plain-language-summary", "eng", "It helps.")],
         [("Plain language summary", "It helps.")]),
    ],
)  # fmt: skip
def test_beside_an_abstract_only_a_summary_in_plain_english_is_kept(
    others: list[tuple[str, str, str]], expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    added = "".join(
        f'<OtherAbstract Type="{kind}" Language="{language}"><AbstractText>{text}</AbstractText>'
        "</OtherAbstract>"
        for kind, language, text in others
    )
    record = article(1, "The drug reduced mortality.").replace(
        b"</MedlineCitation>", added.encode() + b"</MedlineCitation>"
    )
    (document,) = PubmedCorpus(write(tmp_path / "a.xml", record))
    found = [(part.path[0], document.text[part.start : part.end]) for part in document.sections]
    assert found == [("Abstract", "The drug reduced mortality."), *expected]


def test_a_missing_title_is_the_one_in_the_language_of_the_article(found: dict[str, Document]) -> None:
    assert found["90000002"].title == "Le sel en hiver."
    assert "vernacular_title" not in found["90000002"].metadata


def test_the_year_is_that_of_the_issue_else_that_of_the_electronic_article(
    found: dict[str, Document],
) -> None:
    assert [found[pmid].metadata.get("year") for pmid in ("90000001", "90000002")] == [1998, 2019]


def test_retractions_are_known_by_the_type_and_by_the_notice(found: dict[str, Document]) -> None:
    assert [pmid for pmid, document in found.items() if document.metadata["is_retracted"]] == [
        "90000002",
        "90000004",
    ]


def test_a_chapter_of_a_book_is_a_record_whose_journal_is_the_book(found: dict[str, Document]) -> None:
    document = found["90000003"]
    assert (document.title, document.text) == ("Salt in soup", "Soup needs salt.")
    expected = {
        "authors": ["Cook C"],
        "journal": "The book of salt",
        "keywords": ["soup"],
        "types": ["Review"],
        "year": 2020,
    }
    assert {key: document.metadata[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("given", "title"),
    [
        ("[A title].", "A title."),
        ("[A title.]", "A title."),
        ("[A title?]", "A title?"),
        ("[A [18F]FDG title].", "A [18F]FDG title."),
        ("[18F]FDG in dogs.", "[18F]FDG in dogs."),
        ("[Salt] and [pepper].", "[Salt] and [pepper]."),
        ("[Open.", "[Open."),
        ("[]", ""),
        ("]", "]"),
        ("[", "["),
    ],
)
def test_brackets_around_a_whole_title_mark_a_translation_and_go(
    given: str, title: str, tmp_path: Path
) -> None:
    assert title_of(given, tmp_path) == title


# --- files ---


def test_deletions_come_where_they_stand(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", article(1), deletion(1, 7), article(2), deletion(), deletion(3))
    assert ids(path) == ["1", "-1", "-7", "2", "-3"]


def test_the_versions_of_deletions_and_records_are_kept(tmp_path: Path) -> None:
    record, deleted = PubmedCorpus(
        write(tmp_path / "a.xml", article(1, version=3), deletion(1, version=2))
    ).records()
    assert record.document is not None
    assert (record.document.metadata["version"], deleted.version) == (3, 2)


def test_a_folder_is_read_in_the_order_of_pubmeds_numbers(tmp_path: Path) -> None:
    (tmp_path / "updatefiles").mkdir()
    (tmp_path / "baseline").mkdir()
    write(tmp_path / "updatefiles" / "pubmed26n10000.xml.gz", article(4))
    write(tmp_path / "updatefiles" / "pubmed26n9999.xml", article(3))
    write(tmp_path / "baseline" / "pubmed26n9998.xml.gz", article(2))
    write(tmp_path / "a.xml", article(5))
    (tmp_path / "baseline" / "pubmed26n9998.xml.gz.md5").write_text("MD5")
    assert ids(tmp_path) == ["2", "3", "4", "5"]


def test_every_file_of_a_folder_is_a_source(tmp_path: Path) -> None:
    for number in (2, 1):
        write(tmp_path / f"pubmed26n000{number}.xml.gz", article(number))
    sources = PubmedCorpus(tmp_path).sources()
    assert [Path(source.path).name for source in sources] == ["pubmed26n0001.xml.gz", "pubmed26n0002.xml.gz"]
    assert len({source.checksum for source in sources}) == 2


def test_a_number_that_is_there_twice_and_files_of_two_years_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "pubmed26n0001.xml", article(1))
    write(tmp_path / "pubmed26n0001.xml.gz", article(1))
    with pytest.raises(CorpusError, match=r"pubmed26n0001\.xml and pubmed26n0001\.xml\.gz are the same"):
        ids(tmp_path)
    (tmp_path / "pubmed26n0001.xml").unlink()
    write(tmp_path / "pubmed25n0009.xml.gz", article(1))
    with pytest.raises(CorpusError, match="years 25 and 26"):
        ids(tmp_path)


def test_files_that_are_missing_in_a_folder_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2, 4, 7):
        write(tmp_path / f"pubmed26n{number:04d}.xml", article(number))
    assert ids(tmp_path) == ["1", "2", "4", "7"]
    assert "pubmed26n0003, pubmed26n0005, pubmed26n0006" in caplog.text


@pytest.mark.parametrize("ending", ["xml", "xml.gz"])
def test_reading_goes_on_behind_any_record_of_any_file(ending: str, tmp_path: Path) -> None:
    broken = article(9).replace(b"</Article>", b"")
    write(tmp_path / f"pubmed26n0001.{ending}", article(1), deletion(5, 6), broken, article(2))
    write(tmp_path / f"pubmed26n0002.{ending}", deletion(1, 7), article(3))
    corpus = PubmedCorpus(tmp_path)
    records = list(corpus.records())
    assert len(records) == 8
    for index, record in enumerate(records):
        assert list(corpus.records(record.cursor)) == records[index + 1 :]


@pytest.mark.parametrize("ending", ["xml", "xml.gz"])
def test_where_blocks_of_the_file_end_does_not_matter(ending: str, tmp_path: Path) -> None:
    # Records of very different lengths: their tags lie across the borders of blocks in every way.
    records = [article(n, "word " * (n * 7919 % 25_000), title=f"Title {n}.") for n in range(1, 60)]
    path = write(tmp_path / f"a.{ending}", *records)
    assert len(article_set(*records)) > 8 * _BLOCK
    documents = list(PubmedCorpus(path).strictly())
    assert [(d.id, d.title, len(d.text.split())) for d in documents] == [
        (str(n), f"Title {n}.", n * 7919 % 25_000) for n in range(1, 60)
    ]


def test_what_efetch_returns_is_read(tmp_path: Path) -> None:
    single, joined = tmp_path / "single.xml", tmp_path / "joined.xml"
    single.write_bytes(article(1))
    joined.write_bytes(article_set(article(2)) + article_set(article(3), head=b'\n<?xml version="1.0"?>\n'))
    assert (ids(single), ids(joined)) == (["1"], ["2", "3"])


def test_prefixes_that_the_set_declares_and_other_encodings_are_understood(tmp_path: Path) -> None:
    head = '<?xml version="1.0" encoding="iso-8859-1"?>\n<!-- é -->'
    formula = article(1, "é @").replace(b"@", b"<mml:math><mml:mi>x</mml:mi></mml:math>").decode()
    text = (
        f'{head}<PubmedArticleSet xmlns:mml="http://www.w3.org/1998/Math/MathML">{formula}</PubmedArticleSet>'
    )
    (tmp_path / "a.xml").write_bytes(text.encode("iso-8859-1"))
    (document,) = PubmedCorpus(tmp_path / "a.xml").strictly()
    assert document.text == "é x"


def test_a_stream_of_documents_says_that_it_carries_out_no_deletions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a.xml", article(1), deletion(1))
    assert [document.id for document in PubmedCorpus(path)] == ["1"]
    assert "1 deletion not carried out" in caplog.text


# --- names ---


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("pubmed26n0001.xml.gz", FileNumber(26, 1)),
        ("/a/b/pubmed25n1274.xml", FileNumber(25, 1274)),
        ("PUBMED26N10000.XML.GZ", FileNumber(26, 10000)),
        ("medline16n0001.xml.gz", None),
        ("pubmed26n0001.xml.gz.md5", None),
        ("pubmed26n1.xml", None),
        ("my-pubmed26n0001.xml", None),
    ],
)
def test_the_number_of_a_file_is_in_its_name(name: str, number: FileNumber | None) -> None:
    assert file_number(name) == number


def test_the_reader_is_guessed_by_the_name_and_else_by_the_first_tag(tmp_path: Path) -> None:
    (tmp_path / "pubmed26n0001.xml.gz").write_bytes(b"")
    assert guess_reader(tmp_path / "pubmed26n0001.xml.gz") == "pubmed"
    assert guess_reader(tmp_path) == "pubmed"
    (tmp_path / "x").mkdir()
    assert guess_reader(write(tmp_path / "x" / "efetch.xml", article(1))) == "pubmed"
    assert guess_reader(tmp_path / "x") == "pubmed"
    (tmp_path / "x" / "efetch.xml").write_bytes(b"<!-- <PubmedArticleSet> --><article/>")
    assert guess_reader(tmp_path / "x" / "efetch.xml") == "pmc"
    (tmp_path / "all" / "baseline").mkdir(parents=True)
    shutil.copy(tmp_path / "pubmed26n0001.xml.gz", tmp_path / "all" / "baseline")
    assert guess_reader(tmp_path / "all") == "pubmed"
