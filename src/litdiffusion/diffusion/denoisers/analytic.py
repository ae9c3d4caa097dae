"""Denoisers in closed form: exact references for samplers and trained nets."""

from typing import Protocol

import torch
from torch import Tensor, nn

from litdiffusion.diffusion.denoisers.interface import AnyDenoiser
from litdiffusion.diffusion.gaussian import mix
from litdiffusion.diffusion.levels import Level, Prediction
from litdiffusion.diffusion.parameterizations import Parameterization
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.errors import UserError


class MixtureOfGaussians(Protocol):
    """A mixture of K axis-aligned Gaussians: weights (K,), means (K, d), std broadcastable to (K, d)."""

    weights: Tensor
    means: Tensor
    std: Tensor


class GaussianMixtureDenoiser(nn.Module):
    """The exact denoiser of ``sum_k w_k N(mu_k, diag(std_k²))`` at any noise level.

    With ``v_k = alpha² * std_k² + sigma²`` the density of x_t is ``sum_k w_k N(alpha * mu_k, diag(v_k))``. Component k
    has the responsibility ``r_k`` (its fraction of that density at x_t) and the conditional mean
    ``m_k = mu_k + alpha * std_k² / v_k * (x_t - alpha * mu_k)``. The prediction is ``x_0 = sum_k r_k m_k``.
    It tends to x_t / alpha as sigma -> 0, and to the mixture's mean as alpha -> 0. Costs O(B * K * d).

    Args:
        schedule: the noise schedule of the levels.
        weights: (K,) positive; normalised to sum 1.
        means: (K, d).
        stds: broadcastable to (K, d), not negative; 0 gives point masses.
    """

    def __init__(self, schedule: NoiseSchedule, weights: Tensor, means: Tensor, stds: Tensor):
        super().__init__()
        if means.ndim != 2 or len(weights) != len(means):
            raise UserError(f"means must be (K, d) for K weights, got {tuple(means.shape)} for {len(weights)}")
        if not (weights > 0).all():
            raise UserError(f"mixture weights must be positive, got {weights.tolist()}; drop the empty components")
        self.schedule = schedule
        self.log_weights: Tensor
        self.means: Tensor
        self.variances: Tensor
        self.register_buffer("log_weights", (weights / weights.sum()).log())
        self.register_buffer("means", means)
        self.register_buffer("variances", torch.as_tensor(stds).to(means).square().expand_as(means).clone())

    def forward(self, x_t: Tensor, level: Level, class_label: Tensor | None = None) -> Prediction:
        means, variances = self.means.to(x_t), self.variances.to(x_t)
        alpha, sigma = (field.reshape(-1, 1, 1).to(x_t) for field in (level.alpha, level.sigma))
        noised_variances = alpha**2 * variances + sigma**2
        offset = x_t[:, None] - alpha * means
        log_density = self.log_weights.to(x_t) - 0.5 * (offset**2 / noised_variances + noised_variances.log()).sum(-1)
        per_component = means + alpha * variances / noised_variances * offset
        x_0 = (log_density.softmax(-1)[..., None] * per_component).sum(1)
        return Prediction(x_0, mix(1 / level.sigma, x_t, -level.alpha / level.sigma, x_0))


def exact_denoiser(schedule: NoiseSchedule, mixture: MixtureOfGaussians | None) -> GaussianMixtureDenoiser | None:
    """The exact denoiser of data distributed as ``mixture``; None if it is None."""
    return None if mixture is None else GaussianMixtureDenoiser(schedule, mixture.weights, mixture.means, mixture.std)


class ExactOutput(nn.Module):
    """The output of a perfect net: ``a * E[x_0 | x_t] + b * E[eps | x_t]`` for the row (a, b), shaped like x_t.

    Passed to an objective in place of a `Denoiser`, it gives the smallest expected loss that any net can reach.
    """

    def __init__(self, denoiser: AnyDenoiser, parameterization: Parameterization):
        super().__init__()
        self.denoiser = denoiser
        self.parameterization = parameterization

    def outputs(self, x_t: Tensor, level: Level, class_label: Tensor | None = None) -> tuple[Tensor, None]:
        """The output, and None because there is no learned variance."""
        x_0, eps, _ = self.denoiser(x_t, level, class_label)
        return self.parameterization.target(x_0, eps, level), None


def empirical_denoiser(schedule: NoiseSchedule, data: Tensor) -> GaussianMixtureDenoiser:
    """The exact denoiser of n equal point masses (n, d): what a net that memorises the data set would learn."""
    return GaussianMixtureDenoiser(schedule, torch.ones(len(data)).to(data), data, torch.zeros(1))
