"""What a page consists of. The template has one macro for each block; all text in them is escaped there."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from markupsafe import Markup


@dataclass(frozen=True)
class Card:
    """A number in the head of a page, with what it is and a note; the first one of a page is the main one."""

    title: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Code:
    """Lines of a command, which is wrapped, or of a config, as (text, whether it is marked)."""

    kind: ClassVar[str] = "code"
    lines: Sequence[tuple[str, bool]]
    command: bool = False


@dataclass(frozen=True)
class Image:
    """An embedded picture: data URIs of the picture and, for an animation, of a still; size in pixels."""

    source: str
    width: int
    height: int
    still: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure with an embedded picture; ``small`` ones stand side by side."""

    kind: ClassVar[str] = "picture"
    image: Image
    title: str
    caption: str
    alt: str
    small: bool = False


@dataclass(frozen=True)
class Chart:
    """A figure with an SVG, and the names of its curves: (name, style class)."""

    kind: ClassVar[str] = "chart"
    svg: Markup
    title: str
    caption: str
    legend: Sequence[tuple[str, str]] = ()
    wide: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, the number by which it is sorted, and a word for its style or a link."""

    text: str
    number: float | None = None
    style: str = ""
    link: str = ""


@dataclass(frozen=True)
class Table:
    """Columns and rows; a table that is ``sortable`` gets its buttons from the page's script."""

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    sortable: bool = False


@dataclass(frozen=True)
class Facts:
    """Names and their values, as a list."""

    kind: ClassVar[str] = "facts"
    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Bars:
    """Shares in percent, as horizontal bars: (name, percent)."""

    kind: ClassVar[str] = "bars"
    title: str
    rows: Sequence[tuple[str, float]]
    caption: str = ""


@dataclass(frozen=True)
class Grid:
    """Figures side by side, as many as fit."""

    kind: ClassVar[str] = "grid"
    blocks: Sequence["Block"]


@dataclass(frozen=True)
class Folded:
    """Blocks that are shown on a click on their title; print shows them as they are on the screen."""

    kind: ClassVar[str] = "folded"
    title: str
    blocks: Sequence["Block"]


Block = Text | Code | Picture | Chart | Table | Facts | Bars | Grid | Folded


@dataclass(frozen=True)
class Section:
    """A part of the page with its anchor and heading."""

    anchor: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A page.

    Args:
        kind, title: what the page is of, and its name.
        status, state: words, and one of the styles good, bad or open.
        lead: sentences below the title.
    """

    kind: str
    title: str
    status: str
    state: str
    lead: Sequence[str]
    cards: Sequence[Card]
    sections: Sequence[Section] = field(default_factory=tuple)
    footer: str = ""

    @property
    def is_sortable(self) -> bool:
        """Whether the page needs the script that sorts tables."""
        return any(_sortable(block) for section in self.sections for block in section.blocks)


def _sortable(block: Block) -> bool:
    if isinstance(block, Grid | Folded):
        return any(map(_sortable, block.blocks))
    return isinstance(block, Table) and block.sortable
