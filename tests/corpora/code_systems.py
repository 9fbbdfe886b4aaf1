"""Small files in the layouts of the publishers of code systems, written for the tests."""

from __future__ import annotations


def hcpcs_line(code: str, record: str, long: str, short: str = "", **fields: str) -> str:
    """Return a line of 320 columns; modifiers are given with two characters."""
    line = f"{code:>5}00100{record}{long:<80}{short:<28}".ljust(320)
    places = {"added": 268, "effective": 276, "terminated": 284, "action": 292}
    for name, value in fields.items():
        line = line[: places[name]] + value + line[places[name] + len(value) :]
    return line


HCPCS = "\r\n".join(
    [
        "***Disclaimers\t\t",
        "*Inclusion of a gnome does not imply coverage of any gnome.",
        "",
        hcpcs_line("G1", "7", "Left boot", "Left boot", added="20200101", action="N"),
        hcpcs_line("G2", "7", "Right boot, as seen from the pond, or from the rake which leans against"),
        hcpcs_line("G2", "8", "the shed"),
        hcpcs_line(
            "A0001", "3", "Garden gnome, ceramic, with hat (medium),", "Gnome w hat", effective="20210401"
        ),
        hcpcs_line("A0001", "4", "each", ""),
        hcpcs_line("A0002", "3", "Café table for gnomes", "Cafe table", terminated="20301231", action="D"),
        hcpcs_line("A0003", "3", "Cafe chair for gnomes", "Cafe chair", terminated="20201231", action="D"),
    ]
)

ORDER_PCS = "\r\n".join(
    [
        f"00001 {'0G1':<7} 0 {'Gnome, Bypass':<60} Gnome, Bypass",
        f"00002 {'0G10AZZ':<7} 1 {'Bypass Gnome Hat, Open':<60} Bypass Gnome Hat, Open Approach",
        f"00003 {'0G13AZZ':<7} 1 {'Bypass Gnome Hat, Perc':<60} Bypass Gnome Hat, Percutaneous Approach",
        f"00004 {'XG2':<7} 0 {'Gnome, Monitoring':<60} Gnome, Monitoring",
        f"00005 {'XG20X9Z':<7} 1 {'Monitor Gnome, Extern':<60} Monitoring of Gnome, External Approach",
    ]
)

ORDER_CM = "\n".join(
    f"{number:05} {code:<7} {flag} {title[:60]:<60} {title}"
    for number, (code, flag, title) in enumerate(
        [
            ("G00", 0, "Crack of gnome"),
            ("G000", 1, "Crack of hat, unspecified"),
            ("G001", 0, "Crack of boot"),
            ("G00101", 0, "Crack of left boot"),
            ("G00101A", 1, "Crack of left boot, initial encounter"),
            ("G00101S", 1, "Crack of left boot, sequela"),
            ("G00102", 1, "Crack of right boot"),
            ("G07", 0, "Unspecified crack"),
            ("G07XXXA", 1, "Unspecified crack, initial encounter"),
            ("G09", 1, "Chip of gnome"),
        ],
        start=1,
    )
)

ICD9_DX = """0010  Cracked hat
0011  Chip of hat, unspecified
042   Gnome fever
E0000 Fell off the roof
V010  Contact with gnomes
99999 Fall of gnome
"""
ICD9_SG = "0010 Gluing of hat\n605  Polishing of boot\n9999 Other gnome procedure\n"
GEM = "\r\n".join(
    [
        "0010  G000    00000",
        "0011  G00101A 10112",
        "0011  G00102  10111",
        "042   NoDx    11000",
        "77777 G09     00000",
    ]
)

