"""Augmentation of training images on their device: random horizontal flips and small shifts."""

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError, nearest


class Augment(NamedTuple):
    """Random changes of training images (B, C, H, W) that keep what they show.

    Args:
        flip: mirror each image left to right with probability 1/2.
        shift: move each image by up to so many pixels along both axes; the border is filled by reflection.
    """

    flip: bool = False
    shift: int = 0

    def __call__(self, x: Tensor, seed: int, *position: int, rank: int = 0, world: int = 1) -> Tensor:
        """The changed images, on the device of ``x``: a function of ``x``, the seed and the position (step, ...).

        Process ``rank`` of ``world`` has the images rank, rank + world, ... of a batch, and changes them as one process
        changes the whole batch.
        """
        generator = torch.Generator().manual_seed(fold_seed(seed, "augment", *position))
        count, own = len(x) * world, slice(rank, None, world)
        flipped = torch.rand(count, generator=generator)[own] < 0.5
        moved = torch.randint(-self.shift, self.shift + 1, (2, count, 1), generator=generator)[:, own].to(x.device)
        if self.flip:
            x = torch.where(flipped.to(x.device)[:, None, None, None], x.flip(-1), x)
        if not self.shift:
            return x
        item = torch.arange(len(x), device=x.device)[:, None, None]
        rows, columns = (_reflected(shift, size) for shift, size in zip(moved, x.shape[2:], strict=True))
        return x.movedim(1, -1)[item, rows[:, :, None], columns[:, None, :]].movedim(-1, 1).contiguous()


def _reflected(shift: Tensor, size: int) -> Tensor:
    """Indices (B, size) that move an axis by ``shift`` (B, 1), reflected at both ends."""
    index = (torch.arange(size, device=shift.device) - shift).abs()
    return (size - 1) - ((size - 1) - index).abs()


def augment_of(settings: Mapping[str, Any] | None, shape: tuple[int, ...] | None = None) -> Augment | None:
    """The augmentation of ``data.augment`` for images of ``shape``, if it is known; None if it changes nothing.

    Raises:
        UserError: an unknown setting, or a value out of range.
    """
    if not isinstance(settings, Mapping | None):
        raise UserError(f"data.augment={settings!r}: must be {{flip: true, shift: 4}}, or null")
    settings = dict(settings or {})
    for name in settings.keys() - Augment._fields:
        raise UserError(f"data.augment.{name} is unknown{nearest(name, list(Augment._fields))} (flip, shift)")
    found = Augment(**{name: value for name, value in settings.items() if value is not None})
    if not isinstance(found.flip, bool):
        raise UserError(f"data.augment.flip={found.flip}: must be true or false")
    most = sys.maxsize if shape is None else min(shape[1:]) - 1 if len(shape) == 3 else 0
    if isinstance(found.shift, bool) or not isinstance(found.shift, int) or not 0 <= found.shift <= most:
        raise UserError(f"data.augment.shift={found.shift}: must be a whole number of pixels from 0 to {most}")
    return found if found.flip or found.shift else None
