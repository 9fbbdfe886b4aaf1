from __future__ import annotations

import pytest

from cmbert_retrieval.corpora.licenses import normalize_license


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CC BY", "CC BY"),
        ("CC-BY", "CC BY"),
        ("cc by 4.0", "CC BY"),
        ("CC BY-NC-ND", "CC BY-NC-ND"),
        ("CC-BY-SA-3.0", "CC BY-SA"),
        ("CC BY NC", "CC BY-NC"),
        ("CC0", "CC0"),
        ("CC0 1.0", "CC0"),
        ("cc-zero", "CC0"),
        ("http://creativecommons.org/licenses/by/2.0", "CC BY"),
        ("https://creativecommons.org/licenses/by-nc-sa/4.0/", "CC BY-NC-SA"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0"),
        ("distributed under the Creative Commons Attribution License, which permits", "CC BY"),
        ("Creative Commons Attribution-NonCommercial 4.0 International", "CC BY-NC"),
        ("the Creative Commons CC0 public domain dedication", "CC0"),
        ("Creative Commons License Deed CC BY NC ND 4.0", "CC BY-NC-ND"),
        ("Creative Commons CC-BY-NC 3.0", "CC BY-NC"),
        ("licensed under a CreativeCommons Attribution License", "CC BY"),
        ("under the CC BY-NC 4.0 licence", "CC BY-NC"),
        ("All rights reserved.", "other"),
        ("NO-CC CODE", "other"),
        ("", ""),
        ("  ", ""),
    ],
)
def test_one_licence_has_one_name(name: str, expected: str) -> None:
    assert normalize_license(name) == expected
