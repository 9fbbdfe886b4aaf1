from __future__ import annotations

import pytest
from lxml import etree

from cmbert_retrieval.corpora.formulas import mathml_text, tex_text


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        ("<mfrac><mi>a</mi><mi>b</mi></mfrac>", "a/b"),
        ("<mfrac><mrow><mi>a</mi><mo>+</mo><mi>b</mi></mrow><mi>c</mi></mfrac>", "(a + b)/c"),
        ("<msub><mi>x</mi><mi>i</mi></msub>", "x_i"),
        ("<msup><mi>x</mi><mrow><mi>n</mi><mo>-</mo><mn>1</mn></mrow></msup>", "x^(n-1)"),
        ("<msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup>", "x_i^2"),
        ("<munderover><mo>∑</mo><mi>i</mi><mi>n</mi></munderover>", "∑_i^n"),
        ("<msqrt><mi>n</mi></msqrt>", "sqrt(n)"),
        ("<mroot><mi>n</mi><mn>3</mn></mroot>", "root(n, 3)"),
        ("<mfenced><mi>a</mi><mi>b</mi></mfenced>", "(a, b)"),
        ("<mrow><mi>f</mi><mo>\u2061</mo><mi>x</mi></mrow>", "fx"),
        ("<mrow><mi>p</mi><mo>&lt;</mo><mn>0.05</mn></mrow>", "p < 0.05"),
        ("<semantics><mi>a</mi><annotation>latex</annotation></semantics>", "a"),
        ("<mtable><mtr><mtd>1</mtd><mtd>2</mtd></mtr><mtr><mtd>3</mtd></mtr></mtable>", "1, 2; 3"),
        ("<mmultiscripts><mi>U</mi><mprescripts/><none/><mn>238</mn></mmultiscripts>", "U_238"),
    ],
)  # fmt: skip
def test_mathml_becomes_one_readable_line(xml: str, expected: str) -> None:
    element = etree.fromstring(f'<math xmlns="http://www.w3.org/1998/Math/MathML">{xml}</math>')
    assert mathml_text(element) == expected


@pytest.mark.parametrize(
    ("tex", "expected"),
    [
        (r"\documentclass[12pt]{minimal}\usepackage{amsmath}\begin{document}$$\alpha$$\end{document}", "α"),
        (r"$\frac{a}{b}$", "a/b"),
        (r"\frac{\mathrm{dose}}{\sqrt{n}}", "dose/(sqrt(n))"),
        (r"\frac{\frac{a}{b}}{c}", "(a/b)/c"),
        (r"x_{i} \leq 5\%", "x_i ≤ 5%"),
        (r"\begin{array}{ll} a & b \\ c & d \end{array}", "a b ; c d"),
        (r"\text{mean}\pm \text{SD}", "mean ± SD"),
        ("", ""),
        (r"\frac{a}{", r"frac a"),
    ],
)
def test_tex_becomes_one_readable_line(tex: str, expected: str) -> None:
    assert " ".join(tex_text(tex).split()) == expected


def test_a_megabyte_of_braces_takes_no_time() -> None:
    tex_text("{" * 500_000 + "}" * 500_000)
    tex_text(r"\frac{a}{" * 50_000)