MESH = """<?xml version="1.0"?>
<!DOCTYPE DescriptorRecordSet SYSTEM "https://example.org/dtd/nlmdescriptorrecordset_20260101.dtd">
<DescriptorRecordSet LanguageCode="eng">
<DescriptorRecord DescriptorClass="1">
  <DescriptorUI>D900001</DescriptorUI>
  <DescriptorName><String>Gnomes</String></DescriptorName>
  <TreeNumberList><TreeNumber>B01.100</TreeNumber></TreeNumberList>
  <ConceptList>
    <Concept PreferredConceptYN="Y"><ConceptUI>M1</ConceptUI>
      <ConceptName><String>Gnomes</String></ConceptName>
      <ScopeNote>Small figures   that stand in GARDENS &amp; ponds.
      </ScopeNote>
      <ConceptRelationList><ConceptRelation RelationName="NRW"><Concept1UI>M1</Concept1UI>
        <Concept2UI>M2</Concept2UI></ConceptRelation></ConceptRelationList>
      <TermList>
        <Term ConceptPreferredTermYN="Y" IsPermutedTermYN="N" LexicalTag="NON" RecordPreferredTermYN="Y">
          <TermUI>T1</TermUI><String>Gnomes</String></Term>
        <Term ConceptPreferredTermYN="N" IsPermutedTermYN="N" LexicalTag="NON" RecordPreferredTermYN="N">
          <TermUI>T2</TermUI><String>Garden Dwarfs</String></Term>
        <Term ConceptPreferredTermYN="N" IsPermutedTermYN="Y" LexicalTag="NON" RecordPreferredTermYN="N">
          <TermUI>T2</TermUI><String>Dwarfs, Garden</String></Term>
      </TermList>
    </Concept>
    <Concept PreferredConceptYN="N"><ConceptUI>M2</ConceptUI>
      <ConceptName><String>Fishing Gnomes</String></ConceptName>
      <TermList><Term ConceptPreferredTermYN="Y" IsPermutedTermYN="N" RecordPreferredTermYN="N">
        <TermUI>T3</TermUI><String>Fishing Gnomes</String></Term></TermList>
    </Concept>
  </ConceptList>
</DescriptorRecord>
<DescriptorRecord DescriptorClass="4">
  <DescriptorUI>D900002</DescriptorUI>
  <DescriptorName><String>Garden Gnomes</String></DescriptorName>
  <TreeNumberList><TreeNumber>B01.100.200</TreeNumber><TreeNumber>Z01.700</TreeNumber></TreeNumberList>
  <ConceptList><Concept PreferredConceptYN="Y"><ConceptUI>M3</ConceptUI>
    <TermList>
      <Term IsPermutedTermYN="N" RecordPreferredTermYN="Y"><String>Garden Gnomes</String></Term>
    </TermList>
  </Concept></ConceptList>
</DescriptorRecord>
</DescriptorRecordSet>
"""

MESH_SUPPLEMENT = """<?xml version="1.0"?>
<SupplementalRecordSet LanguageCode="eng">
<SupplementalRecord SCRClass="1">
  <SupplementalRecordUI>C900001</SupplementalRecordUI>
  <SupplementalRecordName><String>gnomic acid</String></SupplementalRecordName>
  <Note>found in ponds</Note>
  <HeadingMappedToList><HeadingMappedTo><DescriptorReferredTo><DescriptorUI>*D900001</DescriptorUI>
    </DescriptorReferredTo></HeadingMappedTo></HeadingMappedToList>
  <ConceptList><Concept PreferredConceptYN="Y"><ConceptUI>M9</ConceptUI><TermList>
    <Term IsPermutedTermYN="N" RecordPreferredTermYN="Y"><String>gnomic acid</String></Term>
    <Term IsPermutedTermYN="N" RecordPreferredTermYN="N"><String>gnomate</String></Term>
  </TermList></Concept></ConceptList>
</SupplementalRecord>
</SupplementalRecordSet>
"""

