"""The jobs of a sweep, sorted by their metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from litdiffusion.plots.figures import DPI, hex_colour, rendered, style_axes
from litdiffusion.plots.palette import ACCENT, FAINT, INK, NOISE_TO_DATA, RULE

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_JOBS = 60
"""Largest number of jobs in a picture; the best are shown."""


class Bar(NamedTuple):
    """A job: its title, its metric or None, and its status."""

    title: str
    value: float | None
    status: str


def jobs_picture(bars: Sequence[Bar], metric: str, rising: bool) -> Image:
    """One point per job on the metric's axis, the best on top; jobs without a metric follow, with their status."""
    from matplotlib.figure import Figure

    valued = sorted((bar for bar in bars if bar.value is not None), key=lambda bar: bar.value, reverse=rising)
    shown = [*valued, *(bar for bar in bars if bar.value is None)][:MAX_JOBS]
    figure = Figure((9, 1.4 + 0.32 * len(shown)), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for index, bar in enumerate(shown):
        axes.axhline(index, color=hex_colour(RULE), linewidth=0.5, zorder=0)
        if bar.value is None:
            axes.annotate(bar.status, (0, index), xycoords=("axes fraction", "data"), xytext=(6, 0), va="center",
                          textcoords="offset points", fontsize=10, color=hex_colour(FAINT))  # fmt: skip
        else:
            axes.plot(bar.value, index, "o", markersize=8, color=hex_colour(NOISE_TO_DATA[3] if index else ACCENT))
    style_axes(axes)
    axes.set_yticks(range(len(shown)), [bar.title[:60] for bar in shown], color=hex_colour(INK))
    axes.set(ylim=(len(shown) - 0.5, -0.5), xlabel=f"{metric} ({'more' if rising else 'less'} is better)")
    axes.set_title(f"{len(bars)} jobs", color=hex_colour(INK), loc="left")
    return rendered(figure)
