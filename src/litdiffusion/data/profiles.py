"""Sequences: profiles of real terrain, which need no download."""

import numpy as np
import torch

from litdiffusion.data.base import DataModule, check_at_least
from litdiffusion.data.batch import Batch
from litdiffusion.errors import UserError

FILE = "jacksboro_fault_dem.npz"
_ORDER_SEED = 20_201


class Profiles(DataModule):
    """Height of terrain in metres along a line from west to east, about its own mean: sequences (1, length).

    The lines are cut from a map of 344 x 403 heights in the Appalachian mountains (a 3-arcsecond grid, about 75 m
    between two heights), which is part of matplotlib. A line begins at every ``stride``-th height of every row of the
    map. Neighbouring lines are alike, so the lines are not held out at random: validation takes the southern rows.

    Args:
        length: heights in a line, at most 403.
        stride: heights between the starts of two lines of a row.
        batch_size: lines per step and process.
        val_size: lines held out for validation.
        seed: seed of the order of the training lines.

    Raises:
        UserError: for sizes that the map does not have, or if the file of matplotlib is missing.

    Source: the file ``jacksboro_fault_dem.npz`` of matplotlib's sample data, from the U.S. Geological Survey's national
    elevation data.
    """

    def __init__(self, *, length: int = 64, stride: int = 16, batch_size: int, val_size: int = 880, seed: int) -> None:
        super().__init__(batch_size=batch_size, val_size=val_size, seed=seed)
        check_at_least("length", length, 2)
        check_at_least("stride", stride, 1)
        self.shape, self.stride = (1, length), stride

    def read(self) -> tuple[Batch, Batch]:
        """Training and validation lines, float32 (N, 1, length), each in random order, the same in every run."""
        lines = lines_of(_heights(), self.shape[1], self.stride)
        if not self.val_size < len(lines):
            raise UserError(f"data.val_size={self.val_size}: the map has {len(lines)} lines; set a smaller one")
        generator = torch.Generator().manual_seed(_ORDER_SEED)  # the first n of a part must be a random subset of it
        parts = lines[: -self.val_size], lines[-self.val_size :]
        train, val = (part[torch.randperm(len(part), generator=generator)] for part in parts)
        return Batch(train), Batch(val)


def lines_of(heights: torch.Tensor, length: int, stride: int) -> torch.Tensor:
    """The lines (N, 1, length) of a map (rows, columns), row by row, each minus its mean.

    Raises:
        UserError: the rows are shorter than a line.
    """
    if length > heights.shape[1]:
        raise UserError(f"data.length={length}: a row of the map has {heights.shape[1]} heights; set at most so many")
    lines = heights.unfold(1, length, stride).flatten(0, 1)[:, None]
    return lines - lines.mean(dim=-1, keepdim=True)


def _heights() -> torch.Tensor:
    """The map (344, 403), in metres."""
    from matplotlib.cbook import get_sample_data

    try:
        with np.load(get_sample_data(FILE, asfileobj=False), allow_pickle=False) as file:
            return torch.from_numpy(file["elevation"].astype(np.float32))
    except OSError as error:
        raise UserError(
            f"matplotlib's sample data {FILE} cannot be read ({error}); install matplotlib from PyPI, or take another "
            f"data set"
        ) from error
