"""What an ontology's file says of a term, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass, field

SCOPES = ("exact", "narrow", "broad", "related")


@dataclass(slots=True)
class OntologyHeader:
    """What a file says of itself.

    Attributes:
        name: the ontology's name or address.
        release: its version.
        license: under which it may be used.
    """

    name: str = ""
    release: str = ""
    license: str = ""


@dataclass(slots=True)
class OntologyTerm:
    """One term.

    Attributes:
        where: file and line, or file and node.
        id: as a CURIE: ``HP:0000001``.
        name: its label.
        definition: what it means.
        parents: the terms of which it is a kind.
        synonyms: ``exact``, ``narrow``, ``broad``, ``related`` -> texts.
        synonym_types: type of synonym (``layperson``, ``abbreviation``) -> texts.
        xrefs: the same or similar things elsewhere.
        alternative_ids: former ids, of terms that were merged into this.
        subsets: parts of the ontology that it belongs to.
        replaced_by: terms to use instead of an obsolete one.
        is_obsolete: whether it is not to be used any more.
    """

    where: str
    id: str = ""
    name: str = ""
    definition: str = ""
    parents: list[str] = field(default_factory=list)
    synonyms: dict[str, list[str]] = field(default_factory=dict)
    synonym_types: dict[str, list[str]] = field(default_factory=dict)
    xrefs: list[str] = field(default_factory=list)
    alternative_ids: list[str] = field(default_factory=list)
    subsets: list[str] = field(default_factory=list)
    replaced_by: list[str] = field(default_factory=list)
    is_obsolete: bool = False

    def add_synonym(self, text: str, scope: str, kind: str = "") -> None:
        """Add a synonym; one without text is none."""
        if text:
            self.synonyms.setdefault(scope, []).append(text)
            if kind:
                self.synonym_types.setdefault(kind, []).append(text)
