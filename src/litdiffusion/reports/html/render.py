"""Writes a page as one HTML file without references to other files."""

import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from litdiffusion.reports.html.blocks import Page

HERE = Path(__file__).parent


def rendered(page: Page) -> bytes:
    """The page as UTF-8; every text in it is escaped, and its stylesheet and script stand inside."""
    style, script = (Markup((HERE / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    text = _environment().get_template("page.html").render(page=page, style=style, script=script)
    return text.encode("utf-8", errors="replace")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    return environment


def breakable(text: str) -> Markup:
    """The escaped text of a name such as ``samples/wasserstein_over_floor``, which may be broken inside."""
    return Markup(re.sub(r"([/.=]|(?<=\w)_)(?=\w)", r"\1<wbr>", str(escape(text))))
