"""The text of a JATS article as blocks: one walk over the tree, in which every element has one purpose.

Words are never glued across block elements nor torn inside inline ones; an element that is not known is
walked into, so its text is kept. What is decided here:

- headings become paths; paragraphs, list items, definitions and footnotes become blocks of their own;
- captions and tables are collected apart, for they float in the article and would cut the paragraphs around
  them;
- a table is one block, a row a line, cells separated by `` | ``, under the table's label;
- of the alternatives of a formula or a table one is taken, MathML before TeX before images;
- a superscript citation is put in brackets (``mortality [12]``, not ``mortality12``), a superscript number
  behind a digit gets a caret (``10^9``, not ``109``);
- left out: images, permissions, alternative texts of images, and PMC's "Click here for ..." links.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cmbert_retrieval.corpora import jats_marks as marks
from cmbert_retrieval.corpora.formulas import mathml_text, tex_text
from cmbert_retrieval.corpora.jats_blocks import Block, Blocks, clean, clean_all, join_sentences, table_rows

if TYPE_CHECKING:
    from lxml import etree

_MATHML = "{http://www.w3.org/1998/Math/MathML}"
_CLICK = re.compile(
    r"Click here (?:for|to view)(?: additional)?(?: data)? file\.?|Click here for additional data file\.?"
)


class TextWalker:
    """Walks elements and collects their blocks."""

    def __init__(self) -> None:
        self.blocks = Blocks()
        self._target = self.blocks.main
        self._kind = "paragraph"
        self._path: tuple[str, ...] = ()
        self._out: list[str] = []
        self._prefix = ""
        self._after: list[Block] = []
        self._flat = 0
        self._formula: etree._Element | None = None
        self._has_mathml = False

    def walk(self, element: etree._Element, *, path: Iterable[str] = (), kind: str = "paragraph") -> None:
        """Collect the blocks of an element whose headings are ``path`` and its own title."""
        self._path, self._kind = tuple(path), kind
        self._section(element)
        self._flush()

    def flat(self, element: etree._Element) -> str:
        """Return the whole text of an element as one line: for titles, captions, cells, keywords."""
        if len(element):
            return clean(self._raw(element))
        text = element.text or ""
        # What clean does first, without the call: there are hundreds of such texts in an article.
        return text.strip(" ") if text.isprintable() and "  " not in text else clean(text)

    def _raw(self, element: etree._Element) -> str:
        """Return the whole text of an element as it stands, with its outer white space."""
        if len(element) == 0:
            return element.text or ""
        out, self._out = self._out, []
        self._flat += 1
        self._children(element)
        text = "".join(self._out)
        self._flat -= 1
        self._out = out
        return text

    def title(self, element: etree._Element) -> str:
        """Return the text of a title without the footnotes and footnote marks in it."""
        if len(element):
            marks.remove_notes(element)
        return self.flat(element)

    def _children(self, element: etree._Element) -> None:
        out, find = self._out, _HANDLERS.get
        if text := element.text:
            out.append(text)
        for child in element:
            handler = find(child.tag)
            if handler is not None:
                handler(self, child)
                out = self._out
            elif len(child) == 0:
                if text := child.text:
                    out.append(text)
            else:
                self._children(child)
                out = self._out
            if text := child.tail:
                out.append(text)

    def _flush(self) -> None:
        """End the paragraph; within a flat text only make sure that words do not touch."""
        if self._flat:
            self._out.append(" ")
            return
        if self._out:
            text = clean("".join(self._out))
            self._out = []
            if text:
                if self._prefix:
                    text, self._prefix = f"{self._prefix} {text}", ""
                self._add(text, self._kind, self._target)
        if self._after:
            self._target += self._after
            self._after = []

    def _add(self, text: str, kind: str, target: list[Block]) -> None:
        if "Click here" in text:
            text = clean(_CLICK.sub(" ", text))
        if text:
            target.append(Block(text, self._path, kind))

    def _block(self, element: etree._Element) -> None:
        if self._flat or self._out or self._after:  # mostly there is nothing to end
            self._flush()
        self._children(element)
        self._flush()

    def _section(self, element: etree._Element) -> None:
        """A ``sec`` and everything like it: its title joins the path of what is in it."""
        if self._flat:
            self._block(element)
            return
        self._flush()
        label, heading = next(element.iterchildren("label"), None), next(element.iterchildren("title"), None)
        if heading is None and (heading := element.find("caption/title")) is None:
            heading = label
        path, title = self._path, ""
        if heading is not None and (title := self.title(heading)):
            title = marks.with_label(title, heading, label)
            self._path = (*path, title)
        before, kind = self._count(), self._kind
        if not path and kind == "paragraph" and marks.is_about_the_paper(title):
            self._kind = "back"
        if element.text:
            self._out.append(element.text)
        for child in element:
            tag = child.tag
            if tag == "caption":
                for part in child:
                    if part is not heading:
                        self._block(part)
            elif tag not in _HEADINGS:
                handler = _HANDLERS.get(tag)
                if handler is not None:
                    handler(self, child)
                else:
                    self._children(child)
            if text := child.tail:
                self._out.append(text)
        self._flush()
        self._path = path
        if title and self._count() == before:
            # Nothing stands below the heading: then it is the text, as in acknowledgements of one title.
            self._add(title, self._kind, self._target)
        self._kind = kind

    def _count(self) -> int:
        found = self.blocks
        return len(found.main) + len(found.captions) + len(found.tables) + len(self._target)

    def _item(self, element: etree._Element) -> None:
        """A list item or a footnote: its label stands in front of its first paragraph."""
        self._flush()
        label = element.find("label")
        text = self.flat(label) if label is not None else ""
        if text and self._flat:
            self._out.append(text + " ")
        elif text:
            self._prefix = text
        if element.text:
            self._out.append(element.text)
        for child in element:
            if child is label:
                self._out.append(child.tail or "")
                continue
            handler = _HANDLERS.get(child.tag)
            if handler is not None:
                handler(self, child)
            else:
                self._children(child)
            if child.tail:
                self._out.append(child.tail)
        self._flush()
        if self._prefix and not self._flat:
            self._prefix, text = "", self._prefix
            self._add(text, self._kind, self._target)

    def _definition(self, element: etree._Element) -> None:
        self._flush()
        parts = [[self.flat(kid) for kid in element if kid.tag == tag] for tag in ("term", "def")]
        term, meaning = (", ".join(filter(None, part)) for part in parts)
        text = f"{term}: {meaning}" if term and meaning else term or meaning
        if self._flat:
            self._out.append(text + "; ")
        elif text:
            self._add(text, self._kind, self._target)

    def _note(self, element: etree._Element) -> None:
        """A footnote inside a paragraph follows it; elsewhere it is a block where it stands."""
        if self._flat:
            self._item(element)
            return
        if not any(part and not part.isspace() for part in self._out):
            self._item(element)
            return
        out, target, after, prefix = self._out, self._target, self._after, self._prefix
        self._out, self._target, self._after, self._prefix = [], [], [], ""
        self._item(element)
        after += self._target
        self._out, self._target, self._after, self._prefix = out, target, after, prefix

    def _float(self, element: etree._Element) -> None:
        """A figure, a table or a supplementary file: collected apart, the paragraph around it goes on."""
        label_element = next(element.iterchildren("label"), None)
        label = self.flat(label_element) if label_element is not None else ""
        parts = []
        for child in element:
            if child.tag == "caption":
                parts += [self.flat(kid) for kid in child if isinstance(kid.tag, str)]
                if not len(child) and child.text:
                    parts.append(clean(child.text))
        text = join_sentences([label, *parts])
        if self._flat:
            self._out.append(f" {text} ")
        elif text and (parts or label):
            self._add(text, "caption", self.blocks.captions)
        out, kind, target, after = self._out, self._kind, self._target, self._after
        prefix, self._prefix = self._prefix, ""
        if not self._flat:
            self._out, self._kind, self._target, self._after = [], "caption", self.blocks.captions, []
        for child in element:
            if child.tag == "table" or child.tag == "alternatives":
                # Several tables in one <alternatives> are the parts of one, not renderings of each other.
                for number, table in enumerate([child] if child.tag == "table" else child.iter("table")):
                    self._table(table, "" if number else label)
            elif child.tag not in ("label", "caption"):
                handler = _HANDLERS.get(child.tag)
                if handler is not None:
                    handler(self, child)
                else:
                    self._block(child)
        if not self._flat:
            self._flush()
            self._out, self._kind, self._target, self._after = out, kind, target, after
        self._prefix = prefix

    def _table(self, element: etree._Element, label: str = "") -> None:
        rows = []
        for row in table_rows(element):
            found = [cell for cell in row if cell.tag in _CELLS]
            cells = clean_all([self._raw(cell) if len(cell) else cell.text or "" for cell in found])
            if any(cells):
                rows.append(" | ".join(cells).strip())
        if self._flat:
            self._out.append(f" {'; '.join(rows)} ")
        elif rows:
            self._add("\n".join([label, *rows] if label else rows), "table", self.blocks.tables)

    def _alternatives(self, element: etree._Element) -> None:
        for tag in (f"{_MATHML}math", "math", "tex-math", "table", "textual-form"):
            found = element.findall(tag)
            for part in found if tag == "table" else found[:1]:
                _HANDLERS.get(tag, TextWalker._children)(self, part)
            if found:
                return
        self._children(element)

    def _display_formula(self, element: etree._Element) -> None:
        self._out.append(" ")
        self._children(element)
        self._out.append(" ")

    def _math(self, element: etree._Element) -> None:
        self._out.append(clean(mathml_text(element)))

    def _tex(self, element: etree._Element) -> None:
        parent = element.getparent()
        if parent is not None and parent is not self._formula:
            self._formula = parent
            self._has_mathml = any(parent.find(tag) is not None for tag in (f"{_MATHML}math", "math"))
        if parent is not None and self._has_mathml:
            return
        self._out.append(tex_text(element.text or ""))

    def _superscript(self, element: etree._Element) -> None:
        before = self._before()
        if before not in "[(" and marks.is_raised_citation(element, before):
            self._cite(element, before)
            return
        text = self._raw(element)
        self._out.append(marks.raised(text, before, marks.raised_behind(element)))

    def _xref(self, element: etree._Element) -> None:
        if element.get("ref-type") == "bibr":
            if marks.may_cite(element, before := self._before(), self._out):
                self._cite(element, before)
                return
            if before.isdigit() and marks.touches_another(element):
                self._out.append(",")
        if len(element) == 0:
            self._out.append(element.text or "")
        else:
            self._children(element)

    def _link(self, element: etree._Element) -> None:
        self._out.append(marks.shown_address(element) or self._raw(element))

    def _cite(self, element: etree._Element, before: str) -> None:
        # Walked once, whatever it is: elements within elements would otherwise be walked 2^depth times.
        raw = self._raw(element)
        text = clean(raw)
        self._out.append(marks.bracketed(text, before) if marks.is_citation(text) else raw)

    def _before(self) -> str:
        """Return the character before this place in the paragraph."""
        for part in reversed(self._out):
            if part:
                return part[-1]
        return ""

    def _words(self, element: etree._Element) -> None:
        """Parts that nothing separates in the file, as ``<surname>`` and ``<given-names>``."""
        out, self._out = self._out, []
        self._flat += 1
        for kid in element:
            handler = _HANDLERS.get(kid.tag)
            if handler is not None:
                handler(self, kid)
            else:
                self._children(kid)
            self._out.append(" ")
        text = clean("".join(self._out))
        self._flat -= 1
        self._out = out
        self._out.append(text + " ")

    def _space(self, element: etree._Element) -> None:
        self._out.append(" ")

    def _inline_label(self, element: etree._Element) -> None:
        if element.tag == "label":
            self._out.append(" ")  # of a formula, right behind it
        self._children(element)
        self._out.append(" ")

    def _nothing(self, element: etree._Element) -> None:
        pass


_CELLS = frozenset(("td", "th", "entry"))
_HEADINGS = frozenset(("title", "label", "sec-meta", "object-id", "front-stub", "front"))
_Handler = Callable[[TextWalker, "etree._Element"], None]


def _table_of_handlers() -> dict[object, _Handler]:
    walker, handlers = TextWalker, {}
    # fmt: off
    purposes: list[tuple[_Handler, str]] = [
        (walker._block, "p title subtitle disp-quote speech verse-group verse-line attrib preformat code"),
        (walker._block, "caption list def-list term-head def-head table-wrap-foot tr row question"),
        (walker._block, "answer address"),
        (walker._section, "sec app app-group statement bio glossary gloss-group fn-group disp-formula-group"),
        (walker._section, "boxed-text floats-group floats-wrap back body dedication question-wrap ack notes"),
        (walker._item, "list-item"),
        (walker._definition, "def-item"),
        (walker._note, "fn"),
        (walker._float, "fig fig-group table-wrap table-wrap-group supplementary-material media"),
        (walker._float, "chem-struct-wrap"),
        (walker._table, "table array"),
        (walker._alternatives, "alternatives"),
        (walker._display_formula, "disp-formula"),
        (walker._math, f"math {_MATHML}math"),
        (walker._tex, "tex-math"),
        (walker._superscript, "sup"),
        (walker._xref, "xref"),
        (walker._link, "ext-link"),
        (walker._words, "name date element-citation contrib contrib-group institution-wrap related-object"),
        (walker._space, "break hr"),
        (walker._inline_label, "label td th entry"),
        (walker._nothing, "graphic inline-graphic permissions alt-text long-desc object-id ref-list"),
        (walker._nothing, "index-term processing-meta sec-meta colgroup col"),
    ]
    # fmt: on
    for handler, tags in purposes:
        handlers.update(dict.fromkeys(tags.split(), handler))
    return handlers  # type: ignore[return-value]


_HANDLERS = _table_of_handlers()
