"""Functions that all pictures share: matplotlib colours, axes placed in inches, rendering without a display."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from torch import Tensor

from litdiffusion.plots.palette import DENSITY, FAINT, INK, RULE, Colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
    from PIL.Image import Image

DPI = 120
"""Pixels per inch of figures that are laid out in inches."""


def hex_colour(colour: Colour) -> str:
    """The colour as "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


@cache
def colour_map(stops: tuple[Colour, ...]) -> LinearSegmentedColormap:
    """A colour map that interpolates linearly between evenly spaced colours."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("stops", [hex_colour(colour) for colour in stops])


def axes_at(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Styled axes at a position in inches from the lower left corner of the figure."""
    across, up = figure.get_size_inches()
    axes = figure.add_axes((left / across, bottom / up, width / across, height / up))
    style_axes(axes)
    return axes


def style_axes(axes: Axes) -> None:
    """Sets a thin frame and faint ticks."""
    axes.tick_params(labelsize=11, colors=hex_colour(FAINT), length=3)
    for spine in axes.spines.values():
        spine.set_color(hex_colour(RULE))


def set_figure_title(figure: Figure, title: str, size: float) -> None:
    """Sets the title centred above the panels, wrapped if it is wider than the figure."""
    top = 1 - 0.15 / figure.get_figheight()
    figure.suptitle(title, fontsize=size, fontweight="bold", color=hex_colour(INK), y=top, wrap=True)


def show_density(
    axes: Axes, image: Tensor, extent: tuple[float, float, float, float], peak: float | None = None
) -> None:
    """Shows a `density_image` over ``extent`` (left, right, bottom, top).

    The darkest colour stands for ``peak``, or for the image's own maximum.
    """
    top = float(image.max() if peak is None else peak) or 1.0
    style = {"cmap": colour_map(DENSITY), "vmin": 0, "vmax": top**0.6, "interpolation": "bilinear", "aspect": "auto"}
    # The power 0.6 makes low densities visible.
    axes.imshow((image**0.6).numpy(), extent=extent, **style)


def rendered(figure: Figure) -> Image:
    """The figure as a picture, rendered by the Agg canvas without a display or global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    size, pixels = canvas.get_width_height(), canvas.buffer_rgba()
    return Image.frombuffer("RGBA", size, pixels, "raw", "RGBA", 0, 1).convert("RGB")
