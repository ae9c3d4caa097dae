"""Loss weights w(level) of ``w * |out - target|²``, whatever the net's output means.

A weight that is defined on the error of x_0, of eps or of the posterior mean is carried to the output by the row's
determinant: ``|Δx_0| = sigma / |det| * |Δout|``, ``|Δeps| = alpha / |det| * |Δout|``.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from litdiffusion.errors import UserError
from litdiffusion.gaussian import posterior, transition
from litdiffusion.parameterizations import Parameterization
from litdiffusion.schedules import DiscreteSchedule
from litdiffusion.types import Level


class Weighting(ABC):
    """A weight per noise level."""

    @abstractmethod
    def weight(self, level: Level, parameterization: Parameterization) -> Tensor:
        """The factor of ``|out - target|²``, shaped like ``level.t``."""


class Simple(Weighting):
    """1 on the net's own output (Ho, Jain, Abbeel, 2020, arXiv 2006.11239, equation 14)."""

    def weight(self, level: Level, parameterization: Parameterization) -> Tensor:
        return torch.ones_like(level.alpha)


class SNR(Weighting):
    """SNR on the error of x_0, which is 1 on the error of eps; equal to `Simple` for the epsilon row."""

    def weight(self, level: Level, parameterization: Parameterization) -> Tensor:
        return (level.alpha / parameterization.det(level)) ** 2


class MinSNR(Weighting):
    """``min(SNR, gamma)`` on the error of x_0; tends to `SNR` as gamma grows.

    Source: Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023, arXiv 2303.09556.
    """

    def __init__(self, gamma: float = 5.0):
        if not gamma > 0:
            raise UserError(f"weighting.gamma must be positive, got {gamma}; 5 is usual")
        self.gamma = gamma

    def weight(self, level: Level, parameterization: Parameterization) -> Tensor:
        return level.snr.clamp(max=self.gamma) * (level.sigma / parameterization.det(level)) ** 2


class Variational(Weighting):
    """``1 / (2 * variance)`` on the error of the posterior mean: the chain's variational bound, in nats per step.

    ``variance`` is that of the reverse step: "forward" (beta_t) or "posterior". The posterior variance is 0 in the
    first step, where the second step's takes its place. It gives the exact weight of the bound's terms for i >= 2;
    the first is the decoder's.

    Source: Ho, Jain, Abbeel, 2020, arXiv 2006.11239, equation 8; Nichol, Dhariwal, 2021, arXiv 2102.09672 (first step).
    """

    def __init__(self, schedule: DiscreteSchedule, variance: str = "forward"):
        if variance not in ("forward", "posterior"):
            raise UserError(f"weighting.variance must be forward or posterior, got {variance!r}")
        self.schedule = schedule
        self._floor = posterior(schedule.at(1 / schedule.steps), schedule.at(2 / schedule.steps)).variance
        self._variance = {"forward": self._forward, "posterior": self._posterior}[variance]

    def weight(self, level: Level, parameterization: Parameterization) -> Tensor:
        previous = self.schedule.previous(level)
        mean_per_x_0 = posterior(previous, level).weight_x_0
        mean_per_output = mean_per_x_0 * level.sigma / parameterization.det(level)
        return mean_per_output**2 / (2 * self._variance(previous, level))

    def _forward(self, previous: Level, level: Level) -> Tensor:
        return transition(previous, level).variance

    def _posterior(self, previous: Level, level: Level) -> Tensor:
        return torch.where(previous.sigma == 0, self._floor, posterior(previous, level).variance)
