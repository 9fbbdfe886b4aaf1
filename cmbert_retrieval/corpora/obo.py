"""The OBO flat file format (1.0 to 1.4): a header, then stanzas of ``tag: value`` lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cmbert_retrieval.corpora.code_documents import clean
from cmbert_retrieval.corpora.code_files import MAX_LINE_BYTES, Problem, text_lines
from cmbert_retrieval.corpora.ontology_terms import OntologyHeader, OntologyTerm
from cmbert_retrieval.errors import CorpusError

_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_SPECIAL = {"n": " ", "W": " ", "t": " "}
_COMMENT = re.compile(r"(?<!\\)(?:^|(?<=\s))!.*")
_MODIFIERS = re.compile(r"\s*(?<!\\)\{[^{}]*=[^{}]*\}\s*$")
_QUOTED = re.compile(r'\s*"((?:[^"\\]|\\.)*)"(.*)', re.DOTALL)
_SCOPES = {"EXACT": "exact", "NARROW": "narrow", "BROAD": "broad", "RELATED": "related"}
_OLD_SYNONYMS = {f"{scope}_synonym": scope for scope in _SCOPES.values()}
_MAX_LINES = 100_000


def read_obo(path: Path) -> Iterator[OntologyHeader | OntologyTerm | Problem]:
    """Yield the header, then the terms in their order, in constant memory. Other stanzas are passed over.

    Raises:
        CorpusError: the file cannot be read, or a stanza has no end.

    Source:
        "OBO Flat File Format 1.4 Syntax and Semantics", https://owlcollab.github.io/oboformat/doc/obo-syntax.html
    """
    header = OntologyHeader()
    term: OntologyTerm | None = None
    stanza, lines = "", 0
    for number, text, problem in _joined_lines(path):
        where = f"{path.name}:{number}"
        text = text.strip()
        if problem:
            yield Problem(where, problem, term.id if term else "")
            continue
        if not text or text.startswith("!"):
            continue
        lines += 1
        if lines > _MAX_LINES:
            raise CorpusError(f"{where}: more than {_MAX_LINES:,} lines in one stanza; expected an OBO file")
        if text.startswith("[") and text.rstrip().endswith("]"):
            if not stanza:
                yield header
            if term:
                yield term
            stanza, lines = text, 0
            term = OntologyTerm(where) if text == "[Term]" else None
            continue
        tag, colon, value = text.partition(":")
        if not colon:
            yield Problem(
                where, "no line of an OBO file: expected a tag, a colon and a value", term.id if term else ""
            )
        elif term:
            if unusable := _read_tag(term, tag.strip(), value):
                yield Problem(where, unusable, term.id)
        elif not stanza:
            _read_header(header, tag.strip(), value)
    if term:
        yield term


def _joined_lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the lines; one that ends with a backslash goes on in the next."""
    begun, size = 0, 0
    parts: list[str] = []
    for number, text, problem in text_lines(path):
        goes_on = not problem and (len(text) - len(text.rstrip("\\"))) % 2 == 1
        if goes_on or (parts and not problem):
            begun = begun or number
            parts.append(text[:-1] if goes_on else text)
            size += len(text)
            if size > MAX_LINE_BYTES:
                raise CorpusError(f"{path.name}:{begun}: a value of more than {MAX_LINE_BYTES:,} characters")
            if goes_on:
                continue
            yield begun, "".join(parts), ""
        else:
            yield number, text, problem
        begun, parts, size = 0, [], 0
    if parts:
        yield begun, "".join(parts), ""


def _read_header(header: OntologyHeader, tag: str, value: str) -> None:
    if tag == "ontology":
        header.name = _plain(value)
    elif tag == "data-version":
        header.release = _plain(value)
    elif tag == "property_value":
        words = value.split()
        if len(words) < 2:
            return
        text = clean(_first_quoted(value.strip().partition(" ")[2]) or words[1])
        if words[0].lower().endswith("license"):
            header.license = text
        elif words[0].endswith("versionInfo"):
            # The same as in the ontology's other formats; "data-version" adds the file's address.
            header.release = text


def _read_tag(term: OntologyTerm, tag: str, value: str) -> str:
    """Put a tag's value into the term; return what is wrong with it, or ""."""
    if tag == "id":
        term.id = _plain(value)
    elif tag == "name":
        term.name = _plain(value)
    elif tag == "is_obsolete":
        term.is_obsolete = _plain(value).lower() == "true"
    elif tag == "is_a":
        term.parents.append(_first(value))
    elif tag == "alt_id":
        term.alternative_ids.append(_first(value))
    elif tag == "xref" or tag == "xref_analog":
        # A description in quotes may stand behind it.
        term.xrefs.append(_plain(value).partition(' "')[0])
    elif tag == "subset":
        term.subsets.append(_first(value))
    elif tag == "replaced_by":
        term.replaced_by.append(_first(value))
    elif tag == "def":
        found = _first_quoted(value)
        if found is None:
            return "a definition without its quotes"
        term.definition = clean(found)
    elif tag == "synonym" or tag in _OLD_SYNONYMS:
        quoted = _QUOTED.fullmatch(value)
        if quoted is None:
            return "a synonym without its quotes"
        words = quoted[2].partition("[")[0].split()
        scope = _OLD_SYNONYMS.get(tag) or _SCOPES.get(words[0] if words else "", "related")
        kind = words[1] if len(words) > 1 and words[0] in _SCOPES else ""
        term.add_synonym(clean(_unescaped(quoted[1])), scope, kind)
    return ""


def _plain(value: str) -> str:
    """Return a value without its comment and its trailing modifiers."""
    return clean(_unescaped(_MODIFIERS.sub("", _COMMENT.sub("", value))))


def _first(value: str) -> str:
    """Return the identifier that a value begins with; behind it may be anything, even an ``!`` in quotes."""
    return _plain((value.split() or [""])[0])


def _first_quoted(value: str) -> str | None:
    found = _QUOTED.match(value)
    return _unescaped(found[1]) if found else None


def _unescaped(value: str) -> str:
    return _ESCAPE.sub(lambda match: _SPECIAL.get(match[1], match[1]), value) if "\\" in value else value
