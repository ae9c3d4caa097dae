"""Points of which one coordinate is fixed: the density of the data, and what the other one does at each fixed value."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from litdiffusion.plots.density import Window, common_window, histogram
from litdiffusion.plots.figures import Room, arrange, hexed, quiet, rendered, show_density
from litdiffusion.plots.palette import ACCENT, INK, NOISE_TO_DATA

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image


SIDE, SLICE, GAP = 5.2, 1.9, 0.25
"""Inches: the density, a conditional, and between them."""
BINS, TEXT = 64, 16


class Conditional(NamedTuple):
    """The second coordinate where the first is ``x``: drawn (n,), and of the data (m,)."""

    x: float
    drawn: Tensor
    truth: Tensor


def conditional_picture(data: Tensor, slices: list[Conditional], title: str = "") -> Image:
    """The density of the data (n, d) with a line at every fixed x; beside it p(y | x) at each, on the same y axis.

    Filled: what was drawn; outlined: the data's. All p(y | x) have one scale, cut at twice the data's highest bar. Where
    d > 2 the first two coordinates are shown.
    """
    from matplotlib.figure import Figure

    rows = data[:, :2]
    window = common_window([], rows)
    width = SIDE + len(slices) * (SLICE + GAP)
    figure = Figure((width + 1.0, SIDE + 1.9), dpi=120)
    first, *others = figure.subplots(1, 1 + len(slices), width_ratios=[SIDE, *[SLICE] * len(slices)], sharey=True)
    mean = width / (1 + len(slices)) - GAP
    figure.subplots_adjust(
        0.75 / (width + 1), 0.95 / (SIDE + 1.9), 1 - 0.25 / (width + 1), 1 - 0.95 / (SIDE + 1.9), GAP / mean
    )
    show_density(first, rows, window)
    first.set_title("data", fontsize=TEXT, color=hexed(INK), pad=8)
    line = Window(window.centre[1:], window.half)
    highest = max(float(histogram(part.truth[:, None], line, BINS).max()) for part in slices)
    for axes, part in zip(others, slices, strict=True):
        first.axvline(part.x, color=hexed(ACCENT), linewidth=1.6)
        _draw(axes, part, line)
        axes.set_xlim(0, 2 * highest)
    for axes in (first, *others):
        quiet(axes)
    figure.suptitle(title, fontsize=19, fontweight="bold", color=hexed(INK))
    others[0].legend(*others[-1].get_legend_handles_labels())
    return rendered(figure)


def _draw(axes: Axes, part: Conditional, window: Window) -> None:
    low = float(window.centre[0]) - window.half
    edges = [low + 2 * window.half * i / BINS for i in range(BINS + 1)]
    looks = {"orientation": "horizontal", "baseline": 0}
    drawn, truth = (histogram(y[:, None], window, BINS).numpy() for y in (part.drawn, part.truth))
    axes.stairs(drawn, edges, fill=True, color=hexed(NOISE_TO_DATA[2]), label="drawn by RePaint", **looks)
    axes.stairs(truth, edges, color=hexed(INK), linewidth=1.4, label="data", **looks)
    axes.set_title(f"x = {part.x:.2f}", fontsize=TEXT, color=hexed(ACCENT), pad=8)
    axes.set_xticks([])
