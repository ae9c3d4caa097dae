"""Pictures that take any kind of data: a trajectory, the forward process, samples side by side."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from torch import Tensor

from litdiffusion.plots.density import Window, common_window, density_image, histogram
from litdiffusion.plots.images import Range, image_sheet, trajectory_sheet
from litdiffusion.plots.palette import DENSITY, FAINT, INK, NOISE_TO_DATA, RULE, Colour
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
    from matplotlib.figure import Figure
    from PIL.Image import Image


def trajectory_picture(
    states: list[Tensor],
    times: Sequence[float | int],
    data: Tensor,
    title: str = "",
    value_range: Range = (-1.0, 1.0),
) -> Image:
    """The reverse process from noise to data: a `trajectory_sheet` of images (n, C, H, W), else
    `vector_panels`.
    """
    if states[0].ndim == 4:
        return trajectory_sheet(states, times, title, value_range)
    return vector_panels(states, times, data, title)


def forward_picture(
    states: list[Tensor], labels: Sequence[str], title: str = "", value_range: Range = (-1.0, 1.0)
) -> Image:
    """The forward process: data corrupted at growing noise, ``states[0]`` the cleanest.

    Images (n, C, H, W): six rows of images, a column per level. Vectors (n, 1): histograms under the curve
    of N(0, 1). Vectors (n, d), d >= 2: densities of the first two coordinates.
    """
    if states[0].ndim == 4:
        return image_sheet([state[:6] for state in states], labels, title, value_range)
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
        draw = _draw_histogram if sample.shape[1] == 1 else _draw_density
        draw(axes, sample, reference, window)
        _dress(axes, name)
    figure.suptitle(titled(title, next(iter(panels.values()))), fontsize=16, fontweight="bold", color=_hex(INK))
    _arrange(figure, len(samples))
    return _rendered(figure)


def _draw_histogram(axes: Axes, sample: Tensor, reference: Tensor, window: Window) -> None:
    low, high, bins = float(window.centre[0]) - window.half, float(window.centre[0]) + window.half, 64
    edges = [low + (high - low) * i / bins for i in range(bins + 1)]
    axes.stairs(histogram(sample, window, bins).numpy(), edges, fill=True, color=_hex(NOISE_TO_DATA[2]))
    axes.stairs(histogram(reference, window, bins).numpy(), edges, color=_hex(FAINT), linewidth=1.6)
    axes.set_xlim(low, high)


def _draw_density(axes: Axes, sample: Tensor, reference: Tensor, window: Window) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("density", [_hex(colour) for colour in DENSITY])
    peak = float(density_image(reference, window).max() ** 0.6)
    (x, y), half = window.centre.tolist(), window.half
    bounds = (x - half, x + half, y - half, y + half)
    values = (density_image(sample, window) ** 0.6).numpy()
    axes.imshow(values, cmap=colours, vmin=0, vmax=peak, extent=bounds, interpolation="bilinear")


def _dress(axes: Axes, name: str) -> None:
    """Quiet axes, with the panel's name under them."""
    axes.set_xlabel(_in_lines(name), fontsize=13, color=_hex(INK), labelpad=8)
    axes.tick_params(labelsize=11, colors=_hex(FAINT), length=3)
    for spine in axes.spines.values():
        spine.set_color(_hex(RULE))


def _in_lines(name: str) -> str:
    """A panel's name over its number: broken after the first colon, and wherever a line passes 38
    characters.
    """
    return "\n".join(line for part in name.split(": ", 1) for line in textwrap.wrap(part, 38))


def _arrange(figure: Figure, count: int) -> None:
    """Square panels of 3.8 inches in a row, with room for the ticks, the names and the title."""
    side, gap, left, right, above, below = 3.8, 0.28, 0.7, 0.25, 0.65, 1.05
    width, height = left + count * side + (count - 1) * gap + right, above + side + below
    figure.set_size_inches(width, height)
    figure.subplots_adjust(left / width, below / height, 1 - right / width, 1 - above / height, gap / side)


def _rendered(figure: Figure) -> Image:
    """The figure's pixels through the Agg canvas: no display, no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    size, pixels = canvas.get_width_height(), canvas.buffer_rgba()
    return Image.frombuffer("RGBA", size, pixels, "raw", "RGBA", 0, 1).convert("RGB")


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
