"""Sheets: figures laid out in pixels, with a title above, a note below, and titles over columns of tiles."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from litdiffusion.plots.figures import hex_colour, rendered
from litdiffusion.plots.palette import FAINT, INK, Colour

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from PIL.Image import Image

MARGIN = 28
TITLE, HEADING, NOTE = 30, 21, 18
"""Font sizes in pixels."""


def sheet(width: int, height: int, title: str = "", note: str = "") -> Axes:
    """Axes over a whole figure; their coordinates are the pixels of a body of this size, y downwards.

    The body is surrounded by a margin, with the title above it and the note below it, both wrapped to its width.
    """
    from matplotlib.figure import Figure

    title_lines, note_lines = wrapped(title, TITLE, width, bold=True), wrapped(note, NOTE, width)
    above = MARGIN + (40 * len(title_lines) + 6 if title_lines else 0)
    below = MARGIN + (26 * len(note_lines) + 8 if note_lines else 0)
    figure = Figure(((width + 2 * MARGIN) / 72, (above + height + below) / 72), dpi=72)  # at 72 dpi a point is a pixel
    axes = figure.add_axes((0, 0, 1, 1), autoscale_on=False)
    axes.set(xlim=(-MARGIN, width + MARGIN), ylim=(height + below, -above))
    axes.set_axis_off()
    style = {"transform": axes.transData, "parse_math": False}
    for i, line in enumerate(title_lines):
        y = MARGIN - above + 24 + 40 * i
        figure.text(0, y, line, fontsize=TITLE, color=hex_colour(INK), weight="bold", **style)
    for i, line in enumerate(note_lines):
        figure.text(0, height + 26 + 26 * i, line, fontsize=NOTE, color=hex_colour(FAINT), **style)
    return axes


def write_heading(axes: Axes, x: float, y: float, text: str, colour: Colour = INK, weight: str = "normal") -> None:
    """Writes a heading as plain text (no formulas), centred at x, with its baseline at y."""
    style = {"fontsize": HEADING, "color": hex_colour(colour), "weight": weight}
    axes.text(x, y, text, ha="center", parse_math=False, **style)


@lru_cache(1000)
def text_width(text: str, size: int, bold: bool = False) -> float:
    """Width of one line of text in pixels of a sheet."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    face = FontProperties(size=size, weight="bold" if bold else "normal")
    return text_to_path.get_text_width_height_descent(text, face, False)[0]


def wrapped(text: str, size: int, width: float, bold: bool = False) -> list[str]:
    """The text in lines of at most ``width`` pixels, broken between words; an empty text has no lines."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size, bold) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def titled_columns(count: int, pitch: float, room: float) -> list[int]:
    """Which of ``count`` columns, ``pitch`` pixels apart, get a title ``room`` pixels wide: both ends, evenly between.

    The stride is the smallest without overlap, or up to 3 times as large if it then divides the columns evenly.
    """
    least = max(1, math.ceil(room / pitch))
    stride = next((s for s in range(least, 3 * least + 1) if (count - 1) % s == 0), least)
    kept = (count - 1) // stride + 1
    if kept == 1:
        return [count - 1]
    return sorted({round(index) for index in torch.linspace(0, count - 1, kept).tolist()})


def rendered_and_cleared(axes: Axes) -> Image:
    """The picture of a sheet; its axes keep only the title and the note, which is cheaper than new axes."""
    picture = rendered(axes.figure)
    for artist in (*axes.images, *axes.lines, *axes.patches, *axes.texts):
        artist.remove()
    return picture


def pixel_sheets(
    grids: list[Tensor], titles: Sequence[Sequence[str]] = ((),), tile: int = 0, gap: int = 0, title: str = ""
) -> list[Image]:
    """One sheet for each uint8 grid (3, H, W), all of one size, one sheet pixel per grid pixel.

    Its ``titles`` stand over the columns (``tile`` pixels wide, ``gap`` between); some are left out if they would
    overlap.
    """
    above, (height, width) = 32 if titles[0] else 0, grids[0].shape[1:]
    axes, pictures = sheet(width, above + height, title), []
    for grid, column_titles in zip(grids, titles, strict=True):
        opaque = pad(grid.permute(1, 2, 0), (0, 1), value=255)
        axes.imshow(opaque.numpy(), extent=(0, width, above + height, above), aspect="auto", interpolation="none")
        _write_titles(axes, column_titles, tile, gap, width)
        pictures.append(rendered_and_cleared(axes))
    return pictures


def _write_titles(axes: Axes, titles: Sequence[str], tile: int, gap: int, width: int) -> None:
    halves = [text_width(text, HEADING) / 2 for text in titles]
    longest = 2 * max(halves, default=0)
    for i in titled_columns(len(titles), tile + gap, 1.2 * longest + max(0.0, (longest - tile) / 2)) if titles else ():
        middle = min(max(i * (tile + gap) + tile / 2, halves[i]), max(width - halves[i], halves[i]))
        write_heading(axes, middle, 21, titles[i])
