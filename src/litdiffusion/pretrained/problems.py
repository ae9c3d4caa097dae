"""The inputs of inpainting: held-out images with a hidden part, or points with one known coordinate."""

from math import isfinite
from typing import NamedTuple

import torch
from omegaconf import DictConfig, ListConfig
from torch import Tensor

from litdiffusion.codecs import Codec
from litdiffusion.config.make import make_a
from litdiffusion.data import Facts
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError
from litdiffusion.pretrained.masks import Half, Mask

TOGETHER = 64
"""Items that are encoded together."""


class Problem(NamedTuple):
    """Items (n, *shape) in data space, a mask (n, *shape) that is true at known values, and a title."""

    items: Tensor
    mask: Tensor
    title: str

    def repeated(self, items: range, times: int) -> tuple[Tensor, Tensor]:
        """The items in a range and their masks, each repeated ``times`` in a row."""
        return tuple(x[items.start : items.stop].repeat_interleave(times, 0) for x in (self.items, self.mask))

    @torch.no_grad()
    def encoded(self, codec: Codec) -> "Problem":
        """The problem in model space: the latents of the known part, and which of them are known.

        Before encoding, hidden values are replaced by the mean of the item's known ones (of its channel), because an
        encoder also sees pixels beyond the patch of a latent: so no hidden value can influence a sample.

        Raises:
            UserError: `Codec.latent_mask` refuses, or no latent of an item is known although a part of the item is.
        """
        mask = codec.latent_mask(self.mask)
        lost = self.mask.flatten(1).any(1) & ~mask.flatten(1).any(1)
        if lost.any():
            sides = [pixels // places for pixels, places in zip(self.mask.shape[2:], mask.shape[2:], strict=True)]
            raise UserError(
                f"the mask hides part of every patch of {' x '.join(map(str, sides))} pixels in {lost.sum()} of "
                f"{len(mask)} images; a latent stands for such a patch, so nothing given would be kept; hide one area "
                f"(mask=left), fewer pixels (mask.share), or take a model with codec=identity"
            )
        filled = torch.where(self.mask, self.items, _known_mean(self.items, self.mask))
        latents = torch.cat([codec.encode(part) for part in filled.split(TOGETHER)])
        return Problem(latents, mask, self.title)


def _known_mean(items: Tensor, mask: Tensor) -> Tensor:
    """The mean of the known values of each item and channel (n, C, 1, ...), of vectors (n, 1); 0 if none is."""
    dims = tuple(range(min(2, items.ndim - 1), items.ndim))
    total = torch.where(mask, items, 0).sum(dims, keepdim=True)
    return total / mask.sum(dims, keepdim=True).clamp(min=1)


def hidden_images(cfg: DictConfig, data: Facts) -> Problem:
    """The first ``cfg.n`` held-out images (n, C, H, W), hidden by ``cfg.mask``."""
    mask = Half("bottom") if cfg.get("mask") is None else make_a(Mask, cfg.mask, "mask")
    items = data.reference(cfg.n)
    height, width = items.shape[2:]
    row, column = ((torch.arange(size) + 0.5) / size for size in (height, width))
    chances = [
        torch.rand(1, height, width, generator=torch.Generator().manual_seed(fold_seed(cfg.seed, "mask", i)))
        for i in range(len(items))
    ]
    hidden = mask.hidden(row[:, None], column, torch.stack(chances))
    return Problem(items, ~hidden.expand_as(items), mask.title)


def fixed_points(cfg: DictConfig, data: Facts) -> Problem:
    """Points (n, d) with a known first coordinate: ``cfg.x``, or ``cfg.n`` quantiles of held-out points."""
    if cfg.x is None:
        first = data.reference(len(data.val.data))[:, 0].double()
        values = first.quantile((torch.arange(cfg.n, dtype=torch.float64) + 0.5) / cfg.n).tolist()
    else:
        values = list(cfg.x)
    items = torch.zeros(len(values), *data.shape)
    items[:, 0] = torch.tensor(values)
    return Problem(items, (torch.arange(*data.shape) == 0).expand_as(items), "y at a known x")


def check_values(x: object) -> None:
    """Refuses values of the first coordinate that are not a list of finite numbers."""
    numbers = isinstance(x, ListConfig) and all(isinstance(v, (int, float)) and isfinite(v) for v in x)
    if x is not None and not (numbers and len(x)):
        raise UserError(f"x must be a list of numbers, as in x=[-1,0,1], got {x!r}")
