"""The parameterizations epsilon, x0, v, score, flow, EDM and posterior mean."""

import torch
from torch import Tensor

from litdiffusion.diffusion.gaussian import posterior
from litdiffusion.diffusion.levels import Level
from litdiffusion.diffusion.parameterizations.base import Parameterization
from litdiffusion.diffusion.schedules import Chain, NoiseSchedule
from litdiffusion.errors import UserError


class Epsilon(Parameterization):
    """The net predicts the noise: row (0, 1), det = alpha. Singular where no signal is left (alpha = 0).

    Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020, arXiv 2006.11239, equation 14.
    """

    def row(self, level: Level) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(level.alpha), torch.ones_like(level.alpha)

    def target(self, x_0: Tensor, eps: Tensor, level: Level) -> Tensor:
        return eps  # equals 0 * x_0 + 1 * eps, without its three passes over the data


class X0(Parameterization):
    """The net predicts the data: row (1, 0), det = -sigma. Singular at sigma = 0, which is never trained on."""

    def row(self, level: Level) -> tuple[Tensor, Tensor]:
        return torch.ones_like(level.alpha), torch.zeros_like(level.alpha)

    def target(self, x_0: Tensor, eps: Tensor, level: Level) -> Tensor:
        return x_0


class V(Parameterization):
    """The net predicts the velocity v: row (-sigma, alpha) / r, r = sqrt(alpha² + sigma²). det = r, never singular.

    The target tends to eps as sigma / alpha -> 0 and to -x_0 as alpha / sigma -> 0.

    Source: Salimans, Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022, arXiv 2202.00512,
    appendix D.
    """

    def row(self, level: Level) -> tuple[Tensor, Tensor]:
        return -level.sigma / level.radius, level.alpha / level.radius


class Score(Parameterization):
    """The net predicts the score of the noised data, ``grad log p(x_t) = -E[eps | x_t] / sigma``: row (0, -1 / sigma).

    det = -alpha / sigma, singular where no signal is left (alpha = 0). Targets grow as 1/sigma, so the net's raw output
    is multiplied by 1/sigma and stays of unit size.

    Source: Vincent, "A Connection Between Score Matching and Denoising Autoencoders", 2011; Song, Ermon, 2019,
    arXiv 1907.05600; the division by sigma is technique 3 of Song, Ermon, 2020, arXiv 2006.09011.
    """

    def row(self, level: Level) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(level.alpha), -1 / level.sigma

    def output_scale(self, level: Level) -> Tensor:
        return 1 / level.sigma


class Flow(Parameterization):
    """The net predicts the velocity of the path, ``dx_t / dt = alpha' x_0 + sigma' eps``: row (alpha', sigma').

    det = alpha sigma' - sigma alpha'. On the straight path alpha = 1 - t, sigma = t the target is eps - x_0 and
    det = 1, never singular. On other paths targets have the size of the rates, up to 80 for EDM's process, so the net's
    raw output is multiplied by sqrt((alpha'² + sigma'²) / 2), which is 1 on the straight path.

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
    """EDM's preconditioned target ``(x_0 - c_skip * x_t) / c_out``, of unit variance for data of std sigma_data.

    ``c_skip = alpha s² / r²``, ``c_out = sigma s / r`` and the net's input is ``x_t / r``, with s = sigma_data and
    ``r² = alpha² s² + sigma²``. The row ``((1 - c_skip alpha) / c_out, -c_skip sigma / c_out)`` equals
    (sigma / (s r), -alpha s / r); det = -r / s, never singular.
    The target tends to -eps as sigma / alpha -> 0 and to x_0 / s as alpha / sigma -> 0.

    Args:
        sigma_data: std of the data in model space.

    Source: Karras, Aittala, Aila, Laine, 2022, arXiv 2206.00364, table 1 (there alpha = 1).
    """

    def __init__(self, sigma_data: float):
        if not sigma_data > 0:
            raise UserError(f"parameterization.sigma_data must be positive, got {sigma_data}; it is the data's std")
        self.sigma_data = sigma_data

    def row(self, level: Level) -> tuple[Tensor, Tensor]:
        radius, s = self._radius(level), self.sigma_data
        return level.sigma / (s * radius), -level.alpha * s / radius

    def input_scale(self, level: Level, sigma_data: float = 1.0) -> Tensor:
        return 1 / self._radius(level)  # by its own sigma_data

    def _radius(self, level: Level) -> Tensor:
        return ((level.alpha * self.sigma_data) ** 2 + level.sigma**2).sqrt()


class PosteriorMean(Parameterization):
    """The net predicts the mean of q(x_s | x_t, x_0), where s is the chain's previous level.

    ``mean = weight_x_0 * x_0 + weight_x_t * x_t`` gives the row ``(alpha_s, alpha_ts * sigma_s² / sigma_t)`` with
    ``det = -alpha_s * forward / sigma_t``. Between close levels det is small: an output error is multiplied by
    sigma_t² / (alpha_s * forward), a factor of hundreds, in x_0. At i = 1 the mean is x_0 itself. The mean is defined
    by two neighbouring levels, so it exists for discrete chains only.

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
