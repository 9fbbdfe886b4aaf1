"""A JATS article (the XML of PMC, Europe PMC, PLOS, eLife) as title, blocks of text and metadata.

The order of the text is: abstracts, body, captions, tables, back matter, sub-articles. All abstracts are
kept, each under its own heading (graphical, plain-language, translated ones behind the main one). Peer
reviews and translations of the article, which some journals append as sub-articles, are not its text: they
are left out and named in the metadata (``omitted``). Back matter (acknowledgements, contributions, footnotes,
...) is kept under the heading ``Back matter``, appendices under their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cmbert_retrieval.corpora.files import UnusableError
from cmbert_retrieval.corpora.jats_blocks import Block, clean
from cmbert_retrieval.corpora.jats_references import read_references
from cmbert_retrieval.corpora.jats_text import TextWalker
from cmbert_retrieval.corpora.languages import language_code
from cmbert_retrieval.corpora.licenses import normalize_license
from cmbert_retrieval.corpora.xmltree import parse_xml
from cmbert_retrieval.types import Section

if TYPE_CHECKING:
    from lxml import etree

_HREF = "{http://www.w3.org/1999/xlink}href"
_OASIS = "{http://www.niso.org/standards/z39-96/ns/oasis-exchange/table}"
_ABOUT_PEOPLE = ("corresp", "current-aff", "deceased", "edited-by", "present-address")
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_DEFAULT_LANGUAGE = "en"
"""What an article is in that does not say so.

Source:
    JATS Journal Publishing Tag Library, ``@xml:lang`` of ``article``: default value EN.
