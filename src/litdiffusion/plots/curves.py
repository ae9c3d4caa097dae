"""Quality against network calls or against guidance: curves, and reference values as horizontal lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from litdiffusion.plots.figures import DPI, hex_colour, rendered, style_axes
from litdiffusion.plots.palette import ACCENT, FAINT, INK, NOISE_TO_DATA, RULE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

COLOURS = (ACCENT, NOISE_TO_DATA[3], (120, 94, 160), (88, 140, 88), (196, 148, 52), (150, 70, 90), FAINT)
MARKERS = "osD^vPX"
LINES = ("-", "--", ":")


class Curve(NamedTuple):
    """Name of a curve, and its points (network calls, weight or the like, value, spread) in rising order."""

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
    _draw(axes, curves, levels)
    axes.set(xscale="log", yscale="log", xlabel=across, ylabel=measure.replace("_", " "))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter("")
    _finish(axes, title)
    return rendered(figure)


def guidance_picture(
    curves: Sequence[Curve], levels: Mapping[str, float], measure: str, shares: Mapping[str, Sequence[Curve]]
) -> Image:
    """Curves of ``measure`` over the weight of guidance; beside them those of ``shares`` in [0, 1], if there are any.

    Both panels have linear axes, error bars of one spread, and the same colour for curves of the same name. ``shares``
    are told apart by their lines and markers. ``levels`` are dashed lines in the first panel.
    """
    from matplotlib.figure import Figure

    shown = {name: group for name, group in shares.items() if any(curve.points for curve in group)}
    figure = Figure((12 if shown else 7, 5.2), dpi=DPI, layout="constrained")
    first, *rest = figure.subplots(1, 2 if shown else 1, squeeze=False)[0]
    _draw(first, curves, levels)
    first.set(xlabel="weight of guidance", ylabel=measure.replace("_", " "))
    first.set_ylim(bottom=0)
    _finish(first, "Quality against guidance")
    for axes in rest:
        for index, (name, group) in enumerate(shown.items()):
            named = [curve._replace(name=_labelled(name, curve.name, len(group))) for curve in group]
            _draw(axes, named, {}, index, first_colour=index if len(group) == 1 else 0)
        axes.set(xlabel="weight of guidance", ylabel="share of samples (precision) or of real images (recall)")
        _finish(axes, "What it buys, and what it costs")
    return rendered(figure)


def _labelled(measure: str, curve: str, curves: int) -> str:
    measure = measure.replace("_", " ")
    return measure if curves == 1 else f"{measure}: {curve}"


def _draw(
    axes: Axes, curves: Sequence[Curve], levels: Mapping[str, float], look: int | None = None, first_colour: int = 0
) -> None:
    """Draws curves, each in a colour and marker of its own, or all with the marker and the line of number ``look``."""
    for index, curve in enumerate(curve for curve in curves if curve.points):
        x, values, spreads = zip(*curve.points, strict=True)
        marker = MARKERS[(index if look is None else look) % len(MARKERS)]
        style = {"color": hex_colour(COLOURS[(first_colour + index) % len(COLOURS)]), "marker": marker}
        line = "-" if look is None else LINES[look % len(LINES)]
        style |= {"linestyle": line, "markersize": 6, "linewidth": 1.8}
        axes.errorbar(x, values, yerr=spreads, capsize=3, label=curve.name, **style)
    for name, value in levels.items():
        axes.axhline(value, color=hex_colour(RULE), linewidth=1.2, linestyle="--", zorder=0)
        axes.annotate(name, (1, value), xycoords=("axes fraction", "data"), xytext=(-4, 3), ha="right",
                      textcoords="offset points", fontsize=10, color=hex_colour(FAINT))  # fmt: skip


def _finish(axes: Axes, title: str) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=hex_colour(INK))
    axes.grid(color=hex_colour(RULE), linewidth=0.4, alpha=0.6)
    axes.set_title(title, color=hex_colour(INK), loc="left")
    style_axes(axes)
