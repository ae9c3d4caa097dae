"""Distances in two stages, so that what concerns one sample alone is computed once for many pairs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from litdiffusion.measure.distances.pairs import checked_pair


class StagedDistance(ABC):
    """A distance of two samples (n, d) and (m, d): first a part of each sample alone, then the pair.

    Both methods take samples that `checked_pair` has checked.
    """

    @abstractmethod
    def alone(self, x: Tensor) -> Tensor:
        """What the distance needs of a sample (n, d), whatever the other sample is."""

    @abstractmethod
    def between(self, x: Tensor, y: Tensor, alone_x: Tensor, alone_y: Tensor) -> float:
        """The distance, from both samples and the result of `alone` for each."""

    def __call__(self, x: Tensor, y: Tensor) -> float:
        x, y = checked_pair(x, y)
        return self.between(x, y, self.alone(x), self.alone(y))

    def table(self, xs: Sequence[Tensor], ys: Sequence[Tensor], alone_ys: Sequence[Tensor] | None = None) -> Tensor:
        """The distances (len(xs), len(ys)) of all pairs, each equal to that of the pair by itself.

        ``alone_ys`` are the results of `alone` for ys, if they are known.
        """
        xs = [checked_pair(x, ys[0])[0] for x in xs]
        alone_xs, columns = [self.alone(x) for x in xs], []
        for k, y in enumerate(ys):
            y = checked_pair(xs[0], y)[1]
            alone_y = self.alone(y) if alone_ys is None else alone_ys[k]
            columns.append([self.between(x, y, own, alone_y) for x, own in zip(xs, alone_xs, strict=True)])
        return torch.tensor(columns, dtype=torch.float64).T


class PairDistance(StagedDistance):
    """A distance that a function gives of the pair, without a part of one sample."""

    def __init__(self, distance: Callable[[Tensor, Tensor], float]):
        self.distance = distance

    def alone(self, x: Tensor) -> Tensor:
        return x

    def between(self, x: Tensor, y: Tensor, alone_x: Tensor, alone_y: Tensor) -> float:
        return self.distance(x, y)
