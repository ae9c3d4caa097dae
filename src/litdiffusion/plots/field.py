"""A vector field (score, or velocity of the flow) at several noise levels, over the density of the noised data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from litdiffusion.plots.density import Window, density_image, finite, histogram
from litdiffusion.plots.figures import DPI, axes_at, hex_colour, rendered, set_figure_title, show_density, style_axes
from litdiffusion.plots.grids import window_of
from litdiffusion.plots.palette import ACCENT, DENSITY, FAINT, INK, TRUTH, Colour

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

MAX_COLUMNS = 3
"""Largest number of panels in a row."""
SIZE_2D, SIZE_1D = (5.0, 5.0, 0.25), (4.6, 3.2, 0.75)
"""Inches: width, height and right margin of a panel with arrows (2-D) and of a panel with a line (1-D)."""
LEFT, PITCH, GAP = 0.55, 5.6, 0.85
"""Inches: left margin, distance from one panel to the next, and gap between two rows."""
BINS = 60
"""Bins of the density along an axis: fewer than in pictures of the density alone, because arrows lie over it."""
SHORTEST, LONGEST = 0.35, 1.1
"""Shortest arrow in units of the longest (a weak field stays visible); longest in units of the arrows' distance."""
NARROW = {"width": 2.2, "headwidth": 4.6, "headlength": 5, "headaxislength": 4.4}
BROAD = {"width": 3.6, "headwidth": 3.5, "headlength": 3.7, "headaxislength": 3.3}
"""An arrow's width in pixels, and its head in units of the width; a broad arrow is a rim around a narrow one."""


class FieldPanel(NamedTuple):
    """One noise level: points of its density (n, d), and a field (m, d) at ``points`` (m, d), d = 1 or 2.

    The points are a `field_grid`, and set the region that is shown. ``truth`` (m, d) is the exact field, if known.
    ``gradient`` tells a gradient (per unit of x) from a velocity (units of x), which differ where axes do.
    """

    title: str
    density: Tensor
    points: Tensor
    vectors: Tensor
    truth: Tensor | None = None
    gradient: bool = False


def field_picture(panels: list[FieldPanel], title: str = "", name: str = "field") -> Image:
    """One panel of a field per noise level; ``name`` is the field's name in the legend.

    d = 2: arrows over the density, each starting at its point; the lengths are relative to the panel's longest arrow,
    see `arrows`. d = 1: the field as a line over the density, in its own units (right axis). The exact field is shown
    beneath, in grey.
    """
    from matplotlib.figure import Figure

    plane = panels[0].points.shape[1] == 2
    rows = math.ceil(len(panels) / MAX_COLUMNS)
    columns = math.ceil(len(panels) / rows)
    entries = _legend_entries(plane, name, any(panel.truth is not None for panel in panels))
    full = rows * columns == len(panels)
    above, below = 1.1 if title else 0.55, 0.75 + 0.45 * math.ceil(len(entries) / columns) if full else 0.45
    width, height, right = SIZE_2D if plane else SIZE_1D
    size = (LEFT + (columns - 1) * PITCH + width + right, below + rows * (height + GAP) - GAP + above)
    figure = Figure(size, dpi=DPI)
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        axes = axes_at(figure, LEFT + column * PITCH, below + (rows - 1 - row) * (height + GAP), width, height)
        (_show_2d if plane else _show_1d)(axes, panel)
        axes.set_title(panel.title, fontsize=17, color=hex_colour(INK), pad=8)
    set_figure_title(figure, title, 22)
    _show_legend(figure, entries, columns, None if full else LEFT + (columns - 1) * PITCH, below + height / 2)
    return rendered(figure)


def arrows(vectors: Tensor, largest: float) -> Tensor:
    """Vectors (m, 2) with the same directions and the length ``s + (1 - s) sqrt(|v| / largest)``, s = `SHORTEST`.

    The length is 0 where the field is 0 or not finite.
    """
    vectors = vectors.detach().cpu().double()
    length = vectors.norm(dim=1, keepdim=True)
    shown = SHORTEST + (1 - SHORTEST) * (length / largest).sqrt()
    return torch.where((length > 0) & length.isfinite(), vectors / length * shown, 0.0)