MESH_ASCII = """*NEWRECORD
RECTYPE = D
MH = Gnomes
PRINT ENTRY = Garden Dwarfs|T109|NON|EQV|NLM (2026)|260101|abcdef
ENTRY = Fishing Gnomes|T109|NON|NRW|NLM (2026)|260101|abcdef
MN = B01.100
MS = Small figures that stand in GARDENS & ponds.
DC = 1
UI = D900001

*NEWRECORD
RECTYPE = D
MH = Garden Gnomes
MN = B01.100.200
MN = Z01.700
DC = 4
UI = D900002
"""

OBO = r"""format-version: 1.4
data-version: gno/releases/2026-01-31/gno.obo
ontology: gno
property_value: terms:license https://example.org/license xsd:anyURI
property_value: owl:versionInfo "2026-01-31" xsd:string
remark: a header may say ! much

! a comment between stanzas
[Term]
id: GNO:0000001
name: gnome {source="GNO:1"} ! the root of all
def: "A \"small\" figure\, with a hat \(red\).\nIt stands." [url:http\://x.org "a [b]"] {a="b"}
comment: none
synonym: "garden dwarf" EXACT layperson [GNO:1]
synonym: "little fellow" RELATED []
synonym: "gnomus, \"verus\"" EXACT [] {comment="a \"quote\""}
synonym: "troll" BROAD [GNO:2, GNO:3]
synonym: "without a scope" []
narrow_synonym: "hat-gnome" []
xref: MESH:D900001 "Gnomes"
xref: UMLS:C1 {source="x"}
subset: garden ! the garden slim
alt_id: GNO:0000009
is_a: GNO:0000001 ! itself

[Term]
id: GNO:0000002
name: fishing gnome
is_a: GNO:0000001 {is_inferred="true", comment="no ! at all"} ! gnome
is_a: GNO:0000003 ! gnome with a rod

[Term]
id: GNO:0000003
name: gnome with a rod {3}
def: "One line that \
goes on." []
is_a: GNO:0000002 ! fishing gnome

[Term]
id: GNO:0000004
name: obsolete gnome
is_obsolete: true
replaced_by: GNO:0000001

[Term]
id: POND:0000001
name: pond
is_a: POND:0000000

[Term]
id: POND:0000000

[Typedef]
id: part_of
name: part of

[Instance]
id: GNO:i
name: Fritz
"""

