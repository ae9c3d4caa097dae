"""Pictures of any kind of data: a trajectory, the forward process, samples side by side."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from litdiffusion.plots.density import Window, common_window, density_image, histogram
from litdiffusion.plots.figures import DPI, axes_at, hex_colour, rendered, set_figure_title, show_density
from litdiffusion.plots.images import Range, trajectory_sheet
from litdiffusion.plots.palette import FAINT, INK, NOISE_TO_DATA
from litdiffusion.plots.panels import panel_sheets, panels_of
from litdiffusion.plots.sequences import sequence_sheets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from PIL.Image import Image

SIDE, GAP, LEFT, RIGHT, ABOVE, BELOW = 3.8, 0.28, 0.7, 0.25, 0.75, 1.05
"""Inches: the side of a panel, the gap between panels, and the margins."""
BINS = 64


def trajectory_picture(
    states: list[Tensor],
    titles: Sequence[str],
    data: Tensor,
    title: str = "",
    value_range: Range = (-1.0, 1.0),
    *,
    data_title: str = "data",
) -> Image:
    """The reverse process from noise to data.

    Images (n, C, H, W): a `trajectory_sheet`. Vectors (n, d): one panel per state on common axes, and last a framed
    panel of the data (m, d) under ``data_title``. If d = 1, panels are histograms with the data's outline. Otherwise
    they are densities of the first two coordinates, each on its own colour scale. Sequences (n, C, L): curves.
    """
    if states[0].ndim == 4:
        return trajectory_sheet(states, titles, title, value_range)
    if states[0].ndim == 3:
        return sequence_sheets([[*states, data]], [[*titles, data_title]], data, title, framed=True)[0]
    points, reference = [state[:, :2] for state in states], data[:, :2]
    window = common_window(points, reference)
    panels = panels_of([*points, reference], [*titles, data_title], window, reference)
    line = f"density of x over {_interval(window)}; grey line: {data_title}"
    return panel_sheets([panels], with_dimension_note(title, data), _sheet_note(window, line), framed=True)[0]


def forward_picture(
    states: list[Tensor], titles: Sequence[str], title: str = "", value_range: Range = (-1.0, 1.0)
) -> Image:
    """The forward process: data with growing noise, ``states[0]`` the cleanest.

    Images (n, C, H, W): six rows of images, a column per level. Vectors (n, 1): histograms with the curve of N(0, 1).
    Vectors (n, d), d >= 2: densities of the first two coordinates. Sequences (n, C, L): curves.
    """
    if states[0].ndim == 4:
        return trajectory_sheet([state[:6] for state in states], titles, title, value_range)
    if states[0].ndim == 3:
        return sequence_sheets([states], [titles], states[0], title)[0]
    points = [state[:, :2] for state in states]
    window = common_window(points, points[0])
    panels = panels_of(points[::-1], titles[::-1], window, points[0], normal_curve=True)[::-1]
    return panel_sheets(
        [panels], with_dimension_note(title, states[0]), _sheet_note(window, "density of x; dark line: N(0, 1)")
    )[0]


def sweep_picture(
    states: list[Tensor],
    data: list[Tensor],
    titles: Sequence[str],
    title: str = "",
    value_range: Range = (-1.0, 1.0),
) -> Image:
    """Samples at each value of a condition that is swept.

    Images (n, C, H, W): a `trajectory_sheet`, a column per value. Vectors (n, d): a row of panels as in
    `trajectory_picture`, and below it a row of the data (m, d) at these values.
    """
    if states[0].ndim == 4:
        return trajectory_sheet(states, titles, title, value_range)
    points = [state[:, :2] for state in (*states, *data)]
    reference = torch.cat(points[len(states) :])
    window = common_window(points, reference)
    panels = panels_of(points, [*titles, *(f"data, {name.replace('=', '≈')}" for name in titles)], window, reference)
    line = f"density of x over {_interval(window)}; grey line: data of all values"
    title = f"{title}: samples above, data below"
    return panel_sheets([panels], with_dimension_note(title, states[0]), _sheet_note(window, line))[0]


def with_dimension_note(title: str, points: Tensor) -> str:
    """The title, with a note if points (n, d) have more than the two coordinates that are shown."""
    note = f"(first two of {points.shape[1]} coordinates)" if points.shape[1] > 2 else ""
    return f"{title} {note}".strip()


def _sheet_note(window: Window, line: str) -> str:
    """The note below a sheet: axes and colours of densities, or ``line`` for histograms."""
    if len(window.centre) == 1:
        return line
    scales = "" if window.equal else ", each on its own scale"
    return f"axes {_interval(window)} × {_interval(window, 1)}{scales}; colour: density, relative to each panel's peak"


def _interval(window: Window, axis: int = 0) -> str:
    return "[{:.3g}, {:.3g}]".format(*window.limits(axis))


def comparison_picture(panels: dict[str, Tensor], title: str = "") -> Image:
    """Samples (n, d) side by side on common axes, each above its name; the first is the reference (the data).

    d = 1: histograms, each with the reference's outline. d >= 2: densities of the first two coordinates on the
    reference's colour scale. A name may contain a number ("samples: sliced W2 = 0.021 (1.1 × floor)") and is wrapped.
    Sequences (n, C, L): a sheet of curves.
    """
    from matplotlib.figure import Figure

    first = next(iter(panels.values()))
    if first.ndim == 3:
        return sequence_sheets([list(panels.values())], [list(panels)], first, title, width=640)[0]
    samples = {name: sample[:, :2] for name, sample in panels.items()}
    reference, *_ = samples.values()
    window = common_window(list(samples.values()), reference)
    width = LEFT + len(samples) * (SIDE + GAP) - GAP + RIGHT
    figure = Figure((width, BELOW + SIDE + ABOVE), dpi=DPI)
    show = _show_histogram if reference.shape[1] == 1 else _show_density
    for index, (name, sample) in enumerate(samples.items()):
        axes = axes_at(figure, LEFT + index * (SIDE + GAP), BELOW, SIDE, SIDE)
        if index:
            axes.sharey(figure.axes[0])
            axes.tick_params(labelleft=False)
        show(axes, sample, reference, window)
        axes.set_xlabel(_wrapped_name(name), fontsize=13, color=hex_colour(INK), labelpad=8)
    set_figure_title(figure, with_dimension_note(title, first), 16)
    return rendered(figure)


def _show_histogram(axes: Axes, sample: Tensor, reference: Tensor, window: Window) -> None:
    edges = window.edges(BINS).numpy()
    axes.stairs(histogram(sample, window, BINS).numpy(), edges, fill=True, color=hex_colour(NOISE_TO_DATA[2]))
    axes.stairs(histogram(reference, window, BINS).numpy(), edges, color=hex_colour(FAINT), linewidth=1.6)
    axes.set_xlim(*window.limits())


def _show_density(axes: Axes, sample: Tensor, reference: Tensor, window: Window) -> None:
    peak = float(density_image(reference, window).max())
    show_density(axes, density_image(sample, window), (*window.limits(0), *window.limits(1)), peak)


def _wrapped_name(name: str) -> str:
    """A panel's name in lines: broken after the first colon, and before a line exceeds 38 characters."""
    return "\n".join(line for part in name.split(": ", 1) for line in textwrap.wrap(part, 38))
