"""What becomes of each element of an article."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from articles import article

from cmbert_retrieval.corpora.jats import Article, parse_article
from cmbert_retrieval.corpora.pmc import PmcCorpus
from cmbert_retrieval.types import Document

PMC = Path(__file__).parents[1] / "fixtures" / "pmc"


@pytest.fixture(scope="module")
def rich() -> Document:
    return next(iter(PmcCorpus(PMC / "PMC900001.1" / "PMC900001.1.xml")))


def parsed(body: str, *, meta: str = "", rest: str = "") -> Article:
    xml = f"""<article xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:mml="http://www.w3.org/1998/Math/MathML">
    <front><article-meta>{meta}</article-meta></front><body>{body}</body>{rest}</article>"""
    return parse_article(xml.encode())


def texts(body: str, **parts: str) -> list[str]:
    return [block.text for block in parsed(body, **parts).blocks]


def of_kind(document: Document, kind: str) -> list[tuple[tuple[str, ...], str]]:
    return [(s.path, document.text[s.start : s.end]) for s in document.sections if s.kind == kind]


def test_the_metadata_of_an_article_are_read(rich: Document) -> None:
    expected: dict[str, Any] = {
        "pmcid": "PMC900001",
        "pmid": "90000001",
        "doi": "10.5555/jic.0001",
        "version": 1,
        "journal": "Journal of Invented Cardiology",
        "year": 2018,
        "type": "research-article",
        "keywords": ["walking", "blood pressure"],
        "language": ["eng"],
        "license": "CC BY",
        "is_retracted": False,
        "authors": ["Feather AM", "The WALK Group"],
        "source": "PMC900001.1.xml",
        "omitted": ["decision-letter"],
    }
    assert {key: rich.metadata[key] for key in expected} == expected
    assert set(rich.metadata) == {*expected, "references"}


@pytest.mark.parametrize(
    ("date", "year"),
    [
        ("<year>2014</year><string-date>Spring 2015</string-date>", 2014),
        ("<string-date>Spring 2015</string-date>", 2015),
        ("<string-date><season>Spring</season> <year>2015</year></string-date>", 2015),
        ("<string-date>12.3.2015</string-date>", 2015),
        ("<string-date>2015 Mar 3</string-date>", 2015),
        ("<string-date>Dec 2014-Jan 2015</string-date>", None),
        ("<string-date>3/4/15</string-date>", None),
        ("<string-date>20150304</string-date>", None),
        ("<string-date>in press</string-date>", None),
        ("<string-date/>", None),
        ("<month>3</month>", None),
    ],
)
def test_the_year_is_taken_out_of_a_date_in_words_where_there_is_a_single_one(
    date: str, year: int | None
) -> None:
    found = parsed("<p>Words.</p>", meta=f'<pub-date pub-type="epub">{date}</pub-date>')
    assert found.metadata.get("year") == year


def test_the_year_is_taken_out_of_a_date_for_machines() -> None:
    found = parsed("<p>Words.</p>", meta='<pub-date iso-8601-date="2015-03-04"><month>3</month></pub-date>')
    assert found.metadata["year"] == 2015


@pytest.mark.parametrize(
    ("tag", "codes"),
    [("en", ["eng"]), ("EN", ["eng"]), ("en-GB", ["eng"]), ("eng", ["eng"]), ("de", ["ger"]),
     ("deu", ["ger"]), ("pt_BR", ["por"]), ("zh-Hans-CN", ["chi"]), ("nb", ["nor"]), ("xx", ["xx"]),
     ("", None), ("English", None), ("1", None)],
)  # fmt: skip
def test_the_language_of_an_article_has_the_code_of_pubmed(tag: str, codes: list[str] | None) -> None:
    xml = article(5).replace(b"<article ", f'<article xml:lang="{tag}" '.encode(), 1)
    assert parse_article(xml).metadata.get("language") == codes
    assert parse_article(article(5)).metadata["language"] == ["eng"]  # by the default of JATS


def test_the_title_has_its_subtitle_and_no_footnote_mark(rich: Document) -> None:
    assert rich.title == "Nightly walking lowers systolic pressure: An invented trial"


def test_references_are_metadata_and_not_text(rich: Document) -> None:
    assert rich.metadata["references"] == [
        {"id": "r1", "pmid": "80000001", "doi": "10.5555/s.1", "title": "On shoes", "year": 2001},
        {"id": "r2", "title": "The book of socks", "year": 1999},
    ]
    assert "The book of socks" not in rich.text
    assert "80000001" not in rich.text


def test_all_abstracts_are_kept_the_main_one_first_with_its_labels_as_path(rich: Document) -> None:
    assert of_kind(rich, "abstract") == [
        (("Abstract", "Background"), "Blood pressure rises with age."),
        (("Abstract", "Results"), "It fell by 7 mmHg (p < 0.05)."),
        (("Teaser",), "Walking helps."),
        (("Abstract (fr)",), "La marche aide."),
    ]


def test_paragraphs_stand_in_order_under_their_headings(rich: Document) -> None:
    patients = ("Methods", "Patients & setting")
    assert of_kind(rich, "paragraph") == [
        (
            ("Introduction",),
            "Hypertension raises mortality [1,2] in all regions. "
            "Counts above 10^9/L of CD4+ cells and CO2 were seen [1].",
        ),
        (("Introduction",), "See Figure 1 for the flow of patients."),
        (("Introduction",), "a Not to scale."),
        (patients, "We asked:"),
        (patients, "1. adults;"),
        (patients, "2. walkers."),
        (patients, "Nobody refused."),
        ((*patients, "Key point"), "Shoes matter."),
        (("Methods", "Statistics"), "The mean was a/n and (1) x_i ≤ sqrt(n) was used."),
        (("Methods", "Statistics"), "SBP: systolic blood pressure"),
        (("Appendix A",), "More about shoes."),
        (("A second talk",), "Stairs were climbed."),
    ]
    assert of_kind(rich, "back") == [
        (("Back matter", "Acknowledgements"), "We thank the shoes."),
        (("Back matter", "Competing interests"), "None."),
        (("Back matter", "Funding"), "Funded by the Invented Fund."),
    ]


def test_captions_and_tables_stand_behind_the_body_with_the_path_of_their_place(rich: Document) -> None:
    assert of_kind(rich, "caption") == [
        (("Introduction",), "Figure 1. Flow of patients. Forty were asked."),
        (("Methods", "Statistics"), "Table 1. Baseline values"),
        (("Methods", "Statistics"), "Means are given."),
        ((), "Data S1. Raw step counts."),
    ]
    assert of_kind(rich, "table") == [
        (("Methods", "Statistics"), "Table 1\n| Walk | Rest\nAge, years | 61 | 60"),
    ]


def test_a_peer_review_is_left_out_and_named(rich: Document) -> None:
    assert "socks" not in rich.text
    assert rich.metadata["omitted"] == ["decision-letter"]


def test_sections_cover_the_text_with_a_blank_line_between(rich: Document) -> None:
    place = 0
    for section in rich.sections:
        assert section.start == place
        assert section.end > section.start
        place = section.end + 2
    assert place == len(rich.text) + 2
    assert rich.text == "\n\n".join(rich.text[s.start : s.end] for s in rich.sections)


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        ("<p>a<bold>b</bold><italic>c</italic> d</p>", ["abc d"]),
        ("<p>H<sub>2</sub>O and Ca<sup>2+</sup> and kg/m<sup>2</sup></p>", ["H2O and Ca2+ and kg/m2"]),
        ("<p>10<sup>-3</sup> and 10<sup>3</sup></p>", ["10^-3 and 10^3"]),
        ("<p>x\u00a0=\u20091\n  2</p>", ["x = 1 2"]),
        ("<p>hyper\u00adtension\u200b</p>", ["hypertension"]),
        ("<p><named-content content-type='gene'>TP53</named-content>-null</p>", ["TP53-null"]),
        ("<p><nobody-knows>kept <deep>too</deep></nobody-knows>.</p>", ["kept too."]),
        ("<p>see (<xref ref-type='bibr'>12</xref>).</p>", ["see (12)."]),
        ("<p>see [<xref ref-type='bibr'>1</xref>-<xref ref-type='bibr'>3</xref>].</p>", ["see [1-3]."]),
        ("<p>shown.<sup><xref ref-type='bibr'>1</xref></sup> Then</p>", ["shown. [1] Then"]),
        ("<p>shown<xref ref-type='bibr'><sup>1</sup></xref></p>", ["shown [1]"]),
        ("<p>by <xref ref-type='bibr'>Doe, 2001</xref></p>", ["by Doe, 2001"]),
        ("<p>mail <email>a@b.c</email> <ext-link>http://x</ext-link></p>", ["mail a@b.c http://x"]),
        ("<p>one</p><p>two</p>", ["one", "two"]),
        ("<list><list-item>bare<p>one</p></list-item></list>", ["bare", "one"]),
        ("<p>a<disp-quote><p>b</p></disp-quote>c</p>", ["a", "b", "c"]),
        ("<p>a<boxed-text><p>b</p></boxed-text>c</p>", ["a", "b", "c"]),
        ("stray<p>kept</p>words", ["stray", "kept", "words"]),
        ("<p><name><surname>Doe</surname><given-names>J</given-names></name></p>", ["Doe J"]),
        ("<p>x <!-- a comment --><?pi?>y</p>", ["x y"]),
        ("<preformat>a\n  b</preformat>", ["a b"]),
        ("<p><bold>a<list><list-item><p>b</p></list-item></list>c</bold>d</p>", ["a", "b", "cd"]),
        ("<array><tbody><tr><td>1</td><td>2</td></tr></tbody></array>", ["1 | 2"]),
        ("<p>a<inline-graphic/>b<graphic><alt-text>image</alt-text></graphic></p>", ["ab"]),
        ("<statement><label>Theorem 1</label><p>It holds.</p></statement>", ["It holds."]),
        ("<p>Click here for file</p><p>x</p>", ["x"]),
        ("<p>a<fn><p>note <italic>one</italic></p></fn> b</p>", ["a b", "note one"]),
        ("<p>10<sup>5 </sup>cells and 10<sup><italic>4</italic></sup></p>", ["10^5 cells and 10^4"]),
        ("<p>10<sup>−</sup><sup>9</sup> and Ca<sup>−</sup></p>", ["10^−9 and Ca−"]),
        ("<p>outcome,<xref ref-type='bibr'>3</xref>,<xref ref-type='bibr'>11</xref> likely</p>",
         ["outcome, [3], [11] likely"]),
        ("<p>[<xref ref-type='bibr'>3</xref>,<xref ref-type='bibr'>11</xref>,12] x</p>", ["[3,11,12] x"]),
        ("<p>x [<xref ref-type='bibr'>6</xref><xref ref-type='bibr'>10</xref>] y</p>", ["x [6,10] y"]),
        ("<p>x<sup><xref ref-type='bibr'>6</xref><xref ref-type='bibr'>1</xref></sup> y</p>", ["x [6,1] y"]),
        ("<p>at <ext-link xlink:href='http://a.org'/>, <ext-link xlink:href='http://b.org'>b</ext-link></p>",
         ["at http://a.org, b"]),
        ("<p>(<italic>a</italic>) x,<xref ref-type='bibr'>3</xref> y</p>", ["(a) x, [3] y"]),
        ("<p>Doe <xref ref-type='bibr'>2001</xref>,<xref ref-type='bibr'>2003</xref></p>", ["Doe 2001,2003"]),
        ("<p>up<sup><xref ref-type='bibr'>1</xref>,<xref ref-type='bibr'>2</xref></sup></p>", ["up [1,2]"]),
        ("<p>productive.<sup><xref ref-type='fn'>3</xref></sup> This</p>", ["productive. [3] This"]),
        ("<disp-formula><tex-math>y</tex-math><label>(1)</label></disp-formula>", ["y (1)"]),
        ("<sec><title>All that there is</title></sec>", ["All that there is"]),
        ("<p><institution-wrap><institution-id>9</institution-id><institution>Fund</institution></institution-wrap></p>",
         ["9 Fund"]),
    ],
)  # fmt: skip
def test_inline_words_are_not_torn_and_blocks_not_glued(xml: str, expected: list[str]) -> None:
    assert texts(xml) == expected


def test_nested_tables_lists_and_notes_in_cells_stay_in_their_cell() -> None:
    cell = "<list><list-item><p>x</p></list-item><list-item><p>y</p></list-item></list><fn><p>z</p></fn>"
    nested = "<table><tr><td>1</td><td>2</td></tr></table>"
    table = f"<table-wrap><table><tr><td>{cell}</td><td>{nested}</td></tr></table></table-wrap>"
    assert texts(table) == ["x y z | 1 | 2"]


def test_a_formula_with_several_forms_is_taken_once() -> None:
    math = "<mml:math><mml:msup><mml:mi>x</mml:mi><mml:mn>2</mml:mn></mml:msup></mml:math>"
    tex = "<tex-math>y</tex-math>"
    both = f"<alternatives>{tex}{math}<graphic/></alternatives>"
    assert texts(f"<p>a <inline-formula>{both}</inline-formula></p>") == ["a x^2"]
    assert texts(f"<p>a <inline-formula>{tex}{math}</inline-formula></p>") == ["a x^2"]
    assert texts(f"<disp-formula>{tex}</disp-formula>") == ["y"]


def test_a_default_namespace_is_read_like_none() -> None:
    xml = b'<article xmlns="https://jats.nlm.nih.gov/1.3/"><body><sec><title>T</title><p>x</p></sec></body></article>'
    (block,) = parse_article(xml).blocks
    assert (block.text, block.path) == ("x", ("T",))


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ("<related-article related-article-type='retraction-forward'/>", True),
        ("<title-group><article-title>RETRACTED: A study</article-title></title-group>", True),
        ("<related-article related-article-type='retracted-article'/>", False),
        ("<title-group><article-title>Retracted studies in review</article-title></title-group>", False),
        ("<title-group><article-title>[Retracted] A study</article-title></title-group>", True),
        ("<title-group><article-title>RETRACTED ARTICLE A study</article-title></title-group>", True),
        ("<title-group><article-title>A study (retracted)</article-title></title-group>", True),
        ("<title-group><article-title>WITHDRAWN: A study</article-title></title-group>", True),
    ],
)
def test_a_retraction_is_seen_in_the_article_and_the_notice_itself_is_none(meta: str, expected: bool) -> None:
    assert parsed("", meta=meta).metadata["is_retracted"] is expected


def test_a_licence_is_read_from_address_or_prose() -> None:
    by_nc = "<permissions><license><p>See http://creativecommons.org/licenses/by-nc/3.0</p></license></permissions>"
    words = "Creative Commons Attribution Non-Commercial No Derivatives License"
    prose = f"<permissions><license><license-p>{words}</license-p></license></permissions>"
    assert parsed("", meta=by_nc).metadata["license"] == "CC BY-NC"
    assert parsed("", meta=prose).metadata["license"] == "CC BY-NC-ND"
    assert "license" not in parsed("").metadata


def test_unlabelled_back_matter_gets_a_heading() -> None:
    (block,) = parsed("", rest="<back><fn-group><fn><p>None declared.</p></fn></fn-group></back>").blocks
    assert block.path == ("Back matter", "Footnotes")


def test_a_notice_is_not_the_article_that_it_retracts() -> None:
    xml = article(5, title="Retracted: A study").replace(b"research-article", b"retraction")
    assert parse_article(xml).metadata["is_retracted"] is False


def test_tables_in_one_alternatives_element_are_all_kept() -> None:
    tables = "".join(f"<table><tr><td>{cell}</td></tr></table>" for cell in ("one", "two"))
    wrapped = f"<table-wrap><label>T</label><alternatives><graphic/>{tables}</alternatives></table-wrap>"
    assert texts(wrapped) == ["T", "T\none", "two"]


def test_oasis_tables_have_rows_and_cells() -> None:
    space = "http://www.niso.org/standards/z39-96/ns/oasis-exchange/table"
    row = "<o:row><o:entry>1</o:entry><o:entry>2</o:entry></o:row>"
    table = f'<o:table xmlns:o="{space}"><o:tgroup><o:tbody>{row}</o:tbody></o:tgroup></o:table>'
    assert texts(f"<table-wrap>{table}</table-wrap>") == ["1 | 2"]


def test_a_label_in_words_stands_in_front_of_the_title_of_a_box_and_a_number_does_not() -> None:
    boxes = "<boxed-text><label>Box 1</label><caption><title>Shoes</title></caption><p>x</p></boxed-text>"
    sections = "<sec><label>2.2</label><title>Methods</title><p>y</p></sec>"
    assert [block.path for block in parsed(boxes + sections).blocks] == [("Box 1. Shoes",), ("Methods",)]


def test_a_group_of_authors_stands_for_its_members() -> None:
    name = "<name><surname>Smith</surname><given-names>Ann B</given-names></name>"
    member = f'<contrib contrib-type="author">{name}</contrib>'
    group = f"<contrib><collab>The X Group<contrib-group>{member}</contrib-group></collab></contrib>"
    others = (
        "<contrib><string-name>Ibn Sina</string-name></contrib>"
        "<contrib><name><given-names>Aristotle</given-names></name></contrib>"
        "<contrib><name><surname>King</surname><given-names>M</given-names><suffix>Jr.</suffix></name></contrib>"
        "<contrib><collab-alternatives><collab>WHO</collab></collab-alternatives></contrib>"
    )
    meta = f"<contrib-group>{group}{member}{others}</contrib-group>"
    assert parsed("", meta=meta).metadata["authors"] == [
        "The X Group",
        "Smith AB",
        "Ibn Sina",
        "Aristotle",
        "King M Jr",
        "WHO",
    ]


def test_references_are_those_of_the_lists_each_work_one_and_none_without_a_word() -> None:
    works = (
        "<ref id='r1'><element-citation><source>One</source><pub-id pub-id-type='pmid'>1</pub-id>"
        "</element-citation><element-citation><source>Two</source><pub-id pub-id-type='pmid'>2</pub-id>"
        "</element-citation></ref><ref id='r2'><mixed-citation>Smith J. Plain.</mixed-citation></ref>"
    )
    data = "<sec><p><related-object><source>Dryad</source><year>2011</year></related-object></p></sec>"
    found = parsed("", rest=f"<back><ref-list>{works}</ref-list>{data}</back>").metadata["references"]
    assert found == [
        {"id": "r1", "pmid": "1", "title": "One"},
        {"id": "r1", "pmid": "2", "title": "Two"},
        {"id": "r2", "text": "Smith J. Plain."},
    ]


def test_titles_in_another_language_and_notes_of_authors_can_be_found() -> None:
    meta = (
        "<title-group><article-title>Schuhe</article-title><trans-title-group><trans-title>Shoes</trans-title>"
        "</trans-title-group></title-group><author-notes><corresp>a@b.c</corresp><fn fn-type='conflict'>"
        "<p>None.</p></fn></author-notes><funding-group><award-group><funding-source>The Fund"
        "</funding-source></award-group></funding-group>"
    )
    assert [(block.text, block.path, block.kind) for block in parsed("<p>x</p>", meta=meta).blocks] == [
        ("Shoes", ("Translated title",), "abstract"),
        ("x", (), "paragraph"),
        ("None.", ("Back matter", "Author notes"), "back"),
        ("The Fund", ("Back matter", "Funding"), "back"),
    ]


@pytest.mark.parametrize(
    "inside",
    [
        "<sup>" * 100 + "x" + "</sup>" * 100,
        "<sup><xref ref-type='bibr'>" * 60 + "1" + "</xref></sup>" * 60,
        "<tex-math>x</tex-math>" * 20_000,
    ],
    ids=["superscripts within superscripts", "citations within citations", "formulas beside formulas"],
)
def test_elements_within_or_beside_elements_take_no_more_than_their_share_of_time(inside: str) -> None:
    texts(f"<p>a{inside}</p>")  # took minutes where an element was looked at for every other one


def test_very_many_named_characters_in_a_paragraph_are_read() -> None:
    body = b"<article><body><p>" + b"&nbsp;x" * 100_000 + b"</p></body></article>"
    (block,) = parse_article(b'<!DOCTYPE article PUBLIC "a" "b.dtd">' + body).blocks
    assert block.text == " ".join("x" * 100_000)


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("Authors' contributions", "back"),
        ("Competing interests", "back"),
        ("Declaration of competing interest", "back"),
        ("Conflict of Interest Statement", "back"),
        ("Acknowledgements", "back"),
        ("Pre-publication history", "back"),
        ("List of abbreviations", "back"),
        ("Results", "paragraph"),
        ("Funding of primary care", "paragraph"),
        ("Interests of patients", "paragraph"),
    ],
)
def test_what_older_articles_have_in_their_body_about_the_paper_is_back_matter(
    heading: str, kind: str
) -> None:
    sections = f"<sec><title>{heading}</title><p>x</p></sec><sec><title>Discussion</title><p>y</p></sec>"
    assert [block.kind for block in parsed(sections).blocks] == [kind, "paragraph"]
