"""Which times to train on."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from litdiffusion.schedules import NoiseSchedule
from litdiffusion.types import Level


class TimeSampler(ABC):
    """Draws one training time per sample of a batch."""

    def __init__(self, schedule: NoiseSchedule):
        self.schedule = schedule
        self._kept: dict[tuple[int, int, torch.device], Tensor] = {}

    def draw(self, x_0: Tensor, offset: Tensor | None = None) -> Level:
        """A level of shape (B, 1, ..., 1) for data x_0 (B, ...).

        The times of a batch are the quantiles ``(k - offset) / B``, k = B..1, with one ``offset`` in [0, 1) drawn for
        the whole batch: together they cover the sampler's law evenly, which lowers the variance of the loss. The k-th
        place of a batch always gets a time of the k-th stratum, so a batch should be in random order. A given
        ``offset`` (0.5, say) fixes the times.

        Source: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models", 2021, arXiv 2107.00630, appendix I.1.
        """
        offset = torch.rand((), dtype=torch.float64, device=x_0.device) if offset is None else offset
        upper = self._upper_ends(len(x_0), x_0.ndim, x_0.device)
        return self.schedule.snap(self.quantile(upper - offset / len(x_0)))

    def _upper_ends(self, count: int, ndim: int, device: torch.device) -> Tensor:
        """``k / count``, k = count..1, of shape (count, 1, ..., 1); kept, since every batch needs the same."""
        key = count, ndim, device
        if key not in self._kept:
            ranks = torch.arange(count, 0, -1, dtype=torch.float64, device=device)
            self._kept = {key: (ranks / count).view(-1, *[1] * (ndim - 1))}
        return self._kept[key]

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """The time below which a share ``u`` in (0, 1] of the draws falls, shaped like u."""


class UniformTimes(TimeSampler):
    """Uniform on (0, 1]; on a discrete chain i = ceil(u * T), uniform on 1..T."""

    def quantile(self, u: Tensor) -> Tensor:
        return u