def _largest_length(*fields: Tensor | None) -> float:
    """The largest finite length of the vectors of the fields (m, d); 1 if there is none."""
    lengths = finite(torch.cat([field.detach().cpu().double() for field in fields if field is not None])).norm(dim=1)
    return float(lengths.max()) if len(lengths) and lengths.max() > 0 else 1.0


def _show_2d(axes: Axes, panel: FieldPanel) -> None:
    window = window_of(panel.points)
    learned, truth = (_on_axes(field, window, panel.gradient) for field in (panel.vectors, panel.truth))
    largest = _largest_length(learned, truth)
    reach = LONGEST * 2 * window.half / round(len(panel.points) ** 0.5)
    seen = window._replace(half=window.half + reach / 2)
    show_density(axes, density_image(panel.density, seen, BINS), (*seen.limits(0), *seen.limits(1)))
    axes.set(xlim=seen.limits(0), ylim=seen.limits(1))
    if truth is not None:
        _show_arrows(axes, panel.points, reach * arrows(truth, largest), TRUTH, BROAD)
    _show_arrows(axes, panel.points, reach * arrows(learned, largest), ACCENT, NARROW)


def _on_axes(field: Tensor | None, window: Window, gradient: bool) -> Tensor | None:
    """The field (m, 2) in units of the window's half-widths, so that arrows point where the picture's density leads."""
    if field is None:
        return None
    field = field.detach().cpu().double()
    return field * window.half if gradient else field / window.half


def _show_arrows(axes: Axes, points: Tensor, arrows: Tensor, colour: Colour, shape: dict[str, float]) -> None:
    (x, y), (u, v) = points.cpu().T.numpy(), arrows.T.numpy()
    style = {"angles": "xy", "scale_units": "xy", "scale": 1, "units": "dots", "minlength": 0, "zorder": 2}
    axes.quiver(x, y, u, v, color=hex_colour(colour), **shape, **style)


def _show_1d(axes: Axes, panel: FieldPanel) -> None:
    window = window_of(panel.points)
    heights = histogram(panel.density, window, 64)
    axes.stairs(heights.numpy(), window.edges(64).numpy(), fill=True, color=hex_colour(DENSITY[2]))
    axes.set(xlim=window.limits(), ylim=(0, 1.1 * float(heights.max().clamp(min=1e-9))), yticks=[])
    field, reach = axes.twinx(), 1.1 * _largest_length(panel.vectors, panel.truth)
    field.axhline(0, color=hex_colour(FAINT), linewidth=1)
    x = panel.points[:, 0].cpu().numpy()
    if panel.truth is not None:
        field.plot(x, panel.truth[:, 0].detach().cpu().numpy(), color=hex_colour(TRUTH), linewidth=6)
    field.plot(x, panel.vectors[:, 0].detach().cpu().numpy(), color=hex_colour(ACCENT), linewidth=2.2)
    field.set_ylim(-reach, reach)
    style_axes(field)


def _legend_entries(plane: bool, name: str, truth: bool) -> list[Artist]:
    """The entries of the legend: the meaning of each colour, and of an arrow's length."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list[Artist] = [
        Line2D(
            [], [], color=hex_colour(ACCENT), linewidth=3, label=f"learned {name}" + ("" if plane else " (right axis)")
        )
    ]
    if truth:
        entries.append(Line2D([], [], color=hex_colour(TRUTH), linewidth=7, label=f"exact {name}"))
    entries.append(Patch(color=hex_colour(DENSITY[2]), label="density of the noised data"))
    if plane:
        note = "arrow lengths: compressed,\nrelative to each panel's longest"
        entries.append(Line2D([], [], linestyle="none", label=note))
    return entries


def _show_legend(figure: Figure, entries: list[Artist], columns: int, left: float | None, middle: float) -> None:
    """Shows the legend: in the free cell at ``left``, centred at ``middle`` (inches), else under the panels."""
    style = {"handles": entries, "frameon": False, "fontsize": 16, "labelcolor": hex_colour(INK), "labelspacing": 1.0}
    if left is None:
        figure.legend(loc="lower left", ncols=columns, **style)
    else:
        width, height = figure.get_size_inches()
        figure.legend(loc="center left", bbox_to_anchor=(left / width, middle / height), **style)
