"""Exponential integrators that reuse the previous prediction: order 2 or 3 at one network call per step.

With ``lambda = log(alpha / sigma)`` and ``h = lambda_s - lambda_t`` the probability-flow ODE has the exact solution
``x_s = sigma_s / sigma_t * x_t + alpha_s * integral of exp(-(lambda_s - l)) x_0(l) dl``. A method of order p replaces
x_0(l) by a polynomial through the last p predictions.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from litdiffusion.diffusion.gaussian import mix
from litdiffusion.diffusion.levels import Level, Noise
from litdiffusion.diffusion.samplers.base import Predict, Sampler


class Past:
    """The predicted x_0 and the length h of the previous step."""

    def __init__(self, x_0: Tensor, h: Tensor):
        self.x_0 = x_0
        self.h = h

    def change(self, x_0: Tensor, h: Tensor) -> Tensor:
        """The change of x_0 over a step of length ``h``, extrapolated from the previous step."""
        ratio = h / self.h
        return mix(ratio, x_0, -ratio, self.x_0)


def log_ratio_step(now: Level, after: Level) -> Tensor:
    """``h = lambda_s - lambda_t`` > 0; infinite if one of the levels has no noise or no signal."""
    return (after.log_snr - now.log_snr) / 2


class DPMSolver2M(Sampler):
    """``x_s = sigma_s / sigma_t * x_t + alpha_s * (1 - exp(-h)) * (x_0 + Δ / 2)``: order 2.

    Δ is the change of x_0 over a step of length h, extrapolated from the previous step. Without Δ, in the first and the
    last step, it is `DDIM`.

    Source: Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022,
    arXiv 2211.01095, algorithm 2.
    """

    name = "dpm_solver"

    def __init__(self, steps: int | None = None, grid: str = "log_snr"):
        super().__init__(steps, grid)

    def walk(self, predict: Predict, x: Tensor, levels: list[Level], noise: Noise) -> Iterator[Tensor]:
        past: Past | None = None
        for now, after in pairwise(levels):
            x_0, h = predict(x, now).x_0, log_ratio_step(now, after)
            estimate = x_0 if past is None or after.is_clean else x_0 + past.change(x_0, h) / 2
            x = self.move(x, estimate, now, after, h, noise)
            past = Past(x_0, h) if h.isfinite() else None  # an infinite step gives no slope
            yield x

    def move(self, x: Tensor, x_0: Tensor, now: Level, after: Level, h: Tensor, noise: Noise) -> Tensor:
        """The exact step for a constant x_0."""
        return mix(after.sigma / now.sigma, x, -after.alpha * torch.expm1(-h), x_0)


class SDEDPMSolver2M(DPMSolver2M):
    """`DPMSolver2M` for the reverse SDE, with ``k = 1 - exp(-2h)``:
    ``x_s = sigma_s / sigma_t * exp(-h) * x_t + alpha_s * k * (x_0 + Δ / 2) + sigma_s * sqrt(k) * z``.

    Without Δ it is ancestral sampling with posterior variance. With Δ the moments of Gaussian data converge at order 2.

    Source: Lu et al., 2022, arXiv 2211.01095, section 5 and appendix B (SDE-DPM-Solver++ 2M).
    """

    name = "sde_dpm_solver"

    def move(self, x: Tensor, x_0: Tensor, now: Level, after: Level, h: Tensor, noise: Noise) -> Tensor:
        k = -torch.expm1(-2 * h)
        mean = mix(after.sigma / now.sigma * (-h).exp(), x, after.alpha * k, x_0)
        return mean if after.is_clean else mean + after.sigma * k.sqrt() * noise(x)


class UniPC(Sampler):
    """A predictor and a corrector that share network calls: `DPMSolver2M` predicts x, the denoiser's x_0 corrects it.

    With ``B = 1 - exp(-h)`` the predictor gives ``base + alpha_s * B * Δ / 2``, where base is the step for a constant
    x_0. The denoiser returns x_0' there, and the corrector gives ``base + alpha_s * B * (c * Δ + d * (x_0' - x_0))``.
    The weights c and d are exact for x_0 quadratic in lambda. Order 3 at one network call per step if all steps in log
    SNR shrink together (grids log_snr, karras). A uniform grid has order 2 on the straight path of flow matching,
    because its first and last steps do not shrink.

    Source: Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models", 2023,
    arXiv 2302.04867, algorithm 2 (p = 2, B(h) = exp(h) - 1).
    """

    name = "unipc"

    def __init__(self, steps: int | None = None, grid: str = "log_snr"):
        super().__init__(steps, grid)

    def walk(self, predict: Predict, x: Tensor, levels: list[Level], noise: Noise) -> Iterator[Tensor]:
        past: Past | None = None
        x_0 = predict(x, levels[0]).x_0
        for now, after in pairwise(levels):
            if after.is_clean:
                yield x_0
                return
            h = log_ratio_step(now, after)
            gain = -after.alpha * torch.expm1(-h)
            base = mix(after.sigma / now.sigma, x, gain, x_0)
            change = None if past is None else past.change(x_0, h)
            guess = base if change is None else base + gain * change / 2
            next_x_0 = predict(guess, after).x_0
            x = self._corrected(base, gain, change, next_x_0 - x_0, h, past)
            past, x_0 = (Past(x_0, h) if h.isfinite() else None), next_x_0
            yield x

    def _corrected(
        self, base: Tensor, gain: Tensor, change: Tensor | None, new: Tensor, h: Tensor, past: Past | None
    ) -> Tensor:
        """The corrector's x, from Δ = ``change`` and ``new`` = x_0' - x_0."""
        if change is None or past is None:
            return base + gain * new / 2
        ratio = -past.h / h  # position of the previous prediction, in units of this step
        first, second = moments(h)
        c = (first - second) / (1 - ratio)
        return base + gain * mix(c, change, first - c, new)


def moments(h: Tensor) -> tuple[Tensor, Tensor]:
    """``integral of u^k h exp(-h (1 - u)) du / (1 - exp(-h))`` over u in [0, 1], for k = 1 and 2."""
    mass = -torch.expm1(-h)
    first = (h - mass) / (h * mass)
    return first, (1 - 2 * first * mass / h) / mass
