"""Colours and type of every picture: muted, readable on a projector, the same everywhere."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

Colour = tuple[int, int, int]

PAPER: Colour = (255, 255, 255)
INK: Colour = (38, 43, 51)
FAINT: Colour = (116, 122, 132)
RULE: Colour = (196, 201, 208)
ACCENT: Colour = (190, 98, 58)
TRUTH: Colour = (172, 178, 182)
"""What is exact, drawn broad under what is learned."""
WARNING: Colour = (214, 40, 120)
"""Marks pixels that are not finite numbers."""

NOISE_TO_DATA = ((206, 160, 122), (150, 148, 150), (92, 138, 166), (38, 108, 128))
"""The colour of a state along its way: sand at pure noise, deep teal at data."""
DENSITY = ((246, 247, 249), (205, 219, 231), (128, 168, 199), (58, 107, 152), (22, 42, 84))
"""Nothing, little, ..., most points."""

START_TO_END = ((16, 16, 20), (112, 18, 30), (226, 28, 36))
"""The colour of a chain's states in time."""

TITLE, LABEL, NOTE = 30, 21, 18
"""Type sizes in pixels."""


def ramp(stops: tuple[Colour, ...], where: Tensor) -> Tensor:
    """Colours (..., 3) in uint8, interpolated linearly between evenly spaced stops at ``where`` in [0, 1]."""
    table = torch.tensor(stops, dtype=torch.float32)
    place = where.float().clamp(0, 1) * (len(stops) - 1)
    left = place.floor().long().clamp(max=len(stops) - 2)
    part = (place - left).unsqueeze(-1)
    return (table[left] * (1 - part) + table[left + 1] * part).round().to(torch.uint8)


def along(position: int, count: int) -> Colour:
    """The colour of state ``position`` of ``count``: the first is pure noise, the last is data."""
    red, green, blue = ramp(NOISE_TO_DATA, torch.tensor(position / max(count - 1, 1))).tolist()
    return red, green, blue


@cache
def font(size: int, bold: bool = False) -> FreeTypeFont:
    """The typeface matplotlib ships (it has the Greek letters), in pixels."""
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{name}", size)
