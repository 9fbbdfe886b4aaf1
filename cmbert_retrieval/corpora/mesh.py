"""Medical Subject Headings (MeSH) as NLM publishes them: descriptors and supplementary concepts.

A descriptor is a heading with its entry terms, which come in concepts: the preferred one means the same as
the heading, others are narrower, broader or related. All of them lead to the heading, so all are entries;
``names`` in the metadata keeps them apart. Permuted terms ("House, Slaughter", "Hematomas") are no entries:
NLM made them out of another one, by turning it round or changing its number.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cmbert_retrieval.corpora.code_documents import clean, code_document, distinct
from cmbert_retrieval.corpora.code_files import (
    MAX_CODES,
    CodeFilesCorpus,
    Problem,
    release_in_name,
    text_lines,
)
from cmbert_retrieval.corpora.fields import valid_id
from cmbert_retrieval.corpora.files import UnusableError
from cmbert_retrieval.corpora.xmlstream import stream_records
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.types import Document

_ROOTS = ("DescriptorRecordSet", "SupplementalRecordSet")
_RECORDS = ("DescriptorRecord", "SupplementalRecord")
_CLASSES = {"2": "publication type", "3": "check tag", "4": "geographical"}
_SUPPLEMENTARY = {
    "1": "chemical",
    "2": "protocol",
    "3": "disease",
    "4": "organism",
    "5": "population group",
    "6": "anatomy",
}
_RELATIONS = {"NRW": "narrower", "BRD": "broader", "REL": "related"}
_CONCEPT_TYPES = ("preferred", "entry", "narrower", "broader", "related")
_TREES = {
    "A": "Anatomy",
    "B": "Organisms",
    "C": "Diseases",
    "D": "Chemicals and Drugs",
    "E": "Analytical, Diagnostic and Therapeutic Techniques, and Equipment",
    "F": "Psychiatry and Psychology",
    "G": "Phenomena and Processes",
    "H": "Disciplines and Occupations",
    "I": "Anthropology, Education, Sociology, and Social Phenomena",
    "J": "Technology, Industry, and Agriculture",
    "K": "Humanities",
    "L": "Information Science",
    "M": "Named Groups",
    "N": "Health Care",
    "V": "Publication Characteristics",
    "Z": "Geographicals",
}
_MAX_FIELDS = 100_000


@dataclass(slots=True)
class MeshRecord:
    """One heading or supplementary concept.

    Attributes:
        where: file and line.
        ui: its identifier, ``D009203`` or ``C000002``.
        name: the preferred name.
        kind: ``descriptor``, ``publication type``, ``check tag``, ``geographical``, or ``supplementary``.
        scope: the scope note, or the note of a supplementary concept.
        trees: tree numbers, ``C14.907.585.500``.
        names: ``preferred``, ``entry``, ``narrower``, ``broader``, ``related`` and ``permuted`` -> terms.
        mapped_to: descriptors under which a supplementary concept is indexed.
        supplementary_class: ``chemical``, ``disease`` and so on.
    """

    where: str
    ui: str = ""
    name: str = ""
    kind: str = "descriptor"
    scope: str = ""
    trees: list[str] = field(default_factory=list)
    names: dict[str, list[str]] = field(default_factory=dict)
    mapped_to: list[str] = field(default_factory=list)
    supplementary_class: str = ""


class MeshCorpus(CodeFilesCorpus):
    """The descriptors, or the supplementary concepts, of one MeSH file, in its order.

    The file is read twice: a descriptor's place follows from the tree numbers of all.
    """

    reader = "mesh"
    columns: Mapping[str, str] = {"chapter": "text", "kind": "text", "system": "text"}
    expected = "MeSH of NLM: desc2026.xml, supp2026.xml, d2026.bin or c2026.bin, .gz or not"

    def read(self) -> Iterator[MeshRecord | Problem]:
        """Yield the records as they stand in the file, in constant memory."""
        is_ascii = self.path.name.lower().removesuffix(".gz").endswith(".bin")
        return _from_ascii(self.path) if is_ascii else _from_xml(self.path)

    def _items(self) -> Iterator[Document | Problem]:
        release = self._release or release_in_name(self.path)
        owners: dict[str, str] = {}
        for record in self.read():
            if isinstance(record, MeshRecord):
                owners.update((number, record.ui) for number in record.trees)
                if len(owners) > MAX_CODES:
                    raise CorpusError(
                        f"{self.path}: more than {MAX_CODES:,} tree numbers; expected {self.expected}"
                    )
        children: dict[str, dict[str, None]] = {}
        for number, ui in owners.items():
            if (above := owners.get(number.rpartition(".")[0])) and above != ui:
                children.setdefault(above, {})[ui] = None
        for record in self.read():
            if isinstance(record, Problem):
                yield record
                continue
            try:
                ui = valid_id(record.ui)
            except UnusableError as error:
                yield Problem(record.where, str(error))
                continue
            if not record.name:
                yield Problem(record.where, "a record without a name", ui)
            else:
                yield _document(record, release, owners, list(children.get(ui, ())))


def _document(record: MeshRecord, release: str, owners: Mapping[str, str], children: list[str]) -> Document:
    above = [owners.get(number.rpartition(".")[0], record.ui) for number in record.trees]
    parents = [ui for ui in dict.fromkeys(above) if ui != record.ui]
    letters = [number[:1] for number in record.trees]
    terms = distinct(term for kind in _CONCEPT_TYPES for term in record.names.get(kind, ()))
    others = [term for term in terms if term.casefold() != record.name.casefold()]
    facts: dict[str, Any] = {"parents": parents, "tree_numbers": record.trees, "names": record.names}
    if record.mapped_to:
        facts["mapped_to"] = record.mapped_to
    if record.supplementary_class:
        facts["class"] = record.supplementary_class
    return code_document(
        record.ui,
        record.name,
        {
            "system": "mesh",
            "license": "MeSH, courtesy of the U.S. National Library of Medicine",
            "release": release,
            "chapter": letters[0] if letters else "",
            "chapter_title": _TREES.get(letters[0], "") if letters else "",
            "block": "",
            "block_title": "",
        },
        kind=record.kind,
        entries=distinct([record.name, *others]),
        parent=parents[0] if parents else None,
        children=children,
        terms=others,
        terms_label="Also",
        definition=record.scope,
        facts=facts,
    )


def _from_xml(path: Path) -> Iterator[MeshRecord | Problem]:
    for element in stream_records(path, _RECORDS, roots=_ROOTS):
        is_supplementary = element.tag == "SupplementalRecord"
        prefix = "Supplemental" if is_supplementary else "Descriptor"
        record = MeshRecord(f"{path.name}:{element.sourceline}")
        record.ui = clean(element.findtext(f"{prefix}{'Record' if is_supplementary else ''}UI") or "")
        record.name = clean(
            element.findtext(f"{prefix}{'Record' if is_supplementary else ''}Name/String") or ""
        )
        if is_supplementary:
            record.kind = "supplementary"
            record.supplementary_class = _SUPPLEMENTARY.get(element.get("SCRClass", ""), "")
            record.scope = clean(element.findtext("Note") or "")
            record.mapped_to = [
                clean(ui.text or "").lstrip("*")
                for ui in element.findall(
                    "HeadingMappedToList/HeadingMappedTo/DescriptorReferredTo/DescriptorUI"
                )
            ]
        else:
            record.kind = _CLASSES.get(element.get("DescriptorClass", ""), "descriptor")
            record.trees = [clean(n.text) for n in element.findall("TreeNumberList/TreeNumber") if n.text]
        _read_concepts(element, record)
        yield record


def _read_concepts(element: Any, record: MeshRecord) -> None:
    preferred = element.find("ConceptList/Concept[@PreferredConceptYN='Y']")
    preferred_ui = (preferred.findtext("ConceptUI") or "") if preferred is not None else ""
    relations: dict[str, str] = {}
    for relation in element.iterfind("ConceptList/Concept/ConceptRelationList/ConceptRelation"):
        uis = {relation.findtext("Concept1UI") or "", relation.findtext("Concept2UI") or ""}
        for ui in uis - {preferred_ui}:
            relations.setdefault(ui, _RELATIONS.get(relation.get("RelationName", ""), "related"))
    names: dict[str, list[str]] = {}
    for concept in element.iterfind("ConceptList/Concept"):
        ui = concept.findtext("ConceptUI") or ""
        if concept is preferred and not record.scope:
            record.scope = clean(concept.findtext("ScopeNote") or "")
        for term in concept.iterfind("TermList/Term"):
            if not (text := clean(term.findtext("String") or "")):
                continue
            if term.get("IsPermutedTermYN") == "Y":
                kind = "permuted"
            elif term.get("RecordPreferredTermYN") == "Y":
                kind = "preferred"
            else:
                kind = "entry" if concept is preferred else relations.get(ui, "related")
            names.setdefault(kind, []).append(text)
    record.names = {kind: distinct(terms) for kind, terms in names.items()}


def _from_ascii(path: Path) -> Iterator[MeshRecord | Problem]:
    """Yield the records of a ``.bin`` file: lines ``FIELD = value``, ``*NEWRECORD`` before each record."""
    fields: dict[str, list[str]] = {}
    begun = count = 0
    for number, text, problem in text_lines(path):
        if problem:
            yield Problem(f"{path.name}:{number}", problem)
        elif text.strip() == "*NEWRECORD":
            if begun:
                yield _ascii_record(fields, f"{path.name}:{begun}")
            fields, begun, count = {}, number, 0
        elif text.strip():
            key, equals, value = text.partition(" = ")
            count += 1
            if not begun or not equals:
                yield Problem(
                    f"{path.name}:{number}", "no line of a MeSH record: expected *NEWRECORD, or FIELD = value"
                )
            elif count > _MAX_FIELDS:
                raise CorpusError(
                    f"{path.name}:{number}: more than {_MAX_FIELDS:,} fields in one record; refused"
                )
            else:
                fields.setdefault(key.strip(), []).append(clean(value))
    if begun:
        yield _ascii_record(fields, f"{path.name}:{begun}")


def _ascii_record(fields: Mapping[str, list[str]], where: str) -> MeshRecord:
    def first(key: str) -> str:
        return fields.get(key, [""])[0]

    is_supplementary = "NM" in fields
    record = MeshRecord(where, ui=first("UI"), name=first("NM") or first("MH"))
    if is_supplementary:
        record.kind, record.scope = "supplementary", first("NO")
        record.supplementary_class = _SUPPLEMENTARY.get(first("NM_CLASS"), "")
        # The headings that it is mapped to stand there by name ("*Piperidines"), not by identifier.
    else:
        record.kind = _CLASSES.get(first("DC"), "descriptor")
        record.scope, record.trees = first("MS"), fields.get("MN", [])
    names: dict[str, list[str]] = {"preferred": [record.name] if record.name else []}
    for value in itertools.chain.from_iterable(fields.get(key, ()) for key in ("PRINT ENTRY", "ENTRY", "SY")):
        parts = value.split("|")
        # The last part tells what the others are: a is the term, d its relation to the heading.
        place = parts[-1].find("d") if len(parts) > 1 else -1
        relation = parts[place] if 0 < place < len(parts) - 1 else ""
        names.setdefault(_RELATIONS.get(relation, "entry"), []).append(parts[0].strip())
    record.names = {kind: terms for kind, found in names.items() if (terms := distinct(found))}
    return record
