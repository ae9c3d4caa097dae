"""Denoisers in closed form: the truth that samplers and trained nets are measured against."""

from typing import Protocol

import torch
from torch import Tensor, nn

from litdiffusion.diffusion.gaussian import mix
from litdiffusion.diffusion.levels import Level, Prediction
from litdiffusion.diffusion.parameterizations import Parameterization
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.errors import UserError


class MixtureLaw(Protocol):
    """A mixture of K axis-aligned Gaussians: weights (K,), means (K, d), std broadcastable to (K, d)."""

    weights: Tensor
    means: Tensor
    std: Tensor


class GaussianMixtureDenoiser(nn.Module):
    """The exact denoiser of ``sum_k w_k N(mu_k, diag(std_k²))`` at any noise level.

    With ``v_k = alpha² * std_k² + sigma²`` the noised data are ``sum_k w_k N(alpha * mu_k, diag(v_k))``; given x_t, the
    k-th component has responsibility ``r_k`` (its share of that density) and expects
    ``x_0 = mu_k + alpha * std_k² / v_k * (x_t - alpha * mu_k)``; the prediction is the mean under ``r``.
    As sigma -> 0 it tends to x_t / alpha, as alpha -> 0 to the mixture's mean. Costs O(B * K * d).

    Args:
        schedule: the noise schedule whose levels it will be asked about.
        weights: (K,) positive, normalised here.
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
        self.register_buffer("log_weights", (weights / weights.sum()).log())
        self.register_buffer("means", means)
        self.register_buffer("variances", torch.as_tensor(stds).to(means).square().expand_as(means).clone())

    def forward(self, x_t: Tensor, level: Level, class_label: Tensor | None = None) -> Prediction:
        means, variances = self.means.to(x_t), self.variances.to(x_t)
        alpha, sigma = (field.reshape(-1, 1, 1).to(x_t) for field in (level.alpha, level.sigma))
        noised = alpha**2 * variances + sigma**2
        offset = x_t[:, None] - alpha * means
        log_density = self.log_weights.to(x_t) - 0.5 * (offset**2 / noised + noised.log()).sum(-1)
        per_component = means + alpha * variances / noised * offset
        x_0 = (log_density.softmax(-1)[..., None] * per_component).sum(1)
        return Prediction(x_0, mix(1 / level.sigma, x_t, -level.alpha / level.sigma, x_0))


def exact_denoiser(schedule: NoiseSchedule, law: MixtureLaw | None) -> GaussianMixtureDenoiser | None:
    """The exact denoiser of data whose law is a known mixture; None where it is not known."""
    return None if law is None else GaussianMixtureDenoiser(schedule, law.weights, law.means, law.std)


class OptimalOutput(nn.Module):
    """What a perfect net would put out: ``a * E[x_0 | x_t] + b * E[eps | x_t]`` for the row (a, b), shaped like x_t.

    In the place of a `Denoiser` it gives an objective the least loss that any net can reach.
    """

    def __init__(self, denoiser: nn.Module, parameterization: Parameterization):
        super().__init__()
        self.denoiser = denoiser
        self.parameterization = parameterization

    def outputs(self, x_t: Tensor, level: Level, class_label: Tensor | None = None) -> tuple[Tensor, None]:
        """The output; there is no spread."""
        x_0, eps, _ = self.denoiser(x_t, level, class_label)
        return self.parameterization.target(x_0, eps, level), None


def empirical_denoiser(schedule: NoiseSchedule, data: Tensor) -> GaussianMixtureDenoiser:
    """The exact denoiser of a finite data set (n, d): equal point masses, what a net that memorises would learn."""
    return GaussianMixtureDenoiser(schedule, torch.ones(len(data)).to(data), data, torch.zeros(1))
