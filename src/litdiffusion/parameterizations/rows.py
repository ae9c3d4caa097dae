"""The rows: epsilon, x0, v and the posterior mean."""

import torch
from torch import Tensor

from litdiffusion.errors import UserError
from litdiffusion.gaussian import posterior
from litdiffusion.parameterizations.base import Parameterization
from litdiffusion.schedules import DiscreteSchedule
from litdiffusion.types import Level


class Epsilon(Parameterization):
    """The noise, row (0, 1), det = alpha: loses x_0 where no signal is left (alpha = 0).

    Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020, arXiv 2006.11239, equation 14.
    """

    def row(self, level: Level) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(level.alpha), torch.ones_like(level.alpha)

    def target(self, x_0: Tensor, eps: Tensor, level: Level) -> Tensor:
        return eps  # the row says the same with three passes over the data


class X0(Parameterization):
    """The data, row (1, 0), det = -sigma: loses eps where no noise is left (sigma = 0, never trained on)."""

    def row(self, level: Level) -> tuple[Tensor, Tensor]:
        return torch.ones_like(level.alpha), torch.zeros_like(level.alpha)

    def target(self, x_0: Tensor, eps: Tensor, level: Level) -> Tensor:
        return x_0


class V(Parameterization):
    """The velocity on the circle, row (-sigma, alpha) / r with r = sqrt(alpha² + sigma²); |det| = r, never singular.

    Tends to epsilon where alpha = 1 and to -x_0 where alpha = 0.

    Source: Salimans, Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022, arXiv 2202.00512,
    appendix D.
    """

    def row(self, level: Level) -> tuple[Tensor, Tensor]:
        radius = torch.sqrt(level.alpha**2 + level.sigma**2)
        return -level.sigma / radius, level.alpha / radius


class PosteriorMean(Parameterization):
    """The mean of q(x_s | x_t, x_0) for s the chain's previous level.

    ``mean = weight_x_0 * x_0 + weight_x_t * x_t``, hence the row
    ``(alpha_s, alpha_ts * sigma_s² / sigma_t)`` with det ``= -alpha_s * forward / sigma_t``: small between close
    levels, so an error of the output grows by sigma_t² / (alpha_s * forward), hundreds of times, in x_0. At the first
    step the mean is x_0 itself. It belongs to two neighbouring levels and exists for discrete chains only.

    Source: option 1 in section 3.2 of Ho, Jain, Abbeel, 2020, arXiv 2006.11239.
    """

    def __init__(self, schedule: DiscreteSchedule):
        if getattr(schedule, "steps", None) is None:
            raise UserError(
                f"the posterior mean needs a discrete chain, got {type(schedule).__name__}; "
                f"take schedule=linear or another beta table, or parameterization=epsilon"
            )
        self.schedule = schedule

    def row(self, level: Level) -> tuple[Tensor, Tensor]:
        previous = self.schedule.previous(level)
        return previous.alpha, posterior(previous, level).weight_x_t * level.sigma
