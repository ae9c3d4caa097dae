"""Masks for inpainting; a new mask is one class and one yaml in ``conf/mask``."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from litdiffusion.errors import UserError


class Mask(ABC):
    """Hides pixels by their position or at random."""

    title: str
    """Caption for the picture."""

    @abstractmethod
    def hidden(self, row: Tensor, column: Tensor, chance: Tensor) -> Tensor:
        """Whether each pixel is hidden, broadcastable to (n, 1, H, W).

        Args:
            row: row position of each pixel's middle, from 0 (top) to 1 (bottom), (H, 1).
            column: column position, from 0 (left) to 1 (right), (W,).
            chance: a uniform random number in [0, 1) for each pixel, (n, 1, H, W).
        """


class Half(Mask):
    """One half of the image.

    Args:
        side: "left", "right", "top" or "bottom".
    """

    def __init__(self, side: str):
        if side not in ("left", "right", "top", "bottom"):
            raise UserError(f"mask.side must be left, right, top or bottom, got {side!r}")
        self.side = side
        self.title = f"{side.capitalize()} hidden"

    def hidden(self, row: Tensor, column: Tensor, chance: Tensor) -> Tensor:
        coordinate = row if self.side in ("top", "bottom") else column
        return coordinate < 0.5 if self.side in ("top", "left") else coordinate > 0.5


class Center(Mask):
    """A box in the middle, ``size`` times as wide and high as the image."""

    title = "Center hidden"

    def __init__(self, size: float = 0.5):
        if not 0 < size <= 1:
            raise UserError(f"mask.size must lie in (0, 1], got {size}; 0.5 hides a quarter of the pixels")
        self.size = size

    def hidden(self, row: Tensor, column: Tensor, chance: Tensor) -> Tensor:
        return torch.maximum((row - 0.5).abs(), (column - 0.5).abs()) < self.size / 2


class Random(Mask):
    """A random ``share`` of the pixels."""

    title = "Random hidden"

    def __init__(self, share: float = 0.75):
        if not 0 < share <= 1:
            raise UserError(f"mask.share must lie in (0, 1], got {share}; 0.75 is usual")
        self.share = share

    def hidden(self, row: Tensor, column: Tensor, chance: Tensor) -> Tensor:
        return chance < self.share
