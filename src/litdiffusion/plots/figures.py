"""What the pictures drawn by matplotlib share: colours, quiet axes, panels of one size, pixels without a display."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from litdiffusion.plots.density import Window, density_image
from litdiffusion.plots.palette import DENSITY, FAINT, RULE, Colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
    from PIL.Image import Image


class Room(NamedTuple):
    """Inches around the panels of a figure, and between them."""

    left: float
    right: float
    above: float
    below: float
    gap: tuple[float, float] = (0.28, 0.0)


def arrange(figure: Figure, columns: int, rows: int, panel: tuple[float, float], room: Room) -> None:
    """A grid of panels, each ``panel`` = (width, height) inches, in a figure of just the size they need."""
    width = room.left + columns * panel[0] + (columns - 1) * room.gap[0] + room.right
    height = room.above + rows * panel[1] + (rows - 1) * room.gap[1] + room.below
    figure.set_size_inches(width, height)
    figure.subplots_adjust(
        room.left / width,
        room.below / height,
        1 - room.right / width,
        1 - room.above / height,
        room.gap[0] / panel[0],
        room.gap[1] / panel[1],
    )


def show_density(axes: Axes, sample: Tensor, window: Window, peak: float | None = None, bins: int = 80) -> None:
    """The density of a sample (n, 2) behind ``axes``; the darkest colour stands for ``peak``, or its own largest."""
    image = density_image(sample, window, bins)
    (x, y), half = window.centre.tolist(), window.half
    axes.imshow(
        (image**0.6).numpy(),
        cmap=colour_map(DENSITY),
        vmin=0,
        vmax=float(image.max() if peak is None else peak) ** 0.6,
        extent=(x - half, x + half, y - half, y + half),
        interpolation="bilinear",
    )


def quiet(axes: Axes) -> None:
    """Thin frame, faint ticks."""
    axes.tick_params(labelsize=11, colors=hexed(FAINT), length=3)
    for spine in axes.spines.values():
        spine.set_color(hexed(RULE))


def colour_map(stops: tuple[Colour, ...]) -> LinearSegmentedColormap:
    """Evenly spaced stops, interpolated linearly."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("stops", [hexed(colour) for colour in stops])


def hexed(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def rendered(figure: Figure) -> Image:
    """The figure's pixels through the Agg canvas: no display, no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    size, pixels = canvas.get_width_height(), canvas.buffer_rgba()
    return Image.frombuffer("RGBA", size, pixels, "raw", "RGBA", 0, 1).convert("RGB")
