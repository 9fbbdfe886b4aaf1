"""JSON looked over in blocks: against a machine that reads one character after the other."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmbert_retrieval.corpora import json_blocks as module
from cmbert_retrieval.corpora.files import UnusableError
from cmbert_retrieval.corpora.json_blocks import MAX_NESTING, NestingCheck, json_blocks

LONGEST = 1000


def checked(data: bytes) -> NestingCheck:
    check = NestingCheck()
    for block in json_blocks(io.BytesIO(data), longest=LONGEST):
        check.check(block)
    return check


def deepest(data: str) -> int:
    """Return how many brackets are open at once; a line's end closes a text, but no bracket."""
    found = depth = place = 0
    in_text = False
    while place < len(data):
        character = data[place]
        if character == "\\" and data[place + 1 : place + 2] in ("\\", '"'):
            place += 1
        elif character in "\n\r":
            in_text = False
        elif character == '"':
            in_text = not in_text
        elif not in_text:
            depth = max(0, depth + (character in "[{") - (character in "]}"))
            found = max(found, depth)
        place += 1
    return found


@given(st.text('[[[{{]}"\\\na', max_size=80), st.integers(1, 20), st.integers(0, 8))
def test_too_deep_is_what_a_machine_of_single_characters_finds_too_deep(
    data: str, block_bytes: int, limit: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_BYTES", block_bytes)
        patch.setattr(module, "MAX_NESTING", limit)
        if deepest(data) > limit:
            with pytest.raises(UnusableError, match=f"nested too deeply: more than {limit} brackets"):
                checked(data.encode())
        else:
            checked(data.encode())


@given(st.binary(max_size=300), st.integers(1, 50))
def test_blocks_are_the_data_and_end_behind_a_quotation_mark(data: bytes, block_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_BYTES", block_bytes)
        blocks = list(json_blocks(io.BytesIO(data), longest=LONGEST))
    assert b"".join(blocks) == data
    assert all(block.endswith(b'"') for block in blocks[:-1])


def test_brackets_in_texts_are_no_nesting() -> None:
    checked(json.dumps(["[" * 10 * MAX_NESTING, '"' + "{" * 10 * MAX_NESTING]).encode())


def test_as_deep_as_allowed_is_allowed() -> None:
    checked(b"[" * MAX_NESTING + b"]" * MAX_NESTING)
    with pytest.raises(UnusableError, match="nested too deeply"):
        checked(b"[" * (MAX_NESTING + 1))


def test_a_text_of_any_length_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", 10)
    checked(b'"' + b"a" * (LONGEST - 10) + b'"')
    with pytest.raises(UnusableError, match="more than 1,000 bytes without a quotation mark"):
        checked(b'"' + b"a" * (LONGEST + 20) + b'"')


def test_a_value_in_several_lines_is_told_from_json_lines() -> None:
    assert not checked(b'{"a": ["\\n"]}\n{"b": 1}\n').goes_over_lines
    assert checked(b'{"a":\n[1]}').goes_over_lines
    assert checked(b'[\n{"a": 1},\n{"a": 2}\n]').goes_over_lines
