"""Langevin dynamics: a kernel at one noise level that leaves the noised data's law as it is, not a way between levels.

One convention everywhere: ``x + h * score + sqrt(2 h) * z``, h the step size in squared units of the data. (Sources
that write ``x + e/2 * score + sqrt(e) * z`` have e = 2 h.)
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from litdiffusion.diffusion.gaussian import mix
from litdiffusion.diffusion.levels import Level, Noise, Prediction
from litdiffusion.diffusion.samplers.base import Predict, Sampler
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.errors import UserError


def langevin_step(x: Tensor, prediction: Prediction, level: Level, step_size: Tensor, noise: Noise) -> Tensor:
    """``x + h * score + sqrt(2 h) * z``, with ``score = -eps / sigma``.

    On N(0, s²) its stationary variance is ``s² / (1 - h / (2 s²))``: the step's bias.
    """
    drifted = mix(torch.ones_like(level.sigma), x, -step_size / level.sigma, prediction.eps)
    return drifted + (2 * step_size) ** 0.5 * noise(x)


class Langevin(Sampler):
    """``steps`` Langevin steps at the process's one noise level, from N(0, start_std²): samples of the blurred data.

    No level is pure noise to start from: the start is arbitrary, and what the chain has not forgotten of it stays.
    Where modes lie far apart the score between them is small and hardly trained; weight is left there.

    Args:
        steps: how many.
        step_size: h, below about sigma².
        start_std: deviation of the start, in units of the data.

    Source: Song, Ermon, 2019, arXiv 1907.05600, section 2.2; Roberts, Tweedie, "Exponential Convergence of Langevin
    Distributions and Their Discrete Approximations", 1996.
    """

    name = "langevin"
    respaceable = False

    def __init__(self, steps: int = 2000, step_size: float = 0.005, start_std: float = 1.0):
        super().__init__(steps)
        if steps < 1 or not step_size > 0 or start_std < 0:
            raise UserError(
                f"Langevin needs sampler.steps >= 1, step_size > 0 and start_std >= 0, got {steps}, {step_size} and "
                f"{start_std}"
            )
        self.step_size, self.start_std = step_size, start_std

    @classmethod
    def unfit(cls, schedule: NoiseSchedule) -> str | None:
        return None if schedule.steps == 1 else "it stays at one noise level, and this process has many"

    def levels(self, schedule: NoiseSchedule) -> list[Level]:
        return [schedule.at(1.0)] * (self.steps + 1)

    def prior(self, schedule: NoiseSchedule, like: Tensor, noise: Noise = torch.randn_like) -> Tensor:
        return self.start_std * noise(like)

    def step(self, x: Tensor, prediction: Prediction, now: Level, after: Level, noise: Noise) -> Tensor:
        return langevin_step(x, prediction, now, torch.as_tensor(self.step_size, dtype=torch.float64), noise)


class AnnealedLangevin(Sampler):
    """At every rung of a noise ladder, from the noisiest, ``inner_steps`` Langevin steps of size
    ``step_size * sigma²``; then, with ``denoise``, the denoiser's x_0 at the last rung.

    The noisiest rung joins all modes, so their weights are right before the noise that joins them is gone. One state is
    given per rung.

    Args:
        steps: rungs visited; None: every one.
        inner_steps: at each rung.
        step_size: in units of sigma², below 1. (The source's e / sigma_L² is twice this.)
        denoise: end with the mean of the data given the last state, which takes the last rung's noise off.

    Source: Song, Ermon, 2019, arXiv 1907.05600, algorithm 1; the last denoising: Jolicoeur-Martineau et al.,
    "Adversarial Score Matching and Improved Sampling for Image Generation", 2020, arXiv 2009.05475.
    """

    name = "annealed_langevin"
    respaceable = False

    def __init__(
        self,
        steps: int | None = None,
        grid: str = "uniform",
        inner_steps: int = 20,
        step_size: float = 0.1,
        denoise: bool = True,
    ):
        super().__init__(steps, grid)
        if inner_steps < 1 or not 0 < step_size < 2:
            raise UserError(
                f"annealed Langevin needs sampler.inner_steps >= 1 and step_size in (0, 2) (unstable beyond), got "
                f"{inner_steps} and {step_size}; 20 and 0.1 are usual"
            )
        self.inner_steps, self.step_size, self.denoise = inner_steps, step_size, denoise

    @classmethod
    def unfit(cls, schedule: NoiseSchedule) -> str | None:
        return super().unfit(schedule) or (None if schedule.explodes else "it needs alpha = 1 at every level")

    def levels(self, schedule: NoiseSchedule) -> list[Level]:
        """Every rung twice but for the ends: a step of the walk is one rung's whole dynamics."""
        rungs = super().levels(schedule)[:-1]
        return [rungs[0], *rungs, *([super().levels(schedule)[-1]] if self.denoise else [])]

    def calls(self, schedule: NoiseSchedule) -> int:
        rungs = len(self.levels(schedule)) - 1 - self.denoise
        return rungs * self.inner_steps + self.denoise

    def walk(self, predict: Predict, x: Tensor, levels: list[Level], noise: Noise) -> Iterator[Tensor]:
        for now, after in pairwise(levels):
            if after.is_clean:
                yield predict(x, now).x_0
                return
            for _ in range(self.inner_steps):
                x = langevin_step(x, predict(x, after), after, self.step_size * after.sigma**2, noise)
            yield x
