"""Exponential integrators that remember their last answer: second order at one network call per step.

With ``lambda = log(alpha / sigma)`` and ``h = lambda_s - lambda_t`` the probability-flow ODE has the exact solution
``x_s = sigma_s / sigma_t * x_t + alpha_s * integral of exp(-(lambda_s - l)) x_0(l) dl``; a method of order p replaces
x_0 by a polynomial through its last p values.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from litdiffusion.diffusion.gaussian import mix
from litdiffusion.diffusion.levels import Level, Noise
from litdiffusion.diffusion.samplers.base import Predict, Sampler


class Past:
    """The x_0 that the last step saw, and how long that step was."""

    def __init__(self, x_0: Tensor, h: Tensor):
        self.x_0 = x_0
        self.h = h

    def slope(self, x_0: Tensor, h: Tensor) -> Tensor:
        """The change of x_0 over a step of length ``h``, extrapolated from the last one."""
        rate = h / self.h
        return mix(rate, x_0, -rate, self.x_0)


def log_ratio_step(now: Level, after: Level) -> Tensor:
    """``h = lambda_s - lambda_t`` > 0; infinite where either end has no noise or no signal."""
    return (after.log_snr - now.log_snr) / 2


class DPMSolver2M(Sampler):
    """``x_s = sigma_s / sigma_t * x_t + alpha_s * (1 - exp(-h)) * (x_0 + Δ / 2)``, Δ the change of x_0 over a step of
    length h, as the last step had it: order 2. Without Δ (in the first and the last step) it is `DDIM`.

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
            estimate = x_0 if past is None or after.is_clean else x_0 + past.slope(x_0, h) / 2
            x = self.move(x, estimate, now, after, h, noise)
            past = Past(x_0, h) if h.isfinite() else None
            yield x

    def move(self, x: Tensor, x_0: Tensor, now: Level, after: Level, h: Tensor, noise: Noise) -> Tensor:
        """The exact step for an x_0 that stays as it is."""
        return mix(after.sigma / now.sigma, x, -after.alpha * torch.expm1(-h), x_0)


class SDEDPMSolver2M(DPMSolver2M):
    """The same for the reverse SDE: ``x_s = sigma_s / sigma_t * exp(-h) * x_t + alpha_s * k * (x_0 + Δ / 2) + sigma_s *
    sqrt(k) * z`` with ``k = 1 - exp(-2h)``. Without Δ it is ancestral sampling with posterior variance; with it the
    moments of Gaussian data converge at order 2.

    Source: Lu et al., 2022, arXiv 2211.01095, section 5 and appendix B (SDE-DPM-Solver++ 2M).
    """

    name = "sde_dpm_solver"

    def move(self, x: Tensor, x_0: Tensor, now: Level, after: Level, h: Tensor, noise: Noise) -> Tensor:
        kept = -torch.expm1(-2 * h)
        mean = mix(after.sigma / now.sigma * (-h).exp(), x, after.alpha * kept, x_0)
        return mean if after.is_clean else mean + after.sigma * kept.sqrt() * noise(x)


class UniPC(Sampler):
    """Predictor and corrector that share their network calls: `DPMSolver2M` predicts x, the answer there corrects it.

    With ``B = 1 - exp(-h)`` the prediction is ``base + alpha_s * B * Δ / 2``, base the step with x_0 held; once the
    denoiser has answered x_0' at the prediction, the step is repeated through x_0' as well:
    ``base + alpha_s * B * (c * Δ + d * (x_0' - x_0))`` with the weights c, d that are exact for x_0 quadratic in
    lambda. Order 3 at one network call per step where all steps in log SNR shrink together (grids log_snr, karras); a
    uniform grid leaves order 2 on the straight path of flow matching, whose first and last steps do not.

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
            change = None if past is None else past.slope(x_0, h)
            guess = base if change is None else base + gain * change / 2
            answer = predict(guess, after).x_0
            x = self._corrected(base, gain, change, answer - x_0, h, past)
            past, x_0 = (Past(x_0, h) if h.isfinite() else None), answer
            yield x

    def _corrected(
        self, base: Tensor, gain: Tensor, change: Tensor | None, new: Tensor, h: Tensor, past: Past | None
    ) -> Tensor:
        """``new`` = x_0' - x_0 joins the change of x_0 that the prediction used."""
        if change is None or past is None:
            return base + gain * new / 2
        ratio = -past.h / h  # where the last answer lies, in units of this step
        first, second = moments(h)
        c = (first - second) / (1 - ratio)
        return base + gain * mix(c, change, first - c, new)


def moments(h: Tensor) -> tuple[Tensor, Tensor]:
    """``integral of u^k h exp(-h (1 - u)) du / (1 - exp(-h))`` over u in [0, 1], for k = 1 and 2."""
    mass = -torch.expm1(-h)
    first = (h - mass) / (h * mass)
    return first, (1 - 2 * first * mass / h) / mass
