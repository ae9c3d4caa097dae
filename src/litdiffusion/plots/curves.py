"""Quality against network calls: one curve per sampler, and reference values as horizontal lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from litdiffusion.plots.figures import DPI, hex_colour, rendered, style_axes
from litdiffusion.plots.palette import ACCENT, FAINT, INK, NOISE_TO_DATA, RULE

if TYPE_CHECKING:
    from PIL.Image import Image

COLOURS = (ACCENT, NOISE_TO_DATA[3], (120, 94, 160), (88, 140, 88), (196, 148, 52), (150, 70, 90), FAINT)
MARKERS = "osD^vPX"


class Curve(NamedTuple):
    """Name of a curve, and its points (network calls or the like, value, spread) in their order."""

    name: str
    points: Sequence[tuple[float, float, float]]


def quality_picture(
    curves: Sequence[Curve],
    levels: Mapping[str, float],
    measure: str,
    across: str = "network calls per sample",
    title: str = "Quality against network calls",
) -> Image:
    """Curves over ``across``, both axes logarithmic, error bars of one spread; ``levels`` are dashed lines."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, ScalarFormatter

    figure = Figure((9, 5.6), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for index, curve in enumerate(curve for curve in curves if curve.points):
        calls, values, spreads = zip(*curve.points, strict=True)
        colour = hex_colour(COLOURS[index % len(COLOURS)])
        style = {"color": colour, "marker": MARKERS[index % len(MARKERS)], "markersize": 6, "linewidth": 1.8}
        axes.errorbar(calls, values, yerr=spreads, capsize=3, label=curve.name, **style)
    axes.set(xscale="log", yscale="log", xlabel=across, ylabel=measure.replace("_", " "))
    for name, value in levels.items():
        axes.axhline(value, color=hex_colour(RULE), linewidth=1.2, linestyle="--", zorder=0)
        axes.annotate(name, (1, value), xycoords=("axes fraction", "data"), xytext=(-4, 3), ha="right",
                      textcoords="offset points", fontsize=10, color=hex_colour(FAINT))  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter("")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=hex_colour(INK))
    axes.grid(color=hex_colour(RULE), linewidth=0.4, alpha=0.6)
    axes.set_title(title, color=hex_colour(INK), loc="left")
    style_axes(axes)
    return rendered(figure)
