"""Points that move: the same points in every panel, each in its colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from litdiffusion.plots.density import common_window
from litdiffusion.plots.figures import DPI, axes_at, colour_map, hex_colour, rendered
from litdiffusion.plots.palette import INK, START_TO_END

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

SIDE, GAP, MARGIN, ABOVE = 3.6, 0.25, 0.45, 0.5
"""Inches: side of a panel, gap between two panels, margin to the left and below, room for a title."""


def cloud_picture(states: Sequence[Tensor], titles: Sequence[str], first: Tensor, shown: Sequence[Tensor]) -> Image:
    """Panels of points side by side on common axes, a point in the same colour everywhere, each panel under its title.

    d >= 2: the first two coordinates; colours follow the first coordinate in ``first`` (n, d). d = 1: against the
    point's rank in ``first``, so that a point moves along a line of its own.

    Args:
        states: the points (n, d) of each panel.
        titles: one for each panel.
        first: the points that decide the colours.
        shown: all points that the axes must hold, e.g. those of all frames.
    """
    from matplotlib.figure import Figure

    rank = first[:, 0].double().argsort().argsort().double() / max(1, len(first) - 1)
    window = common_window([_plane(state, rank) for state in shown], _plane(first, rank))
    width = MARGIN + len(states) * (SIDE + GAP)
    figure = Figure((width, MARGIN + SIDE + ABOVE), dpi=DPI)
    for index, (state, title) in enumerate(zip(states, titles, strict=True)):
        axes = axes_at(figure, MARGIN + index * (SIDE + GAP), MARGIN, SIDE, SIDE)
        x, y = _plane(state, rank).T.numpy()
        axes.scatter(x, y, s=7, c=rank.numpy(), cmap=colour_map(START_TO_END), vmin=0, vmax=1, linewidths=0, alpha=0.8)
        axes.set(xlim=window.limits(0), ylim=window.limits(1))
        if index or first.shape[1] == 1:
            axes.set_yticks([])
        axes.set_title(title, fontsize=13, color=hex_colour(INK), parse_math=False)
    return rendered(figure)


def _plane(points: Tensor, rank: Tensor) -> Tensor:
    """The points (n, 2) of a panel, see `cloud_picture`."""
    points = points.detach().cpu().double()
    return points[:, :2] if points.shape[1] > 1 else torch.stack((points[:, 0], rank), dim=1)
