"""The jobs of a sweep by their metric, best on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from litdiffusion.plots.figures import DPI, hexed, quiet, rendered
from litdiffusion.plots.palette import ACCENT, FAINT, INK, NOISE_TO_DATA, RULE

if TYPE_CHECKING:
    from PIL.Image import Image

MOST = 60
"""Rows that a picture holds; the best are shown."""


class Bar(NamedTuple):
    """A job: what it is called, its metric or None, and how it ended."""

    title: str
    value: float | None
    status: str


def jobs_picture(bars: Sequence[Bar], metric: str, rising: bool) -> Image:
    """A point per job on the axis of the metric, the best on top; those without a number below, with their status."""
    from matplotlib.figure import Figure

    valued = sorted((bar for bar in bars if bar.value is not None), key=lambda bar: bar.value, reverse=rising)
    shown = [*valued, *(bar for bar in bars if bar.value is None)][:MOST]
    figure = Figure((9, 1.4 + 0.32 * len(shown)), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for place, bar in enumerate(shown):
        axes.axhline(place, color=hexed(RULE), linewidth=0.5, zorder=0)
        if bar.value is None:
            axes.annotate(bar.status, (0, place), xycoords=("axes fraction", "data"), xytext=(6, 0), va="center",
                          textcoords="offset points", fontsize=10, color=hexed(FAINT))  # fmt: skip
        else:
            axes.plot(bar.value, place, "o", markersize=8, color=hexed(NOISE_TO_DATA[3] if place else ACCENT))
    quiet(axes)
    axes.set_yticks(range(len(shown)), [bar.title[:60] for bar in shown], color=hexed(INK))
    axes.set(ylim=(len(shown) - 0.5, -0.5), xlabel=f"{metric} ({'more' if rising else 'less'} is better)")
    axes.set_title(f"{len(bars)} jobs", color=hexed(INK), loc="left")
    return rendered(figure)
