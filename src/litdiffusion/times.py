"""Which times to train on."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from litdiffusion.schedules import NoiseSchedule


class TimeSampler(ABC):
    """Draws one training time per sample of a batch."""

    def __init__(self, schedule: NoiseSchedule):
        self.schedule = schedule

    def draw(self, x_0: Tensor, offset: Tensor | None = None) -> Tensor:
        """Times (B, 1, ..., 1) in float64 for data x_0 (B, ...).

        The times of a batch are the quantiles ``(k + offset) / B``, k = 0..B-1, with one ``offset`` in [0, 1) drawn
        for the whole batch: each time alone has the sampler's own law, and together they cover it evenly, which
        lowers the variance of the loss. A given ``offset`` (0.5, say) fixes them.

        Source: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models", 2021, arXiv 2107.00630, appendix I.1.
        """
        count = len(x_0)
        offset = torch.rand((), dtype=torch.float64, device=x_0.device) if offset is None else offset
        quantiles = (torch.arange(count, dtype=torch.float64, device=x_0.device) + offset) / count
        return self.schedule.snap(self.quantile(1 - quantiles)).view(-1, *[1] * (x_0.ndim - 1))

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """The time below which a share ``u`` in (0, 1] of the draws falls, shaped like u."""


class UniformTimes(TimeSampler):
    """Uniform on (0, 1]; on a discrete chain i = ceil(u * T), uniform on 1..T."""

    def quantile(self, u: Tensor) -> Tensor:
        return u
