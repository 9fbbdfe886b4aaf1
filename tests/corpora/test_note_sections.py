from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from cmbert_retrieval.corpora.note_sections import MAX_SECTIONS, note_sections

DISCHARGE = """ \nName:  ___                     Unit No:   ___
 \nDate of Birth:  ___             Sex:   F
 \nService: MEDICINE
 \nAllergies: \nNo Known Allergies / Adverse Drug Reactions
 \nChief Complaint:
Worsening dyspnea
 \nHistory of Present Illness:
___ with asthma who was started on the following:
prednisone. BP: 120/80 on arrival.
WBC: 12
 \nPhysical Exam:
VITALS: T 37.1, HR 80
GENERAL: Pleasant, in no distress
HEENT: Normocephalic
LABS:
GLUCOSE: 120
 \nDischarge Disposition:
Home
"""


def paths(text: str) -> list[tuple[str, ...]]:
    return [section.path for section in note_sections(text)]


def test_the_sections_of_a_discharge_summary_are_found_and_its_form_fields_and_values_are_not() -> None:
    assert paths(DISCHARGE) == [
        ("Allergies",),
        ("Chief Complaint",),
        ("History of Present Illness",),
        ("Physical Exam",),
        ("Physical Exam", "VITALS"),
        ("Physical Exam", "GENERAL"),
        ("Physical Exam", "HEENT"),
        ("LABS",),
        ("Discharge Disposition",),
    ]


def test_a_section_goes_from_its_heading_to_the_last_word_before_the_next() -> None:
    texts = {section.path[-1]: DISCHARGE[section.start : section.end] for section in note_sections(DISCHARGE)}
    assert texts["Chief Complaint"] == "Chief Complaint:\nWorsening dyspnea"
    assert texts["HEENT"] == "HEENT: Normocephalic"
    assert texts["LABS"] == "LABS:\nGLUCOSE: 120"
    assert texts["Discharge Disposition"] == "Discharge Disposition:\nHome"


def test_headings_of_a_radiology_report_may_stand_alone_in_capitals_or_before_text() -> None:
    report = (
        "EXAMINATION:  CHEST (PA AND LAT)\n\nINDICATION:  ___ with cough\n\n"
        "FINDINGS:\n\nClear.\n\nIMPRESSION\nNone."
    )
    assert paths(report) == [("EXAMINATION",), ("INDICATION",), ("FINDINGS",), ("IMPRESSION",)]


def test_a_heading_of_capitals_that_is_no_part_of_the_section_above_has_a_path_of_its_own() -> None:
    assert paths("ALLERGIES: None.\nOPERATIVE TECHNIQUE IN DETAIL: The patient\nDRAINS: One.") == [
        ("ALLERGIES",),
        ("OPERATIVE TECHNIQUE IN DETAIL",),
        ("DRAINS",),
    ]


def test_lines_that_only_look_like_headings_are_none() -> None:
    text = (
        "The patient was discharged on:\naspirin\nPlease call if: fever\n12:30 seen\nBP: 120/80\n"
        "SODIUM: 140\nNOT A KNOWN NAME\nhttp://x\n1. Chest Pain: better\nDr. Who: seen\n"
    )
    assert paths(text) == []


def test_windows_line_ends_make_no_difference() -> None:
    text = "Chief Complaint:\r\nCough\r\n\r\nPLAN:\r\nRest\r\n"
    assert [(s.path, text[s.start : s.end]) for s in note_sections(text)] == [
        (("Chief Complaint",), "Chief Complaint:\r\nCough"),
        (("PLAN",), "PLAN:\r\nRest"),
    ]


@given(st.lists(st.sampled_from(["PLAN:", "HEENT: ok", "Exam:", "text", "", "  ", "FINDINGS", "\u2028"])))
def test_sections_are_in_order_do_not_overlap_and_leave_no_word_behind_the_first_heading(
    lines: list[str],
) -> None:
    text = "\n".join(lines)
    sections = note_sections(text)
    place = sections[0].start if sections else len(text)
    for section in sections:
        assert text[place : section.start].strip() == ""
        assert section.start < section.end
        place = section.end
    assert text[place:].strip() == ""


def test_a_text_of_headings_alone_or_of_white_space_takes_no_time_and_has_no_more_than_the_bound() -> None:
    started = time.perf_counter()
    assert len(note_sections("PLAN:\n" * 100_000)) == MAX_SECTIONS
    for text in (" " * 1_000_000, "\n" * 1_000_000, "A" * 1_000_000, ("A" * 59 + "\n") * 20_000):
        assert note_sections(text) == ()
    assert time.perf_counter() - started < 5
