"""Pictures that take any kind of data: a trajectory, the forward process, samples side by side."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from torch import Tensor

from litdiffusion.plots.density import Window, common_window, density_image, histogram
from litdiffusion.plots.figures import Room, arrange, hexed, quiet, rendered, show_density
from litdiffusion.plots.images import Range, trajectory_sheet
from litdiffusion.plots.palette import FAINT, INK, NOISE_TO_DATA
from litdiffusion.plots.sheets import framed_sheet, panel_grid
from litdiffusion.plots.vectors import (
    GAP,
    columns_for,
    densities,
    histograms,
    square_note,
    titled,
    vector_panels,
    wide_note,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from PIL.Image import Image


def trajectory_picture(
    states: list[Tensor],
    labels: Sequence[str],
    data: Tensor,
    title: str = "",
    value_range: Range = (-1.0, 1.0),
    *,
    data_label: str = "data",
) -> Image:
    """The reverse process from noise to data: a `trajectory_sheet` of images (n, C, H, W), else
    `vector_panels`; ``data_label`` names the panel of the data that vectors have.
    """
    if states[0].ndim == 4:
        return trajectory_sheet(states, labels, title, value_range)
    return vector_panels(states, labels, data, title, data_label=data_label)


def forward_picture(
    states: list[Tensor], labels: Sequence[str], title: str = "", value_range: Range = (-1.0, 1.0)
) -> Image:
    """The forward process: data corrupted at growing noise, ``states[0]`` the cleanest.

    Images (n, C, H, W): six rows of images, a column per level. Vectors (n, 1): histograms under the curve
    of N(0, 1). Vectors (n, d), d >= 2: densities of the first two coordinates.
    """
    if states[0].ndim == 4:
        return trajectory_sheet([state[:6] for state in states], labels, title, value_range)
    plane = [state[:, :2] for state in states]
    window, count = common_window(plane, plane[0]), columns_for(len(states))
    if plane[0].shape[1] == 1:
        panels = histograms(plane[::-1], list(labels)[::-1], window, plane[0], outline=False, normal=True)[::-1]
        return framed_sheet(
            panel_grid(panels, count, GAP), title, "density of x; dark line: N(0, 1)" + wide_note(panels)
        )
    panels = densities(plane, labels, window)
    return framed_sheet(
        panel_grid(panels, count, GAP), titled(title, states[0]), square_note(window) + wide_note(panels)
    )


def comparison_picture(panels: dict[str, Tensor], title: str = "") -> Image:
    """Samples (n, d) side by side on common axes, each under its name; the first is the reference (the
    data).

    d = 1: histograms, the reference outlined in each. d >= 2: densities of the first two coordinates on one
    colour scale (the reference's). A name may carry a number ("samples: sliced W2 = 0.021 (1.1 × floor)")
    and is wrapped.
    """
    from matplotlib.figure import Figure

    samples = {name: sample[:, :2] for name, sample in panels.items()}
    reference = next(iter(samples.values()))
    window = common_window(list(samples.values()), reference)
    figure = Figure(dpi=120)
    grid = figure.subplots(1, len(samples), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (name, sample) in zip(grid, samples.items(), strict=True):
        if sample.shape[1] == 1:
            _draw_histogram(axes, sample, reference, window)
        else:
            show_density(axes, sample, window, float(density_image(reference, window).max()))
        axes.set_xlabel(_in_lines(name), fontsize=13, color=hexed(INK), labelpad=8)
        quiet(axes)
    figure.suptitle(titled(title, next(iter(panels.values()))), fontsize=16, fontweight="bold", color=hexed(INK))
    arrange(figure, len(samples), 1, (3.8, 3.8), Room(left=0.7, right=0.25, above=0.65, below=1.05))
    return rendered(figure)


def _draw_histogram(axes: Axes, sample: Tensor, reference: Tensor, window: Window) -> None:
    low, high, bins = float(window.centre[0]) - window.half, float(window.centre[0]) + window.half, 64
    edges = [low + (high - low) * i / bins for i in range(bins + 1)]
    axes.stairs(histogram(sample, window, bins).numpy(), edges, fill=True, color=hexed(NOISE_TO_DATA[2]))
    axes.stairs(histogram(reference, window, bins).numpy(), edges, color=hexed(FAINT), linewidth=1.6)
    axes.set_xlim(low, high)


def _in_lines(name: str) -> str:
    """A panel's name over its number: broken after the first colon, and wherever a line passes 38
    characters.
    """
    return "\n".join(line for part in name.split(": ", 1) for line in textwrap.wrap(part, 38))
