"""Sequences as curves: small multiples of a few items each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from litdiffusion.plots.density import Window, common_window, widening
from litdiffusion.plots.figures import hex_colour
from litdiffusion.plots.palette import ACCENT, FAINT, NOISE_TO_DATA, Colour
from litdiffusion.plots.panels import Extent, panel_sheets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle
    from PIL.Image import Image

SHOWN = 6
"""Largest number of curves of a panel."""
COLOURS: tuple[Colour, ...] = (NOISE_TO_DATA[3], ACCENT, (120, 94, 160), (88, 140, 88), (196, 148, 52), FAINT)


class CurvePanel(NamedTuple):
    """Curves (k, L) as shares of the panel's height, each with its colour."""

    title: str
    curves: Tensor
    colours: list[Colour]

    def show(self, axes: Axes, extent: Extent, frame: Rectangle) -> None:
        """Shows the panel inside ``extent``, clipped to the frame."""
        from matplotlib.lines import Line2D

        left, right, base, top = extent
        places = torch.linspace(left, right, self.curves.shape[1]).numpy()
        for curve, colour in zip(self.curves, self.colours, strict=True):
            line = Line2D(places, base + (top - base) * curve.numpy(), linewidth=2, color=hex_colour(colour))
            axes.add_artist(line).set_clip_path(frame)


def sequence_sheets(
    states: list[list[Tensor]], titles: Sequence[Sequence[str]], reference: Tensor, title: str = "", **style: bool | int
) -> list[Image]:
    """One sheet for each list of states (n, C, L), a panel for each state with its first items as curves.

    One channel: six items, a colour each. More: as many items as give six curves, at least one, and a colour for each
    channel. All panels have the vertical axis of the reference (m, C, L); those of wider states (noise of
    variance-exploding processes) are widened by a power of two, which their titles show.
    """
    window = common_window([_values(state) for sheet in states for state in sheet], _values(reference))
    panels = [
        [_panel(*pair, window) for pair in zip(*sheet, strict=True)] for sheet in zip(states, titles, strict=True)
    ]
    count, channels = len(panels[0][0].curves) // reference.shape[1], reference.shape[1]
    low, high = window.limits()
    items = f"{count} sequences" if count > 1 else "1 sequence"
    note = f"{items} of {reference.shape[2]} places{f' and {channels} channels' if channels > 1 else ''}; " + (
        f"vertical axis [{low:.3g}, {high:.3g}]"
    )
    return panel_sheets(panels, title, note, **style)


def _panel(state: Tensor, title: str, window: Window) -> CurvePanel:
    factor, channels = widening(_values(state), window), state.shape[1]
    items = state[: max(1, SHOWN // channels)].cpu().double()
    low, high = window.widened(factor).limits()
    colours = [COLOURS[(k if channels > 1 else i) % len(COLOURS)] for i in range(len(items)) for k in range(channels)]
    shown = f"{title} (×{factor})" if factor > 1 else title
    return CurvePanel(shown, (items.flatten(0, 1) - low) / (high - low), colours)


def _values(state: Tensor) -> Tensor:
    """All values (n, 1) of sequences, which set the vertical axis."""
    return state.reshape(-1, 1)
