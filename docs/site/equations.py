"""Sets the equations of docstrings, which are plain text between double backticks, as mathematics.

A docstring says ``x_t = alpha * x_0 + sigma * eps``, which reads well in an editor. `latex` translates it word by word.
A text with a word that it does not know stays code.
"""

import re

from sphinx.application import Sphinx
from sphinx.ext.napoleon import GoogleDocstring

GREEK = ("alpha", "beta", "gamma", "sigma", "lambda", "mu", "phi", "tau", "pi", "eta", "theta")
TEXT = (
    "variance forward ratio scale offset start end difference slope class weight share known mask churn target det "
    "base prior floor world rank angle place position lower upper momentum gradient average decay weak strong "
    "other snr units data latent guide main value noise final hold factor loss posterior field low high largest "
    "variance_fraction step_size log_ratio coordinates "
)
WORDS = {
    **{name: rf"\{name}" for name in GREEK},
    **{name: rf"\{name}" for name in ("log", "exp", "cos", "sin", "min")},
    **{name: name for name in "abcdefghijklmnpqrstuvwxyzABCEIJKLMNPTXY"},
    **{name: rf"d{name[1:]}" for name in ("dx", "dy", "dt", "dw", "du", "dl", "ds", "dc")},
    **{
        name: rf"\mathrm{{{name}}}"
        for name in ("KL", "SNR", "std", "diag", "div", "score", "out", "net", "mean", "step")
    },
    **{name: rf"\text{{{name.replace('_', ' ')}}}" for name in TEXT.split()},
    **{f"weight_{x}": rf"\text{{weight}}_{{{x}}}" for x in ("x_0", "x_t")},
    "alpha_bar": r"\bar\alpha",
    "prior_std": r"\mathrm{std}_\mathrm{prior}",
    "log_snr": r"\log\mathrm{SNR}",
    "sigma_data": r"\sigma_\mathrm{data}",
    "eps": r"\varepsilon",
    "dphi": r"d\phi",
    "grad": r"\nabla",
    "atan": r"\arctan",
    "ln": r"\ln",
    "sum": r"\sum",
    "prod": r"\prod",
    "integral": r"\int",
    "of": r"\,",
}
SIGNS = {
    "*": r"\,",
    "~": r"\sim",
    "<-": r"\leftarrow",
    "<=": r"\le",
    "||": r"\,\Vert\,",
    "²": "^2",
    "³": "^3",
    "½": r"\frac{1}{2}",
    "·": r"\cdot",
    "∫": r"\int",
    "≈": r"\approx",
    "Δ": r"\Delta",
    "Σ": r"\sum",
    "'": "'",
    "{": "{",
    "}": "}",
    **{sign: sign for sign in "=+-/()[]|,.;^<"},
}
TOKEN = re.compile(r"\s*(?:(?P<word>[A-Za-z]+(?:_[A-Za-z0-9]+)*)|(?P<number>\d+(?:\.\d+)?)|(?P<sign><-|<=|\|\||_|\S))")
RELATIONS = re.compile(r"[=~²≈^*/|'+]|<|E\[")
POWER = re.compile(r"\^(-?[A-Za-z0-9_]+(?:/\d+)?)")
BETWEEN_WORDS = re.compile(r"(\\(?:text|mathrm)\{[^{}]*\})(?= \\(?:text|mathrm)\{)")
LITERAL = re.compile(r"``([^`]+)``")


def latex(text: str) -> str | None:
    """The equation ``text`` in LaTeX; None if it is a name or has a word that is not known, so no equation."""
    if not RELATIONS.search(text) or not re.search(r"[a-z]", text):
        return None
    return _sequence(_with_roots(POWER.sub(r"^(\1)", " ".join(text.split()))))


def _with_roots(text: str) -> str:
    r"""The text with ``sqrt(...)`` as ``\sqrt{...}`` and ``^(...)`` as ``^{...}``, so that brackets group."""
    for name, replacement in (("sqrt(", "√{"), ("^(", "^{")):
        while (start := text.find(name)) >= 0:
            end, depth = start + len(name), 1
            while depth and end < len(text):
                depth += {"(": 1, ")": -1}.get(text[end], 0)
                end += 1
            text = f"{text[:start]}{replacement}{text[start + len(name) : end - 1]}}}{text[end:]}"
    return text


def _sequence(text: str) -> str | None:
    parts: list[str] = []
    place = 0
    while place < len(text.rstrip()):
        match = TOKEN.match(text, place)
        if match is None:
            return None
        place = match.end()
        part = _token(match)
        if part is None:
            return None
        parts.append(part)
    return BETWEEN_WORDS.sub(r"\1 \\;", " ".join(parts))


def _token(match: re.Match[str]) -> str | None:
    word, number, sign = match["word"], match["number"], match["sign"]
    if number:
        return number
    if sign:
        return {"√": r"\sqrt", "_": "_"}.get(sign, SIGNS.get(sign))
    if word in WORDS:
        return WORDS[word]
    name, _, index = word.rpartition("_")
    if name in WORDS and (index.isdigit() or len(index) <= 2 or index in SUBSCRIPTS):
        return f"{WORDS[name]}_{{{index if len(index) <= 2 else SUBSCRIPTS[index]}}}"
    return None


SUBSCRIPTS = {name: rf"\mathrm{{{name}}}" for name in ("min", "max", "skip", "out", "uniform", "vlb", "x_0", "x_t")}


def set_equations(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Equations become mathematics; a star or a bar outside of code, which would be markup, is a star or a bar."""
    parts = LITERAL.split("\n".join(lines))
    parts[0::2] = [re.sub(r"([*|])", r"\\\1", text) for text in parts[0::2]]
    parts[1::2] = [_literal(text) for text in parts[1::2]]
    lines[:] = "".join(parts).split("\n")


def _literal(text: str) -> str:
    equation = latex(text)
    return f"``{text}``" if equation is None else f":math:`{equation}`"


def is_field(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Leaves out fields of a named tuple, whose docstring is Python's own and says nothing."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, bool]:
    # Else what stands before a colon in the docstring of a property is taken for its type.
    GoogleDocstring._parse_attribute_docstring = GoogleDocstring._consume_to_end
    app.connect("autodoc-process-docstring", set_equations, priority=400)
    app.connect("autodoc-skip-member", is_field)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
