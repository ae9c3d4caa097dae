"""Pictures of vector data: small multiples of histograms (d = 1) and of densities (d >= 2)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from litdiffusion.plots.density import Window, common_window, density_image, histogram, widening
from litdiffusion.plots.palette import along
from litdiffusion.plots.sheets import Panel, framed_sheet, panel_grid
from litdiffusion.plots.tiles import density_tile, histogram_tile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

WIDTH, GAP = 2000, 14


def vector_panels(
    states: list[Tensor], labels: Sequence[str], data: Tensor, title: str = "", *, data_label: str = "data"
) -> Image:
    """The reverse process of vector data (n, d): histograms where d = 1, densities where d >= 2."""
    draw = histogram_panels if data.shape[-1] == 1 else density_panels
    return draw(states, labels, data, title, data_label=data_label)


def histogram_panels(
    states: list[Tensor], labels: Sequence[str], data: Tensor, title: str = "", *, data_label: str = "data"
) -> Image:
    """1-D states (n, 1), one histogram each on common axes, the data's (m, 1) outlined in grey in every
    panel, and last under ``data_label``.

    A state more than 4 times as wide as the data gets an axis wider by a power of two, and its label says
    so.
    """
    window = common_window(states, data)
    panels = histograms([*states, data], [*labels, data_label], window, data)
    panels[-1] = panels[-1]._replace(framed=True)
    low, high = float(window.centre[0]) - window.half, float(window.centre[0]) + window.half
    note = f"density of x over [{low:.2g}, {high:.2g}]; grey line: {data_label}{wide_note(panels)}"
    return framed_sheet(panel_grid(panels, columns_for(len(panels)), GAP), title, note)


def density_panels(
    states: list[Tensor], labels: Sequence[str], data: Tensor, title: str = "", *, data_label: str = "data"
) -> Image:
    """2-D states (n, d), one density each on common axes of equal aspect; last and framed the data's (m, d), under
    ``data_label``.

    Where d > 2 the first two coordinates are shown and the title says so. Each panel has its own colour
    scale.
    """
    window = common_window([state[:, :2] for state in states], data[:, :2])
    panels = densities([*states, data], [*labels, data_label], window)
    panels[-1] = panels[-1]._replace(framed=True)
    body = panel_grid(panels, columns_for(len(panels)), GAP)
    return framed_sheet(body, titled(title, data), square_note(window) + wide_note(panels))


def histograms(
    states: list[Tensor],
    labels: Sequence[str],
    window: Window,
    reference: Tensor,
    width: int | None = None,
    outline: bool = True,
    normal: bool = False,
) -> list[Panel]:
    """A histogram panel for each state, with the reference's outline and the curve of N(0, 1) where asked
    for.

    The common height of the panels is the tallest bar, or twice the reference's peak if that is less (a
    collapsed state would flatten the others); what is taller is cut.
    """
    _check(states, labels)
    width = width or tile_width(len(states))
    bins = min(64, max(24, int(1.5 * len(states[0]) ** 0.5)))
    windows = [window.widened(widening(state, window)) for state in states]
    heights = [2 * w.half * histogram(state, w, bins) for state, w in zip(states, windows, strict=True)]
    peak = 2 * window.half * float(histogram(reference, window, bins).max())
    top = 1.1 * min(2 * peak, max(peak, *(float(h.max()) for h in heights)))
    panels = []
    for i, (height, w) in enumerate(zip(heights, windows, strict=True)):
        line = 2 * w.half * histogram(reference, w, bins) if outline else None
        curve = _normal(w, bins) if normal else None
        tile = histogram_tile(height, top, (width, width * 2 // 3), along(i, len(states)), line, curve)
        panels.append(Panel(tile, _wide_label(labels[i], w, window)))
    return panels


def densities(states: list[Tensor], labels: Sequence[str], window: Window, width: int | None = None) -> list[Panel]:
    """A density panel for each state (n, d), of its first two coordinates."""
    _check(states, labels)
    side = width or tile_width(len(states))
    panels = []
    for state, label in zip(states, labels, strict=True):
        own = window.widened(widening(state[:, :2], window))
        panels.append(Panel(density_tile(density_image(state, own), side), _wide_label(label, own, window)))
    return panels


def columns_for(count: int) -> int:
    """The columns of a grid of ``count`` panels: nine at most, rows as equal as can be."""
    return math.ceil(count / math.ceil(count / 9))


def tile_width(count: int) -> int:
    """The width in pixels of each of ``count`` panels in the grid of `columns_for`."""
    return min(380, WIDTH // columns_for(count) - GAP)


def titled(title: str, points: Tensor) -> str:
    """The title, with a word on what is left out where points (n, d) have more than two coordinates."""
    hidden = f"(first two of {points.shape[1]} coordinates)" if points.shape[1] > 2 else ""
    return f"{title} {hidden}".strip()


def square_note(window: Window) -> str:
    """What the axes of a density panel show."""
    x, y = (f"[{c - window.half:.2g}, {c + window.half:.2g}]" for c in window.centre[:2].tolist())
    return f"axes {x} × {y}; colour: density, relative to each panel's peak"


def _wide_label(label: str, own: Window, common: Window) -> str:
    factor = round(own.half / common.half)
    return label if factor == 1 else f"{label} (×{factor})"


def wide_note(panels: list[Panel]) -> str:
    """What (×k) in a label means; nothing where no label has it."""
    return "; (×k): axes k times as wide" if any("(×" in panel.label for panel in panels) else ""


def _normal(window: Window, bins: int) -> Tensor:
    """The density of N(0, 1) at the middle of each bin, per panel width."""
    place = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins * 2 - 1
    x = window.centre[0] + window.half * place
    return 2 * window.half * torch.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)


def _check(states: list[Tensor], labels: Sequence[str]) -> None:
    if not states or len(states) != len(labels):
        raise ValueError(f"need one label for each of one or more states, got {len(labels)} for {len(states)}")
