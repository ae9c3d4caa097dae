"""Tiles, headings and titles to one sheet."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from litdiffusion.plots.palette import ACCENT, FAINT, INK, LABEL, NOTE, PAPER, RULE, TITLE, Colour, font

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

MARGIN = 28


class Panel(NamedTuple):
    """A tile with its label; a framed one is set apart from the others (the data, beside the states)."""

    tile: Image
    label: str
    framed: bool = False


def thinned(count: int, pitch: float, room: float) -> list[int]:
    """Which of ``count`` columns, ``pitch`` pixels apart, get a label ``room`` pixels wide: both ends,
    evenly between.

    The stride is the smallest that leaves room, or one up to 3 times that if it divides the columns evenly.
    """
    least = max(1, math.ceil(room / pitch))
    stride = next((s for s in range(least, 3 * least + 1) if (count - 1) % s == 0), least)
    kept = (count - 1) // stride + 1
    if kept == 1:
        return [count - 1]
    return sorted({round(place) for place in torch.linspace(0, count - 1, kept).tolist()})


def wrapped(text: str, size: int, width: int, bold: bool = False) -> list[str]:
    """The text in lines that fit ``width`` pixels, broken between words; no lines for no text."""
    face, lines = font(size, bold), []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and face.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def framed_sheet(body: Image, title: str, note: str = "") -> Image:
    """The body on paper with a margin, the title above and the note below, both wrapped to its width."""
    from PIL import Image, ImageDraw

    heads = wrapped(title, TITLE, body.width, bold=True)
    notes = wrapped(note, NOTE, body.width)
    above = MARGIN + len(heads) * 40 + (6 if heads else 0)
    height = above + body.height + (8 + len(notes) * 26 if notes else 0) + MARGIN
    sheet = Image.new("RGB", (body.width + 2 * MARGIN, height), PAPER)
    sheet.paste(body, (MARGIN, above))
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(heads):
        draw.text((MARGIN, MARGIN - 4 + 40 * i), line, INK, font(TITLE, bold=True))
    for i, line in enumerate(notes):
        draw.text((MARGIN, above + body.height + 10 + 26 * i), line, FAINT, font(NOTE))
    return sheet


def headed(body: Image, labels: Sequence[str], pitch: int, tile: int) -> Image:
    """The body with a heading over each column (``tile`` pixels wide, ``pitch`` apart), thinned where
    crowded.
    """
    from PIL import Image, ImageDraw

    face = font(LABEL)
    longest = max(face.getlength(label) for label in labels)
    overhang = max(0.0, (longest - tile) / 2)
    shown = thinned(len(labels), pitch, 1.2 * longest + overhang)
    sheet = Image.new("RGB", (body.width, body.height + 32), PAPER)
    sheet.paste(body, (0, 32))
    draw = ImageDraw.Draw(sheet)
    for i in shown:
        half = face.getlength(labels[i]) / 2
        middle = min(max(i * pitch + tile / 2, half), max(body.width - half, half))
        draw.text((middle, 14), labels[i], INK, face, anchor="mm")
    return sheet


def panel_grid(panels: list[Panel], columns: int, gap: int = 14) -> Image:
    """Panels of one size in rows of ``columns``, each under its label."""
    from PIL import Image

    width, height = panels[0].tile.size
    lines = max(len(wrapped(panel.label, LABEL, width)) for panel in panels)
    head = 6 + 25 * lines
    rows = math.ceil(len(panels) / columns)
    pitch, drop = width + gap, height + head + gap
    body = Image.new("RGB", (columns * pitch - gap, rows * drop - gap), PAPER)
    for i, panel in enumerate(panels):
        _place(body, panel, (i % columns) * pitch, (i // columns) * drop + head)
    return body


def _place(body: Image, panel: Panel, left: int, top: int) -> None:
    """Pastes one tile at (left, top), rules its frame inside it, and writes its label above it."""
    from PIL import ImageDraw

    draw, (width, height) = ImageDraw.Draw(body), panel.tile.size
    body.paste(panel.tile, (left, top))
    edge: Colour = ACCENT if panel.framed else RULE
    draw.rectangle((left, top, left + width - 1, top + height - 1), outline=edge, width=4 if panel.framed else 1)
    lines = wrapped(panel.label, LABEL, width)
    for i, line in enumerate(lines):
        place = (left + width / 2, top - 16 - 25 * (len(lines) - 1 - i))
        draw.text(place, line, ACCENT if panel.framed else INK, font(LABEL, panel.framed), anchor="mm")
