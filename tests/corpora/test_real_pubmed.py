"""The reader against the standard library's parser, on records as PubMed has published them."""

from __future__ import annotations

import gzip
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from cmbert_retrieval.corpora.pubmed import PubmedCorpus
from cmbert_retrieval.types import Document

pytestmark = pytest.mark.slow

FILES = (
    "tipplerow_pubmed_sample.xml.gz",
    "tipplerow_29355075.xml",
    "tipplerow_30073290.xml",
    "pubmed-29768149.xml",
)


@pytest.fixture(params=FILES)
def sample(request: pytest.FixtureRequest, shared_data: Path) -> Path:
    path = shared_data / "jats_medline_samples" / str(request.param)
    if not path.is_file():
        pytest.skip("no records of PubMed among the real data")
    return path


def tree(path: Path) -> ET.Element:
    data = path.read_bytes()
    return ET.fromstring(gzip.decompress(data) if path.name.endswith(".gz") else data)


def plain(element: ET.Element | None) -> str:
    return "" if element is None else " ".join("".join(element.itertext()).split())


def words(text: str) -> list[str]:
    """Return the words of a text, whatever is between them: the reader writes a caret for an exponent."""
    return re.findall(r"\w+", text.replace("^", ""))


def texts(article: ET.Element, path: str) -> list[str]:
    return [plain(element) for element in article.findall(path)]


def test_every_record_has_what_the_standard_library_finds_in_it(sample: Path) -> None:
    root = tree(sample)
    articles = root.findall("PubmedArticle")
    documents = list(PubmedCorpus(sample).strictly())
    assert len(documents) == len(articles) > 0
    for article, document in zip(articles, documents, strict=True):
        metadata = document.metadata
        assert document.id == metadata["pmid"] == plain(article.find("MedlineCitation/PMID"))
        assert str(metadata["version"]) == article.find("MedlineCitation/PMID").get("Version")  # type: ignore[union-attr]
        assert document.title == plain(article.find("MedlineCitation/Article/ArticleTitle"))
        assert words(document.text) == words(" ".join(texts(article, ".//Abstract/AbstractText")))
        assert metadata["journal"] == plain(article.find(".//Journal/Title"))
        assert metadata["year"] == int(plain(article.find(".//JournalIssue/PubDate/Year")))
        assert metadata["language"] == texts(article, ".//Article/Language")
        assert metadata["types"] == texts(article, ".//PublicationType")
        assert metadata["keywords"] == texts(article, ".//KeywordList/Keyword")
        assert metadata["mesh"] == texts(article, ".//MeshHeading/DescriptorName")
        assert metadata["mesh_ids"] == [e.get("UI") for e in article.findall(".//MeshHeading/DescriptorName")]
        assert sum(heading.count("/") for heading in metadata["mesh_headings"]) == len(
            article.findall(".//MeshHeading/QualifierName")
        )
        assert sum(heading.count("*") for heading in metadata["mesh_headings"]) == len(
            article.findall(".//MeshHeading/*[@MajorTopicYN='Y']")
        )
        families = [name.rpartition(" ")[0] for name in metadata["authors"]]
        assert families == texts(article, ".//Author/LastName")
        ids = {e.get("IdType"): plain(e) for e in article.findall("PubmedData/ArticleIdList/ArticleId")}
        assert metadata.get("pmcid") == ids.get("pmc")
        assert metadata.get("doi") in (
            ids.get("doi"),
            *texts(article, ".//Article/ELocationID[@EIdType='doi']"),
        )
        assert ("doi" in metadata) == (
            "doi" in ids or bool(article.findall(".//ELocationID[@EIdType='doi']"))
        )


def test_every_deletion_is_read(sample: Path) -> None:
    deleted = [record.id for record in PubmedCorpus(sample).records() if record.deleted]
    assert deleted == [plain(element) for element in tree(sample).findall("DeleteCitation/PMID")]


def test_every_part_of_a_structured_abstract_has_its_label(sample: Path) -> None:
    for article, document in zip(tree(sample).findall("PubmedArticle"), PubmedCorpus(sample), strict=True):
        labels = [element.get("Label") for element in article.findall(".//Abstract/AbstractText")]
        assert [label_of(document, number) for number in range(len(document.sections))] == labels
        assert "".join(document.text[s.start : s.end] for s in document.sections) == document.text.replace(
            "\n\n", ""
        )


def label_of(document: Document, number: int) -> str | None:
    path = document.sections[number].path
    return path[1] if len(path) > 1 else None
