"""Formulas as a line of readable text: ``(a+b)/c``, ``x_i^2``, ``sqrt(n)``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lxml import etree

_SPACED = frozenset("= < > ≤ ≥ ≠ ≈ ≅ ∼ ~ + − × · ± ∈ → ← ↔ ∝ ≡ ≪ ≫ ⋅".split())
_FUNCTIONS = frozenset("log ln lg exp sin cos tan max min arg lim for and or if".split())
_DOCUMENT = re.compile(r"\\begin\{document\}(.*?)(?:\\end\{document\}|\Z)", re.DOTALL)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_ROOT = re.compile(r"\\sqrt\s*\{([^{}]*)\}")
_WRAPPER = re.compile(
    r"\\(?:text|mathrm|mathit|mathbf|mathsf|mathcal|mathbb|boldsymbol|operatorname|mbox|hbox|rm|it|bf|bar|hat|tilde|"
    r"overline|underline|vec|widehat|left|right|big|Big|bigg|Bigg|limits|displaystyle|textstyle|nolimits)(?![a-zA-Z])\*?"
)
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[^{}]*\}(?:\{[lcr|@{}\s]*\})?")
_SYMBOLS = {
    "times": "×", "cdot": "·", "pm": "±", "leq": "≤", "le": "≤", "geq": "≥", "ge": "≥", "neq": "≠", "ne": "≠",
    "approx": "≈", "sim": "~", "infty": "∞", "rightarrow": "→", "to": "→", "leftarrow": "←", "in": "∈",
    "partial": "∂", "degree": "°", "circ": "°", "ldots": "...", "cdots": "...", "dots": "...", "prime": "'",
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "varepsilon": "ε", "zeta": "ζ",
    "eta": "η", "theta": "θ", "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π",
    "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ", "varphi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω",
    "Gamma": "Γ", "Delta": "Δ", "Theta": "Θ", "Lambda": "Λ", "Pi": "Π", "Sigma": "Σ", "Phi": "Φ", "Psi": "Ψ",
    "Omega": "Ω", "sum": "∑", "prod": "∏", "int": "∫", "quad": " ", "qquad": " ", "upmu": "μ",
}  # fmt: skip


def mathml_text(element: etree._Element) -> str:
    """Return a MathML element as one line of text. Annotations and alternatives within it are left out."""
    tag = element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
    kids = [kid for kid in element if isinstance(kid.tag, str)]
    if tag in ("mi", "mn", "mtext", "ms", "mo"):
        raw = "".join(map(str, element.itertext()))
        text = " ".join(raw.split())
        # Invisible operators (times, function application, separator) are for layout only.
        text = text.strip("\u2061\u2062\u2063\u2064")
        apart = tag == "mtext" and (" " in text or raw != raw.strip())
        apart |= (tag == "mo" and text in _SPACED) or (tag in ("mi", "mo") and text in _FUNCTIONS)
        return f" {text} " if apart else text
    if tag in (
        "mphantom",
        "mprescripts",
        "none",
        "maligngroup",
        "malignmark",
        "annotation",
        "annotation-xml",
    ):
        return ""
    if tag == "mspace":
        return " "
    if tag == "semantics" or tag == "maction":
        return mathml_text(kids[0]) if kids else ""
    if tag == "mtr" or tag == "mlabeledtr":
        return ", ".join(filter(None, (mathml_text(kid).strip() for kid in kids)))
    if tag == "mtable":
        return "; ".join(filter(None, (mathml_text(kid).strip() for kid in kids)))
    if tag == "mfenced":
        separator = (element.get("separators") or ",").strip()[:1]
        inside = f"{separator} ".join(mathml_text(kid).strip() for kid in kids)
        return f"{element.get('open', '(')}{inside}{element.get('close', ')')}"
    if tag == "msqrt":
        return f"sqrt({''.join(map(mathml_text, kids)).strip()})"
    parts = [mathml_text(kid) for kid in kids]
    if tag == "mfrac" and len(parts) == 2:
        return f"{_group(parts[0])}/{_group(parts[1])}"
    if tag == "mroot" and len(parts) == 2:
        return f"root({parts[0].strip()}, {parts[1].strip()})"
    if tag in ("msub", "munder") and len(parts) == 2:
        return f"{parts[0]}_{_group(parts[1])}"
    if tag == "msup" and len(parts) == 2:
        return f"{parts[0]}^{_group(parts[1])}"
    if tag in ("msubsup", "munderover") and len(parts) == 3:
        return f"{parts[0]}_{_group(parts[1])}^{_group(parts[2])}"
    if tag == "mmultiscripts" and parts:
        scripts = "^".join(_group(part) for part in parts[1:] if part.strip())
        return f"{parts[0]}_{scripts}" if scripts else parts[0]
    return (element.text or "").strip() + "".join(parts)


def tex_text(source: str) -> str:
    r"""Return a TeX formula as one line of text, without preamble, environments, braces and font commands."""
    if found := _DOCUMENT.search(source):
        source = found[1]
    source = _ENVIRONMENT.sub(" ", source).replace("$", " ").replace("&", " ").replace("~", " ")
    source = source.replace("\\\\", " ; ").replace("\\%", "%")
    source = re.sub(r"\\[,;:! ]|\\[()\[\]]", " ", source)
    source = _WRAPPER.sub(" ", source)
    for _ in range(8):  # from the innermost fraction outwards
        # Braces around a single group would hide a fraction from the pattern, so they go first.
        source = re.sub(r"(?<![_^\\a-zA-Z}])\{([^{}\\]*)\}(?!\s*\{)", r"\1", source)
        changed = _ROOT.sub(r"sqrt(\1)", _FRACTION.sub(lambda m: f"{_group(m[1])}/{_group(m[2])}", source))
        if changed == source:
            break
        source = changed
    source = re.sub(r"\\([a-zA-Z]+)", lambda m: _symbol(m[1]), source)
    return " ".join(re.sub(r"[{}\\]", "", source).split())


def _symbol(name: str) -> str:
    symbol = _SYMBOLS.get(name, f" {name} ")
    return f" {symbol} " if symbol in _SPACED else symbol


def _group(text: str) -> str:
    text = text.strip()
    return text if re.fullmatch(r"[\w.'∞%]*", text) else f"({text})"