"""
_ABSTRACTS = {
    "editor": "Editor's summary",
    "executive-summary": "Summary",
    "graphical": "Graphical abstract",
    "key-points": "Key points",
    "plain-language-summary": "Plain language summary",
    "summary": "Summary",
    "teaser": "Teaser",
    "toc": "Summary for the table of contents",
    "web-summary": "Summary for the web",
}
_REVIEWS = frozenset(
    (
        "decision-letter", "reply", "author-comment", "editor-report", "referee-report", "reviewer-report",
        "peer-review", "aggregated-review-documents", "editorial-decision", "translation",
    )
)  # fmt: skip
_NOTICES = frozenset(("retraction", "correction", "expression-of-concern", "addendum"))
"""Types of articles that speak of another one: a title of theirs says nothing of themselves."""
_RETRACTED = re.compile(
    r"^\s*\[?(?:retracted|withdrawn)(?: article)?\s*[:.\]]|^\s*(?-i:RETRACTED|WITHDRAWN) ARTICLE\b"
    r"|[(\[](?:retracted|withdrawn)(?: article)?[)\]]\s*$",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(?<!\d)(?:1[5-9]|20)\d\d(?!\d)")
_BETWEEN_NAMES = re.compile(r"[\s.-]+")
_NAMES = ("name", "name-alternatives/name", "string-name", "name-alternatives/string-name")
_DATE_ORDER = ("epub", "pub", "ppub", "epub-ppub", "collection", "", "pmc-release", "nihms-submitted")
"""The first publication counts for the year, online before print; archiving only where nothing else is given,
and what is not known here (preprints, retractions) only after that."""


@dataclass(slots=True)
class Article:
    """What an article's XML says, before the file's own metadata are known.

    Attributes:
        title: title and subtitle.
        blocks: the text in order.
        metadata: what was found of ``pmcid``, ``pmid``, ``doi``, ``version``, ``journal``, ``year``,
            ``type``, ``license``, ``language`` (a list, in the codes of PubMed); always ``keywords``,
            ``authors``, ``is_retracted`` and ``references``.
    """

    title: str = ""
    blocks: list[Block] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)

    def text_and_sections(self) -> tuple[str, tuple[Section, ...]]:
        """Return the blocks joined by blank lines, and where each of them stands."""
        sections, start = [], 0
        for block in self.blocks:
            end = start + len(block.text)
            sections.append(Section(start, end, block.path, block.kind))
            start = end + 2
        return "\n\n".join(block.text for block in self.blocks), tuple(sections)


def parse_article(data: bytes) -> Article:
    """Return the article of one XML file.

    Raises:
        UnusableError: the XML is broken or dangerous (``XmlError``, with a line), or no JATS article.
    """
    root = parse_xml(data)
    if isinstance(root.tag, str) and root.tag.startswith("{"):
        _strip_namespace(root, root.tag[: root.tag.index("}") + 1])
    _strip_namespace(root, _OASIS)
    if root.tag in ("pmc-articleset", "articles") and len(root) == 1:
        root = root[0]
    if root.tag != "article":
        name = root.tag if isinstance(root.tag, str) and re.fullmatch(r"[\w.-]{1,40}", root.tag) else "?"
        raise UnusableError(f"the root element is <{name}>, expected <article> (JATS)")
    article = Article()
    _read_article(root, article)
    return article


def _strip_namespace(root: etree._Element, space: str) -> None:
    for element in root.iter(f"{space}*"):
        element.tag = element.tag[len(space) :]


def _read_article(root: etree._Element, article: Article) -> None:
    metadata = article.metadata
    metadata.update(type=root.get("article-type", ""), keywords=[], authors=[], references=[])
    metadata["is_retracted"] = root.get("article-type") == "retracted-article"
    if language := language_code(root.get(_XML_LANG, _DEFAULT_LANGUAGE)):
        metadata["language"] = [language]
    walker = TextWalker()
    front, others, back = [], [], []
    for child in root:
        tag = child.tag
        if tag == "front":
            front.append(child)
        elif tag in ("body", "floats-group", "floats-wrap"):
            others.append(child)
        elif tag in ("back", "sub-article", "response"):
            back.append(child)
    for element in front:
        _read_front(element, article, walker)
    for element in others:
        walker.walk(element)
        metadata["references"] += read_references(element)
    found, late = walker.blocks, TextWalker()
    for element in back:
        if element.tag == "back":
            _read_back(element, late)
            metadata["references"] += read_references(element)
        else:
            _read_sub_article(element, late, metadata)
    for element in front:
        _read_notes(element, late)
    article.blocks += [
        *found.main,
        *found.captions,
        *found.tables,
        *late.blocks.main,
        *late.blocks.captions,
        *late.blocks.tables,
    ]


def _read_front(front: etree._Element, article: Article, walker: TextWalker) -> None:
    metadata = article.metadata
    journal = front.find("journal-meta//journal-title")
    if journal is not None:
        metadata["journal"] = walker.flat(journal)
    meta = front.find("article-meta")
    if meta is None:
        return
    dates: list[tuple[int, int]] = []
    abstracts = []
    for child in meta:
        tag = child.tag
        if tag == "article-id":
            _read_id(child, metadata)
        elif tag == "title-group":
            titles = (child.find("article-title"), child.find("subtitle"))
            article.title = ": ".join(filter(None, (walker.title(t) for t in titles if t is not None)))
            translated = [walker.title(found) for found in child.iter("trans-title")]
            article.blocks += [Block(text, ("Translated title",), "abstract") for text in translated if text]
        elif tag == "contrib-group":
            metadata["authors"] += _authors(child, walker)
        elif tag == "pub-date":
            kind = child.get("pub-type") or child.get("date-type") or ""
            if year := _year(child):
                dates.append((_date_rank(kind), year))
        elif tag in ("permissions", "license"):
            if license_name := _license(child):
                metadata["license"] = license_name
        elif tag == "kwd-group" and child.get("kwd-group-type") not in ("abbreviations", "abbr"):
            words = (walker.flat(word) for word in child.iter("kwd", "compound-kwd"))
            metadata["keywords"] += [word for word in dict.fromkeys(words) if word]
        elif tag == "related-article" and child.get("related-article-type") in (
            "retraction-forward",
            "retracted-by",
        ):
            metadata["is_retracted"] = True
        elif tag in ("abstract", "trans-abstract"):
            abstracts.append(child)
    if dates:
        metadata["year"] = min(dates)[1]
    if metadata["type"] not in _NOTICES and _RETRACTED.search(article.title):
        metadata["is_retracted"] = True
    for element in sorted(abstracts, key=_abstract_rank):
        walker.walk(element, path=_abstract_path(element), kind="abstract")


def _year(date: etree._Element) -> int | None:
    """Return the year of a date; of one in words ("Spring 2015") where it names a single one."""
    year = (date.findtext("year") or "").strip()
    if re.fullmatch(r"\d{4}", year):
        return int(year)
    words = date.find("string-date")
    text = date.get("iso-8601-date") or ("" if words is None else " ".join(map(str, words.itertext())))
    years = set(_YEAR.findall(text))
    return int(years.pop()) if len(years) == 1 else None


def _date_rank(kind: str) -> int:
    """Return how late a kind of date is asked for the year."""
    return _DATE_ORDER.index(kind) if kind in _DATE_ORDER else len(_DATE_ORDER)


def _read_id(element: etree._Element, metadata: dict[str, Any]) -> None:
    kind, value = element.get("pub-id-type", ""), "".join((element.text or "").split())
    if not value:
        return
    if kind in ("pmc", "pmcid"):
        metadata["pmcid"] = "PMC" + value.upper().removeprefix("PMC").partition(".")[0]
    elif kind == "pmid":
        metadata["pmid"] = value
    elif kind == "doi":
        metadata["doi"] = value
    elif kind == "pmcid-ver" and value.rpartition(".")[2].isdigit():
        metadata["version"] = int(value.rpartition(".")[2])


def _abstract_rank(element: etree._Element) -> int:
    if element.tag == "trans-abstract":
        return 2
    return int(element.get("abstract-type") not in (None, "normal", "short"))


def _abstract_path(element: etree._Element) -> tuple[str, ...]:
    """Return the heading of an abstract that brings none with it, with its kind and language."""
    if element.tag == "trans-abstract":
        language = element.get(_XML_LANG)
        return (f"Abstract ({language})" if language else "Translated abstract",)
    kind = element.get("abstract-type", "")
    if kind in ("", "normal", "short"):
        return ("Abstract",)
    return (_ABSTRACTS.get(kind, kind.replace("-", " ").capitalize()),)


def _authors(group: etree._Element, walker: TextWalker) -> list[str]:
    names = []
    for person in group.iter("contrib"):
        if person.get("contrib-type") not in (None, "author"):
            continue
        if next(person.iterancestors("collab"), None) is not None:
            continue  # the group stands for its members
        for path in _NAMES if len(person) else ():
            if (name := person.find(path)) is not None and (text := _person(name, walker)):
                names.append(text)
                break
        else:
            for path in ("collab", "collab-alternatives/collab"):
                if (collab := person.find(path)) is not None and (text := _group_name(collab, walker)):
                    names.append(text)
                    break
    return names


def _person(name: etree._Element, walker: TextWalker) -> str:
    """Return "Family AB Jr" out of ``name`` or ``string-name``; what has no such parts as it stands."""
    surname, given = next(name.iterchildren("surname"), None), next(name.iterchildren("given-names"), None)
    suffix = next(name.iterchildren("suffix"), None)
    family = walker.flat(surname) if surname is not None else ""
    if not family:
        return walker.flat(name)
    letters = (given.get("initials") or initials(walker.flat(given))) if given is not None else ""
    last = walker.flat(suffix).rstrip(".") if suffix is not None else ""
    return " ".join(filter(None, (family, letters, last)))


def _group_name(collab: etree._Element, walker: TextWalker) -> str:
    """Return the name of a group, without the members and addresses that may stand in it."""
    parts = [collab.text or ""]
    for child in collab:
        if child.tag not in ("contrib-group", "contrib", "address", "aff", "xref", "fn", "email"):
            parts.append(walker.flat(child) if isinstance(child.tag, str) else "")
        parts.append(child.tail or "")
    return clean(" ".join(parts)).strip(" ,;:")


def initials(given: str) -> str:
    """Return "JW" for "John W." and for "John-William"."""
    parts = [given] if given.isalpha() else _BETWEEN_NAMES.split(given)
    return "".join(part if part.isupper() and len(part) <= 3 else part[:1].upper() for part in parts)


def _license(permissions: etree._Element) -> str:
    """Return the licence out of ``permissions`` or ``license``: an address counts for more than prose."""
    prose = []
    for element in permissions.iter("license", "license-p", "p", "ext-link", "uri", "{*}license_ref"):
        for address in (element.get(_HREF), element.text if "license_ref" in element.tag else None):
            if address and "creativecommons.org" in address.lower():
                found = normalize_license(address)
                if found != "other":
                    return found
        if element.tag == "license":
            prose.append(clean("".join(map(str, element.itertext()))))
            kind = element.get("license-type", "")
            prose += [kind] if kind.lower().startswith("cc") else []
    for element in permissions.iter("copyright-statement"):
        text = clean("".join(map(str, element.itertext())))
        prose += [text] if re.search(r"creative\s*commons|\bCC[ -]BY", text, re.IGNORECASE) else []
    names = [name for text in prose if (name := normalize_license(text))]
    return next((name for name in names if name != "other"), "other" if names else "")


def _read_back(back: etree._Element, walker: TextWalker) -> None:
    for child in back:
        if child.tag in ("app", "app-group"):
            for appendix in [child] if child.tag == "app" else child:
                path = (
                    ("Appendix",) if appendix.find("title") is None and appendix.find("label") is None else ()
                )
                walker.walk(appendix, path=path)
        elif child.tag != "ref-list":
            walker.walk(child, path=("Back matter", *_default_heading(child)), kind="back")


def _default_heading(element: etree._Element) -> tuple[str, ...]:
    names = {
        "ack": "Acknowledgements",
        "fn-group": "Footnotes",
        "glossary": "Abbreviations",
        "bio": "Biography",
    }
    if element.tag in names and element.find("title") is None:
        return (names[element.tag],)
    return ()


def _read_notes(front: etree._Element, walker: TextWalker) -> None:
    """Read what journals put into the front: notes, funding and data statements."""
    for element in front.iter("notes", "author-notes", "funding-group", "funding-statement", "custom-meta"):
        if element.tag == "notes":
            if next(element.iterancestors("notes"), None) is None:
                walker.walk(element, path=("Back matter",), kind="back")
        elif element.tag == "author-notes":
            for note in element.iter("fn"):
                if note.get("fn-type") not in _ABOUT_PEOPLE:
                    walker.walk(note, path=("Back matter", "Author notes"), kind="back")
        elif element.tag == "funding-group":
            if element.find("funding-statement") is None:
                _read_funders(element, walker)
        elif element.tag == "funding-statement":
            walker.walk(element, path=("Back matter", "Funding"), kind="back")
        else:
            name, value = element.find("meta-name"), element.find("meta-value")
            if name is not None and value is not None and "availab" in (name.text or "").lower():
                walker.walk(value, path=("Back matter", clean(name.text or "")), kind="back")


def _read_funders(group: etree._Element, walker: TextWalker) -> None:
    funders = dict.fromkeys(filter(None, map(walker.flat, group.iter("funding-source"))))
    if funders:
        walker.blocks.main.append(Block("; ".join(funders), ("Back matter", "Funding"), "back"))


def _read_sub_article(element: etree._Element, walker: TextWalker, metadata: dict[str, Any]) -> None:
    kind = element.get("article-type") or element.get("response-type") or element.tag
    if kind in _REVIEWS and element.tag != "response":
        metadata.setdefault("omitted", []).append(kind)
        return
    stub = element.find("front-stub")
    if stub is None:
        stub = element.find("front/article-meta")
    title = stub.find(".//article-title") if stub is not None else None
    heading = walker.title(title) if title is not None else ""
    path = (heading or kind.replace("-", " ").capitalize(),)
    if stub is not None:
        for abstract in stub.iter("abstract", "trans-abstract"):
            walker.walk(abstract, path=(*path, *_abstract_path(abstract)))
    for child in element:
        if child.tag in ("body", "back", "floats-group"):
            walker.walk(child, path=path)
            metadata["references"] += read_references(child) if child.tag == "back" else []
        elif child.tag in ("sub-article", "response"):
            _read_sub_article(child, walker, metadata)
