"""One tensor to one rectangle of pixels: images, histograms, densities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from litdiffusion.plots.palette import DENSITY, FAINT, PAPER, RULE, WARNING, Colour, ramp

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]
"""Width and height in pixels."""

FINE = 2
"""Histograms are drawn this many times too large and reduced, which smooths slanted lines."""


def to_pixels(images: Tensor, value_range: tuple[float, float], size: Size | None = None) -> Tensor:
    """Images (n, C, H, W), C = 1 or 3, as uint8 (n, H', W', 3): values clipped to the range, then scaled to
    ``size``.

    Enlarging takes an integer factor and repeats pixels; shrinking averages. Values that are not finite show
    pink.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must be (n, 1 or 3, H, W), got {tuple(images.shape)}: decode latents first")
    low, high = value_range
    values = images.detach().cpu().float()
    if not values.sum().isfinite():
        values = values.where(values.isfinite(), torch.nan)
    width, height = size or (images.shape[3], images.shape[2])
    values = values.clamp(low, high)
    if width < images.shape[3]:
        values = adaptive_avg_pool2d(values, (height, width))
    shade = ((values - low) * (255 / (high - low))).round().expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
    pixels = shade.where(shade.isfinite(), torch.tensor(WARNING).float()).to(torch.uint8)
    factor = max(1, width // images.shape[3])
    return pixels.repeat_interleave(factor, 1).repeat_interleave(factor, 2) if factor > 1 else pixels


def mosaic(pixels: Tensor, gap: int) -> Tensor:
    """Tiles (rows, columns, H, W, 3) side by side as (height, width, 3), with ``gap`` pixels of paper
    between.
    """
    rows, columns, height, width, _ = pixels.shape
    padded = pixels.new_full((rows, columns, height + gap, width + gap, 3), PAPER[0])
    padded[:, :, :height, :width] = pixels
    sheet = padded.permute(0, 2, 1, 3, 4).reshape(rows * (height + gap), columns * (width + gap), 3)
    return sheet[: sheet.shape[0] - gap, : sheet.shape[1] - gap]


def picture(pixels: Tensor) -> Image:
    """A uint8 tensor (height, width, 3) as an RGB image."""
    from PIL import Image

    return Image.fromarray(pixels.contiguous().numpy())


def density_tile(density: Tensor, side: int) -> Image:
    """A density (bins, bins), row 0 on top, as a square of ``side`` pixels; darkest where it is largest."""
    from PIL import Image

    share = (density / density.max().clamp(min=1e-300)) ** 0.6
    return picture(ramp(DENSITY, share)).resize((side, side), Image.Resampling.BICUBIC)


def histogram_tile(
    heights: Tensor, top: float, size: Size, colour: Colour, outline: Tensor | None, curve: Tensor | None
) -> Image:
    """Filled bars (bins,) under ``top`` in ``size`` pixels, with a stepped grey ``outline`` and a smooth
    ``curve``.
    """
    from PIL import Image, ImageDraw

    width, height = size[0] * FINE, size[1] * FINE
    tile = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(tile)
    base = height - FINE
    draw.polygon([(0, base), *_steps(heights, top, width, base), (width, base)], fill=colour)
    if outline is not None:
        draw.line(_steps(outline, top, width, base), fill=FAINT, width=2 * FINE)
    if curve is not None:
        draw.line(_points(curve, top, width, base), fill=(60, 64, 72), width=2 * FINE, joint="curve")
    draw.line([(0, base), (width, base)], fill=RULE, width=FINE)
    return tile.reduce(FINE)


def _steps(heights: Tensor, top: float, width: int, base: int) -> list[tuple[float, float]]:
    """The corners of a step function over the tile's width; what passes ``top`` is cut at the upper edge."""
    edges = torch.linspace(0, width, len(heights) + 1).repeat_interleave(2)[1:-1]
    levels = (base * (1 - heights / top).clamp(min=0)).repeat_interleave(2)
    return list(zip(edges.tolist(), levels.tolist(), strict=True))


def _points(heights: Tensor, top: float, width: int, base: int) -> list[tuple[float, float]]:
    """A polygonal line through the middle of every bin."""
    middles = (torch.arange(len(heights)) + 0.5) * width / len(heights)
    levels = base * (1 - heights / top).clamp(min=0)
    return list(zip(middles.tolist(), levels.tolist(), strict=True))
