"""A trajectory as an animated GIF."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from litdiffusion.plots.density import common_window
from litdiffusion.plots.images import Range, enlarged_grid
from litdiffusion.plots.panels import panel_sheets, panels_of
from litdiffusion.plots.sequences import sequence_sheets
from litdiffusion.plots.sheets import pixel_sheets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

MAX_FRAME_PIXELS = 16_000
"""Largest number of image pixels per frame before enlargement: keeps 26 frames of noise under 2 MB."""


def trajectory_gif(
    states: list[Tensor],
    titles: Sequence[str],
    data: Tensor,
    value_range: Range = (-1.0, 1.0),
    duration: int = 90,
    hold: int = 1500,
    *,
    data_title: str = "data",
) -> bytes:
    """The states, noise first, as a looping GIF, each state under its title.

    A frame is shown for ``duration`` ms, the last one for ``hold`` ms. Images (n, C, H, W): the first ten chains in
    rows of five. Vectors (n, 1): a histogram with the data's outline. Vectors (n, d), d >= 2: the density, beside the
    data's density under ``data_title``. Sequences (n, C, L): curves.
    """
    if states[0].ndim == 4:
        frames = image_frames(states, titles, value_range)
    elif states[0].ndim == 3:
        frames = sequence_sheets([[state] for state in states], [[title] for title in titles], data, width=560)
    else:
        frames = vector_frames(states, titles, data, data_title)
    palette = shared_palette(frames)
    paged = [frame.quantize(palette=palette, dither=0) for frame in frames[:-1]]
    paged.append(frames[-1].quantize(256))
    durations = [duration] * (len(frames) - 1) + [hold]
    file = BytesIO()
    paged[0].save(file, "GIF", save_all=True, append_images=paged[1:], duration=durations, loop=0)
    return file.getvalue()


def image_frames(states: list[Tensor], titles: Sequence[str], value_range: Range) -> list[Image]:
    """One picture per state (n, C, H, W): up to ten chains under the state's title, averaged to `MAX_FRAME_PIXELS`."""
    count, _, height, width = states[0][:10].shape
    scale = min(1.0, (MAX_FRAME_PIXELS / (count * height * width)) ** 0.5)
    size = max(1, int(height * scale)), max(1, int(width * scale))
    grids = [enlarged_grid(adaptive_avg_pool2d(state[:10].float(), size), 5, value_range) for state in states]
    return pixel_sheets(grids, [[title] for title in titles], grids[0].shape[2])


def vector_frames(states: list[Tensor], titles: Sequence[str], data: Tensor, data_title: str = "data") -> list[Image]:
    """One picture per state (n, d): a histogram if d = 1, else a density with the data's density to its right."""
    points, reference = [state[:, :2] for state in states], data[:, :2]
    window = common_window(points, reference)
    panels = panels_of(points, titles, window, reference)
    if reference.shape[1] == 1:
        return panel_sheets([[panel] for panel in panels], width=560)
    beside = panels_of([reference], [data_title], window, reference)
    return panel_sheets([[panel, *beside] for panel in panels], width=320, framed=True)


def shared_palette(frames: list[Image]) -> Image:
    """64 colours of the first, a late and the last frame, for all frames but the last: a small file, fast to write."""
    from PIL import Image

    chosen = (frames[0], frames[len(frames) * 3 // 4], frames[-1])
    return Image.fromarray(np.concatenate([np.asarray(frame)[::2, ::2] for frame in chosen])).quantize(64)