OBOGRAPHS = {
    "graphs": [
        {
            "id": "http://purl.obolibrary.org/obo/gno.owl",
            "meta": {
                "basicPropertyValues": [
                    {"pred": "http://www.w3.org/2002/07/owl#versionInfo", "val": "2026-01-31"},
                    {"pred": "http://purl.org/dc/terms/license", "val": "https://example.org/license"},
                ],
                "version": "http://purl.obolibrary.org/obo/gno/releases/2026-01-31/gno.owl",
            },
            "nodes": [
                {
                    "id": "http://purl.obolibrary.org/obo/GNO_0000001",
                    "lbl": "gnome",
                    "type": "CLASS",
                    "meta": {
                        "definition": {"val": 'A "small" figure, with a hat (red).\nIt stands.'},
                        "subsets": ["http://purl.obolibrary.org/obo/gno#garden"],
                        "synonyms": [
                            {
                                "pred": "hasExactSynonym",
                                "val": "garden dwarf",
                                "synonymType": "http://purl.obolibrary.org/obo/gno#layperson",
                            },
                            {"pred": "hasRelatedSynonym", "val": "little fellow"},
                            {"pred": "hasExactSynonym", "val": 'gnomus, "verus"'},
                            {"pred": "hasBroadSynonym", "val": "troll"},
                            {"pred": "hasRelatedSynonym", "val": "without a scope"},
                            {"pred": "hasNarrowSynonym", "val": "hat-gnome"},
                        ],
                        "xrefs": [{"val": "MESH:D900001"}, {"val": "UMLS:C1"}],
                        "basicPropertyValues": [
                            {
                                "pred": "http://www.geneontology.org/formats/oboInOwl#hasAlternativeId",
                                "val": "GNO:0000009",
                            }
                        ],
                    },
                },
                {"id": "http://purl.obolibrary.org/obo/GNO_0000002", "lbl": "fishing gnome", "type": "CLASS"},
                {
                    "id": "http://purl.obolibrary.org/obo/GNO_0000003",
                    "lbl": "gnome with a rod {3}",
                    "type": "CLASS",
                    "meta": {"definition": {"val": "One line that goes on."}},
                },
                {
                    "id": "http://purl.obolibrary.org/obo/GNO_0000004",
                    "lbl": "obsolete gnome",
                    "type": "CLASS",
                    "meta": {
                        "deprecated": True,
                        "basicPropertyValues": [
                            {
                                "pred": "http://purl.obolibrary.org/obo/IAO_0100001",
                                "val": "http://purl.obolibrary.org/obo/GNO_0000001",
                            }
                        ],
                    },
                },
                {"id": "http://purl.obolibrary.org/obo/POND_0000001", "lbl": "pond", "type": "CLASS"},
                {"id": "http://purl.obolibrary.org/obo/POND_0000000", "type": "CLASS"},
                {"id": "http://purl.obolibrary.org/obo/gno#part_of", "lbl": "part of", "type": "PROPERTY"},
            ],
            "edges": [
                {
                    "sub": f"http://purl.obolibrary.org/obo/{child}",
                    "pred": pred,
                    "obj": f"http://purl.obolibrary.org/obo/{parent}",
                }
                for child, pred, parent in [
                    ("GNO_0000001", "is_a", "GNO_0000001"),
                    ("GNO_0000002", "is_a", "GNO_0000001"),
                    ("GNO_0000002", "is_a", "GNO_0000003"),
                    ("GNO_0000003", "is_a", "GNO_0000002"),
                    ("GNO_0000003", "part_of", "GNO_0000001"),
                    ("POND_0000001", "is_a", "POND_0000000"),
                ]
            ],
        }
    ]
}

INDEX = """<?xml version="1.0" encoding="utf-8"?>
<ICD10CM.index>
  <version>2031</version>
  <title>ICD-10-CM INDEX of gnomes</title>
  <letter><title>C</title>
    <mainTerm><title>Crack, cracked<nemod>(acute) (of gnome)</nemod> NEC</title><code>G00.9</code>
      <term level="1"><title>scalp</title><code>G00.1</code>
        <term level="2"><title>with</title>
          <term level="3"><title>glue<nemod>(dry)</nemod></title><code>G00.2</code>
            <manif>[H00.1]</manif></term>
          <term level="3"><title>paint</title><seeAlso>Paint, of gnome</seeAlso>
            <code>G00.3-</code></term>
        </term>
      </term>
      <term level="1"><title>boot</title><see>Chip, boot</see></term>
      <term level="1"><title>hat</title><subcat>G07.0</subcat></term>
      <term level="1"><title>pond</title><code>--</code></term>
    </mainTerm>
  </letter>
  <letter><title>P</title><mainTerm><title>Pond fever</title><code>G00.1</code></mainTerm></letter>
</ICD10CM.index>
"""

NEOPLASM_TABLE = """<?xml version="1.0" encoding="utf-8"?>
<ICD10CM.index>
  <version>2031</version>
  <indexHeading>
    <head col="1">Neoplasm</head><head col="2">Malignant Primary</head>
    <head col="3">Ca in situ</head></indexHeading>
  <letter><title>N</title>
    <mainTerm><title>Neoplasm, neoplastic</title><cell col="2">C80.1</cell><cell col="3">D09.9</cell>
      <term level="1"><title>abdomen, abdominal</title><cell col="2">C76.2</cell><cell col="3">-</cell>
        <term level="2"><title>wall</title><cell col="2">C44.50-</cell><cell col="3">D04.5</cell></term>
      </term>
    </mainTerm>
  </letter>
</ICD10CM.index>
"""
