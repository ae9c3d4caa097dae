"""Points of which one coordinate is fixed: the density of the data, and what the other one does at each fixed value."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from litdiffusion.plots.density import Window, common_window, histogram
from litdiffusion.plots.figures import hexed, quiet, rendered, show_density
from litdiffusion.plots.palette import ACCENT, INK, NOISE_TO_DATA

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
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

    Filled: what was drawn; outlined: the data's. All p(y | x) have one scale, cut at twice the data's highest bar.
    Where d > 2 the first two coordinates are shown.
    """
    from matplotlib.figure import Figure

    rows = data[:, :2]
    window = common_window([], rows)
    line = Window(window.centre[1:], window.half)
    figure = Figure(dpi=120)
    first, *others = figure.subplots(1, 1 + len(slices), width_ratios=[SIDE, *[SLICE] * len(slices)])
    _arrange(figure, len(slices))
    show_density(first, rows, window)
    first.set_title("data", fontsize=TEXT, color=hexed(INK), pad=10)
    quiet(first)
    top = _top(slices, line)
    for axes, part in zip(others, slices, strict=True):
        first.axvline(part.x, color=hexed(ACCENT), linewidth=1.8)
        _draw(axes, part, line, top)
    place = {"loc": "lower right", "bbox_to_anchor": (1 - 0.25 / figure.get_figwidth(), 0.0)}
    looks = {"ncols": 2, "frameon": False, "fontsize": TEXT, "labelcolor": hexed(INK)}
    figure.legend(*others[0].get_legend_handles_labels(), **place, **looks)
    figure.suptitle(title, fontsize=19, fontweight="bold", color=hexed(INK), y=1 - 0.15 / figure.get_figheight())
    return rendered(figure)


def _arrange(figure: Figure, count: int) -> None:
    """A square panel and ``count`` narrow ones of its height, in a figure of just the size they need."""
    left, right, above, below = 0.65, 0.25, 1.1, 0.85
    panels = SIDE + count * (SLICE + GAP)
    width, height = left + panels + right, above + SIDE + below
    figure.set_size_inches(width, height)
    mean = (SIDE + count * SLICE) / (1 + count)
    figure.subplots_adjust(left / width, below / height, 1 - right / width, 1 - above / height, wspace=GAP / mean)


def _top(slices: list[Conditional], window: Window) -> float:
    """Where the scale of p(y | x) ends: above all bars, but at twice the data's highest."""
    drawn, truth = (
        max(float(histogram(values[:, None], window, BINS).max()) for values in column)
        for column in list(zip(*slices, strict=True))[1:]
    )
    return 1.08 * min(2 * truth, max(drawn, truth))


def _draw(axes: Axes, part: Conditional, window: Window, top: float) -> None:
    low, high = float(window.centre[0]) - window.half, float(window.centre[0]) + window.half
    edges = [low + (high - low) * i / BINS for i in range(BINS + 1)]
    looks = {"orientation": "horizontal", "baseline": 0}
    drawn, truth = (histogram(y[:, None], window, BINS).numpy() for y in (part.drawn, part.truth))
    axes.stairs(drawn, edges, fill=True, color=hexed(NOISE_TO_DATA[2]), label="drawn", **looks)
    axes.stairs(truth, edges, color=hexed(INK), linewidth=1.5, label="data", **looks)
    axes.set(xlim=(0, top), ylim=(low, high), xticks=[], yticks=[])
    axes.set_title(f"x = {part.x:.2f}".replace("-", "\N{MINUS SIGN}"), fontsize=TEXT, color=hexed(ACCENT), pad=10)
    quiet(axes)
