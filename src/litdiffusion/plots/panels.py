"""Small multiples on one sheet: a histogram (d = 1) or a density (d >= 2) of each state, under its title."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from litdiffusion.plots.density import Window, density_image, histogram, widening
from litdiffusion.plots.figures import colour_map, hex_colour, show_density
from litdiffusion.plots.palette import ACCENT, FAINT, INK, NOISE_TO_DATA, RULE
from litdiffusion.plots.sheets import HEADING, rendered_and_cleared, sheet, wrapped, write_heading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle
    from PIL.Image import Image

WIDTH, GAP, LINE_HEIGHT = 2000, 14, 25
"""Pixels: largest width of a row of panels, gap between two panels, and line height of a title."""
Extent = tuple[float, float, float, float]
"""Left, right, bottom and top of a panel in pixels of a sheet, y downwards."""


class HistogramPanel(NamedTuple):
    """Bars (bins,) and a line (bins,), stepped or smooth, as shares of the panel's height.

    ``shade`` in [0, 1] sets the colour of the bars: 0 for noise, 1 for data.
    """

    title: str
    bars: Tensor
    line: Tensor
    shade: float
    smooth: bool = False

    def show(self, axes: Axes, extent: Extent, frame: Rectangle) -> None:
        """Shows the panel inside ``extent``, clipped to the frame."""
        from matplotlib.lines import Line2D
        from matplotlib.patches import StepPatch

        left, right, base, top = extent
        bars, line = (base + (top - base) * shares.numpy() for shares in (self.bars, self.line))
        edges = torch.linspace(left, right, len(bars) + 1).numpy()
        style = {"color": hex_colour(INK)} if self.smooth else {"color": hex_colour(FAINT), "drawstyle": "steps-mid"}
        colour = colour_map(NOISE_TO_DATA)(self.shade)
        filled = StepPatch(bars, edges, baseline=base, color=colour, linewidth=0)
        for artist in (filled, Line2D((edges[1:] + edges[:-1]) / 2, line, linewidth=2, **style)):
            axes.add_artist(artist).set_clip_path(frame)


class DensityPanel(NamedTuple):
    """A `density_image` on its own colour scale."""

    title: str
    image: Tensor

    def show(self, axes: Axes, extent: Extent, frame: Rectangle) -> None:
        """Shows the panel inside ``extent``."""
        show_density(axes, self.image, extent)


Panels = list[HistogramPanel] | list[DensityPanel]


def panels_of(
    states: list[Tensor], titles: Sequence[str], window: Window, reference: Tensor, normal_curve: bool = False
) -> Panels:
    """One panel for each state (n, d), noise first: histograms if d = 1, else densities.

    Histograms have the outline of the reference, or with ``normal_curve`` the curve of N(0, 1). The axes of a state
    wider than the window are widened by a power of two, and its title shows the factor.
    """
    if not states or len(states) != len(titles):
        raise ValueError(f"need states and one title for each, got {len(states)} states and {len(titles)} titles")
    factors = [widening(state, window) for state in states]
    windows = [window.widened(factor) for factor in factors]
    titles = [f"{title} (×{factor})" if factor > 1 else title for title, factor in zip(titles, factors, strict=True)]
    if len(window.centre) == 1:
        return _histograms(states, titles, windows, window, reference, normal_curve)
    images = [density_image(state, own) for state, own in zip(states, windows, strict=True)]
    return [DensityPanel(title, image) for title, image in zip(titles, images, strict=True)]


def _histograms(
    states: list[Tensor],
    titles: list[str],
    windows: list[Window],
    common: Window,
    reference: Tensor,
    normal_curve: bool,
) -> list[HistogramPanel]:
    """Histogram panels of one height: the tallest bar, or twice the reference's peak if that is less.

    The limit is needed because the bars of a collapsed state would flatten the others.
    """
    bins = min(64, max(24, int(1.5 * len(states[0]) ** 0.5)))
    bars = [own.half[0] * histogram(state, own, bins) for state, own in zip(states, windows, strict=True)]
    lines = [own.half[0] * (_normal(own, bins) if normal_curve else histogram(reference, own, bins)) for own in windows]
    peak = float(common.half[0]) * float(histogram(reference, common, bins).max())
    top = 1.1 * min(2 * peak, max(peak, *(float(heights.max()) for heights in bars)))
    shades = torch.linspace(0, 1, len(states)).tolist()
    panels = zip(titles, bars, lines, shades, strict=True)
    return [
        HistogramPanel(title, heights / top, line / top, shade, normal_curve) for title, heights, line, shade in panels
    ]


def _normal(window: Window, bins: int) -> Tensor:
    """The density of N(0, 1) at the middle of each bin."""
    edges = window.edges(bins)
    middles = (edges[1:] + edges[:-1]) / 2
    return torch.exp(-0.5 * middles**2) / math.sqrt(2 * math.pi)


def panel_sheets(
    pictures: list[Panels], title: str = "", note: str = "", width: int | None = None, framed: bool = False
) -> list[Image]:
    """One sheet for each list of panels, all with the same layout.

    Rows have equal length and at most nine panels, each ``width`` pixels wide under its title. If ``framed``, the last
    panel (the data) is highlighted. The note explains (×k) if a title contains it.
    """
    titles, count = [panel.title for panels in pictures for panel in panels], len(pictures[0])
    rows = math.ceil(count / 9)
    columns = math.ceil(count / rows)
    width = width or min(380, WIDTH // columns - GAP)
    height = width if isinstance(pictures[0][0], DensityPanel) else width * 2 // 3
    title_height = 6 + LINE_HEIGHT * max(len(wrapped(words, HEADING, width)) for words in titles)
    row_height = title_height + height + GAP
    factor_note = "; (×k): axes k times as wide" if note and any("(×" in words for words in titles) else ""
    axes, sheets = sheet(columns * (width + GAP) - GAP, rows * row_height - GAP, title, note + factor_note), []
    for panels in pictures:
        for i, panel in enumerate(panels):
            left, top = (i % columns) * (width + GAP), (i // columns) * row_height + title_height
            extent = (left, left + width, top + height, top)
            panel.show(axes, extent, _frame(axes, extent, panel.title, framed and i == count - 1))
        sheets.append(rendered_and_cleared(axes))
    return sheets


def _frame(axes: Axes, extent: Extent, title: str, data: bool) -> Rectangle:
    """Shows a panel's frame inside ``extent``, and the title above; both are highlighted for the data."""
    from matplotlib.patches import Rectangle

    left, right, bottom, top = extent
    edge, colour, text, weight = (4, ACCENT, ACCENT, "bold") if data else (1, RULE, INK, "normal")
    for i, words in enumerate(reversed(wrapped(title, HEADING, right - left))):
        write_heading(axes, (left + right) / 2, top - 9 - LINE_HEIGHT * i, words, text, weight)
    size = (right - left - edge, top - bottom + edge)
    style = {"edgecolor": hex_colour(colour), "linewidth": edge, "zorder": 3, "snap": False, "fill": False}
    return axes.add_artist(Rectangle((left + edge / 2, bottom - edge / 2), *size, **style))
