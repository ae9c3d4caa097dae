"""The rows: epsilon, x0, v, score, flow, EDM and the posterior mean."""

import torch
from torch import Tensor

from litdiffusion.diffusion.gaussian import posterior
from litdiffusion.diffusion.levels import Level
from litdiffusion.diffusion.parameterizations.base import Parameterization
from litdiffusion.diffusion.schedules import Chain, NoiseSchedule
from litdiffusion.errors import UserError


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
        return -level.sigma / level.radius, level.alpha / level.radius


class Score(Parameterization):
    """The score of the noised data, ``grad log p(x_t) = -E[eps | x_t] / sigma``: row (0, -1 / sigma).

    det = -alpha / sigma: loses x_0 where no signal is left (alpha = 0). Its targets grow as 1/sigma, so the net's own
    output is multiplied by 1/sigma and stays of unit size.

    Source: Vincent, "A Connection Between Score Matching and Denoising Autoencoders", 2011; Song, Ermon, 2019,
    arXiv 1907.05600; the division by sigma is technique 3 of Song, Ermon, 2020, arXiv 2006.09011.
    """

    def row(self, level: Level) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(level.alpha), -1 / level.sigma

    def output_scale(self, level: Level) -> Tensor:
        return 1 / level.sigma


class Flow(Parameterization):
    """The velocity of the path, ``dx_t / dt = alpha' x_0 + sigma' eps``: row (alpha', sigma').

    det = alpha sigma' - sigma alpha'. On the straight path alpha = 1 - t, sigma = t it is eps - x_0 with det = 1, never
    singular. Elsewhere its size is that of the rates, up to 80 for EDM's process: the net's own output is multiplied by
    sqrt((alpha'² + sigma'²) / 2), which is 1 on the straight path.

    Source: Lipman et al., "Flow Matching for Generative Modeling", 2022, arXiv 2210.02747, equation 9 and section 4.
    """

    def __init__(self, schedule: NoiseSchedule):
        self.schedule = schedule

    def row(self, level: Level) -> tuple[Tensor, Tensor]:
        return self.schedule.rates(level.t)

    def output_scale(self, level: Level) -> Tensor:
        a, b = self.row(level)
        return ((a**2 + b**2) / 2).sqrt()


class EDM(Parameterization):
    """EDM's preconditioned target ``(x_0 - c_skip * x_t) / c_out``, of unit variance for data of deviation sigma_data.

    ``c_skip = alpha s² / r²``, ``c_out = sigma s / r`` and the net sees ``x_t / r``, with s = sigma_data and
    ``r² = alpha² s² + sigma²``; the row ``((1 - c_skip alpha) / c_out, -c_skip sigma / c_out)`` is
    (sigma / (s r), -alpha s / r) and has det = -r / s, never singular.
    Tends to -eps where noise vanishes and to x_0 / s where it prevails.

    Args:
        sigma_data: deviation of the data in model space.

    Source: Karras, Aittala, Aila, Laine, 2022, arXiv 2206.00364, table 1 (there alpha = 1).
    """

    def __init__(self, sigma_data: float):
        if not sigma_data > 0:
            raise UserError(
                f"parameterization.sigma_data must be positive, got {sigma_data}; it is the data's deviation"
            )
        self.sigma_data = sigma_data

    def row(self, level: Level) -> tuple[Tensor, Tensor]:
        radius, s = self._radius(level), self.sigma_data
        return level.sigma / (s * radius), -level.alpha * s / radius

    def input_scale(self, level: Level) -> Tensor:
        return 1 / self._radius(level)

    def _radius(self, level: Level) -> Tensor:
        return ((level.alpha * self.sigma_data) ** 2 + level.sigma**2).sqrt()


class PosteriorMean(Parameterization):
    """The mean of q(x_s | x_t, x_0) for s the chain's previous level.

    ``mean = weight_x_0 * x_0 + weight_x_t * x_t``, hence the row
    ``(alpha_s, alpha_ts * sigma_s² / sigma_t)`` with det ``= -alpha_s * forward / sigma_t``: small between close
    levels, so an error of the output grows by sigma_t² / (alpha_s * forward), hundreds of times, in x_0. At the first
    step the mean is x_0 itself. It belongs to two neighbouring levels and exists for discrete chains only.

    Source: option 1 in section 3.2 of Ho, Jain, Abbeel, 2020, arXiv 2006.11239.
    """

    def __init__(self, schedule: Chain):
        if getattr(schedule, "steps", None) is None:
            raise UserError(
                f"the posterior mean needs a discrete chain, got {type(schedule).__name__}; "
                f"take schedule=linear or another beta table, or parameterization=epsilon"
            )
        self.schedule = schedule

    def row(self, level: Level) -> tuple[Tensor, Tensor]:
        previous = self.schedule.previous(level)
        return previous.alpha, posterior(previous, level).weight_x_t * level.sigma
