"""One record of PubMed (an article, a book or a chapter, a list of deletions) as document or ids.

The text is the abstract. The parts of a structured one are paragraphs of their own, under ``Abstract`` and
the label that the authors gave them, as the reader of PMC's articles has it. Behind it stands a summary in
plain English, under its own heading, as in articles of PMC: it is by the same authors, and has the words in
which patients ask. An abstract by somebody else, or in another language, is taken only where there is no
other. Inline markup is read as in articles of PMC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cmbert_retrieval.corpora.files import UnusableError
from cmbert_retrieval.corpora.jats import initials
from cmbert_retrieval.corpora.jats_text import TextWalker
from cmbert_retrieval.corpora.xmltree import XmlError, parse_xml
from cmbert_retrieval.types import Document, Section

if TYPE_CHECKING:
    from lxml import etree

DELETIONS = ("DeleteCitation", "DeleteDocument")
_FRAME = (
    b'<PubmedArticleSet xmlns:mml="http://www.w3.org/1998/Math/MathML" '
    b'xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">',
    b"</PubmedArticleSet>",
)
"""What a set may declare for all of its records, and some files do."""
_YEAR = re.compile(r"(?<!\d)[12]\d{3}(?!\d)")
_PMID = re.compile(r"[0-9]{1,12}")
_RETRACTED = "D016441"
_PLAIN, _PLAIN_HEADING = "plain-language-summary", "Plain language summary"
_LISTS = (
    "authors",
    "types",
    "language",
    "mesh",
    "mesh_major",
    "mesh_ids",
    "mesh_headings",
    "keywords",
    "chemicals",
)
_ONCE = ("chemicals", "keywords", "language", "mesh_major", "types")


def parse_record(data: bytes, declaration: bytes = b"") -> etree._Element:
    """Return the element of one record.

    Args:
        data: the record as it stands in its file, without what is around it.
        declaration: an XML declaration, where the file is not in UTF-8.

    Raises:
        XmlError: it is not well-formed; the line is that of the record.
    """
    root = parse_xml(b"".join((declaration, _FRAME[0], data, _FRAME[1])))
    if len(root) != 1:
        raise XmlError("not well-formed XML (tags of other records in it)")
    return root[0]


def read_deletions(record: etree._Element) -> Iterator[tuple[str, int | None]]:
    """Yield PMID and version of everything that a ``DeleteCitation`` names; "" for what is no PMID."""
    for element in record.iter("PMID"):
        pmid = (element.text or "").strip()
        yield (str(int(pmid)) if _PMID.fullmatch(pmid) else ""), _version(element)


def read_document(record: etree._Element) -> Document:
    """Return the document of a ``PubmedArticle`` or ``PubmedBookArticle``.

    Its id is the PMID. Its metadata have, as far as given, ``pmid``, ``version``, ``doi``, ``pmcid``,
    ``year``, ``journal`` and ``journal_abbreviation``, ``issn``, ``volume``, ``issue``, ``pages``,
    ``vernacular_title``, ``is_retracted``; and as lists ``authors``, ``types``, ``language``,
    ``keywords``, ``chemicals``, ``mesh`` (descriptors), ``mesh_major`` (those that are major topics, also by
    a qualifier), ``mesh_ids`` (of the descriptors) and ``mesh_headings`` (with qualifiers, in the notation of
    MEDLINE: ``Heart Failure/*drug therapy``, the star at what is a major topic). Only where there are some:
    ``mesh_supplementary`` (rare diseases, protocols and the like of MeSH's supplementary concept records) and
    ``mesh_supplementary_ids``.

    Raises:
        UnusableError: it has no PMID.
    """
    return _Reader().read(record)


class _Reader:
    """Reads one record."""

    def __init__(self) -> None:
        self._text = TextWalker().flat
        self._title = self._vernacular = self._book = ""
        self._abstract: list[tuple[tuple[str, ...], str]] = []
        self._others: list[etree._Element] = []
        self._years: dict[str, int] = {}
        self._found: dict[str, Any] = {"is_retracted": False}
        self._lists: dict[str, list[str]] = {name: [] for name in _LISTS}

    def read(self, record: etree._Element) -> Document:
        """Return the document of a record."""
        citation = None
        for part in record:
            if part.tag == "MedlineCitation" or part.tag == "BookDocument":
                citation = part
                self._read_citation(part)
            elif part.tag == "PubmedData" or part.tag == "PubmedBookData":
                self._read_data(part)
        found = self._found
        if citation is None or "pmid" not in found:
            raise UnusableError("no PMID; expected <MedlineCitation> with a number in <PMID>")
        self._take_other_abstracts()
        self._choose_title()
        for kind in ("PubDate", "ArticleDate", "pubmed"):
            if kind in self._years:
                found["year"] = self._years[kind]
                break
        paragraphs, sections, start = [], [], 0
        for path, text in self._abstract:
            sections.append(Section(start, start + len(text), path, "abstract"))
            paragraphs.append(text)
            start += len(text) + 2
        # Two authors may have one name; a keyword that stands twice says no more than once.
        lists = {
            name: list(dict.fromkeys(texts)) if name in _ONCE else texts
            for name, texts in self._lists.items()
        }
        metadata = dict(sorted({**found, **lists}.items()))
        return Document(found["pmid"], "\n\n".join(paragraphs), self._title, metadata, tuple(sections))

    # --- the parts of a record ---

    def _read_citation(self, citation: etree._Element) -> None:
        for part in citation:
            tag = part.tag
            if tag == "PMID":
                self._read_pmid(part)
            elif tag == "Article":
                for child in part:
                    self._read_article_part(child)
            elif tag == "MeshHeadingList":
                for heading in part:
                    self._read_heading(heading)
            elif tag == "SupplMeshList":
                self._read_supplementary(part)
            elif tag == "ChemicalList":
                self._lists["chemicals"] += [self._text(name) for name in part.iter("NameOfSubstance")]
            elif tag == "KeywordList":
                self._lists["keywords"] += filter(None, map(self._text, part))
            elif tag == "CommentsCorrectionsList":
                if any(child.get("RefType") == "RetractionIn" for child in part):
                    self._found["is_retracted"] = True
            elif tag == "OtherAbstract":
                self._others.append(part)
            elif tag == "MedlineJournalInfo":
                for child in part:
                    if child.tag == "ISSNLinking":
                        self._keep("issn", child)
                    elif child.tag == "MedlineTA" and "journal_abbreviation" not in self._found:
                        self._keep("journal_abbreviation", child)
            elif citation.tag == "BookDocument":
                self._read_article_part(part)

    def _read_article_part(self, part: etree._Element) -> None:
        tag = part.tag
        if tag == "Journal":
            self._read_journal(part)
        elif tag == "ArticleTitle":
            self._title = self._text(part)
        elif tag == "VernacularTitle":
            self._vernacular = self._text(part)
        elif tag == "ELocationID":
            if part.get("EIdType") == "doi" and part.get("ValidYN") != "N":
                self._keep_id("doi", part)
        elif tag == "Abstract":
            self._abstract += self._paragraphs(part, "Abstract")
        elif tag == "AuthorList":
            if part.get("Type") != "editors":
                self._lists["authors"] += filter(None, map(self._author, part))
        elif tag == "Language":
            self._lists["language"] += filter(None, [self._text(part)])
        elif tag == "PublicationTypeList":
            for kind in part:
                self._read_type(kind)
        elif tag == "ArticleDate":
            self._keep_year("ArticleDate", part)
        elif tag == "Pagination":
            if (pages := part.find("MedlinePgn")) is not None:
                self._keep("pages", pages)
        elif tag == "PublicationType":
            self._read_type(part)
        elif tag == "ArticleIdList":
            self._read_ids(part)
        elif tag == "Book":
            self._read_book(part)

    def _read_journal(self, journal: etree._Element) -> None:
        for part in journal:
            if part.tag == "JournalIssue":
                for child in part:
                    if child.tag == "PubDate":
                        self._keep_year("PubDate", child)
                    elif child.tag == "Volume" or child.tag == "Issue":
                        self._keep(child.tag.lower(), child)
            elif part.tag == "Title":
                self._keep("journal", part)
            elif part.tag == "ISOAbbreviation":
                self._keep("journal_abbreviation", part)
            elif part.tag == "ISSN":
                self._keep("issn", part)

    def _read_book(self, book: etree._Element) -> None:
        for part in book:
            if part.tag == "BookTitle":
                self._book = self._text(part)
            elif part.tag == "PubDate":
                self._keep_year("PubDate", part)
            elif part.tag == "AuthorList" and part.get("Type") != "editors" and not self._lists["authors"]:
                self._lists["authors"] += filter(None, map(self._author, part))
            elif part.tag == "ELocationID" and part.get("EIdType") == "doi":
                self._keep_id("doi", part)

    def _read_data(self, data: etree._Element) -> None:
        for part in data:
            # The list of references has such lists, too: they are those of other articles.
            if part.tag == "ArticleIdList":
                self._read_ids(part)
            elif part.tag == "History":
                for date in part:
                    if date.get("PubStatus") == "pubmed":
                        self._keep_year("pubmed", date)

    def _read_ids(self, ids: etree._Element) -> None:
        for element in ids:
            kind = element.get("IdType")
            if kind == "doi" and "doi" not in self._found:
                self._keep_id("doi", element)
            elif kind == "pmc":
                self._keep_id("pmcid", element)

    def _read_pmid(self, element: etree._Element) -> None:
        text = (element.text or "").strip()
        if _PMID.fullmatch(text):
            self._found["pmid"] = str(int(text))
            self._found["version"] = _version(element) or 1

    def _read_type(self, element: etree._Element) -> None:
        if text := self._text(element):
            self._lists["types"].append(text)
        if element.get("UI") == _RETRACTED or text == "Retracted Publication":
            self._found["is_retracted"] = True

    def _read_heading(self, heading: etree._Element) -> None:
        descriptor = ui = ""
        major = is_major = False  # of the heading with its qualifiers, and of the descriptor itself
        qualifiers = []
        for part in heading:
            text, topic = self._text(part), part.get("MajorTopicYN") == "Y"
            if part.tag == "DescriptorName":
                descriptor, is_major = text, topic
                ui = part.get("UI") or ""
            elif part.tag == "QualifierName":
                qualifiers.append(f"*{text}" if topic else text)
            major = major or topic
        if not descriptor:
            return
        lists = self._lists
        if descriptor not in lists["mesh"]:
            lists["mesh"].append(descriptor)
            lists["mesh_ids"].append(ui)
        if major:
            lists["mesh_major"].append(descriptor)
        lists["mesh_headings"].append("/".join([f"*{descriptor}" if is_major else descriptor, *qualifiers]))

    def _read_supplementary(self, concepts: etree._Element) -> None:
        found = {text: name.get("UI") or "" for name in concepts if (text := self._text(name))}
        if found:
            self._found["mesh_supplementary"] = list(found)
            self._found["mesh_supplementary_ids"] = list(found.values())

    def _author(self, author: etree._Element) -> str:
        """Return "Family AB", "Family AB Jr", or the name of a group."""
        if author.get("ValidYN") == "N":
            return ""  # a spelling that was corrected; the corrected one stands beside it
        family = letters = suffix = ""
        given: etree._Element | None = None
        for part in author:
            tag = part.tag
            if tag == "LastName":
                family = self._text(part)
            elif tag == "ForeName":
                given = part
            elif tag == "Initials":
                letters = self._text(part)
            elif tag == "Suffix":
                suffix = self._text(part).rstrip(".")
            elif tag == "CollectiveName":
                return self._text(part).strip(" ,;:")
        forename = self._text(given) if given is not None and not (family and letters) else ""
        if not family:
            return forename
        return " ".join(filter(None, (family, letters or initials(forename), suffix)))

    # --- text ---

    def _paragraphs(self, abstract: etree._Element, heading: str) -> list[tuple[tuple[str, ...], str]]:
        found: list[tuple[tuple[str, ...], str]] = []
        for part in abstract:
            if part.tag == "AbstractText" and (text := self._text(part)):
                label = " ".join((part.get("Label") or "").split()).strip(" :")
                path = (heading,) if label in ("", "UNLABELLED") else (heading, label)
                found.append((path, text))
        return found

    def _take_other_abstracts(self) -> None:
        """Add a summary in plain English, and take any other abstract only where there is none yet."""
        english_first = sorted(
            self._others,
            key=lambda other: (other.get("Language", "eng") != "eng", other.get("Type") == _PLAIN),
        )
        for other in english_first:
            language, plain = other.get("Language", "eng"), other.get("Type") == _PLAIN
            if not self._abstract or (plain and language == "eng"):
                heading = _PLAIN_HEADING if plain else "Abstract"
                heading = heading if language == "eng" else f"{heading} ({language})"
                self._abstract += self._paragraphs(other, heading)

    def _choose_title(self) -> None:
        title = _without_brackets(self._title)
        if title.casefold().rstrip(".") in ("", "not available", "in process citation"):
            title = self._vernacular or self._book or title
        elif self._book:
            self._found.setdefault("journal", self._book)
        if self._vernacular and title != self._vernacular:
            self._found["vernacular_title"] = self._vernacular
        self._title = title

    # --- keeping ---

    def _keep(self, name: str, element: etree._Element) -> None:
        if text := self._text(element):
            self._found[name] = text

    def _keep_id(self, name: str, element: etree._Element) -> None:
        text = "".join((element.text or "").split())
        if name == "pmcid":
            number = text.upper().removeprefix("PMC").partition(".")[0]
            text = f"PMC{number}" if number.isdecimal() else ""
        if text:
            self._found.setdefault(name, text)

    def _keep_year(self, kind: str, date: etree._Element) -> None:
        """Keep the year of a date; of "1998 Dec-1999 Jan" the first."""
        for part in date:
            if part.tag in ("Year", "MedlineDate") and (year := _YEAR.search(part.text or "")):
                self._years.setdefault(kind, int(year[0]))
                return


def _version(element: etree._Element) -> int | None:
    text = element.get("Version") or ""
    return int(text) if re.fullmatch("[0-9]{1,6}", text) else None


def _without_brackets(title: str) -> str:
    """Return "Title." for "[Title].", which marks a translation; other brackets stay."""
    inner = title[1:-1] if title.endswith("]") else title[1:-2]
    if not title.startswith("[") or not title.endswith(("]", "].")):
        return title
    depth = 0
    for character in inner:
        depth += (character == "[") - (character == "]")
        if depth < 0:
            return title  # "[A] of [B]."
    if depth:
        return title
    inner = inner.strip()
    return inner if inner.endswith((".", "?", "!")) or not title.endswith(".") else f"{inner}."
