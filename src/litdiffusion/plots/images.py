"""Pictures of image data: a plain grid, and the sheet of chains against time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from litdiffusion.plots.sheets import framed_sheet, headed
from litdiffusion.plots.tiles import Size, mosaic, picture, to_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

Range = tuple[float, float]
GAP = 2
WIDEST, HIGHEST = 2340, 1600
"""What a sheet's tiles fill at most, in pixels; tall stacks of chains may pass the height at their natural
size.
"""


def image_grid(images: Tensor, columns: int, value_range: Range = (-1.0, 1.0)) -> Image:
    """Images (n, C, H, W) in rows of ``columns``, 2 pixels apart, enlarged by an integer to 600 pixels or
    more.
    """
    columns = min(columns, len(images))
    count, height, width = math.ceil(len(images) / columns), images.shape[2], images.shape[3]
    factor = max(1, math.ceil((600 - GAP * (columns - 1)) / (columns * width)))
    pixels = to_pixels(images, value_range, (width * factor, height * factor))
    blank = pixels.new_full((count * columns - len(images), *pixels.shape[1:]), 255)
    return picture(mosaic(torch.cat((pixels, blank)).unflatten(0, (count, columns)), GAP))


def pairs_picture(
    upper: Tensor, lower: Tensor, title: str, value_range: Range = (-1.0, 1.0), columns: int = 10
) -> Image:
    """Images (n, C, H, W) in rows of ``columns``, and under each row those of ``lower`` that belong to them."""
    height, width = upper.shape[2:]
    factor = max(1, round(WIDEST / 3 / (columns * width)))
    columns = min(columns, len(upper))
    pixels = to_pixels(torch.cat((upper, lower)), value_range, (width * factor, height * factor)).unflatten(0, (2, -1))
    blank = pixels.new_full((2, -len(upper) % columns, *pixels.shape[2:]), 255)
    rows = torch.cat((pixels, blank), dim=1).unflatten(1, (-1, columns)).transpose(0, 1).flatten(0, 1)
    return framed_sheet(picture(mosaic(rows, GAP)), title)


def trajectory_sheet(
    states: list[Tensor], labels: Sequence[str], title: str = "", value_range: Range = (-1.0, 1.0)
) -> Image:
    """Image data along a process: one row per chain, one column per state under its label, noise on the left.

    Each state is (chains, C, H, W), C = 1 or 3, in model space, clipped to ``value_range`` (noise passes
    it). Tiles are enlarged by an integer factor, or averaged down, so that the sheet is at most about 2400
    pixels wide.
    """
    if not states or len(states) != len(labels):
        raise ValueError(f"need one label for each of one or more states, got {len(labels)} for {len(states)}")
    size = _tile_size(states[0], len(states))
    pixels = torch.stack([to_pixels(state, value_range, size) for state in states], dim=1)
    body = picture(mosaic(pixels, GAP))
    return framed_sheet(headed(body, labels, size[0] + GAP, size[0]), title)


def _tile_size(state: Tensor, columns: int) -> Size:
    """The size of one tile: an integer multiple of the image, or less than it where the sheet would be too
    wide.
    """
    rows, _, height, width = state.shape
    room = WIDEST / columns - GAP
    if room < width:
        return max(1, int(room)), max(1, round(height * int(room) / width))
    factor = max(1, int(min(room / width, (HIGHEST / rows - GAP) / height)))
    return width * factor, height * factor
