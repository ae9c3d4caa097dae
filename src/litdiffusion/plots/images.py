"""Pictures of image data: a grid, pairs, and a sheet of chains against time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from litdiffusion.plots.palette import WARNING
from litdiffusion.plots.sheets import pixel_sheets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

Range = tuple[float, float]
MOST_NAMES = 20
"""Largest number of class names in a title."""
GAP = 2
"""White pixels between tiles."""
SQUARE, CHEQUERS = 8, (255.0, 204.0)
"""Side in pixels, and two greys, of the ground under transparent pixels."""
MAX_WIDTH, MAX_HEIGHT = 2340, 1600
"""Largest width and height of a sheet's tiles in pixels; many chains at their natural size may exceed the height."""


def to_pixels(images: Tensor, value_range: Range, size: tuple[int, int] | None = None) -> Tensor:
    """Images (n, C, H, W), C = 1, 3 or 4, as uint8 (n, 3, H', W'), clipped to the range and scaled to ``size``.

    Enlarging repeats pixels by an integer factor; shrinking averages them. Values that are not finite become pink.
    Images with alpha (C = 4) are laid on a chequered ground.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3, 4):
        raise ValueError(f"images must be (n, 1, 3 or 4, H, W), got {tuple(images.shape)}: decode latents first")
    low, high = value_range
    values = images.detach().cpu().float()
    values = values.where(values.isfinite(), torch.nan).clamp(low, high)
    height, width = size or values.shape[2:]
    if width < values.shape[3]:
        values = adaptive_avg_pool2d(values, (height, width))
    factor = max(1, width // values.shape[3])
    values = values.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    shade = (values - low) * (255 / (high - low))
    if shade.shape[1] == 4:
        alpha = shade[:, 3:] / 255
        shade = alpha * shade[:, :3] + (1 - alpha) * chequered(*shade.shape[2:])
    shade = shade.round().expand(-1, 3, -1, -1)
    pink = torch.tensor(WARNING).float().view(3, 1, 1)
    return shade.where(shade.isfinite(), pink).to(torch.uint8)


def chequered(height: int, width: int) -> Tensor:
    """The ground (height, width) under transparent pixels: squares of two light greys, from 0 to 255."""
    rows, columns = torch.arange(height)[:, None] // SQUARE, torch.arange(width) // SQUARE
    light, dark = CHEQUERS
    return light + (dark - light) * ((rows + columns) % 2).float()


def tiled(pixels: Tensor, columns: int) -> Tensor:
    """Tiles (n, 3, H, W) in rows of ``columns`` with 2 white pixels between them, as (3, height, width)."""
    from torchvision.utils import make_grid

    grid = make_grid(pixels, columns, GAP, pad_value=255)
    return grid if len(pixels) == 1 else grid[:, GAP:-GAP, GAP:-GAP]  # one tile gets no border


def image_grid(
    images: Tensor, columns: int, value_range: Range = (-1.0, 1.0), captions: Sequence[str] = (), title: str = ""
) -> Image:
    """Images (n, C, H, W) in rows of ``columns``, 2 pixels apart, enlarged by an integer to at least 600 pixels.

    ``captions`` (n) name the class of each image. They stand over the columns if each column has one class; otherwise
    the title lists the classes of the rows.
    """
    from PIL import Image

    if captions:
        columns, grid = min(columns, len(images)), enlarged_grid(images, columns, value_range)
        tile = (grid.shape[2] + GAP) // columns - GAP
        heads = captions[:columns]
        if any(caption != heads[i % columns] for i, caption in enumerate(captions)):
            return pixel_sheets([grid], title=f"{title} {in_rows(captions)}".strip())[0]
        room = max(6, tile // 12)
        heads = [head if len(head) <= room else f"{head[: room - 1]}…" for head in heads]
        return pixel_sheets([grid], [heads], tile, GAP, title)[0]
    if title:
        return pixel_sheets([enlarged_grid(images, columns, value_range)], title=title)[0]
    return Image.fromarray(enlarged_grid(images, columns, value_range).permute(1, 2, 0).contiguous().numpy())


def in_rows(captions: Sequence[str]) -> str:
    """The classes of images in reading order, each named once if they come in turn: "in turn: cat, dog"."""
    names = list(dict.fromkeys(captions))
    turn = all(caption == names[i % len(names)] for i, caption in enumerate(captions))
    shown = names if turn else captions
    more = ", …" if len(shown) > MOST_NAMES else ""
    return f"{'in turn' if turn else 'row by row'}: {', '.join(shown[:MOST_NAMES])}{more}"


def enlarged_grid(images: Tensor, columns: int, value_range: Range) -> Tensor:
    """The pixels (3, height, width) of `image_grid`."""
    columns, (height, width) = min(columns, len(images)), images.shape[2:]
    factor = max(1, math.ceil((600 - GAP * (columns - 1)) / (columns * width)))
    return tiled(to_pixels(images, value_range, (height * factor, width * factor)), columns)


def pairs_picture(
    upper: Tensor, lower: Tensor, title: str, value_range: Range = (-1.0, 1.0), columns: int = 10
) -> Image:
    """Images (n, C, H, W) in rows of ``columns``, and below each row the matching images of ``lower``."""
    height, width = upper.shape[2:]
    factor = max(1, round(MAX_WIDTH / 3 / (columns * width)))
    columns = min(columns, len(upper))
    pixels = to_pixels(torch.cat((upper, lower)), value_range, (height * factor, width * factor)).unflatten(0, (2, -1))
    blank = pixels.new_full((2, -len(upper) % columns, *pixels.shape[2:]), 255)
    rows = torch.cat((pixels, blank), dim=1).unflatten(1, (-1, columns)).transpose(0, 1)
    return pixel_sheets([tiled(rows.flatten(0, 2), columns)], title=title)[0]


def trajectory_sheet(
    states: list[Tensor], titles: Sequence[str], title: str = "", value_range: Range = (-1.0, 1.0)
) -> Image:
    """Image data along a process: one row per chain, one titled column per state, noise on the left.

    Each state is (chains, C, H, W), C = 1 or 3, in data space, clipped to ``value_range`` (noise exceeds it). Tiles
    are enlarged by an integer factor, or averaged, so that the sheet is at most about 2400 pixels wide.
    """
    if not states or len(states) != len(titles):
        raise ValueError(f"need states and one title for each, got {len(states)} states and {len(titles)} titles")
    size = _tile_size(states[0], len(states))
    pixels = torch.stack([to_pixels(state, value_range, size) for state in states], dim=1)
    return pixel_sheets([tiled(pixels.flatten(0, 1), len(states))], [titles], size[1], GAP, title)[0]


def _tile_size(state: Tensor, columns: int) -> tuple[int, int]:
    """Height and width of a tile: an integer multiple of the image's, or less if the sheet would be too wide."""
    rows, _, height, width = state.shape
    room = MAX_WIDTH / columns - GAP
    if room < width:
        return max(1, round(height * int(room) / width)), max(1, int(room))
    factor = max(1, int(min(room / width, (MAX_HEIGHT / rows - GAP) / height)))
    return height * factor, width * factor
