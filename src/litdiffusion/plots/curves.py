"""Quality against network calls: one curve per sampler, with what it is read against as lines across."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from litdiffusion.plots.figures import DPI, hexed, quiet, rendered
from litdiffusion.plots.palette import ACCENT, FAINT, INK, NOISE_TO_DATA, RULE

if TYPE_CHECKING:
    from PIL.Image import Image

COLOURS = (ACCENT, NOISE_TO_DATA[3], (120, 94, 160), (88, 140, 88), (196, 148, 52), (150, 70, 90), FAINT)
MARKERS = "osD^vPX"


class Curve(NamedTuple):
    """A name and its points (network calls, value, spread), in order of calls."""

    name: str
    points: Sequence[tuple[float, float, float]]


def quality_picture(curves: Sequence[Curve], levels: Mapping[str, float], measure: str) -> Image:
    """The curves over network calls, both axes logarithmic, whiskers for one spread; ``levels`` are dashed lines."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, ScalarFormatter

    figure = Figure((9, 5.6), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for place, curve in enumerate(curve for curve in curves if curve.points):
        calls, values, spreads = zip(*curve.points, strict=True)
        colour = hexed(COLOURS[place % len(COLOURS)])
        looks = {"color": colour, "marker": MARKERS[place % len(MARKERS)], "markersize": 6, "linewidth": 1.8}
        axes.errorbar(calls, values, yerr=spreads, capsize=3, label=curve.name, **looks)
    axes.set(xscale="log", yscale="log", xlabel="network calls per sample", ylabel=measure.replace("_", " "))
    for name, value in levels.items():
        axes.axhline(value, color=hexed(RULE), linewidth=1.2, linestyle="--", zorder=0)
        axes.annotate(name, (1, value), xycoords=("axes fraction", "data"), xytext=(-4, 3), ha="right",
                      textcoords="offset points", fontsize=10, color=hexed(FAINT))  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter("")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=hexed(INK))
    axes.grid(color=hexed(RULE), linewidth=0.4, alpha=0.6)
    axes.set_title("Quality against network calls", color=hexed(INK), loc="left")
    quiet(axes)
    return rendered(figure)
