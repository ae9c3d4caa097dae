"""Loss weights w(level) of ``w * |out - target|²``, for every parameterization.

A weight on the error of x_0, of eps or of the posterior mean is converted to a weight on the error of the output by
the determinant of the parameterization's row: ``|Δx_0| = sigma / |det| * |Δout|``, ``|Δeps| = alpha / |det| * |Δout|``.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from litdiffusion.diffusion.gaussian import posterior, transition
from litdiffusion.diffusion.levels import Level
from litdiffusion.diffusion.parameterizations import Parameterization
from litdiffusion.diffusion.schedules import Chain, NoiseSchedule
from litdiffusion.errors import UserError
from litdiffusion.parts.described import Described

__all__ = ["SNR", "Likelihood", "MinSNR", "Simple", "Variational", "Weighting"]


class Weighting(Described, ABC):
    """The weight of the loss at each noise level."""

    @abstractmethod
    def weight(self, level: Level, parameterization: Parameterization) -> Tensor:
        """The factor of ``|out - target|²``, shaped like ``level.t``."""


class Simple(Weighting):
    """Weight 1 on the net's raw output, before `Parameterization.output_scale`; sigma² for the score row.

    Source: Ho, Jain, Abbeel, 2020, arXiv 2006.11239, equation 14.
    """

    def weight(self, level: Level, parameterization: Parameterization) -> Tensor:
        return parameterization.output_scale(level) ** -2


class SNR(Weighting):
    """Weight SNR on the error of x_0, which equals 1 on the error of eps and sigma² on the error of the score.

    Equal to `Simple` for the epsilon row; for the score row it is sigma² (Song, Ermon, 2019, arXiv 1907.05600,
    equation 6).
    """

    def weight(self, level: Level, parameterization: Parameterization) -> Tensor:
        return (level.alpha / parameterization.det(level)) ** 2


class MinSNR(Weighting):
    """Weight ``min(SNR, gamma)`` on the error of x_0; tends to `SNR` as gamma grows.

    Source: Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023, arXiv 2303.09556.
    """

    def __init__(self, gamma: float = 5.0):
        if not gamma > 0:
            raise UserError(f"weighting.gamma must be positive, got {gamma}; 5 is usual")
        self.gamma = gamma

    def weight(self, level: Level, parameterization: Parameterization) -> Tensor:
        return level.snr.clamp(max=self.gamma) * (level.sigma / parameterization.det(level)) ** 2


class Likelihood(Weighting):
    """Weight ``-d log SNR / dt / 2`` on the error of eps: with uniform times the likelihood bound in continuous time.

    Equal to ``g² / 2`` on the error of the score, where g is the SDE's diffusion coefficient; in nats per coordinate
    and unit of time. On EDM's process, whose uniform times are uniform in log sigma, the unit is that of
    `NoiseSchedule.place`. T times `Variational` with forward variances tends to it as the number of steps T grows.

    Source: Song, Durkan, Murray, Ermon, "Maximum Likelihood Training of Score-Based Diffusion Models", 2021,
    arXiv 2101.09258; Kingma et al., 2021, arXiv 2107.00630, equation 17.
    """

    def __init__(self, schedule: NoiseSchedule):
        self.schedule = schedule

    def weight(self, level: Level, parameterization: Parameterization) -> Tensor:
        alpha_rate, sigma_rate = self.schedule.rates(level.t)
        # -d log SNR / dt / 2 = sigma'/sigma - alpha'/alpha; multiplied by alpha², because alpha may be 0.
        rate = level.alpha * (level.alpha * sigma_rate - level.sigma * alpha_rate) / level.sigma
        return rate / (parameterization.det(level) ** 2 * self.schedule.place_rate(level.t))


class Variational(Weighting):
    """Weight ``1 / (2 * variance)`` on the error of the posterior mean: the chain's variational bound in nats per step.

    ``variance``, of the reverse step, is "forward" (beta_t) or "posterior". The posterior variance is 0 at i = 1,
    where the posterior variance of i = 2 replaces it. The weight is exact for the bound's terms i >= 2; the term i = 1
    is the decoder's.

    Source: Ho, Jain, Abbeel, 2020, arXiv 2006.11239, equation 8; Nichol, Dhariwal, 2021, arXiv 2102.09672 (first step).
    """

    def __init__(self, schedule: Chain, variance: str = "forward"):
        if (schedule.steps or 0) < 2:
            raise UserError(
                f"weighting=variational needs the steps of a chain, {type(schedule).__name__} has none; take "
                f"weighting=likelihood, its limit in continuous time"
            )
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
