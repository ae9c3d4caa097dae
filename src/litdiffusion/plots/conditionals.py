"""Points with one fixed coordinate: the density of the data, and p(y | x) at each fixed x."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from litdiffusion.plots.density import Window, common_window, density_image, histogram
from litdiffusion.plots.figures import DPI, axes_at, hex_colour, rendered, set_figure_title, show_density
from litdiffusion.plots.palette import ACCENT, INK, NOISE_TO_DATA

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image


SIDE, SLICE, GAP, LEFT, ABOVE, BELOW = 5.2, 1.9, 0.25, 0.65, 1.1, 0.85
"""Inches: the density panel, the width of a conditional panel, the gap between panels, and the margins."""
BINS, TEXT = 64, 16


class Conditional(NamedTuple):
    """The second coordinate where the first is ``x``: values of samples (n,), and of the data (m,)."""

    x: float
    drawn: Tensor
    truth: Tensor


def conditional_picture(data: Tensor, slices: list[Conditional], title: str = "") -> Image:
    """The density of the data (n, d) with a line at every fixed x; beside it p(y | x) at each, on the same y axis.

    Filled: the samples; outlined: the data. All p(y | x) share one scale, which ends at twice the data's highest bar at
    most. If d > 2, only the first two coordinates are used.
    """
    from matplotlib.figure import Figure

    points = data[:, :2]
    window = common_window([], points)
    line = Window(window.centre[1:], window.half[1:])
    width = LEFT + SIDE + len(slices) * (GAP + SLICE) + GAP
    figure = Figure((width, ABOVE + SIDE + BELOW), dpi=DPI)
    plane = axes_at(figure, LEFT, BELOW, SIDE, SIDE)
    show_density(plane, density_image(points, window), (*window.limits(0), *window.limits(1)))
    plane.set_title("data", fontsize=TEXT, color=hex_colour(INK), pad=10)
    top = _axis_limit(slices, line)
    for index, part in enumerate(slices):
        plane.axvline(part.x, color=hex_colour(ACCENT), linewidth=1.8)
        axes = axes_at(figure, LEFT + SIDE + GAP + index * (SLICE + GAP), BELOW, SLICE, SIDE)
        _show(axes, part, line, top)
    style = {"ncols": 2, "frameon": False, "fontsize": TEXT, "labelcolor": hex_colour(INK)}
    handles = axes.get_legend_handles_labels()
    figure.legend(*handles, loc="lower right", bbox_to_anchor=(1 - GAP / width, 0.0), **style)
    set_figure_title(figure, title, 19)
    return rendered(figure)


def _axis_limit(slices: list[Conditional], window: Window) -> float:
    """Upper end of the p(y | x) axis: just above the highest bar, or above twice the data's highest if that is less."""
    drawn, truth = (
        max(float(histogram(values[:, None], window, BINS).max()) for values in column)
        for column in list(zip(*slices, strict=True))[1:]
    )
    return 1.08 * min(2 * truth, max(drawn, truth))


def _show(axes: Axes, part: Conditional, window: Window, top: float) -> None:
    style = {"edges": window.edges(BINS).numpy(), "orientation": "horizontal", "baseline": 0}
    drawn, truth = (histogram(y[:, None], window, BINS).numpy() for y in (part.drawn, part.truth))
    axes.stairs(drawn, fill=True, color=hex_colour(NOISE_TO_DATA[2]), label="drawn", **style)
    axes.stairs(truth, color=hex_colour(INK), linewidth=1.5, label="data", **style)
    axes.set(xlim=(0, top), ylim=window.limits(), xticks=[], yticks=[])
    axes.set_title(f"x = {part.x:.2f}".replace("-", "\N{MINUS SIGN}"), fontsize=TEXT, color=hex_colour(ACCENT), pad=10)
