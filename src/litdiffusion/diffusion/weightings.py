"""Loss weights w(level) of ``w * |out - target|²``, whatever the net's output means.

A weight that is defined on the error of x_0, of eps or of the posterior mean is carried to the output by the row's
determinant: ``|Δx_0| = sigma / |det| * |Δout|``, ``|Δeps| = alpha / |det| * |Δout|``.
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


class Weighting(Described, ABC):
    """A weight per noise level."""

    @abstractmethod
    def weight(self, level: Level, parameterization: Parameterization) -> Tensor:
        """The factor of ``|out - target|²``, shaped like ``level.t``."""


class Simple(Weighting):
    """1 on the net's own output, before `Parameterization.output_scale`; for the score row it is sigma².

    Source: Ho, Jain, Abbeel, 2020, arXiv 2006.11239, equation 14.
    """

    def weight(self, level: Level, parameterization: Parameterization) -> Tensor:
        return parameterization.output_scale(level) ** -2


class SNR(Weighting):
    """One weight under three names: SNR on the error of x_0, 1 on that of eps, sigma² on that of the score.

    Equal to `Simple` for the epsilon row; for the score row it is sigma² (Song, Ermon, 2019, arXiv 1907.05600,
    equation 6).
    """

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


class Likelihood(Weighting):
    """``-d log SNR / dt / 2`` on the error of eps: with uniform times the bound on the likelihood in continuous time.

    Where uniform times are uniform in log sigma (EDM's process) it is per unit of that place.

    Equal to ``g² / 2`` on the error of the score, g the SDE's diffusion; in nats per coordinate and unit of time. As
    the steps of a chain become many, `Variational` with forward variances tends to it (times the chain's 1 / T).

    Source: Song, Durkan, Murray, Ermon, "Maximum Likelihood Training of Score-Based Diffusion Models", 2021,
    arXiv 2101.09258; Kingma et al., 2021, arXiv 2107.00630, equation 17.
    """

    def __init__(self, schedule: NoiseSchedule):
        self.schedule = schedule

    def weight(self, level: Level, parameterization: Parameterization) -> Tensor:
        alpha_rate, sigma_rate = self.schedule.rates(level.t)
        # Half the rate of -log SNR is sigma'/sigma - alpha'/alpha; times alpha², so that alpha = 0 divides nothing.
        rate = level.alpha * (level.alpha * sigma_rate - level.sigma * alpha_rate) / level.sigma
        return rate / (parameterization.det(level) ** 2 * self.schedule.place_rate(level.t))


class Variational(Weighting):
    """``1 / (2 * variance)`` on the error of the posterior mean: the chain's variational bound, in nats per step.

    ``variance`` is that of the reverse step: "forward" (beta_t) or "posterior". The posterior variance is 0 in the
    first step, where the second step's takes its place. It gives the exact weight of the bound's terms for i >= 2;
    the first is the decoder's.

    Source: Ho, Jain, Abbeel, 2020, arXiv 2006.11239, equation 8; Nichol, Dhariwal, 2021, arXiv 2102.09672 (first step).
    """

    def __init__(self, schedule: Chain, variance: str = "forward"):
        if (schedule.steps or 0) < 2:
            raise UserError(
                f"weighting=variational belongs to the steps of a chain, {type(schedule).__name__} has none; take "
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
