"""XML from strangers: parsed without entities and network, within limits; its errors quote nothing."""

from __future__ import annotations

import html.entities
import re
from typing import Any

from lxml import etree

from cmbert_retrieval.corpora.files import UnusableError

_ENTITY_DECLARATION = re.compile(rb"<!ENTITY\s")
_MISMATCH = re.compile(r"Opening and ending tag mismatch: ([a-z][a-z0-9-]{0,30}) line \d+ and ")
_REASONS = {
    "ERR_DOCUMENT_EMPTY": "empty, or not XML",
    "ERR_DOCUMENT_END": "something stands behind the root element, or the end is missing",
    "ERR_TAG_NOT_FINISHED": "a tag is not finished",
    "ERR_TAG_NAME_MISMATCH": "mismatched tag",
    "ERR_NAME_REQUIRED": "a name is missing, perhaps a bare '&' or '<'",
    "ERR_ENTITYREF_SEMICOL_MISSING": "a bare '&'",
    "ERR_UNDECLARED_ENTITY": "an entity that is not declared",
    "WAR_UNDECLARED_ENTITY": "an entity that is not declared",
    "ERR_INVALID_CHAR": "a character that XML does not allow",
    "ERR_INVALID_ENCODING": "the bytes are not in the encoding that the file declares",
    "ERR_UNKNOWN_ENCODING": "the file declares an unknown encoding",
    "ERR_UNSUPPORTED_ENCODING": "the file declares an unknown encoding",
    "I18N_CONV_FAILED": "the bytes are not in the encoding that the file declares",
    "ERR_ENTITY_LOOP": "entities within entities",
    "ERR_LT_IN_ATTRIBUTE": "a bare '<' in an attribute",
    "ERR_ATTRIBUTE_REDEFINED": "an attribute stands twice",
    "ERR_ATTRIBUTE_WITHOUT_VALUE": "an attribute without a value, perhaps a bare '<'",
    "ERR_GT_REQUIRED": "a '>' is missing",
    "ERR_RESOURCE_LIMIT": "larger or deeper than the parser allows",
}


class XmlError(UnusableError):
    """XML that cannot be used.

    Attributes:
        line: the line of the file where the trouble is, 0 when it has none.
    """

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(reason)
        self.line = line


def parse_xml(data: bytes) -> etree._Element:
    """Return the root element, without comments and processing instructions, named characters resolved.

    Character names of the JATS DTD (``&nbsp;``, ``&alpha;``) are resolved without the DTD. Any file that
    declares entities of its own is refused, expanded or not.

    Raises:
        XmlError: not well-formed, in a wrong encoding, or with entities. The message quotes nothing of the
            text.
    """
    # Most records of PubMed have no "!" at all, and one character is looked for at once.
    if b"!" in data and b"<!ENTITY" in data and (declaration := _ENTITY_DECLARATION.search(data)):
        raise XmlError("declares entities; refused", data.count(b"\n", 0, declaration.start()) + 1)
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        huge_tree=False,
        load_dtd=False,
        recover=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        line = error.lineno or 0
        raise XmlError(f"not well-formed XML ({xml_reason(error)})", line) from None
    except (ValueError, LookupError):
        raise XmlError("not well-formed XML (unknown encoding)", 1) from None
    dtd: Any = root.getroottree().docinfo.internalDTD
    if dtd is not None:
        # A declaration in UTF-16 escapes the search above.
        if any(True for _ in dtd.iterentities()):
            raise XmlError("declares entities; refused", 1)
        _resolve_names(root)
    return root


def xml_reason(error: etree.XMLSyntaxError) -> str:
    """Return why XML is not well-formed, without quoting its text."""
    code = int(getattr(error, "code", 0) or 0)
    name = etree.ErrorTypes._getName(code, "")
    # libxml2's own message may quote the text (as the "attribute" in "p <John Smith"), so only tag names are
    # taken.
    if name == "ERR_TAG_NAME_MISMATCH" and (found := _MISMATCH.match(error.msg or "")):
        return f"mismatched tag '{found[1]}'"
    if name in _REASONS:
        return _REASONS[name]
    return f"parser error {code}" if code else "empty, or not XML"


def _resolve_names(root: etree._Element) -> None:
    """Put the character in place of each named one; without a DTD the parser leaves them as nodes."""
    nodes: list[Any] = list(root.iter(etree.Entity))
    for parent in {id(parent): parent for node in nodes if (parent := node.getparent()) is not None}.values():
        # Joined once for each stretch of text: a paragraph may have very many of them.
        before, parts = None, [parent.text or ""]
        for child in list(parent):
            if child.tag is not etree.Entity:
                _set_text(parent, before, parts)
                before, parts = child, [child.tail or ""]
                continue
            character = html.entities.html5.get(f"{child.name};")
            if character is None:
                raise XmlError("names a character that is not known", int(child.sourceline or 0))
            parts += [character, child.tail or ""]
            child.tail = None
            parent.remove(child)
        _set_text(parent, before, parts)


def _set_text(parent: Any, before: Any, parts: list[str]) -> None:
    """Set the text behind a child, or the first text of its parent."""
    if before is None:
        parent.text = "".join(parts)
    else:
        before.tail = "".join(parts)
