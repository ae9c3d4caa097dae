"""The path of one long chain, over the density that it samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from litdiffusion.plots.density import Window, common_window, histogram
from litdiffusion.plots.figures import DPI, axes_at, colour_map, hex_colour, rendered, set_figure_title, style_axes
from litdiffusion.plots.palette import DENSITY, INK, PAPER, START_TO_END

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure
    from PIL.Image import Image

TEXT, BINS = 15, 48
LEGEND_STYLE = {"frameon": False, "fontsize": TEXT, "labelcolor": hex_colour(INK), "borderaxespad": 0, "markerscale": 3}


def path_picture(points: Tensor, path: Tensor, title: str = "", every: int = 1, name: str = "density") -> Image:
    """The states (k, d) of one chain, ``every`` steps apart, from black (the start, ringed) to red (the end).

    d = 2: in the plane, over points (n, 2) of the density, which the legend calls ``name``. d = 1: against time, with
    the density on the right. States that are not finite are left out.
    """
    from matplotlib.figure import Figure

    path = path.detach().cpu().double()
    good, steps = path.isfinite().all(dim=1), every * (len(path) - 1)
    time = torch.linspace(0, steps, len(path), dtype=torch.float64)[good]
    window = common_window([path], points)
    plane = path.shape[1] == 2
    figure = Figure((9.4, 9.1) if plane else (13.0, 5.8), dpi=DPI)
    (_show_2d if plane else _show_1d)(figure, points, path[good], time, steps, window, name)
    set_figure_title(figure, title, 19)
    return rendered(figure)


def _show_2d(figure: Figure, points: Tensor, path: Tensor, time: Tensor, steps: int, window: Window, name: str) -> None:
    axes, bar = axes_at(figure, 0.7, 0.95, 7.2, 7.2), axes_at(figure, 8.15, 0.95, 0.22, 7.2)
    axes.scatter(*points.cpu().T.numpy(), s=9, color=hex_colour(DENSITY[2]), alpha=0.45, linewidths=0, label=name)
    dots = _show_states(axes, path, time, steps)
    axes.set(xlim=window.limits(0), ylim=window.limits(1))
    scale = figure.colorbar(dots, cax=bar, ticks=[0, steps / 2, steps])
    scale.ax.set_yticklabels([_step_text(tick) for tick in (0, steps / 2, steps)])
    bar.set_title("step", fontsize=TEXT, color=hex_colour(INK), loc="left", pad=10)
    style_axes(bar)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.055), **LEGEND_STYLE)


def _show_1d(figure: Figure, points: Tensor, path: Tensor, time: Tensor, steps: int, window: Window, name: str) -> None:
    axes, side = axes_at(figure, 0.8, 1.1, 9.6, 3.9), axes_at(figure, 10.6, 1.1, 2.1, 3.9)
    _show_states(axes, torch.stack((time, path[:, 0]), dim=1), time, steps)
    axes.set(xlim=(-0.02 * steps, 1.02 * steps), ylim=window.limits())
    axes.set_xticks([0, steps / 2, steps], [_step_text(tick) for tick in (0, steps / 2, steps)])
    axes.set_xlabel("step", fontsize=TEXT, color=hex_colour(INK))
    bars = {"edges": window.edges(BINS).numpy(), "orientation": "horizontal", "baseline": 0}
    side.stairs(histogram(points, window, BINS).numpy(), fill=True, color=hex_colour(DENSITY[2]), label=name, **bars)
    own = histogram(path, window, BINS).numpy()
    side.stairs(own, color=hex_colour(START_TO_END[-1]), linewidth=2.2, label="chain", **bars)
    side.set(ylim=window.limits(), xticks=[], yticks=[])
    side.legend(loc="upper left", bbox_to_anchor=(0, -0.02), **LEGEND_STYLE)


def _show_states(axes: Axes, states: Tensor, time: Tensor, steps: int) -> PathCollection:
    """Shows the states (k, 2) as dots coloured by time, the first with a ring and the text "start"."""
    from matplotlib.patheffects import withStroke

    x, y = states.T.numpy()
    dots = axes.scatter(x, y, s=11, c=time.numpy(), cmap=colour_map(START_TO_END), vmin=0, vmax=steps, linewidths=0)
    if len(states):
        ring = {"s": 190, "facecolors": "none", "zorder": 4}
        axes.scatter(x[:1], y[:1], edgecolors=hex_colour(PAPER), linewidths=6, **ring)
        axes.scatter(x[:1], y[:1], edgecolors=hex_colour(INK), linewidths=2.4, **ring)
        halo = [withStroke(linewidth=4, foreground=hex_colour(PAPER))]
        style = {"xy": (x[0], y[0]), "xytext": (12, 9), "textcoords": "offset points", "zorder": 5}
        axes.annotate("start", fontsize=TEXT, color=hex_colour(INK), fontweight="bold", path_effects=halo, **style)
    return dots


def _step_text(value: float) -> str:
    """A number of steps, with thin spaces between thousands."""
    return f"{round(value):,}".replace(",", "\N{THIN SPACE}")
