"""Reads a report as a browser would: its tables and texts, and whether its tags are balanced."""

import re
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "img", "source", "br", "wbr", "line", "circle", "rect", "path"}
"""Elements without an end tag; those of SVG close themselves."""
BLOCKS = {"p", "dt", "dd", "td", "th", "li", "h1", "h2", "h3", "figcaption", "caption", "summary", "strong", "small"}


class Parsed(HTMLParser):
    """A page whose tags are balanced, else an AssertionError names the place."""

    def __init__(self, path: Path):
        super().__init__()
        self.open: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.texts: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.source = path.read_text()
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [
            value for name, value in attrs if name in ("href", "src", "srcset", "action", "data", "xlink:href")
        ]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag in BLOCKS:
            self.texts.append("")

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open, (tag, self.getpos())
            assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            if {"td", "th"} & set(self.open):
                self.tables[-1][-1][-1] += data
            if self.texts:
                self.texts[-1] += data

    @property
    def text(self) -> str:
        """All text, with single spaces."""
        return " ".join(" ".join(self.texts).split())

    def table(self, first_column: str) -> list[dict[str, str]]:
        """Rows of the table whose first column has this name."""
        (found,) = [rows for rows in self.tables if rows[0][0] == first_column]
        return [dict(zip(found[0], row, strict=True)) for row in found[1:]]


def without_data(page: str) -> str:
    """The source without the content of data URIs."""
    return re.sub(r"data:image/webp;base64,[A-Za-z0-9+/=]+", "data:", page)
